// SPDX-License-Identifier: Apache-2.0
#include "daemon/event_tally.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <numeric>
#include <thread>
#include <vector>

namespace tapgate::daemon {
namespace {

using namespace std::chrono_literals;
using proxy::DnsOutcome;

proxy::VerdictEvent verdict(bool allowed, std::string basis) {
    proxy::VerdictEvent event;
    event.allowed = allowed;
    event.basis = std::move(basis);
    return event;
}

proxy::FlowEndEvent end(std::string how, std::string_view splice, std::uint64_t up, std::uint64_t down) {
    proxy::FlowEndEvent event;
    event.how = std::move(how);
    event.who = "upstream";
    event.splice = splice;
    event.bytes_up = up;
    event.bytes_down = down;
    return event;
}

TEST(EventTally, details_behind_a_word_make_no_entry_of_their_own) {
    EventTally tally;
    tally.count(verdict(false, "default (the name is no host name)"));
    tally.count(verdict(false, "default"));
    tally.count(verdict(true, "rule"));
    tally.count(end("dial-failed: Connection refused", "", 0, 0));
    tally.count(end("dial-failed: No route to host", "", 0, 0));
    const EventTally::Sums sums = tally.sums();
    EXPECT_EQ(sums.verdicts, (decltype(sums.verdicts){{{"deny", "default"}, 2}, {{"allow", "rule"}, 1}}));
    EXPECT_EQ(sums.ends, (decltype(sums.ends){{{"dial-failed", "upstream"}, 2}}));
    EXPECT_EQ(sums.carried.at("none").flows, 2U);
}

TEST(EventTally, bytes_are_summed_by_what_carried_them) {
    EventTally tally;
    tally.count(end("finished", "uring", 1, 10));
    tally.count(end("reset", "uring", 2, 20));
    tally.count(end("finished", "copy", 4, 40));
    const EventTally::Sums sums = tally.sums();
    EXPECT_EQ(sums.carried.at("uring").flows, 2U);
    EXPECT_EQ(sums.carried.at("uring").bytes_up, 3U);
    EXPECT_EQ(sums.carried.at("uring").bytes_down, 30U);
    EXPECT_EQ(sums.carried.at("copy").bytes_up, 4U);
}

TEST(EventTally, a_query_stands_in_one_place_of_the_histogram_and_one_that_nobody_was_asked_in_none) {
    EventTally tally;
    tally.count_dns(DnsOutcome::kAnswered, 0us);
    tally.count_dns(DnsOutcome::kAnswered, 500us); // on a bound: "at most" it
    tally.count_dns(DnsOutcome::kNxDomain, 501us);
    tally.count_dns(DnsOutcome::kServFail, 10s);
    tally.count_dns(DnsOutcome::kDenied, 1us);
    tally.count_dns(DnsOutcome::kOverCap, 0us);
    const EventTally::Sums sums = tally.sums();
    EXPECT_EQ(sums.dns_latency.at(0), 2U);
    EXPECT_EQ(sums.dns_latency.at(1), 1U);
    EXPECT_EQ(sums.dns_latency.back(), 1U);
    EXPECT_EQ(std::accumulate(sums.dns_latency.begin(), sums.dns_latency.end(), std::uint64_t{0}), 4U);
    EXPECT_NEAR(sums.dns_latency_seconds, 10.001001, 1e-9);
    EXPECT_EQ(sums.dns_outcomes.at(static_cast<std::size_t>(DnsOutcome::kDenied)), 1U);
    EXPECT_EQ(std::accumulate(sums.dns_outcomes.begin(), sums.dns_outcomes.end(), std::uint64_t{0}), 6U);
}

TEST(EventTally, several_workers_count_together) {
    EventTally tally;
    std::vector<std::thread> workers;
    for (int i = 0; i < 4; ++i)
        workers.emplace_back([&tally] {
            for (int n = 0; n < 1000; ++n) {
                tally.count(verdict(true, "rule"));
                tally.count_dns(DnsOutcome::kAnswered, 1ms);
            }
        });
    for (std::thread& worker : workers)
        worker.join();
    EXPECT_EQ(tally.sums().verdicts.at({"allow", "rule"}), 4000U);
    EXPECT_EQ(tally.sums().dns_latency.at(1), 4000U);
}

} // namespace
} // namespace tapgate::daemon
