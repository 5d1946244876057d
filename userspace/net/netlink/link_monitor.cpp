// SPDX-License-Identifier: Apache-2.0
#include "net/netlink/link_monitor.hpp"

#include "base/log.hpp"

#include <algorithm>
#include <optional>
#include <utility>

#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>

namespace tapgate::net {

namespace {

// Datagrams a call; a storm of link events must not keep the caller from its other work.
constexpr int kMaxDatagrams = 256;
// A dump is repeated when links change while it runs.
constexpr int kDumpAttempts = 8;

std::optional<Link> parse_link(const NetlinkMessage& message) {
    const auto header = message.family<ifinfomsg>();
    // Messages of other families (AF_BRIDGE) are about a port's membership, not about the link.
    if (!header || header->ifi_family != AF_UNSPEC || header->ifi_index <= 0)
        return std::nullopt;
    auto name = attribute_string(message.attributes(sizeof(ifinfomsg)), IFLA_IFNAME);
    if (!name)
        return std::nullopt;
    return Link{static_cast<unsigned>(header->ifi_index), std::move(*name),
                (header->ifi_flags & IFF_UP) != 0};
}

std::optional<InterfaceAddress> parse_address(const NetlinkMessage& message) {
    const auto header = message.family<ifaddrmsg>();
    if (!header)
        return std::nullopt;
    const ByteView attributes = message.attributes(sizeof(ifaddrmsg));
    // On a point-to-point link IFA_ADDRESS is the peer's and IFA_LOCAL ours; IPv6 has mostly only the former.
    auto address = attribute_address(attributes, IFA_LOCAL);
    if (!address)
        address = attribute_address(attributes, IFA_ADDRESS);
    if (!address)
        return std::nullopt;
    return InterfaceAddress{header->ifa_index, *address};
}

template <typename Family>
Result<void> dump(NetlinkSocket& socket, std::uint16_t type, std::string_view operation,
                  const NetlinkSocket::Sink& sink) {
    return socket.query(NetlinkRequest(type, NLM_F_DUMP, Family{}), operation, sink);
}

} // namespace

Result<std::unique_ptr<LinkMonitor>> LinkMonitor::open() {
    // Subscribed first, read second: what happens in between is reported again, and changes nothing then.
    auto socket = NetlinkSocket::open(RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR);
    if (!socket)
        return fail(std::move(socket).error());
    std::unique_ptr<LinkMonitor> monitor(new LinkMonitor(std::move(*socket)));
    if (auto read = monitor->read_again({}); !read)
        return fail(std::move(read).error());
    return monitor;
}

Result<LinkMonitor::State> LinkMonitor::read_state() {
    auto socket = NetlinkSocket::open();
    if (!socket)
        return fail(std::move(socket).error());
    for (int attempt = 1;; ++attempt) {
        State state;
        auto dumped =
            dump<ifinfomsg>(*socket, RTM_GETLINK, "list the interfaces", [&](const NetlinkMessage& message) {
                if (auto link = parse_link(message))
                    state.links.push_back(std::move(*link));
            });
        if (dumped)
            dumped = dump<ifaddrmsg>(*socket, RTM_GETADDR, "list the addresses",
                                     [&](const NetlinkMessage& message) {
                                         if (const auto address = parse_address(message))
                                             state.addresses.push_back(*address);
                                     });
        if (dumped)
            return state;
        if (dumped.error().code() != ErrorCode::kUnavailable || attempt == kDumpAttempts)
            return fail(std::move(dumped).error());
    }
}

Result<void> LinkMonitor::read_again(const Sink& sink) {
    stale_ = true;
    auto state = read_state();
    if (!state)
        return fail(std::move(state).error());
    const std::vector<Link> links_before = links_;
    for (const Link& link : links_before) {
        if (std::ranges::find(state->links, link.ifindex, &Link::ifindex) == state->links.end())
            remove_link(link.ifindex, sink);
    }
    for (const Link& link : state->links)
        put_link(link, sink);
    const std::vector<InterfaceAddress> addresses_before = addresses_;
    for (const InterfaceAddress& address : addresses_before) {
        if (std::ranges::find(state->addresses, address) == state->addresses.end())
            remove_address(address, sink);
    }
    for (const InterfaceAddress& address : state->addresses)
        put_address(address, sink);
    stale_ = false;
    return {};
}

Result<void> LinkMonitor::read_events(const Sink& sink) {
    for (int datagram = 0; datagram < kMaxDatagrams; ++datagram) {
        const auto received =
            notifications_.receive([&](const NetlinkMessage& message) { apply(message, sink); });
        if (!received)
            return fail(received.error());
        if (*received == NetlinkSocket::Received::kNothing)
            break;
        if (*received == NetlinkSocket::Received::kOverrun) {
            spdlog::info("the kernel's reports on interfaces overran; reading all of them again");
            stale_ = true;
        }
    }
    // After the queue was read, so that nothing older comes behind the new state.
    return stale_ ? read_again(sink) : Result<void>();
}

void LinkMonitor::apply(const NetlinkMessage& message, const Sink& sink) {
    switch (message.header.nlmsg_type) {
    case RTM_NEWLINK:
        if (const auto link = parse_link(message))
            put_link(*link, sink);
        break;
    case RTM_DELLINK:
        if (const auto link = parse_link(message))
            remove_link(link->ifindex, sink);
        break;
    case RTM_NEWADDR:
        if (const auto address = parse_address(message))
            put_address(*address, sink);
        break;
    case RTM_DELADDR:
        // The interface may still have the same address with another prefix length.
        stale_ = true;
        break;
    default: // nothing else was subscribed to
        break;
    }
}

void LinkMonitor::put_link(const Link& link, const Sink& sink) {
    const auto place = std::ranges::lower_bound(links_, link.ifindex, {}, &Link::ifindex);
    if (place == links_.end() || place->ifindex != link.ifindex) {
        links_.insert(place, link);
        tell(sink, LinkChange::kAdded, link.ifindex);
        return;
    }
    const Link before = std::exchange(*place, link);
    if (before.name != link.name)
        tell(sink, LinkChange::kRenamed, link.ifindex);
    if (before.up != link.up)
        tell(sink, link.up ? LinkChange::kUp : LinkChange::kDown, link.ifindex);
}

void LinkMonitor::remove_link(unsigned ifindex, const Sink& sink) {
    const auto place = std::ranges::find(links_, ifindex, &Link::ifindex);
    if (place == links_.end())
        return;
    const Link gone = std::move(*place);
    links_.erase(place);
    std::erase_if(addresses_, [ifindex](const InterfaceAddress& a) { return a.ifindex == ifindex; });
    if (sink)
        sink({LinkChange::kRemoved, gone});
}

void LinkMonitor::put_address(const InterfaceAddress& address, const Sink& sink) {
    const auto place = std::ranges::lower_bound(addresses_, address);
    if (place != addresses_.end() && *place == address)
        return;
    addresses_.insert(place, address);
    tell(sink, LinkChange::kAddresses, address.ifindex);
}

void LinkMonitor::remove_address(const InterfaceAddress& address, const Sink& sink) {
    const auto place = std::ranges::find(addresses_, address);
    if (place == addresses_.end())
        return;
    addresses_.erase(place);
    tell(sink, LinkChange::kAddresses, address.ifindex);
}

void LinkMonitor::tell(const Sink& sink, LinkChange change, unsigned ifindex) const {
    const Link* link = find(ifindex);
    if (!sink || link == nullptr)
        return;
    const Link copy = *link;
    sink({change, copy});
}

const Link* LinkMonitor::find(unsigned ifindex) const {
    const auto found = std::ranges::lower_bound(links_, ifindex, {}, &Link::ifindex);
    return found == links_.end() || found->ifindex != ifindex ? nullptr : &*found;
}

std::vector<IpAddress> LinkMonitor::host_addresses() const {
    std::vector<IpAddress> addresses;
    addresses.reserve(addresses_.size());
    for (const InterfaceAddress& entry : addresses_)
        addresses.push_back(entry.address);
    std::ranges::sort(addresses);
    const auto repeated = std::ranges::unique(addresses);
    addresses.erase(repeated.begin(), repeated.end());
    return addresses;
}

} // namespace tapgate::net
