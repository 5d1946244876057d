// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"

#include <cstdint>
#include <memory>

namespace tapgate::net {

/// The routing that delivers steered packets to this host, in the current network namespace and for both
/// families:
///
///     ip rule add priority 100 fwmark MARK lookup TABLE
///     ip route add local default dev lo table TABLE
///
/// Lives as long as the object; what a crashed daemon left is taken over.
class Steering {
  public:
    /// `mark` is not 0; `table` is not one of the kernel's own (0, 253 to 255). IPv6 is left out, with a
    /// notice in the log, on a host that has it switched off. On failure nothing is left behind.
    /// kInvalid: mark or table; kExists: the table has routes that are not ours; kUnavailable: `lo` is down;
    /// kPermission: needs CAP_NET_ADMIN.
    static Result<std::unique_ptr<Steering>> install(std::uint32_t mark, std::uint32_t table);

    /// Removes what a daemon that was killed has left. Succeeds if there is nothing.
    static Result<void> remove_leftovers(std::uint32_t mark, std::uint32_t table);

    Steering(const Steering&) = delete;
    Steering& operator=(const Steering&) = delete;
    /// Removes rules and routes; what cannot be removed is logged.
    ~Steering();

    [[nodiscard]] bool has_ipv6() const { return ipv6_; }

    /// Another process has them from now on: the destructor removes nothing.
    void leave_in_place() { ipv4_ = ipv6_ = false; }

  private:
    Steering(std::uint32_t mark, std::uint32_t table) : mark_(mark), table_(table) {}

    std::uint32_t mark_;
    std::uint32_t table_;
    bool ipv4_ = false;
    bool ipv6_ = false;
};

} // namespace tapgate::net
