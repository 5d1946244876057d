// SPDX-License-Identifier: Apache-2.0
//
// Bringing a running daemon in line with its configuration file.
#include "base/log.hpp"
#include "control/args.hpp"
#include "daemon/commands.hpp"
#include "daemon/daemon.hpp"

#include <boost/json/array.hpp>
#include <fmt/format.h>

#include <algorithm>

namespace tapgate::daemon {

namespace json = boost::json;

namespace {

/// The policies that have to be loaded so that what is in force is what `wanted` says: those whose file has
/// another text, and all if the daemon's groups are others.
Result<std::vector<PreparedPolicy>> policies_to_load(const Config& wanted, const Config& running,
                                                     const PolicyStore& store) {
    std::vector<PreparedPolicy> all;
    const bool other_groups = wanted.groups != running.groups;
    for (const PolicyConfig& policy : wanted.policies) {
        const auto text = read_policy_file(policy.name, policy.file);
        if (!text)
            return fail(text.error());
        const PolicyStore::Loaded* loaded = store.find(policy.name);
        if (loaded != nullptr && *loaded->current().text == **text && !other_groups)
            continue;
        auto prepared = prepare_policy(wanted.groups, policy.name, *text, policy.file);
        if (!prepared)
            return fail(prepared.error());
        all.push_back(std::move(*prepared));
    }
    for (const auto& [name, loaded] : store.all()) {
        if (!other_groups ||
            std::ranges::find(wanted.policies, name, &PolicyConfig::name) != wanted.policies.end())
            continue;
        auto prepared = prepare_policy(wanted.groups, name, loaded.current().text, loaded.current().file);
        if (!prepared)
            return fail(prepared.error());
        all.push_back(std::move(*prepared));
    }
    return all;
}

json::array changes_json(const std::vector<SettingChange>& changes) {
    json::array rows;
    for (const SettingChange& change : changes) {
        json::object row;
        row["setting"] = change.setting;
        row["before"] = change.before;
        row["after"] = change.after;
        row["live"] = change.live;
        rows.push_back(std::move(row));
    }
    return rows;
}

Reply daemon_reload(Daemon& daemon, const json::object& args) {
    if (const auto known = control::only_args(args, {"dry_run", "by"}); !known)
        return fail(known.error());
    const auto dry_run = control::flag(args, "dry_run");
    const auto by = control::optional_string(args, "by");
    if (const Error* error = control::first_error(dry_run, by))
        return fail(*error);
    const auto changes = daemon.reload(*dry_run, by->value_or(""));
    if (!changes)
        return fail(changes.error());
    json::object reply;
    reply["file"] = daemon.config_file();
    reply["dry_run"] = *dry_run;
    reply["changes"] = changes_json(*changes);
    return reply;
}

} // namespace

Result<std::vector<SettingChange>> Daemon::reload(bool dry_run, const std::string& by) {
    const auto read = load_config(config_file_);
    if (!read)
        return fail(read.error());
    std::vector<SettingChange> changes = config_changes(config_, *read);
    Config wanted = what_can_change(*read, config_);
    const auto policies = policies_to_load(wanted, config_, *policies_);
    if (!policies)
        return fail(policies.error());
    for (const PreparedPolicy& policy : *policies) {
        if (const PolicyStore::Loaded* loaded = policies_->find(policy.name))
            changes.push_back({fmt::format("policy.{} rules", policy.name),
                               fmt::format("generation {}, from {}", loaded->generation->generation,
                                           loaded->current().file),
                               "from " + policy.file, true});
    }
    if (const auto possible = guests_->check_redeclare(config_.guests, wanted.guests, *links_); !possible)
        return fail(possible.error());
    if (dry_run)
        return changes;

    // The only step that can still fail, and what it has done by then stands in the log.
    for (const PreparedPolicy& policy : *policies) {
        const PolicyOrigin origin{PolicyOrigin::How::kReload, by};
        if (const auto loaded = loader_->load(policy, origin, std::nullopt); !loaded)
            return fail(loaded.error());
    }
    const std::vector<GuestConfig> guests_before = config_.guests;
    config_ = std::move(wanted);
    for (const SettingChange& change : changes)
        spdlog::info("reload: {}: {} -> {}{}", change.setting,
                     printable(change.before.empty() ? "(none)" : change.before),
                     printable(change.after.empty() ? "(none)" : change.after),
                     change.live ? "" : " (needs a restart)");
    if (changes.empty())
        spdlog::info("reload: nothing has changed");
    apply_config(guests_before);
    return changes;
}

void Daemon::apply_config(const std::vector<GuestConfig>& guests_before) {
    set_log(config_.log);
    for (const auto& worker : workers_)
        worker->set_times(worker_settings());
    refresh_upstreams();
    watcher_->watch(config_.policies);
    guests_->redeclare(guests_before, config_.guests, config_.limits);
    // Each failure was logged with its guest, and is shown by `guest show`.
    static_cast<void>(guests_->reconcile(*links_));
}

void add_reload_command(control::Server& server, Daemon& daemon) {
    add_command(server, daemon, "daemon reload", daemon_reload);
}

} // namespace tapgate::daemon
