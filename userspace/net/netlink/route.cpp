// SPDX-License-Identifier: Apache-2.0
#include "net/netlink/route.hpp"

#include <algorithm>
#include <cstddef>
#include <utility>

#include <linux/rtnetlink.h>
#include <sys/socket.h>

namespace tapgate::net {

namespace {

// A storm of changes must not keep the caller from its other work.
constexpr int kMaxRouteDatagrams = 256;

/// The router to an IPv4 destination may be an IPv6 one (RFC 5549): RTA_VIA.
IpAddress next_hop_of(ByteView attributes, const IpAddress& destination) {
    if (const auto router = attribute_address(attributes, RTA_GATEWAY))
        return *router;
    const auto via = find_attribute(attributes, RTA_VIA);
    if (!via)
        return destination;
    IpAddress::Bytes bytes{};
    constexpr std::size_t kAddressAt = offsetof(rtvia, rtvia_addr);
    if (via->size() == kAddressAt + bytes.size())
        std::ranges::copy(via->subspan(kAddressAt), bytes.begin());
    return IpAddress(bytes);
}

} // namespace

Result<RouteQuery> RouteQuery::open() {
    auto socket = NetlinkSocket::open();
    if (!socket)
        return fail(socket.error());
    return RouteQuery(std::move(*socket));
}

Result<Route> RouteQuery::to(const IpAddress& destination) {
    rtmsg header{};
    header.rtm_family = destination.is_v4() ? AF_INET : AF_INET6;
    header.rtm_dst_len = destination.is_v4() ? 32 : 128;
    NetlinkRequest request(RTM_GETROUTE, NLM_F_ACK, header);
    request.add_address(RTA_DST, destination);
    Route route;
    const auto asked = socket_.query(
        request, "find the route to " + destination.to_string(), [&](const NetlinkMessage& message) {
            const auto found = message.family<rtmsg>();
            if (message.header.nlmsg_type != RTM_NEWROUTE || !found)
                return;
            const ByteView attributes = message.attributes(sizeof(rtmsg));
            route.ifindex = attribute_u32(attributes, RTA_OIF).value_or(0);
            route.next_hop = next_hop_of(attributes, destination);
            route.source = attribute_address(attributes, RTA_PREFSRC).value_or(IpAddress());
            route.is_forwarded_out = found->rtm_type == RTN_UNICAST;
        });
    if (!asked)
        return fail(asked.error());
    if (route.ifindex == 0 || route.source == IpAddress())
        return fail(ErrorCode::kIo,
                    "the kernel says no interface or address for the route to " + destination.to_string());
    return route;
}

Result<RouteMonitor> RouteMonitor::open() {
    auto socket = NetlinkSocket::open(RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE | RTMGRP_IPV4_RULE |
                                      1U << (RTNLGRP_IPV6_RULE - 1U));
    if (!socket)
        return fail(socket.error());
    return RouteMonitor(std::move(*socket));
}

Result<bool> RouteMonitor::take_changes() {
    bool is_changed = false;
    for (int datagram = 0; datagram < kMaxRouteDatagrams; ++datagram) {
        const auto received = notifications_.receive([](const NetlinkMessage&) {});
        if (!received)
            return fail(received.error());
        if (*received == NetlinkSocket::Received::kNothing)
            break;
        is_changed = true;
    }
    return is_changed;
}

} // namespace tapgate::net
