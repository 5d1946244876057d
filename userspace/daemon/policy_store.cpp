// SPDX-License-Identifier: Apache-2.0
#include "daemon/policy_store.hpp"

#include "base/unique_fd.hpp"
#include "policy/parse.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>

namespace tapgate::daemon {

namespace {

constexpr std::size_t kMaxPolicyBytes = std::size_t{64} << 20U;

} // namespace

Result<PreparedPolicy> prepare_policy(const policy::GroupTable& daemon_groups, const std::string& name,
                                      std::shared_ptr<const std::string> text, const std::string& file) {
    auto parsed = policy::parse(*text, file);
    if (!parsed)
        return fail(parsed.error());
    auto compiled = policy::CompiledPolicy::compile(std::move(*parsed), daemon_groups);
    if (!compiled)
        return fail(compiled.error());
    return PreparedPolicy{name, file, std::move(text), std::move(*compiled)};
}

Result<std::shared_ptr<const std::string>> read_policy_file(const std::string& name,
                                                            const std::string& file) {
    auto text = read_file(file, kMaxPolicyBytes);
    if (!text)
        return fail(text.error().with_context("policy " + name));
    return std::make_shared<const std::string>(std::move(*text));
}

Result<PreparedPolicy> prepare_policy_file(const policy::GroupTable& daemon_groups, const std::string& name,
                                           const std::string& file) {
    auto text = read_policy_file(name, file);
    if (!text)
        return fail(text.error());
    return prepare_policy(daemon_groups, name, std::move(*text), file);
}

std::string_view origin_word(PolicyOrigin::How how) {
    switch (how) {
    case PolicyOrigin::How::kStart:
        return "start";
    case PolicyOrigin::How::kLoad:
        return "load";
    case PolicyOrigin::How::kRollback:
        return "rollback";
    case PolicyOrigin::How::kWatch:
        return "watch";
    case PolicyOrigin::How::kReload:
        return "reload";
    }
    return "";
}

const PolicyStore::Past* PolicyStore::Loaded::find(std::uint64_t number) const {
    const auto found = std::ranges::find(history, number, &Past::generation);
    return found == history.end() ? nullptr : &*found;
}

Result<const PolicyStore::Loaded*> PolicyStore::commit(const PreparedPolicy& prepared,
                                                       const PolicyOrigin& origin) {
    auto generation = std::make_shared<proxy::PolicyGeneration>();
    generation->name = prepared.name;
    generation->generation = next_generation_;
    generation->compiled = prepared.compiled;
    const auto installed = installer_.install(*generation, *prepared.text);
    if (!installed)
        return fail(installed.error().with_context("policy " + prepared.name));
    generation->generation = *installed;
    next_generation_ = std::max(next_generation_, *installed + 1);

    Loaded& loaded = policies_[prepared.name];
    loaded.history.push_back({generation->generation, std::chrono::system_clock::now(), prepared.file,
                              prepared.compiled->policy().rules.size(), origin, prepared.text});
    loaded.generation = std::move(generation);
    std::size_t bytes = 0;
    for (const Past& past : loaded.history)
        bytes += past.text->size();
    while (loaded.history.size() > kHistory || bytes > kHistoryBytes) {
        bytes -= loaded.history.front().text->size();
        loaded.history.pop_front();
    }
    return &loaded;
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
