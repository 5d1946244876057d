// SPDX-License-Identifier: Apache-2.0
#include "cli/commands.hpp"
#include "cli/files.hpp"
#include "cli/render.hpp"
#include "cli/reply.hpp"
#include "cli/units.hpp"
#include "control/client.hpp"
#include "control/protocol.hpp"

#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <functional>

// Each command: arguments to JSON, one call, and the reply as it came (JSON) or rendered (text).
namespace tapgate::cli {

namespace json = boost::json;

namespace {

using Render = std::function<std::string(const json::object& reply)>;

int ask(Console& console, std::string_view command, const json::object& args, const Render& render) {
    auto client = control::Client::connect(console.socket);
    if (!client)
        return console.failed(client.error());
    const auto reply = client->call(command, args);
    if (!reply)
        return console.failed(reply.error());
    if (console.json())
        console.print(*reply);
    else
        console.print(render(*reply));
    return kExitOk;
}

/// Adds the argument's value under `key` if it was given.
void pass(const Arguments& arguments, std::string_view name, std::string_view key, json::object& args) {
    if (arguments.has(name))
        args[{key.data(), key.size()}] = arguments.get(name);
}

/// Who asks, for the history: the user behind sudo.
std::string caller() {
    const char* user = std::getenv("SUDO_USER");
    return user == nullptr ? "root" : user;
}

/// What every command that swaps a policy has in common.
json::object load_arguments(const Arguments& arguments) {
    json::object args;
    pass(arguments, "NAME", "name", args);
    args["dry_run"] = arguments.has("--dry-run");
    pass(arguments, "--live", "live", args);
    args["by"] = caller();
    return args;
}

/// What selects events (control/event_filter.hpp).
void pass_event_filter(const Arguments& arguments, json::object& args) {
    pass(arguments, "--guest", "guest", args);
    pass(arguments, "--name", "name", args);
    pass(arguments, "--address", "address", args);
    pass(arguments, "--verdict", "verdict", args);
    pass(arguments, "--reason", "reason", args);
}

json::array strings(const std::vector<std::string>& texts) {
    return json::array(texts.begin(), texts.end());
}

/// Prints the events that the filters and `wanted` let pass, until the daemon goes.
template <typename Wanted>
int monitor(Console& console, const Arguments& arguments, const Wanted& wanted) {
    auto client = control::Client::connect(console.socket);
    if (!client)
        return console.failed(client.error());
    json::object args;
    pass_event_filter(arguments, args);
    const auto started = client->call("event monitor", args);
    if (!started)
        return console.failed(started.error());
    if (console.json())
        console.print(*started);
    for (;;) {
        const auto event = client->receive();
        if (!event)
            return console.failed(event.error());
        if (!*event)
            return console.failed(Error(ErrorCode::kUnavailable, "the daemon closed the connection"));
        if (!wanted(**event))
            continue;
        if (console.json())
            console.print(**event);
        else
            console.print(render_event(**event));
    }
}

} // namespace

int status_show(Console& console, const Arguments&) {
    return ask(console, "status show", {}, render_status);
}

int daemon_reload(Console& console, const Arguments& arguments) {
    json::object args;
    args["dry_run"] = arguments.has("--dry-run");
    args["by"] = caller();
    return ask(console, "daemon reload", args, render_reload);
}

int guest_show(Console& console, const Arguments& arguments) {
    json::object args;
    pass(arguments, "NAME", "name", args);
    const bool one = arguments.has("NAME");
    return ask(console, "guest show", args, [one](const json::object& reply) {
        const json::array& guests = list(reply, "guests");
        return one && guests.size() == 1 ? render_guest(as_object(guests.front())) : render_guests(reply);
    });
}

int guest_add(Console& console, const Arguments& arguments) {
    json::object args;
    pass(arguments, "NAME", "name", args);
    pass(arguments, "--interface", "interface", args);
    args["addresses"] = strings(arguments.all("--address"));
    args["gateways"] = strings(arguments.all("--gateway"));
    pass(arguments, "--mac", "mac", args);
    pass(arguments, "--policy", "policy", args);
    return ask(console, "guest add", args, [](const json::object& reply) {
        const json::value* guest = reply.if_contains("guest");
        return guest == nullptr ? std::string() : render_guest(as_object(*guest));
    });
}

int guest_del(Console& console, const Arguments& arguments) {
    json::object args;
    pass(arguments, "NAME", "name", args);
    return ask(console, "guest del", args, [](const json::object& reply) {
        return fmt::format("guest {} removed\n", cell(reply, "removed"));
    });
}

int policy_show(Console& console, const Arguments& arguments) {
    json::object args;
    pass(arguments, "NAME", "name", args);
    const bool one = arguments.has("NAME");
    return ask(console, "policy show", args, [one](const json::object& reply) {
        const json::array& policies = list(reply, "policies");
        return one && policies.size() == 1 ? render_policy(as_object(policies.front()))
                                           : render_policies(reply);
    });
}

int policy_load(Console& console, const Arguments& arguments) {
    const std::string file = arguments.get("FILE");
    const auto text = read_file(file, control::kMaxRequestBytes);
    if (!text)
        return console.failed(text.error());
    json::object args = load_arguments(arguments);
    // The daemon has another working directory.
    args["file"] = file == "-" ? file : std::filesystem::absolute(file).lexically_normal().string();
    args["text"] = *text;
    return ask(console, "policy load", args, render_load);
}

int policy_rollback(Console& console, const Arguments& arguments) {
    json::object args = load_arguments(arguments);
    if (arguments.has("--to")) {
        const auto generation = read_number("--to", arguments.get("--to"));
        if (!generation)
            return console.usage(generation.error().message(), "policy rollback");
        args["to"] = *generation;
    }
    return ask(console, "policy rollback", args, render_load);
}

int policy_history(Console& console, const Arguments& arguments) {
    json::object args;
    pass(arguments, "NAME", "name", args);
    return ask(console, "policy history", args, render_history);
}

int flow_show(Console& console, const Arguments& arguments) {
    json::object args;
    pass_event_filter(arguments, args);
    return ask(console, "flow show", args, render_flows);
}

int flow_kill(Console& console, const Arguments& arguments) {
    json::object args;
    pass_event_filter(arguments, args);
    if (arguments.has("ID")) {
        const auto id = read_number("ID", arguments.get("ID"));
        if (!id)
            return console.usage(id.error().message(), "flow kill");
        args["id"] = *id;
    }
    if (args.empty())
        return console.usage("say which flows to end: ID, --guest, --name or --address", "flow kill");
    args["dry_run"] = arguments.has("--dry-run");
    return ask(console, "flow kill", args, [](const json::object& reply) {
        if (cell(reply, "dry_run") == "true")
            return fmt::format("{}{} flows would be ended\n", render_flows(reply),
                               reply.at("flows").as_array().size());
        return fmt::format("{} flows ended\n", cell(reply, "killed"));
    });
}

int dns_show(Console& console, const Arguments& arguments) {
    json::object args;
    pass(arguments, "GUEST", "guest", args);
    if (arguments.has("--stats"))
        return ask(console, "dns stats", args, render_dns_stats);
    pass(arguments, "--name", "name", args);
    pass(arguments, "--address", "address", args);
    return ask(console, "dns show", args, render_bindings);
}

int dns_flush(Console& console, const Arguments& arguments) {
    json::object args;
    pass(arguments, "--guest", "guest", args);
    pass(arguments, "NAME", "name", args);
    return ask(console, "dns flush", args, [](const json::object& reply) {
        return fmt::format("{} bindings removed\n", cell(reply, "removed"));
    });
}

int event_show(Console& console, const Arguments& arguments) {
    json::object args;
    pass_event_filter(arguments, args);
    if (arguments.has("--last")) {
        const auto last = read_duration("--last", arguments.get("--last"));
        if (!last)
            return console.usage(last.error().message(), "event show");
        args["last_seconds"] = last->count();
    }
    return ask(console, "event show", args, render_events);
}

int why(Console& console, const Arguments& arguments) {
    json::object args;
    pass(arguments, "GUEST", "guest", args);
    pass(arguments, "NAME|ADDRESS[:PORT]", "target", args);
    return ask(console, "why", args, render_why);
}

int metric_show(Console& console, const Arguments&) {
    json::object args;
    args["openmetrics"] = !console.json();
    // Nothing in it needs escaping for a terminal: open_metrics_text() has.
    return ask(console, "metric show", args,
               [](const json::object& reply) { return std::string(text(reply, "openmetrics")); });
}

int event_monitor(Console& console, const Arguments& arguments) {
    return monitor(console, arguments, [](const json::object&) { return true; });
}

int flow_monitor(Console& console, const Arguments& arguments) {
    return monitor(console, arguments, [](const json::object& event) {
        const std::string_view type = text(event, "type");
        return type == "verdict" || type == "flow-end" || type == "lost";
    });
}

} // namespace tapgate::cli
