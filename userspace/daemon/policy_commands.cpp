// SPDX-License-Identifier: Apache-2.0
//
// The control commands about policies.
#include "base/log.hpp"
#include "control/args.hpp"
#include "daemon/commands.hpp"
#include "daemon/daemon.hpp"
#include "daemon/reply_json.hpp"
#include "policy/parse.hpp"

#include <boost/json/parse.hpp>

#include <chrono>
#include <ranges>

namespace tapgate::daemon {

namespace {

using Clock = std::chrono::steady_clock;

std::string_view action_word(policy::Action action) {
    return action == policy::Action::kAllow ? "allow" : "deny";
}

/// A policy with what is known of it whether it is in force or not.
json::object summary_json(const std::string& name, const std::string& file, std::uint64_t generation,
                          const policy::Policy& policy) {
    json::object object;
    object["name"] = name;
    object["file"] = file;
    object["generation"] = generation;
    object["rules"] = policy.rules.size();
    object["default_egress"] = action_word(policy.default_egress);
    object["default_ingress"] = action_word(policy.default_ingress);
    return object;
}

json::array guests_under(Daemon& daemon, const std::string& policy) {
    json::array guests;
    for (const auto& [ifindex, attached] : daemon.guests().attached()) {
        if (attached.guest.policy->name == policy)
            guests.emplace_back(attached.guest.name);
    }
    return guests;
}

json::object policy_json(Daemon& daemon, const PolicyStore::Loaded& loaded, bool whole) {
    const std::string& name = loaded.generation->name;
    const PolicyStore::Past& current = loaded.current();
    const policy::Policy& policy = loaded.generation->compiled->policy();
    json::object object = summary_json(name, current.file, current.generation, policy);
    object["loaded_at"] = rfc3339(current.loaded_at);
    object["origin"] = origin_word(current.origin.how);
    object["by"] = current.origin.who;
    object["watched"] = daemon.watcher().is_watched(name);
    object["watch_error"] = daemon.watcher().error(name);
    object["guests"] = guests_under(daemon, name);
    object["splice"] =
        daemon.workers().front()->carriers().name(policy.splice.value_or(daemon.config().daemon.splice));
    if (whole)
        object["policy"] = json::parse(policy::to_json(policy));
    return object;
}

std::unexpected<Error> no_policy(const std::string& name) {
    return fail(ErrorCode::kNotFound, fmt::format("there is no policy '{}'", name));
}

/// Rows for the policy that `args` name, or for all: describe(loaded, named).
template <typename Describe>
Reply describe_policies(Daemon& daemon, const json::object& args, const Describe& describe) {
    if (const auto known = control::only_args(args, {"name"}); !known)
        return fail(known.error());
    const auto name = control::optional_string(args, "name");
    if (!name)
        return fail(name.error());
    json::array policies;
    if (*name) {
        const PolicyStore::Loaded* loaded = daemon.policies().find(**name);
        if (loaded == nullptr)
            return no_policy(**name);
        policies.push_back(describe(*loaded, true));
    } else {
        for (const auto& [policy_name, loaded] : daemon.policies().all())
            policies.push_back(describe(loaded, false));
    }
    json::object reply;
    reply["policies"] = std::move(policies);
    return reply;
}

Reply policy_show(Daemon& daemon, const json::object& args) {
    return describe_policies(daemon, args, [&daemon](const PolicyStore::Loaded& loaded, bool named) {
        return policy_json(daemon, loaded, named);
    });
}

/// How a load is to go, whatever is loaded.
struct LoadOptions {
    bool dry_run = false;
    std::optional<proxy::LiveFlowsOrder> live;
    std::string by;
};

Result<LoadOptions> load_options(const json::object& args) {
    const auto dry_run = control::flag(args, "dry_run");
    const auto live = control::optional_string(args, "live");
    const auto by = control::optional_string(args, "by");
    if (const Error* error = control::first_error(dry_run, live, by))
        return fail(*error);
    LoadOptions options;
    options.dry_run = *dry_run;
    options.by = by->value_or("");
    if (*live) {
        const auto order = parse_live_flows(**live);
        if (!order)
            return fail(order.error());
        options.live = *order;
    }
    return options;
}

/// Puts `prepared` in force, or says what that would do. `begun` is when the work on the request began.
Reply load(Daemon& daemon, const PreparedPolicy& prepared, PolicyOrigin::How how, const LoadOptions& options,
           Clock::time_point begun) {
    PolicySwap swap;
    if (options.dry_run) {
        swap = daemon.loader().preview(prepared, options.live);
    } else {
        const PolicyOrigin origin{how, options.by};
        auto loaded = daemon.loader().load(prepared, origin, options.live);
        if (!loaded)
            return fail(loaded.error());
        swap = std::move(*loaded);
    }
    json::object policy =
        summary_json(prepared.name, prepared.file, swap.generation, prepared.compiled->policy());
    policy["guests"] = guests_under(daemon, prepared.name);
    json::object reply;
    reply["policy"] = std::move(policy);
    reply["dry_run"] = options.dry_run;
    if (!swap.warning.empty())
        reply["warning"] = swap.warning;
    reply["live_flows"] = live_flows_json(swap);
    reply["took_ms"] = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - begun).count();
    return reply;
}

Reply policy_load(Daemon& daemon, const json::object& args) {
    const auto begun = Clock::now();
    if (const auto known = control::only_args(args, {"name", "file", "text", "dry_run", "live", "by"});
        !known)
        return fail(known.error());
    const auto name = control::required_string(args, "name");
    const auto file = control::optional_string(args, "file");
    auto text = control::optional_string(args, "text");
    const auto options = load_options(args);
    if (const Error* error = control::first_error(name, file, text, options))
        return fail(*error);
    if (!*text)
        return fail(ErrorCode::kInvalid, "argument 'text' is missing: the policy itself");
    const auto prepared =
        prepare_policy(daemon.config().groups, *name, std::make_shared<const std::string>(std::move(**text)),
                       file->value_or(""));
    if (!prepared)
        return fail(prepared.error());
    return load(daemon, *prepared, PolicyOrigin::How::kLoad, *options, begun);
}

/// The generation that a rollback goes back to: the one asked for, else the one before the current.
Result<const PolicyStore::Past*> rollback_target(const PolicyStore::Loaded& loaded,
                                                 std::optional<std::uint64_t> wanted) {
    if (wanted) {
        if (const PolicyStore::Past* past = loaded.find(*wanted))
            return past;
        return fail(ErrorCode::kNotFound,
                    fmt::format("policy {} has no generation {} any more; `tapgate policy history {}` lists "
                                "those it has",
                                loaded.generation->name, *wanted, loaded.generation->name));
    }
    if (loaded.history.size() < 2)
        return fail(ErrorCode::kNotFound, fmt::format("policy {} has no earlier generation to go back to",
                                                      loaded.generation->name));
    return &loaded.history[loaded.history.size() - 2];
}

Reply policy_rollback(Daemon& daemon, const json::object& args) {
    const auto begun = Clock::now();
    if (const auto known = control::only_args(args, {"name", "to", "dry_run", "live", "by"}); !known)
        return fail(known.error());
    const auto name = control::required_string(args, "name");
    const auto to = control::optional_number(args, "to");
    const auto options = load_options(args);
    if (const Error* error = control::first_error(name, to, options))
        return fail(*error);
    const PolicyStore::Loaded* loaded = daemon.policies().find(*name);
    if (loaded == nullptr)
        return no_policy(*name);
    const auto target = rollback_target(*loaded, *to);
    if (!target)
        return fail(target.error());
    const std::uint64_t number = (*target)->generation;
    const auto prepared = prepare_policy(daemon.config().groups, *name, (*target)->text, (*target)->file);
    if (!prepared)
        return fail(prepared.error());
    Reply reply = load(daemon, *prepared, PolicyOrigin::How::kRollback, *options, begun);
    if (reply)
        (*reply)["rolled_back_to"] = number;
    return reply;
}

json::object history_json(const PolicyStore::Loaded& loaded) {
    json::array generations;
    for (const PolicyStore::Past& past : std::views::reverse(loaded.history)) {
        json::object object;
        object["generation"] = past.generation;
        object["loaded_at"] = rfc3339(past.loaded_at);
        object["rules"] = past.rules;
        object["origin"] = origin_word(past.origin.how);
        object["by"] = past.origin.who;
        object["file"] = past.file;
        generations.push_back(std::move(object));
    }
    json::object policy;
    policy["name"] = loaded.generation->name;
    policy["generations"] = std::move(generations);
    return policy;
}

Reply policy_history(Daemon& daemon, const json::object& args) {
    return describe_policies(
        daemon, args, [](const PolicyStore::Loaded& loaded, bool /*named*/) { return history_json(loaded); });
}

} // namespace

void add_policy_commands(control::Server& server, Daemon& daemon) {
    add_command(server, daemon, "policy show", policy_show);
    add_command(server, daemon, "policy load", policy_load);
    add_command(server, daemon, "policy history", policy_history);
    add_command(server, daemon, "policy rollback", policy_rollback);
}

} // namespace tapgate::daemon
