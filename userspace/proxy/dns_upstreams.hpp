// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/ip.hpp"

#include <chrono>
#include <string_view>
#include <vector>

namespace tapgate::proxy {

/// The trusted resolvers of one worker, ordered by health, so that a dead one costs at most one query its
/// timeout and then only a probe now and then.
class DnsUpstreams {
  public:
    using Clock = std::chrono::steady_clock;
    /// How long a resolver that failed is asked last.
    static constexpr std::chrono::seconds kPenalty{10};

    struct Status {
        Endpoint endpoint;
        bool healthy = true;
    };

    /// Replaces the list; resolvers that stay keep their health.
    void set(const std::vector<Endpoint>& endpoints);

    /// All resolvers in the order to try: healthy ones as configured, then the failed ones, the one whose
    /// failure is oldest first.
    [[nodiscard]] std::vector<Endpoint> in_order(Clock::time_point now) const;

    void succeeded(const Endpoint& endpoint);
    void failed(const Endpoint& endpoint, Clock::time_point now);

    [[nodiscard]] std::vector<Status> status(Clock::time_point now) const;

  private:
    struct Entry {
        Endpoint endpoint;
        Clock::time_point penalty_end; // in the past: healthy
    };

    Entry* find(const Endpoint& endpoint);

    std::vector<Entry> entries_;
};

/// The name servers of a resolv.conf(5) text, with port 53. Zone ids and names are skipped.
[[nodiscard]] std::vector<Endpoint> parse_resolv_conf(std::string_view text);

} // namespace tapgate::proxy
