// SPDX-License-Identifier: Apache-2.0
#include "daemon/commands.hpp"

#include "base/log.hpp"
#include "control/args.hpp"
#include "daemon/daemon.hpp"
#include "daemon/reply_json.hpp"

#include <boost/json/array.hpp>
#include <boost/json/value.hpp>

#include <set>

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

json::array strings_json(const std::vector<IpAddress>& addresses) {
    json::array array;
    for (const IpAddress& address : addresses)
        array.emplace_back(address.to_string());
    return array;
}

json::object attached_json(Daemon& daemon, const GuestRegistry::Attached& attached) {
    const proxy::Guest& guest = attached.guest;
    const auto mac = daemon.datapath().guest_mac(attached.ifindex);
    json::object object;
    object["name"] = guest.name;
    object["interface"] = attached.interface;
    object["ifindex"] = attached.ifindex;
    object["id"] = guest.id;
    object["state"] = "attached";
    object["mac"] = mac ? format_mac(*mac) : "";
    object["addresses"] = strings_json(guest.addresses);
    object["gateways"] = strings_json(guest.gateways);
    object["policy"] = guest.policy->name;
    object["generation"] = guest.policy->generation;
    object["sessions"] = guest.counters->sessions.load(std::memory_order_relaxed);
    object["bindings"] = daemon.datapath().bindings(guest.id).size();
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
    object["addresses"] = strings_json(declared.config.addresses);
    object["gateways"] = strings_json(declared.config.gateways);
    object["policy"] = declared.config.policy;
    object["generation"] = 0;
    object["sessions"] = 0;
    object["bindings"] = 0;
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

Reply status_show(Daemon& daemon, const json::object& args) {
    if (const auto known = control::only_args(args, {}); !known)
        return fail(known.error());
    utsname kernel{};
    ::uname(&kernel);
    std::set<Endpoint> sick;
    std::vector<Endpoint> upstreams;
    std::size_t sessions = 0;
    for (const auto& worker : daemon.workers()) {
        sessions += worker->flows().size();
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
    reply["version"] = TAPGATE_VERSION;
    reply["pid"] = ::getpid();
    reply["uptime_seconds"] =
        std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now() - daemon.started())
            .count();
    reply["kernel"] = kernel.release;
    reply["attach"] = daemon.datapath().attach_kind();
    reply["splice"] = daemon.workers().front()->relay_name();
    reply["workers"] = daemon.workers().size();
    reply["guests"] = daemon.guests().attached().size();
    reply["sessions"] = sessions;
    reply["policies"] = daemon.policies().all().size();
    reply["upstreams"] = std::move(upstreams_json);
    reply["drops"] = drops_json(daemon.datapath().drops(std::nullopt));
    reply["events_lost"] = daemon.datapath().events_lost() + daemon.events().lost();
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
        const bool attached = std::ranges::any_of(attached_interfaces, [&](const std::string& interface) {
            return declared.config.matches(interface);
        });
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
    const auto name = control::required_string(args, "name");
    const auto interface = control::required_string(args, "interface");
    const auto addresses = control::string_list(args, "addresses");
    const auto gateways = control::string_list(args, "gateways");
    const auto mac = control::optional_string(args, "mac");
    const auto policy = control::required_string(args, "policy");
    if (const Error* error = control::first_error(name, interface, addresses, gateways, mac, policy))
        return fail(*error);
    GuestFields fields;
    fields.name = *name;
    fields.interface = *interface;
    fields.addresses = *addresses;
    fields.gateways = *gateways;
    fields.mac = mac->value_or("");
    fields.policy = *policy;
    const auto config = make_guest(fields);
    if (!config)
        return fail(config.error());
    const bool present = std::ranges::any_of(
        daemon.links().links(), [&](const net::Link& link) { return config->matches(link.name); });
    if (!present && !config->is_glob())
        return fail(
            ErrorCode::kNotFound,
            fmt::format("there is no interface {}; create it first, or give a glob", config->interface));
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

Reply flow_show(Daemon& daemon, const json::object& args) {
    if (const auto known = control::only_args(args, {"guest", "id"}); !known)
        return fail(known.error());
    const auto guest = guest_argument(daemon, args);
    if (!guest)
        return fail(guest.error());
    const auto id = control::optional_number(args, "id");
    if (!id)
        return fail(id.error());
    json::array flows;
    for (const auto& worker : daemon.workers()) {
        for (const proxy::FlowInfo& flow : worker->flows()) {
            if ((*guest != nullptr && (*guest)->guest.name != flow.guest) || (*id && **id != flow.id))
                continue;
            json::object object = flow_json(flow);
            if (*id)
                object["facts"] = facts_json(flow.facts);
            flows.push_back(std::move(object));
        }
    }
    if (*id && flows.empty())
        return fail(ErrorCode::kNotFound, fmt::format("there is no flow {}", **id));
    json::object reply;
    reply["flows"] = std::move(flows);
    return reply;
}

/// The bindings that `dns show` and `dns flush` are about.
struct DnsSelection {
    const GuestRegistry::Attached* guest = nullptr; ///< null: of every guest
    std::optional<std::string> name;                ///< empty: of every name
};

Result<DnsSelection> dns_selection(Daemon& daemon, const json::object& args) {
    if (const auto known = control::only_args(args, {"guest", "name"}); !known)
        return fail(known.error());
    const auto guest = guest_argument(daemon, args);
    if (!guest)
        return fail(guest.error());
    const auto name = control::optional_string(args, "name");
    if (!name)
        return fail(name.error());
    return DnsSelection{*guest, *name};
}

Reply dns_show(Daemon& daemon, const json::object& args) {
    const auto selection = dns_selection(daemon, args);
    if (!selection)
        return fail(selection.error());
    const auto& [guest, name] = *selection;
    const std::optional<proxy::GuestId> id = guest == nullptr ? std::nullopt : std::optional(guest->guest.id);
    json::array bindings;
    for (const datapath::Binding& binding : daemon.datapath().bindings(id)) {
        if (name && *name != binding.name)
            continue;
        json::object object;
        object["guest"] = guest_name(daemon, binding.guest);
        object["name"] = binding.name;
        object["address"] = binding.address.to_string();
        object["expires_seconds"] =
            std::chrono::duration_cast<std::chrono::seconds>(binding.expires - BootClock::now()).count();
        bindings.push_back(std::move(object));
    }
    json::object reply;
    reply["bindings"] = std::move(bindings);
    return reply;
}

Reply dns_flush(Daemon& daemon, const json::object& args) {
    const auto selection = dns_selection(daemon, args);
    if (!selection)
        return fail(selection.error());
    const auto& [guest, name] = *selection;
    if (guest == nullptr)
        return fail(ErrorCode::kInvalid, "argument 'guest' is missing: whose bindings to forget");
    const std::optional<std::string_view> only = name ? std::optional<std::string_view>(*name) : std::nullopt;
    json::object reply;
    reply["removed"] = daemon.datapath().flush_bindings(guest->guest.id, only);
    return reply;
}

} // namespace

void add_command(control::Server& server, Daemon& daemon, const char* name, Command command) {
    server.add(name, [&daemon, command](json::object args) -> boost::asio::awaitable<Reply> {
        co_return command(daemon, args);
    });
}

void add_commands(control::Server& server, Daemon& daemon) {
    const auto add = [&](const char* name, Command command) { add_command(server, daemon, name, command); };
    add("status show", status_show);
    add("guest show", guest_show);
    add("guest add", guest_add);
    add("guest del", guest_del);
    add("flow show", flow_show);
    add("dns show", dns_show);
    add("dns flush", dns_flush);
    add_policy_commands(server, daemon);
}

} // namespace tapgate::daemon
