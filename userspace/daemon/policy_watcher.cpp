// SPDX-License-Identifier: Apache-2.0
#include "daemon/policy_watcher.hpp"

#include "base/log.hpp"
#include "net/async.hpp"

#include <boost/asio/steady_timer.hpp>

#include <algorithm>

#include <unistd.h>

namespace tapgate::daemon {

namespace asio = boost::asio;

namespace {

/// What happens to a file within this time counts as one change.
constexpr std::chrono::milliseconds kSettle{100};

} // namespace

PolicyWatcher::PolicyWatcher(asio::io_context& context, FileWatch watch, const policy::GroupTable& groups,
                             const PolicyStore& store, PolicyLoader& loader)
    : watch_(std::move(watch)), descriptor_(context, ::dup(watch_.fd())), groups_(groups), store_(store),
      loader_(loader) {}

void PolicyWatcher::watch(const std::vector<PolicyConfig>& policies, const Contents& superseded) {
    std::vector<Watched> watched;
    for (const PolicyConfig& policy : policies) {
        if (!policy.watch)
            continue;
        watch_.add(policy.file);
        const auto before = std::ranges::find(watched_, policy.name, &Watched::name);
        const auto known = superseded.find(policy.name);
        if (before != watched_.end() && before->file == policy.file)
            watched.push_back(std::move(*before));
        else
            watched.push_back(
                {policy.name,
                 policy.file,
                 known != superseded.end() ? known->second : store_.find(policy.name)->current().text,
                 {}});
    }
    watched_ = std::move(watched);
}

asio::awaitable<void> PolicyWatcher::run() {
    // Of what was written between the load at the start and the first watch there is no event.
    std::set<std::string> all;
    for (const Watched& watched : watched_)
        all.insert(watched.file);
    files_changed(all);
    for (;;) {
        const auto [error] =
            co_await descriptor_.async_wait(asio::posix::stream_descriptor::wait_read, net::kAsTuple);
        if (error)
            co_return;
        asio::steady_timer settle(descriptor_.get_executor(), kSettle);
        co_await settle.async_wait(net::kAsTuple);
        files_changed(watch_.read_changes());
    }
}

void PolicyWatcher::restore() {
    files_changed(watch_.restore());
}

void PolicyWatcher::files_changed(const std::set<std::string>& files) {
    for (Watched& watched : watched_) {
        if (!files.contains(watched.file))
            continue;
        const Result<void> tried = try_file(watched);
        const std::string error = tried ? std::string() : tried.error().message();
        if (!error.empty() && error != watched.error)
            spdlog::error("policy {} stays as it is: {}", watched.name, error);
        watched.error = error;
    }
}

Result<void> PolicyWatcher::try_file(Watched& watched) {
    const auto text = read_policy_file(watched.name, watched.file);
    if (!text)
        return fail(text.error());
    if (**text == *watched.seen && watched.error.empty())
        return {};
    watched.seen = *text;
    if (**text == *store_.find(watched.name)->current().text)
        return {};
    const auto prepared = prepare_policy(groups_, watched.name, *text, watched.file);
    if (!prepared)
        return fail(prepared.error());
    const PolicyOrigin origin{PolicyOrigin::How::kWatch, {}};
    if (const auto loaded = loader_.load(*prepared, origin, std::nullopt); !loaded)
        return fail(loaded.error());
    return {};
}

bool PolicyWatcher::is_watched(const std::string& name) const {
    return std::ranges::find(watched_, name, &Watched::name) != watched_.end();
}

std::shared_ptr<const std::string> PolicyWatcher::superseded(const std::string& name) const {
    const auto found = std::ranges::find(watched_, name, &Watched::name);
    if (found == watched_.end() || !found->error.empty() ||
        *found->seen == *store_.find(name)->current().text)
        return nullptr;
    return found->seen;
}

std::string PolicyWatcher::error(const std::string& name) const {
    const auto found = std::ranges::find(watched_, name, &Watched::name);
    return found == watched_.end() ? std::string() : found->error;
}

} // namespace tapgate::daemon
