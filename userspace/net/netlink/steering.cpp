// SPDX-License-Identifier: Apache-2.0
#include "net/netlink/steering.hpp"

#include "base/log.hpp"
#include "net/netlink/netlink_socket.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <span>

#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>

namespace tapgate::net {

namespace {

// After the kernel's rule for the local table (0), ahead of those for main (32766) and of most others.
constexpr std::uint32_t kRulePriority = 100;
constexpr std::uint32_t kLoopback = 1; // the index of `lo` in every network namespace

const char* family_name(std::uint8_t family) {
    return family == AF_INET ? "IPv4" : "IPv6";
}

bool is_switched_off(const Error& error) {
    // EAFNOSUPPORT, EOPNOTSUPP: no IPv6 in the kernel. EACCES: disable_ipv6 is set for `lo`
    // (ip6_route_info_create).
    const int value = error.errno_value();
    return value == EAFNOSUPPORT || value == EOPNOTSUPP || value == EACCES;
}

NetlinkRequest rule_request(std::uint16_t type, std::uint16_t flags, std::uint8_t family, std::uint32_t mark,
                            std::uint32_t table) {
    fib_rule_hdr header{};
    header.family = family;
    header.action = FR_ACT_TO_TBL;
    NetlinkRequest request(type, static_cast<std::uint16_t>(flags | NLM_F_ACK), header);
    request.add_u32(FRA_PRIORITY, kRulePriority);
    request.add_u32(FRA_FWMARK, mark);
    request.add_u32(FRA_FWMASK, 0xffffffffU);
    request.add_u32(FRA_TABLE, table);
    request.add_u8(FRA_PROTOCOL, RTPROT_STATIC);
    return request;
}

NetlinkRequest route_request(std::uint16_t type, std::uint16_t flags, std::uint8_t family,
                             std::uint32_t table) {
    rtmsg header{};
    header.rtm_family = family;
    header.rtm_type = RTN_LOCAL;
    header.rtm_scope = family == AF_INET ? RT_SCOPE_HOST : RT_SCOPE_UNIVERSE;
    header.rtm_protocol = RTPROT_STATIC;
    header.rtm_table = RT_TABLE_UNSPEC;
    NetlinkRequest request(type, static_cast<std::uint16_t>(flags | NLM_F_ACK), header);
    request.add_u32(RTA_TABLE, table);
    request.add_u32(RTA_OIF, kLoopback);
    return request;
}

/// `local default dev lo`, of either family.
bool is_our_route(const rtmsg& header, ByteView attributes) {
    return header.rtm_type == RTN_LOCAL && header.rtm_dst_len == 0 &&
           attribute_u32(attributes, RTA_OIF) == kLoopback;
}

Result<void> check_table_is_ours(NetlinkSocket& socket, std::uint8_t family, std::uint32_t table) {
    rtmsg header{};
    header.rtm_family = family;
    header.rtm_table = RT_TABLE_UNSPEC;
    NetlinkRequest request(RTM_GETROUTE, NLM_F_DUMP, header);
    request.add_u32(RTA_TABLE, table);
    bool foreign = false;
    auto dumped = socket.query(request, fmt::format("list {} routing table {}", family_name(family), table),
                               [&](const NetlinkMessage& message) {
                                   const auto route = message.family<rtmsg>();
                                   if (message.header.nlmsg_type != RTM_NEWROUTE || !route)
                                       return;
                                   const ByteView attributes = message.attributes(sizeof(rtmsg));
                                   if (attribute_u32(attributes, RTA_TABLE) == table &&
                                       !is_our_route(*route, attributes))
                                       foreign = true;
                               });
    // A table without routes does not exist.
    if (!dumped && dumped.error().code() != ErrorCode::kNotFound)
        return dumped;
    if (foreign)
        return fail(ErrorCode::kExists,
                    fmt::format("{} routing table {} has routes of others: choose another "
                                "route_table",
                                family_name(family), table));
    return {};
}

Result<void> check_loopback_is_up(NetlinkSocket& socket) {
    ifinfomsg header{};
    header.ifi_family = AF_UNSPEC;
    header.ifi_index = kLoopback;
    const NetlinkRequest request(RTM_GETLINK, NLM_F_ACK, header);
    bool up = false;
    auto answered = socket.query(request, "look at lo", [&](const NetlinkMessage& message) {
        if (const auto link = message.family<ifinfomsg>(); link && message.header.nlmsg_type == RTM_NEWLINK)
            up = (link->ifi_flags & IFF_UP) != 0;
    });
    if (!answered)
        return answered;
    if (!up)
        return fail(ErrorCode::kUnavailable,
                    "lo is down, and steered packets are delivered by it: run `ip link "
                    "set lo up`");
    return {};
}

Result<void> add(NetlinkSocket& socket, const NetlinkRequest& request, std::string_view operation) {
    auto added = socket.request(request, operation);
    if (!added && added.error().errno_value() == EEXIST)
        return {}; // left by a daemon that was killed
    if (!added && added.error().code() == ErrorCode::kPermission && added.error().errno_value() == EPERM)
        return fail(Error::from_errno(EPERM, operation, "needs CAP_NET_ADMIN (run as root)"));
    return added;
}

/// Removes rule and route, of which either may be missing; the last error if one stays.
Result<void> remove(NetlinkSocket& socket, std::uint8_t family, std::uint32_t mark, std::uint32_t table) {
    Result<void> result;
    const auto remove_one = [&](const NetlinkRequest& request, const char* what) {
        auto removed =
            socket.request(request, fmt::format("remove the {} {} of steering", family_name(family), what));
        if (!removed && removed.error().code() != ErrorCode::kNotFound && !is_switched_off(removed.error()))
            result = std::move(removed);
    };
    remove_one(rule_request(RTM_DELRULE, 0, family, mark, table), "rule");
    remove_one(route_request(RTM_DELROUTE, 0, family, table), "route");
    return result;
}

void remove_or_log(NetlinkSocket& socket, std::uint8_t family, std::uint32_t mark, std::uint32_t table) {
    if (const auto removed = remove(socket, family, mark, table); !removed)
        spdlog::warn("{}", removed.error().message());
}

/// The route first: a rule that leads to an empty table would let marked packets fall through to main.
Result<void> install_family(NetlinkSocket& socket, std::uint8_t family, std::uint32_t mark,
                            std::uint32_t table) {
    if (auto ours = check_table_is_ours(socket, family, table); !ours)
        return ours;
    constexpr std::uint16_t kCreate = NLM_F_CREATE | NLM_F_EXCL;
    auto added =
        add(socket, route_request(RTM_NEWROUTE, kCreate, family, table),
            fmt::format("add the {} route `local default dev lo table {}`", family_name(family), table));
    if (!added)
        return added;
    added = add(socket, rule_request(RTM_NEWRULE, kCreate, family, mark, table),
                fmt::format("add the {} rule `fwmark {:#x} lookup {}`", family_name(family), mark, table));
    if (!added)
        remove_or_log(socket, family, mark, table);
    return added;
}

} // namespace

Result<std::unique_ptr<Steering>> Steering::install(std::uint32_t mark, std::uint32_t table) {
    if (mark == 0)
        return fail(ErrorCode::kInvalid, "mark 0 is what every other packet has; choose another");
    if (table == RT_TABLE_UNSPEC || (table >= RT_TABLE_DEFAULT && table <= RT_TABLE_LOCAL))
        return fail(ErrorCode::kInvalid,
                    fmt::format("routing table {} is the kernel's own; choose another", table));
    auto socket = NetlinkSocket::open();
    if (!socket)
        return fail(std::move(socket).error());
    if (auto up = check_loopback_is_up(*socket); !up)
        return fail(std::move(up).error());

    std::unique_ptr<Steering> steering(new Steering(mark, table));
    if (auto installed = install_family(*socket, AF_INET, mark, table); !installed)
        return fail(std::move(installed).error());
    steering->ipv4_ = true;
    if (auto installed = install_family(*socket, AF_INET6, mark, table); installed) {
        steering->ipv6_ = true;
    } else if (is_switched_off(installed.error())) {
        // Guests with IPv6 addresses get no answer from us on that family; operators see this line.
        spdlog::info("IPv6 is switched off on this host; only IPv4 is served");
    } else {
        return fail(std::move(installed).error());
    }
    return steering;
}

Result<void> Steering::remove_leftovers(std::uint32_t mark, std::uint32_t table) {
    auto socket = NetlinkSocket::open();
    if (!socket)
        return fail(std::move(socket).error());
    for (const std::uint8_t family : {AF_INET, AF_INET6}) {
        if (auto removed = remove(*socket, family, mark, table); !removed)
            return removed;
    }
    return {};
}

Steering::~Steering() {
    if (!ipv4_ && !ipv6_)
        return;
    auto socket = NetlinkSocket::open();
    if (!socket) {
        spdlog::warn("rules and routes of steering stay: {}", socket.error().message());
        return;
    }
    if (ipv4_)
        remove_or_log(*socket, AF_INET, mark_, table_);
    if (ipv6_)
        remove_or_log(*socket, AF_INET6, mark_, table_);
}

} // namespace tapgate::net
