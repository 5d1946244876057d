// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/ip.hpp"
#include "base/result.hpp"
#include "net/netlink/netlink_socket.hpp"

#include <utility>

namespace tapgate::net {

/// How packets of this host reach a destination now.
struct Route {
    unsigned ifindex = 0;
    IpAddress next_hop;            ///< on that link: a router, or the destination itself
    IpAddress source;              ///< what the host would send from
    bool is_forwarded_out = false; ///< unicast to another host; not local, multicast or refused
};

/// Asks the kernel for routes, in the network namespace in which it was opened. One thread.
class RouteQuery {
  public:
    static Result<RouteQuery> open();

    /// Errors carry the kernel's errno, as ENETUNREACH.
    Result<Route> to(const IpAddress& destination);

  private:
    explicit RouteQuery(NetlinkSocket socket) : socket_(std::move(socket)) {}

    NetlinkSocket socket_;
};

/// Notices that what RouteQuery answers may have changed, in the network namespace in which it was opened.
/// One thread.
class RouteMonitor {
  public:
    static Result<RouteMonitor> open();

    /// Polls readable when take_changes() has something to do.
    [[nodiscard]] int fd() const { return notifications_.fd(); }

    /// Takes what the kernel has reported, a bounded amount a call; true if there was anything.
    Result<bool> take_changes();

  private:
    explicit RouteMonitor(NetlinkSocket notifications) : notifications_(std::move(notifications)) {}

    NetlinkSocket notifications_;
};

} // namespace tapgate::net
