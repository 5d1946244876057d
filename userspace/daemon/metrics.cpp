// SPDX-License-Identifier: Apache-2.0
#include "daemon/metrics.hpp"

#include "base/version.hpp"
#include "daemon/daemon.hpp"
#include "net/async.hpp"
#include "tapgate/drop_reason.h"

#include <array>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>

#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

namespace tapgate::daemon {

namespace {

using control::MetricFamily;
using control::MetricType;
using Families = std::vector<MetricFamily>;

constexpr tg_drop_reason kReasons[] = {
#define X(number, name, word, text) TG_DROP_##name,
    TG_DROP_REASONS(X)
#undef X
};

MetricFamily gauge(std::string_view name, std::string_view help, std::string_view unit = {}) {
    return {MetricType::kGauge, name, help, unit, {}};
}

MetricFamily counter(std::string_view name, std::string_view help, std::string_view unit = {}) {
    return {MetricType::kCounter, name, help, unit, {}};
}

/// A family of one sample without labels.
MetricFamily single(MetricFamily family, double value) {
    family.add({}, value);
    return family;
}

double count_of(std::uint64_t count) {
    return static_cast<double>(count);
}

double unix_seconds(std::chrono::system_clock::time_point time) {
    return std::chrono::duration<double>(time.time_since_epoch()).count();
}

void add_daemon(Families& families, Daemon& daemon) {
    utsname kernel{};
    ::uname(&kernel);
    MetricFamily build{MetricType::kInfo, "tapgate_build", "What runs here.", {}, {}};
    build.add(
        {{"version", std::string(version())},
         {"kernel", kernel.release},
         {"attach", std::string(daemon.datapath().attach_kind())},
         {"splice", std::string(daemon.workers().front()->carriers().name(daemon.config().daemon.splice))}},
        1);
    families.push_back(std::move(build));
    families.push_back(
        single(gauge("tapgate_workers", "Threads that carry sessions."), count_of(daemon.workers().size())));
    families.push_back(single(counter("tapgate_escaped_exceptions",
                                      "Exceptions that ended a task; each is a bug, told in the log."),
                              count_of(net::escaped_exceptions())));

    MetricFamily lost = counter("tapgate_events_lost", "Events that came faster than they could be taken.");
    lost.add({{"where", "kernel"}}, count_of(daemon.datapath().events_lost()));
    lost.add({{"where", "daemon"}}, count_of(daemon.events().lost()));
    families.push_back(std::move(lost));
    families.push_back(
        single(counter("tapgate_flow_log_failures", "Records of flows that could not be written."),
               count_of(daemon.flow_log_failures())));
    families.push_back(single(gauge("tapgate_history_events", "Events that `event show` can tell."),
                              count_of(daemon.history().events())));
    families.push_back(single(gauge("tapgate_history_bytes", "Memory that they take.", "bytes"),
                              count_of(daemon.history().bytes())));
    families.push_back(single(counter("tapgate_history_evicted", "Events that made room for later ones."),
                              count_of(daemon.history().evicted())));
}

void add_flows(Families& families, const EventTally::Sums& sums) {
    MetricFamily verdicts =
        counter("tapgate_verdicts", "Verdicts on connections that reached the proxy; what BPF "
                                    "denied at the first packet is in tapgate_drops.");
    for (const auto& [words, count] : sums.verdicts)
        verdicts.add({{"verdict", words.first}, {"basis", words.second}}, count_of(count));
    MetricFamily ends = counter("tapgate_flow_ends", "Sessions that ended, by how and by whom.");
    for (const auto& [words, count] : sums.ends)
        ends.add({{"how", words.first}, {"who", words.second}}, count_of(count));
    MetricFamily flows = counter("tapgate_flows", "Sessions that ended, by what carried them.");
    MetricFamily bytes = counter("tapgate_flow_bytes", "Bytes of sessions that ended.", "bytes");
    for (const auto& [splice, carried] : sums.carried) {
        flows.add({{"splice", splice}}, count_of(carried.flows));
        bytes.add({{"splice", splice}, {"direction", "up"}}, count_of(carried.bytes_up));
        bytes.add({{"splice", splice}, {"direction", "down"}}, count_of(carried.bytes_down));
    }
    for (MetricFamily* family : {&verdicts, &ends, &flows, &bytes})
        families.push_back(std::move(*family));
}

void add_dns(Families& families, Daemon& daemon, const EventTally::Sums& sums) {
    MetricFamily outcomes =
        counter("tapgate_dns_queries", "Queries that reached the daemon, by what became of "
                                       "them; what BPF refused is in tapgate_drops.");
    for (std::size_t i = 0; i < sums.dns_outcomes.size(); ++i)
        outcomes.add({{"outcome", std::string(proxy::dns_outcome_name(static_cast<proxy::DnsOutcome>(i)))}},
                     count_of(sums.dns_outcomes.at(i)));
    families.push_back(std::move(outcomes));
    MetricFamily latency{MetricType::kHistogram,
                         "tapgate_dns_latency_seconds",
                         "From a query to its answer, of those that resolvers were asked.",
                         "seconds",
                         {}};
    latency.add_histogram(EventTally::kLatencyBounds, sums.dns_latency, sums.dns_latency_seconds);
    families.push_back(std::move(latency));

    // Each worker finds out for itself; one that cannot reach a resolver is enough.
    std::map<Endpoint, bool> healthy;
    for (const auto& worker : daemon.workers()) {
        for (const auto& status : worker->upstream_status()) {
            bool& all = healthy.emplace(status.endpoint, true).first->second;
            all = all && status.healthy;
        }
    }
    MetricFamily upstreams = gauge("tapgate_dns_upstream_healthy", "1 while the trusted resolver answers.");
    for (const auto& [endpoint, is_healthy] : healthy)
        upstreams.add({{"upstream", endpoint.to_string()}}, is_healthy ? 1 : 0);
    families.push_back(std::move(upstreams));
}

void add_drops(Families& families, Daemon& daemon) {
    std::map<tg_drop_reason, std::uint64_t> counts;
    for (const datapath::DropCount& drop : daemon.datapath().drops(std::nullopt))
        counts[drop.reason] = drop.packets;
    MetricFamily drops = counter("tapgate_drops", "Packets, connections and queries that were refused.");
    for (const tg_drop_reason reason : kReasons)
        drops.add({{"reason", std::string(datapath::drop_reason_name(reason))}}, count_of(counts[reason]));
    families.push_back(std::move(drops));
}

void add_tables(Families& families, Daemon& daemon) {
    MetricFamily entries = gauge("tapgate_table_entries", "Entries of the tables that all guests share.");
    MetricFamily capacity = gauge("tapgate_table_capacity", "How many entries they can have.");
    for (const datapath::TableFill& fill : daemon.datapath().table_fills()) {
        entries.add({{"table", std::string(fill.table)}}, count_of(fill.entries));
        capacity.add({{"table", std::string(fill.table)}}, count_of(fill.capacity));
    }
    families.push_back(std::move(entries));
    families.push_back(std::move(capacity));
}

void add_policies(Families& families, Daemon& daemon) {
    MetricFamily generation = gauge("tapgate_policy_generation", "The generation in force.");
    MetricFamily loaded =
        gauge("tapgate_policy_loaded_timestamp_seconds", "When it was loaded, in Unix time.", "seconds");
    MetricFamily rules = gauge("tapgate_policy_rules", "Its rules.");
    MetricFamily stale =
        gauge("tapgate_policy_file_refused", "1 while a watched file has content that could not be loaded.");
    for (const auto& [name, policy] : daemon.policies().all()) {
        generation.add({{"policy", name}}, count_of(policy.current().generation));
        loaded.add({{"policy", name}}, unix_seconds(policy.current().loaded_at));
        rules.add({{"policy", name}}, count_of(policy.current().rules));
        if (daemon.watcher().is_watched(name))
            stale.add({{"policy", name}}, daemon.watcher().error(name).empty() ? 0 : 1);
    }
    for (MetricFamily* family : {&generation, &loaded, &rules, &stale})
        families.push_back(std::move(*family));
}

void add_guests(Families& families, Daemon& daemon) {
    MetricFamily states = gauge("tapgate_guests", "Guests by state; one that failed has its interface, but "
                                                  "could not be attached.");
    MetricFamily drops =
        counter("tapgate_guest_drops", "As tapgate_drops, of one guest; zeros are left out.");
    MetricFamily queries =
        counter("tapgate_guest_dns_queries", "As tapgate_dns_queries, of one guest; zeros are left out.");
    MetricFamily evicted =
        counter("tapgate_guest_bindings_evicted", "Live bindings that made room for others of the guest.");
    MetricFamily use = gauge("tapgate_guest_use", "What the guest uses of what it has limits on.");
    MetricFamily limit = gauge("tapgate_guest_limit", "Those limits.");
    for (const auto& [ifindex, attached] : daemon.guests().attached()) {
        const proxy::Guest& guest = attached.guest;
        const proxy::GuestCounters& counters = *guest.counters;
        const datapath::GuestUse used = daemon.datapath().guest_use(ifindex);
        const auto resource = [&](std::string_view name, std::uint64_t now, std::uint64_t most) {
            use.add({{"guest", guest.name}, {"resource", std::string(name)}}, count_of(now));
            limit.add({{"guest", guest.name}, {"resource", std::string(name)}}, count_of(most));
        };
        resource("sessions", used.sessions, guest.limits.sessions);
        resource("half_open", used.half_open, daemon.config().limits.half_open);
        resource("bindings", used.bindings, guest.limits.bindings);
        resource("dns_in_flight",
                 std::max(used.dns_pending, counters.dns_in_flight.load(std::memory_order_relaxed)),
                 guest.limits.dns_in_flight);
        resource("dns_connections", counters.dns_connections.load(std::memory_order_relaxed),
                 guest.limits.dns_connections);
        evicted.add({{"guest", guest.name}}, count_of(used.evicted));
        for (const datapath::DropCount& drop : daemon.datapath().drops(ifindex))
            drops.add(
                {{"guest", guest.name}, {"reason", std::string(datapath::drop_reason_name(drop.reason))}},
                count_of(drop.packets));
        for (std::size_t i = 0; i < proxy::kDnsOutcomes; ++i) {
            const std::string_view outcome = proxy::dns_outcome_name(static_cast<proxy::DnsOutcome>(i));
            if (const auto count = counters.dns_outcomes.at(i).load(std::memory_order_relaxed); count != 0)
                queries.add({{"guest", guest.name}, {"outcome", std::string(outcome)}}, count_of(count));
        }
    }
    const auto failed =
        std::ranges::count_if(daemon.guests().declared(),
                              [](const GuestRegistry::Declared& guest) { return !guest.error.empty(); });
    states.add({{"state", "attached"}}, count_of(daemon.guests().attached().size()));
    states.add({{"state", "failed"}}, static_cast<double>(failed));
    for (MetricFamily* family : {&states, &drops, &queries, &evicted, &use, &limit})
        families.push_back(std::move(*family));
}

/// The names that every client library of Prometheus has for these.
void add_process(Families& families, Daemon& daemon) {
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    const auto seconds = [](const timeval& time) {
        return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
    };
    families.push_back(single(counter("process_cpu_seconds", "Time on a CPU.", "seconds"),
                              seconds(usage.ru_utime) + seconds(usage.ru_stime)));
    const auto up = std::chrono::steady_clock::now() - daemon.started();
    families.push_back(
        single(gauge("process_start_time_seconds", "When the process started, in Unix time.", "seconds"),
               unix_seconds(std::chrono::system_clock::now()) - std::chrono::duration<double>(up).count()));
    std::ifstream statm("/proc/self/statm");
    std::uint64_t total = 0;
    std::uint64_t resident = 0;
    statm >> total >> resident;
    families.push_back(single(gauge("process_resident_memory_bytes", "Memory in use.", "bytes"),
                              count_of(resident) * static_cast<double>(::sysconf(_SC_PAGESIZE))));
    std::error_code error;
    const std::filesystem::directory_iterator open_files("/proc/self/fd", error);
    rlimit files{};
    ::getrlimit(RLIMIT_NOFILE, &files);
    families.push_back(single(gauge("process_open_fds", "Open descriptors; a session takes two."),
                              static_cast<double>(std::distance(begin(open_files), end(open_files)))));
    families.push_back(single(gauge("process_max_fds", "How many there can be."), count_of(files.rlim_cur)));
}

} // namespace

std::vector<control::MetricFamily> collect_metrics(Daemon& daemon) {
    const EventTally::Sums sums = daemon.events().tally().sums();
    Families families;
    add_daemon(families, daemon);
    add_flows(families, sums);
    add_dns(families, daemon, sums);
    add_drops(families, daemon);
    add_tables(families, daemon);
    add_policies(families, daemon);
    add_guests(families, daemon);
    add_process(families, daemon);
    return families;
}

} // namespace tapgate::daemon
