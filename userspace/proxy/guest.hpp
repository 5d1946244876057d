// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/ip.hpp"
#include "policy/compile.hpp"
#include "proxy/dns_name_budget.hpp"
#include "proxy/dns_outcome.hpp"
#include "proxy/kernel_state.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace tapgate::proxy {

/// One loaded version of a policy. Immutable and shared; a verdict names its generation.
struct PolicyGeneration {
    std::string name;
    std::uint64_t generation = 0;
    std::shared_ptr<const policy::CompiledPolicy> compiled;
};

struct GuestLimits {
    std::uint32_t sessions = 2048;
    std::uint32_t dns_queries_per_second = 200;
    std::uint32_t dns_in_flight = 512;
    std::uint32_t dns_connections = 16;
    /// The cap that the kernel side enforces; here it says how much room to make when it is reached.
    std::uint32_t bindings = 8192;
};

/// Quantities of one guest that all workers count together.
struct GuestCounters {
    std::atomic<std::uint32_t> dns_in_flight{0};
    /// TCP connections that carry queries.
    std::atomic<std::uint32_t> dns_connections{0};
    /// TCP connections to resolvers on behalf of the guest.
    std::atomic<std::uint32_t> dns_upstream_connections{0};
    /// The second (high half) and the DNS queries seen in it (low half).
    std::atomic<std::uint64_t> dns_queries{0};
    /// The same for DNS events.
    std::atomic<std::uint64_t> dns_events{0};
    std::array<std::atomic<std::uint64_t>, kDnsOutcomes> dns_outcomes{};
    DnsNameBudget dns_names;

    /// Counts a DNS query in the second `now`; false if it is over `per_second`.
    bool admit_query(std::uint32_t now, std::uint32_t per_second) {
        return admit(dns_queries, now, per_second);
    }

    /// The same for an event about a query.
    bool admit_event(std::uint32_t now, std::uint32_t per_second) {
        return admit(dns_events, now, per_second);
    }

    void count(DnsOutcome outcome) {
        dns_outcomes.at(static_cast<std::size_t>(outcome)).fetch_add(1, std::memory_order_relaxed);
    }

  private:
    static bool admit(std::atomic<std::uint64_t>& counter, std::uint32_t now, std::uint32_t per_second) {
        std::uint64_t seen = counter.load(std::memory_order_relaxed);
        for (;;) {
            const std::uint64_t count = (seen >> 32U) == now ? (seen & 0xffffffffU) : 0;
            if (count >= per_second)
                return false;
            const std::uint64_t next = (std::uint64_t{now} << 32U) | (count + 1);
            if (counter.compare_exchange_weak(seen, next, std::memory_order_relaxed))
                return true;
        }
    }
};

/// A guest as a worker knows it. Each worker holds its own copy, changed only by posting to the worker;
/// `counters` is the one thing shared.
struct Guest {
    GuestId id = 0;
    std::string name;
    unsigned ifindex = 0;
    std::vector<IpAddress> addresses;
    std::vector<IpAddress> gateways;
    GuestLimits limits;
    std::shared_ptr<const PolicyGeneration> policy;
    std::shared_ptr<GuestCounters> counters = std::make_shared<GuestCounters>();

    [[nodiscard]] bool has_gateway(const IpAddress& address) const {
        return std::ranges::find(gateways, address) != gateways.end();
    }

    [[nodiscard]] bool has_family(bool v4) const {
        return std::ranges::any_of(addresses, [v4](const IpAddress& a) { return a.is_v4() == v4; });
    }
};

/// One unit of a counter that has a cap, given back when this is destroyed.
class CapTicket {
  public:
    CapTicket() = default;
    CapTicket(CapTicket&& other) noexcept = default;

    CapTicket& operator=(CapTicket&& other) noexcept {
        release();
        counters_ = std::move(other.counters_);
        counter_ = std::exchange(other.counter_, nullptr);
        return *this;
    }

    CapTicket(const CapTicket&) = delete;
    CapTicket& operator=(const CapTicket&) = delete;

    ~CapTicket() { release(); }

    /// Takes one unit of `counter`, which is a member of `*counters`; empty when `cap` units are taken.
    static CapTicket take(std::shared_ptr<GuestCounters> counters,
                          std::atomic<std::uint32_t> GuestCounters::* counter, std::uint32_t cap) {
        CapTicket ticket;
        std::atomic<std::uint32_t>& value = (*counters).*counter;
        if (value.fetch_add(1, std::memory_order_relaxed) >= cap) {
            value.fetch_sub(1, std::memory_order_relaxed);
            return ticket;
        }
        ticket.counters_ = std::move(counters);
        ticket.counter_ = &value;
        return ticket;
    }

    [[nodiscard]] explicit operator bool() const { return counters_ != nullptr; }

  private:
    void release() {
        if (counters_)
            counter_->fetch_sub(1, std::memory_order_relaxed);
        counters_.reset();
    }

    std::shared_ptr<GuestCounters> counters_; // keeps *counter_ alive
    std::atomic<std::uint32_t>* counter_ = nullptr;
};

/// A place for one more DNS query of `guest` in flight; empty if it has too many.
[[nodiscard]] inline CapTicket take_query_place(const Guest& guest) {
    return CapTicket::take(guest.counters, &GuestCounters::dns_in_flight, guest.limits.dns_in_flight);
}

} // namespace tapgate::proxy
