// SPDX-License-Identifier: Apache-2.0
#include "control/args.hpp"
#include "control/event_filter.hpp"
#include "daemon/commands.hpp"
#include "daemon/daemon.hpp"
#include "daemon/event_relay.hpp"
#include "daemon/metrics.hpp"

#include <algorithm>

namespace tapgate::daemon {

namespace json = boost::json;

namespace {

Reply event_show(Daemon& daemon, const json::object& args) {
    if (const auto known =
            control::only_args(args, {"guest", "name", "address", "verdict", "reason", "last_seconds"});
        !known)
        return fail(known.error());
    const auto filter = control::EventFilter::parse(args);
    const auto last = control::optional_number(args, "last_seconds");
    if (const Error* error = control::first_error(filter, last))
        return fail(*error);
    std::optional<EventHistory::Time> since;
    constexpr std::uint64_t kYear = std::uint64_t{366} * 86400; // more would overflow the clock
    if (*last)
        since = std::chrono::system_clock::now() - std::chrono::seconds(std::min(**last, kYear));
    EventHistory::Found found = daemon.history().find(*filter, since);
    json::object reply;
    reply["events"] = std::move(found.events);
    reply["evicted"] = found.evicted;
    reply["complete_since"] = found.complete_since ? rfc3339(*found.complete_since) : "";
    reply["lost"] = daemon.events_lost();
    return reply;
}

Reply metric_show(Daemon& daemon, const json::object& args) {
    if (const auto known = control::only_args(args, {"openmetrics"}); !known)
        return fail(known.error());
    const auto as_text = control::flag(args, "openmetrics");
    if (!as_text)
        return fail(as_text.error());
    const std::vector<control::MetricFamily> families = collect_metrics(daemon);
    json::object reply;
    if (*as_text)
        reply["openmetrics"] = control::open_metrics_text(families);
    else
        reply["metrics"] = control::open_metrics_json(families);
    return reply;
}

} // namespace

void add_event_commands(control::Server& server, Daemon& daemon) {
    add_command(server, daemon, "event show", event_show);
    add_command(server, daemon, "metric show", metric_show);
}

} // namespace tapgate::daemon
