// SPDX-License-Identifier: Apache-2.0
#include "cli/render.hpp"

#include "base/log.hpp"
#include "cli/reply.hpp"
#include "cli/table.hpp"
#include "cli/units.hpp"
#include "policy/parse.hpp"

#include <boost/json/serialize.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <utility>

namespace tapgate::cli {

namespace json = boost::json;

namespace {

/// A column of a table: its head and the member that fills it.
struct Column {
    std::string_view head;
    std::string (*fill)(const json::object& row);
};

template <typename Columns>
std::string columns(const json::array& rows, const Columns& layout, std::string_view indent = {}) {
    std::vector<std::string> head;
    for (const Column& column : layout)
        head.emplace_back(column.head);
    Table table(std::move(head));
    for (const json::value& row : rows) {
        std::vector<std::string> cells;
        for (const Column& column : layout)
            cells.push_back(column.fill(as_object(row)));
        table.add(std::move(cells));
    }
    return table.text(indent);
}

/// Members of `object` one below the other, by label.
std::string facts(const json::object& object,
                  std::initializer_list<std::pair<std::string_view, std::string_view>> labels) {
    Table table;
    for (const auto& [label, key] : labels)
        table.add({std::string(label), cell(object, key)});
    return table.text();
}

std::string duration_cell(const json::object& object, std::string_view key) {
    return object.contains({key.data(), key.size()})
               ? format_duration(std::chrono::seconds(number(object, key)))
               : "-";
}

std::string bytes_cell(const json::object& object, std::string_view key) {
    return format_bytes(static_cast<std::uint64_t>(std::max<std::int64_t>(0, number(object, key))));
}

constexpr Column kDropColumns[] = {
    {"PACKETS", [](const json::object& row) { return cell(row, "packets"); }},
    {"REASON", [](const json::object& row) { return cell(row, "reason"); }},
    {"MEANING", [](const json::object& row) { return cell(row, "text"); }},
};

std::string drops(const json::object& object) {
    const json::array& rows = list(object, "drops");
    return rows.empty() ? "" : "dropped:\n" + columns(rows, kDropColumns, "  ");
}

constexpr Column kRefusalColumns[] = {
    {"FLOWS", [](const json::object& row) { return cell(row, "flows"); }},
    {"REASON", [](const json::object& row) { return cell(row, "reason"); }},
};

std::string splice_refusals(const json::object& object) {
    const json::array& rows = list(object, "splice_refusals");
    return rows.empty() ? "" : "not spliced by the kernel:\n" + columns(rows, kRefusalColumns, "  ");
}

std::int64_t drop_total(const json::object& object) {
    std::int64_t total = 0;
    for (const json::value& row : list(object, "drops"))
        total += number(as_object(row), "packets");
    return total;
}

/// The rule, with its line in the policy's file, or the other ground on which something was decided.
std::string denier(const json::object& object) {
    if (number(object, "rule_number") == 0)
        return cell(object, "basis");
    return fmt::format("{} (line {})", cell(object, "rule"), cell(object, "rule_line"));
}

/// "serving", or how long what is left may still take.
std::string daemon_state(const json::object& status) {
    const std::string state = cell(status, "state");
    return cell(status, "drain_seconds") == "-"
               ? state
               : fmt::format("{}, {} sessions left, {}", state, cell(status, "sessions"),
                             duration_cell(status, "drain_seconds"));
}

/// "relay"; of a flow that a newer policy denies "drain 12s" or "relay (denied)".
std::string flow_state(const json::object& flow) {
    const std::string state = cell(flow, "state");
    if (cell(flow, "drain_ms") != "-")
        return fmt::format("{} {}", state,
                           format_duration(std::chrono::seconds(number(flow, "drain_ms") / 1000)));
    return cell(flow, "denied_by") == "-" ? state : state + " (denied)";
}

/// The rules of a policy in their one-line form. The reply carries the policy as JSON; the library reads it.
std::string rules(const json::object& policy_json) {
    const auto policy = policy::parse_json(json::serialize(policy_json), "policy");
    if (!policy)
        return fmt::format("rules: not readable by this version ({})\n", printable(policy.error().message()));
    Table table({"RULE", "TEXT"});
    for (std::size_t i = 0; i < policy->rules.size(); ++i)
        table.add({fmt::format("{}", i + 1), printable(policy::format_rule(policy->rules[i]), 512)});
    return policy->rules.empty() ? "rules: none\n" : "rules:\n" + table.text("  ");
}

} // namespace

std::string render_status(const json::object& reply) {
    Table upstreams({"RESOLVER", "STATE"});
    for (const json::value& value : list(reply, "upstreams")) {
        const json::object& upstream = as_object(value);
        upstreams.add(
            {cell(upstream, "address"), cell(upstream, "healthy") == "true" ? "healthy" : "does not answer"});
    }
    Table facts_table;
    for (const auto& [label, shown] : std::initializer_list<std::pair<std::string_view, std::string>>{
             {"version", cell(reply, "version")},
             {"pid", cell(reply, "pid")},
             {"state", daemon_state(reply)},
             {"uptime", duration_cell(reply, "uptime_seconds")},
             {"kernel", cell(reply, "kernel")},
             {"attach", cell(reply, "attach")},
             {"splice", cell(reply, "splice")},
             {"workers", cell(reply, "workers")},
             {"guests", cell(reply, "guests")},
             {"sessions", cell(reply, "sessions")},
             {"policies", cell(reply, "policies")},
             {"events lost", cell(reply, "events_lost")}})
        facts_table.add({std::string(label), shown});
    return facts_table.text() + "resolvers:\n" + upstreams.text("  ") + splice_refusals(reply) + drops(reply);
}

std::string render_reload(const json::object& reply) {
    static constexpr Column kColumns[] = {
        {"SETTING", [](const json::object& row) { return cell(row, "setting"); }},
        {"BEFORE", [](const json::object& row) { return cell(row, "before"); }},
        {"AFTER", [](const json::object& row) { return cell(row, "after"); }},
        {"COUNTS",
         [](const json::object& row) {
             return std::string(cell(row, "live") == "true" ? "now" : "after a restart");
         }},
    };
    const json::array& changes = list(reply, "changes");
    const std::string file = cell(reply, "file");
    if (changes.empty())
        return fmt::format("{}: nothing has changed\n", file);
    const bool dry_run = cell(reply, "dry_run") == "true";
    return fmt::format("{}: {}\n", file, dry_run ? "would change" : "changed") +
           columns(changes, kColumns, "  ");
}

std::string render_guests(const json::object& reply) {
    static constexpr Column kColumns[] = {
        {"NAME", [](const json::object& row) { return cell(row, "name"); }},
        {"INTERFACE", [](const json::object& row) { return cell(row, "interface"); }},
        {"STATE", [](const json::object& row) { return cell(row, "state"); }},
        {"POLICY", [](const json::object& row) { return cell(row, "policy"); }},
        {"GEN", [](const json::object& row) { return cell(row, "generation"); }},
        {"SESSIONS", [](const json::object& row) { return cell(row, "sessions"); }},
        {"BINDINGS", [](const json::object& row) { return cell(row, "bindings"); }},
        {"DROPPED", [](const json::object& row) { return fmt::format("{}", drop_total(row)); }},
        {"ADDRESSES", [](const json::object& row) { return cell(row, "addresses"); }},
    };
    const json::array& guests = list(reply, "guests");
    return guests.empty() ? "no guests\n" : columns(guests, kColumns);
}

std::string render_guest(const json::object& guest) {
    std::string text = facts(guest, {{"name", "name"},
                                     {"interface", "interface"},
                                     {"ifindex", "ifindex"},
                                     {"id", "id"},
                                     {"state", "state"},
                                     {"mac", "mac"},
                                     {"addresses", "addresses"},
                                     {"gateways", "gateways"},
                                     {"policy", "policy"},
                                     {"generation", "generation"},
                                     {"sessions", "sessions"},
                                     {"bindings", "bindings"}});
    if (const std::string error = cell(guest, "error"); error != "-")
        text += fmt::format("error: {}\n", error);
    return text + drops(guest);
}

std::string render_policies(const json::object& reply) {
    static constexpr Column kColumns[] = {
        {"NAME", [](const json::object& row) { return cell(row, "name"); }},
        {"GEN", [](const json::object& row) { return cell(row, "generation"); }},
        {"RULES", [](const json::object& row) { return cell(row, "rules"); }},
        {"EGRESS", [](const json::object& row) { return cell(row, "default_egress"); }},
        {"INGRESS", [](const json::object& row) { return cell(row, "default_ingress"); }},
        {"LOADED", [](const json::object& row) { return cell(row, "loaded_at"); }},
        {"GUESTS", [](const json::object& row) { return cell(row, "guests"); }},
        {"FILE", [](const json::object& row) { return cell(row, "file"); }},
    };
    const json::array& policies = list(reply, "policies");
    return policies.empty() ? "no policies\n" : columns(policies, kColumns);
}

std::string render_policy(const json::object& policy) {
    std::string text = facts(policy, {{"name", "name"},
                                      {"file", "file"},
                                      {"generation", "generation"},
                                      {"loaded", "loaded_at"},
                                      {"loaded by", "origin"},
                                      {"watched", "watched"},
                                      {"splice", "splice"},
                                      {"default egress", "default_egress"},
                                      {"default ingress", "default_ingress"},
                                      {"guests", "guests"}});
    if (const std::string error = cell(policy, "watch_error"); error != "-")
        text += fmt::format("file not loaded: {}\n", error);
    if (const json::value* whole = policy.if_contains("policy"); whole != nullptr && whole->is_object())
        text += rules(whole->as_object());
    return text;
}

std::string render_load(const json::object& reply) {
    static constexpr Column kColumns[] = {
        {"FATE", [](const json::object& row) { return cell(row, "fate"); }},
        {"ID", [](const json::object& row) { return cell(row, "id"); }},
        {"GUEST", [](const json::object& row) { return cell(row, "guest"); }},
        {"SOURCE", [](const json::object& row) { return cell(row, "source"); }},
        {"DESTINATION", [](const json::object& row) { return cell(row, "destination"); }},
        {"NAME", [](const json::object& row) { return cell(row, "name"); }},
        {"DENIED BY", [](const json::object& row) { return denier(row); }},
    };
    const json::object& policy = member(reply, "policy");
    const json::object& live = member(reply, "live_flows");
    const bool dry_run = cell(reply, "dry_run") == "true";
    std::string text = fmt::format(
        "policy {}: {} rules, default egress {}, {} generation {}, in {} ms\n", cell(policy, "name"),
        cell(policy, "rules"), cell(policy, "default_egress"), dry_run ? "not loaded, would be" : "loaded as",
        cell(policy, "generation"), cell(reply, "took_ms"));
    if (const std::string warning = cell(reply, "warning"); warning != "-")
        text += fmt::format("warning: {}\n", warning);
    text += fmt::format("live flows: {} {} allowed, {} cut, {} draining, {} kept\n", cell(live, "allowed"),
                        dry_run ? "would be" : "still", cell(live, "cut"), cell(live, "draining"),
                        cell(live, "kept"));
    const json::array& flows = list(live, "flows");
    if (flows.empty())
        return text;
    text += columns(flows, kColumns, "  ");
    if (const auto more = number(live, "denied") - static_cast<std::int64_t>(flows.size()); more > 0)
        text += fmt::format("  and {} more\n", more);
    return text;
}

std::string render_history(const json::object& reply) {
    Table table({"POLICY", "GEN", "LOADED", "RULES", "ORIGIN", "BY", "FILE"});
    for (const json::value& value : list(reply, "policies")) {
        const json::object& policy = as_object(value);
        for (const json::value& entry : list(policy, "generations")) {
            const json::object& row = as_object(entry);
            table.add({cell(policy, "name"), cell(row, "generation"), cell(row, "loaded_at"),
                       cell(row, "rules"), cell(row, "origin"), cell(row, "by"), cell(row, "file")});
        }
    }
    return list(reply, "policies").empty() ? "no policies\n" : table.text();
}

std::string render_flows(const json::object& reply) {
    static constexpr Column kColumns[] = {
        {"ID", [](const json::object& row) { return cell(row, "id"); }},
        {"GUEST", [](const json::object& row) { return cell(row, "guest"); }},
        {"STATE", flow_state},
        {"SOURCE", [](const json::object& row) { return cell(row, "source"); }},
        {"DESTINATION", [](const json::object& row) { return cell(row, "destination"); }},
        {"NAME", [](const json::object& row) { return cell(row, "name"); }},
        {"BY", [](const json::object& row) { return cell(row, "name_source"); }},
        {"SPLICE", [](const json::object& row) { return cell(row, "splice"); }},
        {"UP", [](const json::object& row) { return bytes_cell(row, "bytes_up"); }},
        {"DOWN", [](const json::object& row) { return bytes_cell(row, "bytes_down"); }},
        {"AGE", [](const json::object& row) { return duration_cell(row, "age_seconds"); }},
        {"VERDICT", [](const json::object& row) { return cell(row, "verdict"); }},
        {"GEN", [](const json::object& row) { return cell(row, "generation"); }},
        {"RULE", [](const json::object& row) { return cell(row, "rule"); }},
    };
    const json::array& flows = list(reply, "flows");
    return flows.empty() ? "no flows\n" : columns(flows, kColumns);
}

std::string render_bindings(const json::object& reply) {
    static constexpr Column kColumns[] = {
        {"GUEST", [](const json::object& row) { return cell(row, "guest"); }},
        {"NAME", [](const json::object& row) { return cell(row, "name"); }},
        {"ADDRESS", [](const json::object& row) { return cell(row, "address"); }},
        {"ALIASES", [](const json::object& row) { return cell(row, "aliases"); }},
        {"RESOLVER", [](const json::object& row) { return cell(row, "resolver"); }},
        {"AGE", [](const json::object& row) { return duration_cell(row, "age_seconds"); }},
        {"EXPIRES IN", [](const json::object& row) { return duration_cell(row, "expires_seconds"); }},
        {"FLOWS", [](const json::object& row) { return cell(row, "flows"); }},
    };
    const json::array& bindings = list(reply, "bindings");
    return bindings.empty() ? "no bindings\n" : columns(bindings, kColumns);
}

std::string render_dns_stats(const json::object& reply) {
    Table table({"GUEST", "QUERIES", "OUTCOME"});
    for (const json::value& value : list(reply, "guests")) {
        const json::object& guest = as_object(value);
        for (const auto& [outcome, count] : member(guest, "queries")) {
            const std::string_view word(outcome.data(), outcome.size());
            if (number(member(guest, "queries"), word) != 0)
                table.add({cell(guest, "guest"), cell(member(guest, "queries"), word), printable(word)});
        }
    }
    return list(reply, "guests").empty() ? "no guests\n" : table.text();
}

std::string render_events(const json::object& reply) {
    std::string lines;
    if (number(reply, "evicted") != 0)
        lines = fmt::format("-- {} older events are not kept any more; complete since {} --\n",
                            cell(reply, "evicted"), cell(reply, "complete_since"));
    const json::array& events = list(reply, "events");
    for (const json::value& event : events)
        lines += render_event(as_object(event));
    return events.empty() ? lines + "no events\n" : lines;
}

std::string render_why(const json::object& reply) {
    static constexpr Column kColumns[] = {
        {"STEP", [](const json::object& row) { return cell(row, "step"); }},
        {"VERDICT", [](const json::object& row) { return cell(row, "verdict"); }},
        {"FOR", [](const json::object& row) { return cell(row, "for"); }},
        {"WHY", [](const json::object& row) { return cell(row, "text"); }},
    };
    const std::string_view whom = text(reply, "name").empty() ? "address" : "name";
    std::string shown =
        fmt::format("guest {} to {} port {}, by policy {} generation {}\n", cell(reply, "guest"),
                    cell(reply, whom), cell(reply, "port"), cell(reply, "policy"), cell(reply, "generation"));
    shown += columns(list(reply, "steps"), kColumns);
    shown += fmt::format(
        "verdict: {}{}\n", cell(reply, "verdict"),
        cell(reply, "assumed") == "true" ? " (for a public address: the guest holds none yet)" : "");
    if (const json::object& remedy = member(reply, "to_allow"); !remedy.empty())
        shown += fmt::format("{}: {}\n",
                             cell(remedy, "possible") == "true" ? "to allow it" : "no rule alone allows it",
                             cell(remedy, "text"));
    return shown;
}

std::string render_event(const json::object& event) {
    const std::string_view type = text(event, "type");
    std::string what;
    if (type == "verdict")
        what = fmt::format("{} {} -> {} name {} ({}) rule {} ({})", cell(event, "verdict"),
                           cell(event, "source"), cell(event, "destination"), cell(event, "name"),
                           cell(event, "name_source"), cell(event, "rule"), cell(event, "basis"));
    else if (type == "drop")
        what = fmt::format("{} {} -> {}: {}{}", cell(event, "reason"), cell(event, "source"),
                           cell(event, "destination"), cell(event, "text"),
                           text(event, "rule").empty() ? "" : ", rule " + cell(event, "rule"));
    else if (type == "dns")
        what = fmt::format("{} {} {} rule {} ({}){}", cell(event, "verdict"), cell(event, "qtype"),
                           cell(event, "name"), cell(event, "rule"),
                           cell(event, text(event, "reason").empty() ? "outcome" : "reason"),
                           text(event, "upstream").empty()
                               ? ""
                               : fmt::format(", {} answers from {} in {} us", cell(event, "answers"),
                                             cell(event, "upstream"), cell(event, "latency_us")));
    else if (type == "flow-end")
        what = fmt::format("{} by {} {} -> {} name {} up {} down {} after {} ms{}", cell(event, "how"),
                           cell(event, "who"), cell(event, "source"), cell(event, "destination"),
                           cell(event, "name"), bytes_cell(event, "bytes_up"),
                           bytes_cell(event, "bytes_down"), cell(event, "duration_ms"),
                           text(event, "reason").empty() ? "" : ", " + cell(event, "reason"));
    else if (type == "policy" && event.contains("generation"))
        what = fmt::format("{} generation {} {} by {}", cell(event, "policy"), cell(event, "generation"),
                           cell(event, "what"),
                           text(event, "by").empty() ? cell(event, "origin") : cell(event, "by"));
    else if (type == "lost")
        return fmt::format("-- {} events lost: {} --\n", cell(event, "count"),
                           text(event, "where") == "daemon" ? "more came than the daemon could take"
                                                            : "this reader is too slow");
    else
        // Of a type that has no layout of its own: its other members, as they come.
        for (const auto& [key, value] : event)
            if (key != "schema" && key != "time" && key != "type" && key != "guest" && key != "to_allow")
                what += fmt::format("{}{} {}", what.empty() ? "" : ", ", printable({key.data(), key.size()}),
                                    cell(event, {key.data(), key.size()}));
    // What an older daemon does not say is not missed.
    if (!text(event, "to_allow").empty())
        what += "; " + cell(event, "to_allow");
    return fmt::format("{}  {:<8}  {:<8}  {}\n", cell(event, "time"), cell(event, "guest"),
                       cell(event, "type"), what);
}

} // namespace tapgate::cli
