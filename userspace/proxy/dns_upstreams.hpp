// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/ip.hpp"

#include <chrono>
#include <optional>
#include <string_view>
#include <vector>

namespace tapgate::proxy {

/// The trusted resolvers of one worker, ordered by health. One that failed is not asked by queries as long as
/// another is healthy: whoever learns of the failure probes it until it answers again, so that a dead
/// resolver costs a guest nothing after the first query.
class DnsUpstreams {
  public:
    using Clock = std::chrono::steady_clock;

    struct Status {
        Endpoint endpoint;
        bool healthy = true;
    };

    /// Replaces the list; resolvers that stay keep their health.
    void set(const std::vector<Endpoint>& endpoints);

    /// All resolvers in the order to try: healthy ones as configured, then the failed ones, the one whose
    /// failure is oldest first.
    [[nodiscard]] std::vector<Endpoint> in_order() const;

    /// False also of one that is not in the list.
    [[nodiscard]] bool is_healthy(const Endpoint& endpoint) const;
    [[nodiscard]] bool is_known(const Endpoint& endpoint) const;

    void succeeded(const Endpoint& endpoint);
    /// True if it was healthy until now: the caller begins to probe it.
    [[nodiscard]] bool failed(const Endpoint& endpoint, Clock::time_point now);

    [[nodiscard]] std::vector<Status> status() const;

  private:
    struct Entry {
        Endpoint endpoint;
        std::optional<Clock::time_point> failed_at; // empty: healthy
    };

    [[nodiscard]] const Entry* find(const Endpoint& endpoint) const;
    Entry* find(const Endpoint& endpoint);

    std::vector<Entry> entries_;
};

/// The name servers of a resolv.conf(5) text, with port 53. Zone ids and names are skipped.
[[nodiscard]] std::vector<Endpoint> parse_resolv_conf(std::string_view text);

} // namespace tapgate::proxy
