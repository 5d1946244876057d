// SPDX-License-Identifier: Apache-2.0
#include "daemon/policy_store.hpp"

#include "base/unique_fd.hpp"
#include "policy/parse.hpp"

#include <fmt/format.h>

#include <fcntl.h>
#include <sys/stat.h>

namespace tapgate::daemon {

namespace {

constexpr std::size_t kMaxPolicyBytes = std::size_t{64} << 20U;

} // namespace

Result<PolicyStore::Loaded> PolicyStore::prepare(const std::string& name, std::string_view text,
                                                 const std::string& file) const {
    auto parsed = policy::parse(text, file);
    if (!parsed)
        return fail(parsed.error());
    auto compiled = policy::CompiledPolicy::compile(std::move(*parsed), daemon_groups_);
    if (!compiled)
        return fail(compiled.error());
    auto generation = std::make_shared<proxy::PolicyGeneration>();
    generation->name = name;
    generation->generation = last_generation_ + 1;
    generation->compiled = std::move(*compiled);
    return Loaded{std::move(generation), file, std::chrono::system_clock::now()};
}

Result<PolicyStore::Loaded> PolicyStore::prepare_file(const std::string& name,
                                                      const std::string& file) const {
    const auto text = read_file(file, kMaxPolicyBytes);
    if (!text)
        return fail(text.error().with_context("policy " + name));
    return prepare(name, *text, file);
}

void PolicyStore::commit(Loaded loaded) {
    last_generation_ = loaded.generation->generation;
    const std::string name = loaded.generation->name;
    policies_.insert_or_assign(name, std::move(loaded));
}

const PolicyStore::Loaded* PolicyStore::find(const std::string& name) const {
    const auto found = policies_.find(name);
    return found == policies_.end() ? nullptr : &found->second;
}

Result<std::string> read_file(const std::string& path, std::size_t limit) {
    const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd)
        return fail_errno("open " + path);
    struct stat status{};
    if (::fstat(fd.get(), &status) != 0)
        return fail_errno("stat " + path);
    if (!S_ISREG(status.st_mode))
        return fail(ErrorCode::kInvalid, path + " is not a regular file");
    std::string text;
    for (;;) {
        constexpr std::size_t kStep = 65536;
        const std::size_t had = text.size();
        text.resize(had + kStep);
        const ssize_t got = ::read(fd.get(), text.data() + had, kStep);
        if (got < 0)
            return fail_errno("read " + path);
        text.resize(had + static_cast<std::size_t>(got));
        if (got == 0)
            return text;
        if (text.size() > limit)
            return fail(ErrorCode::kLimit, fmt::format("{} is larger than {} bytes", path, limit));
    }
}

} // namespace tapgate::daemon
