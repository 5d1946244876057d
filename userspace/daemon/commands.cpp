// SPDX-License-Identifier: Apache-2.0
#include "daemon/commands.hpp"

#include "base/log.hpp"
#include "base/version.hpp"
#include "control/args.hpp"
#include "control/event_filter.hpp"
#include "daemon/daemon.hpp"
#include "daemon/reply_json.hpp"

#include <boost/json/array.hpp>
#include <boost/json/value.hpp>

#include <map>
#include <set>
#include <tuple>

#include <sys/utsname.h>
#include <unistd.h>

namespace tapgate::daemon {

namespace {

json::array drops_json(const std::vector<datapath::DropCount>& drops) {
    json::array array;
    for (const datapath::DropCount& drop : drops) {
        json::object object;
        object["reason"] = datapath::drop_reason_name(drop.reason);
        object["text"] = datapath::drop_reason_text(drop.reason);
        object["packets"] = drop.packets;
        array.push_back(std::move(object));
    }
    return array;
}

/// Counters of a guest's queries by outcome, all queries together, and the bindings that made room.
json::object dns_json(const proxy::GuestCounters& counters, const datapath::GuestUse& use) {
    json::object object;
    std::uint64_t asked = 0;
    for (std::size_t i = 0; i < proxy::kDnsOutcomes; ++i) {
        const std::string_view name = proxy::dns_outcome_name(static_cast<proxy::DnsOutcome>(i));
        const std::uint64_t count = counters.dns_outcomes.at(i).load(std::memory_order_relaxed);
        object[json::string_view(name.data(), name.size())] = count;
        asked += count;
    }
    object["asked"] = asked;
    object["evicted"] = use.evicted;
    return object;
}

json::object attached_json(Daemon& daemon, const GuestRegistry::Attached& attached) {
    const proxy::Guest& guest = attached.guest;
    const auto mac = daemon.datapath().guest_mac(attached.ifindex);
    const datapath::GuestUse use = daemon.datapath().guest_use(attached.ifindex);
    json::object object;
    object["name"] = guest.name;
    object["interface"] = attached.interface;
    object["ifindex"] = attached.ifindex;
    object["id"] = guest.id;
    object["state"] = "attached";
    object["mac"] = mac ? format_mac(*mac) : "";
    object["addresses"] = addresses_json(guest.addresses);
    object["gateways"] = addresses_json(guest.gateways);
    object["policy"] = guest.policy->name;
    object["generation"] = guest.policy->generation;
    object["sessions"] = use.sessions;
    object["bindings"] = use.bindings;
    object["dns"] = dns_json(*guest.counters, use);
    object["drops"] = drops_json(daemon.datapath().drops(attached.ifindex));
    object["error"] = "";
    return object;
}

json::object waiting_json(const GuestRegistry::Declared& declared) {
    json::object object;
    object["name"] = declared.config.name;
    object["interface"] = declared.config.interface;
    object["ifindex"] = 0;
    object["id"] = 0;
    object["state"] = "waiting";
    object["mac"] = declared.config.mac ? format_mac(*declared.config.mac) : "";
    object["addresses"] = addresses_json(declared.config.addresses);
    object["gateways"] = addresses_json(declared.config.gateways);
    object["policy"] = declared.config.policy;
    object["generation"] = 0;
    object["sessions"] = 0;
    object["bindings"] = 0;
    object["dns"] = json::object();
    object["drops"] = json::array();
    object["error"] = declared.error;
    return object;
}

/// The name of an attached guest by its id; ids of guests that are gone print as numbers.
std::string guest_name(Daemon& daemon, proxy::GuestId id) {
    const GuestRegistry::Attached* attached = daemon.guests().find(id);
    return attached == nullptr ? fmt::format("#{}", id) : attached->guest.name;
}

/// The attached guest named by argument "guest", if there is that argument.
Result<const GuestRegistry::Attached*> guest_argument(Daemon& daemon, const json::object& args) {
    const auto name = control::optional_string(args, "guest");
    if (!name)
        return fail(name.error());
    if (!*name)
        return nullptr;
    const GuestRegistry::Attached* attached = daemon.guests().find(std::string_view(**name));
    if (attached == nullptr)
        return fail(ErrorCode::kNotFound, fmt::format("there is no attached guest '{}'", **name));
    return attached;
}

/// Why flows are not carried by the kernel, in the form of drops.
json::array splice_refusals_json(Daemon& daemon) {
    json::array rows;
    for (std::size_t i = 0; i < proxy::kSpliceRefusals; ++i) {
        const auto refusal = static_cast<proxy::SpliceRefusal>(i);
        const std::uint64_t flows = daemon.splices().refusals(refusal);
        if (flows == 0)
            continue;
        json::object row;
        row["reason"] = proxy::splice_refusal_name(refusal);
        row["flows"] = flows;
        rows.push_back(std::move(row));
    }
    return rows;
}

Reply status_show(Daemon& daemon, const json::object& args) {
    if (const auto known = control::only_args(args, {}); !known)
        return fail(known.error());
    utsname kernel{};
    ::uname(&kernel);
    std::set<Endpoint> sick;
    std::vector<Endpoint> upstreams;
    for (const auto& worker : daemon.workers()) {
        upstreams.clear();
        for (const auto& status : worker->upstream_status()) {
            upstreams.push_back(status.endpoint);
            if (!status.healthy)
                sick.insert(status.endpoint);
        }
    }
    json::array upstreams_json;
    for (const Endpoint& upstream : upstreams) {
        json::object object;
        object["address"] = upstream.to_string();
        object["healthy"] = !sick.contains(upstream);
        upstreams_json.push_back(std::move(object));
    }
    json::object reply;
    reply["version"] = version();
    reply["pid"] = ::getpid();
    const auto drain_deadline = daemon.drain_deadline();
    reply["state"] = drain_deadline ? "draining" : "serving";
    if (drain_deadline)
        reply["drain_seconds"] = std::chrono::duration_cast<std::chrono::seconds>(
                                     *drain_deadline - std::chrono::steady_clock::now())
                                     .count();
    reply["uptime_seconds"] =
        std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now() - daemon.started())
            .count();
    reply["kernel"] = kernel.release;
    reply["attach"] = daemon.datapath().attach_kind();
    reply["splice"] = daemon.workers().front()->carriers().name(daemon.config().daemon.splice);
    reply["splice_refusals"] = splice_refusals_json(daemon);
    reply["workers"] = daemon.workers().size();
    reply["guests"] = daemon.guests().attached().size();
    reply["sessions"] = daemon.session_count();
    reply["policies"] = daemon.policies().all().size();
    reply["upstreams"] = std::move(upstreams_json);
    reply["drops"] = drops_json(daemon.datapath().drops(std::nullopt));
    reply["events_lost"] = daemon.events_lost();
    return reply;
}

Reply guest_show(Daemon& daemon, const json::object& args) {
    if (const auto known = control::only_args(args, {"name"}); !known)
        return fail(known.error());
    const auto name = control::optional_string(args, "name");
    if (!name)
        return fail(name.error());
    json::array guests;
    std::set<std::string> attached_interfaces;
    for (const auto& [ifindex, attached] : daemon.guests().attached()) {
        attached_interfaces.insert(attached.interface);
        if (!*name || **name == attached.guest.name)
            guests.push_back(attached_json(daemon, attached));
    }
    for (const GuestRegistry::Declared& declared : daemon.guests().declared()) {
        const bool attached = declared.config.is_glob()
                                  ? std::ranges::any_of(attached_interfaces,
                                                        [&](const std::string& interface) {
                                                            return declared.config.matches(interface);
                                                        })
                                  : attached_interfaces.contains(declared.config.interface);
        if (!attached && (!*name || **name == declared.config.name))
            guests.push_back(waiting_json(declared));
    }
    if (*name && guests.empty())
        return fail(ErrorCode::kNotFound, fmt::format("there is no guest '{}'", **name));
    json::object reply;
    reply["guests"] = std::move(guests);
    return reply;
}

Reply guest_add(Daemon& daemon, const json::object& args) {
    if (const auto known =
            control::only_args(args, {"name", "interface", "addresses", "gateways", "mac", "policy"});
        !known)
        return fail(known.error());
    const auto config = guest_of(args);
    if (!config)
        return fail(config.error());
    if (const auto present = check_present(*config, daemon.links()); !present)
        return fail(present.error());
    if (const auto declared = daemon.guests().declare(*config); !declared)
        return fail(declared.error());
    const auto reconciled = daemon.guests().reconcile(daemon.links());
    for (const GuestRegistry::Declared& declared : daemon.guests().declared()) {
        // Only this guest's own failure concerns the caller; nothing of it is kept then.
        if (declared.config.name == config->name && !declared.error.empty()) {
            const Error error = reconciled ? Error(ErrorCode::kIo, declared.error) : reconciled.error();
            static_cast<void>(daemon.guests().remove(config->name));
            return fail(error);
        }
    }
    json::object reply;
    const GuestRegistry::Attached* attached = nullptr;
    for (const auto& [ifindex, entry] : daemon.guests().attached()) {
        if (config->matches(entry.interface))
            attached = &entry;
    }
    reply["guest"] = attached != nullptr ? attached_json(daemon, *attached) : waiting_json({*config, {}});
    daemon.publish(change_event("guest", config->name, "added"));
    return reply;
}

Reply guest_del(Daemon& daemon, const json::object& args) {
    if (const auto known = control::only_args(args, {"name"}); !known)
        return fail(known.error());
    const auto name = control::required_string(args, "name");
    if (!name)
        return fail(name.error());
    if (const auto removed = daemon.guests().remove(*name); !removed)
        return fail(removed.error());
    daemon.publish(change_event("guest", *name, "removed"));
    json::object reply;
    reply["removed"] = *name;
    return reply;
}

/// The live sessions that the filters of `args` let pass, all of them if there is none.
Result<std::vector<proxy::FlowInfo>> chosen_flows(Daemon& daemon, const json::object& args) {
    if (const auto guest = guest_argument(daemon, args); !guest)
        return fail(guest.error());
    const auto filter = control::EventFilter::parse(args);
    if (!filter)
        return fail(filter.error());
    const auto id = control::optional_number(args, "id");
    if (!id)
        return fail(id.error());
    std::vector<proxy::FlowInfo> chosen;
    for (const auto& worker : daemon.workers()) {
        for (proxy::FlowInfo& flow : worker->flows()) {
            if ((!*id || **id == flow.id) && filter->matches(flow_json(flow)))
                chosen.push_back(std::move(flow));
        }
    }
    if (*id && chosen.empty())
        return fail(ErrorCode::kNotFound, fmt::format("there is no flow {}", **id));
    return chosen;
}

json::array flows_json(const std::vector<proxy::FlowInfo>& flows, bool with_facts) {
    json::array array;
    for (const proxy::FlowInfo& flow : flows) {
        json::object object = flow_json(flow);
        if (with_facts)
            object["facts"] = facts_json(flow.facts);
        array.push_back(std::move(object));
    }
    return array;
}

Reply flow_show(Daemon& daemon, const json::object& args) {
    if (const auto known = control::only_args(args, {"guest", "name", "address", "verdict", "id"}); !known)
        return fail(known.error());
    const auto flows = chosen_flows(daemon, args);
    if (!flows)
        return fail(flows.error());
    json::object reply;
    reply["flows"] = flows_json(*flows, args.contains("id"));
    return reply;
}

Reply flow_kill(Daemon& daemon, const json::object& args) {
    if (const auto known = control::only_args(args, {"guest", "name", "address", "id", "dry_run"}); !known)
        return fail(known.error());
    const auto dry_run = control::flag(args, "dry_run");
    if (!dry_run)
        return fail(dry_run.error());
    if (args.empty() || (args.size() == 1 && args.contains("dry_run")))
        return fail(ErrorCode::kInvalid, "say which flows: by id, guest, name or address");
    const auto flows = chosen_flows(daemon, args);
    if (!flows)
        return fail(flows.error());
    json::object reply;
    reply["dry_run"] = *dry_run;
    reply["flows"] = flows_json(*flows, false);
    std::size_t killed = 0;
    if (!*dry_run) {
        std::vector<std::uint64_t> ids;
        for (const proxy::FlowInfo& flow : *flows)
            ids.push_back(flow.id);
        for (const auto& worker : daemon.workers())
            killed += worker->kill_flows(ids);
    }
    reply["killed"] = killed;
    return reply;
}

/// The bindings that `dns show` and `dns flush` are about.
struct DnsSelection {
    const GuestRegistry::Attached* guest = nullptr; ///< null: of every guest
    std::optional<std::string> name;                ///< empty: of every name
};

Result<DnsSelection> dns_selection(Daemon& daemon, const json::object& args) {
    const auto guest = guest_argument(daemon, args);
    if (!guest)
        return fail(guest.error());
    const auto text = control::optional_string(args, "name");
    if (!text)
        return fail(text.error());
    DnsSelection selection{*guest, std::nullopt};
    if (*text) {
        const auto name = policy::Name::from_user(**text);
        if (!name)
            return fail(ErrorCode::kInvalid, name.error().message());
        selection.name = name->text();
    }
    return selection;
}

Result<std::optional<IpAddress>> address_argument(const json::object& args) {
    const auto text = control::optional_string(args, "address");
    if (!text)
        return fail(text.error());
    if (!*text)
        return std::nullopt;
    const auto address = IpAddress::parse(**text);
    if (!address)
        return fail(ErrorCode::kInvalid, fmt::format("'{}' is not an IP address", **text));
    return address;
}

/// How many live sessions go to the address of a binding and were judged with its name.
using FlowsByBinding = std::map<std::tuple<std::string, IpAddress, std::string>, unsigned>;

FlowsByBinding count_flows(Daemon& daemon) {
    FlowsByBinding counts;
    for (const auto& worker : daemon.workers()) {
        for (const proxy::FlowInfo& flow : worker->flows()) {
            for (const policy::BoundName& bound : flow.facts.bound)
                ++counts[{flow.guest, flow.facts.destination.address, bound.name.text()}];
        }
    }
    return counts;
}

std::int64_t whole_seconds(BootClock::duration duration) {
    return std::chrono::duration_cast<std::chrono::seconds>(duration).count();
}

json::object binding_json(const datapath::Binding& binding, const std::string& guest, unsigned flows) {
    const BootClock::time_point now = BootClock::now();
    json::object object;
    object["guest"] = guest;
    object["name"] = binding.name;
    object["address"] = binding.address.to_string();
    object["aliases"] = json::array(binding.aliases.begin(), binding.aliases.end());
    object["resolver"] = binding.resolver ? binding.resolver->to_string() : "";
    object["age_seconds"] = whole_seconds(now - binding.told);
    object["expires_seconds"] = whole_seconds(binding.expires - now);
    object["flows"] = flows;
    return object;
}

Reply dns_show(Daemon& daemon, const json::object& args) {
    if (const auto known = control::only_args(args, {"guest", "name", "address"}); !known)
        return fail(known.error());
    const auto selection = dns_selection(daemon, args);
    if (!selection)
        return fail(selection.error());
    const auto address = address_argument(args);
    if (!address)
        return fail(address.error());
    const auto& [guest, name] = *selection;
    const std::optional<proxy::GuestId> id = guest == nullptr ? std::nullopt : std::optional(guest->guest.id);
    const FlowsByBinding flows = count_flows(daemon);
    json::array bindings;
    for (const datapath::Binding& binding : daemon.datapath().bindings(id)) {
        if ((name && *name != binding.name) || (*address && **address != binding.address))
            continue;
        const std::string of = guest_name(daemon, binding.guest);
        const auto counted = flows.find({of, binding.address, binding.name});
        bindings.push_back(binding_json(binding, of, counted == flows.end() ? 0 : counted->second));
    }
    json::object reply;
    reply["bindings"] = std::move(bindings);
    return reply;
}

Reply dns_stats(Daemon& daemon, const json::object& args) {
    if (const auto known = control::only_args(args, {"guest"}); !known)
        return fail(known.error());
    const auto only = guest_argument(daemon, args);
    if (!only)
        return fail(only.error());
    json::array guests;
    for (const auto& [ifindex, attached] : daemon.guests().attached()) {
        if (*only != nullptr && *only != &attached)
            continue;
        json::object object;
        object["guest"] = attached.guest.name;
        object["queries"] = dns_json(*attached.guest.counters, daemon.datapath().guest_use(attached.ifindex));
        guests.push_back(std::move(object));
    }
    json::object reply;
    reply["guests"] = std::move(guests);
    return reply;
}

Reply dns_flush(Daemon& daemon, const json::object& args) {
    if (const auto known = control::only_args(args, {"guest", "name"}); !known)
        return fail(known.error());
    const auto selection = dns_selection(daemon, args);
    if (!selection)
        return fail(selection.error());
    const auto& [guest, name] = *selection;
    const std::optional<std::string_view> only = name ? std::optional<std::string_view>(*name) : std::nullopt;
    std::size_t removed = 0;
    for (const auto& [ifindex, attached] : daemon.guests().attached()) {
        if (guest == nullptr || guest == &attached)
            removed += daemon.datapath().flush_bindings(attached.guest.id, only);
    }
    json::object reply;
    reply["removed"] = removed;
    return reply;
}

} // namespace

