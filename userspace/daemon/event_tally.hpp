// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "proxy/events.hpp"

#include <array>
#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <utility>

namespace tapgate::daemon {

/// What the workers' events add up to since the daemon started, also those that were lost on their way to
/// whoever reads them. Every word that is counted under is one of ours: nothing here grows with what guests
/// say. Any thread.
class EventTally {
  public:
    struct Carried {
        std::uint64_t flows = 0;
        std::uint64_t bytes_up = 0;
        std::uint64_t bytes_down = 0;
    };

    /// Upper bounds of a DNS query's latency, in seconds; one more place is for what is above.
    static constexpr std::array<double, 12> kLatencyBounds = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
                                                              0.05,   0.1,   0.25,   0.5,   1.0,  2.5};

    struct Sums {
        std::map<std::pair<std::string, std::string>, std::uint64_t> verdicts; ///< by verdict and basis
        std::map<std::pair<std::string, std::string>, std::uint64_t> ends;     ///< by how and who
        std::map<std::string, Carried> carried; ///< flows that ended, by splice; "none" carried none
        std::array<std::uint64_t, proxy::kDnsOutcomes> dns_outcomes{};
        std::array<std::uint64_t, kLatencyBounds.size() + 1> dns_latency{}; ///< of answered queries
        double dns_latency_seconds = 0;                                     ///< of all these together
    };

    void count(const proxy::Event& event);
    void count_dns(proxy::DnsOutcome outcome, std::chrono::microseconds latency);

    [[nodiscard]] Sums sums() const;

  private:
    void add(const proxy::VerdictEvent& event);
    void add(const proxy::FlowEndEvent& event);
    void add(const proxy::DnsEvent& event); // counted by count_dns()

    mutable std::mutex mutex_;
    Sums sums_; // guarded by mutex_
};

} // namespace tapgate::daemon