Result<GuestConfig> guest_of(const json::object& args) {
    const auto name = control::required_string(args, "name");
    const auto interface = control::required_string(args, "interface");
    const auto addresses = control::string_list(args, "addresses");
    const auto gateways = control::string_list(args, "gateways");
    const auto mac = control::optional_string(args, "mac");
    const auto policy = control::required_string(args, "policy");
    if (const Error* error = control::first_error(name, interface, addresses, gateways, mac, policy))
        return fail(*error);
    return make_guest({*name, *interface, *addresses, *gateways, mac->value_or(""), *policy});
}

void add_command(control::Server& server, Daemon& daemon, const char* name, Command command) {
    server.add(name, [&daemon, command](json::object args) -> boost::asio::awaitable<Reply> {
        if (daemon.is_handed_over())
            co_return fail(ErrorCode::kUnavailable, "another daemon takes over; try again");
        co_return command(daemon, args);
    });
}

void add_commands(control::Server& server, Daemon& daemon, std::optional<gid_t> readers) {
    if (readers)
        server.open_for_reading(*readers,
                                {"status show", "guest show", "flow show", "dns show", "dns stats",
                                 "event show", "metric show", "policy show", "policy history", "why"});
    const auto add = [&](const char* name, Command command) { add_command(server, daemon, name, command); };
    add("status show", status_show);
    add("guest show", guest_show);
    add("guest add", guest_add);
    add("guest del", guest_del);
    add("flow show", flow_show);
    add("flow kill", flow_kill);
    add("dns show", dns_show);
    add("dns stats", dns_stats);
    add("dns flush", dns_flush);
    add_event_commands(server, daemon);
    add_policy_commands(server, daemon);
    add_hand_over_commands(server, daemon);
    add_reload_command(server, daemon);
    add_why_command(server, daemon);
}

} // namespace tapgate::daemon
