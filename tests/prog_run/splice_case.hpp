// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "program_fixture.hpp"

#include <optional>
#include <utility>

#include <arpa/inet.h>

// A spliced connection of the default guest: what is in the maps, and the segments of its two ends.
namespace tapgate::test {

inline constexpr Mac kTapMac{0x02, 0, 0, 0, 0, 0x01}; // interfaces of main()
inline constexpr Mac kUplinkMac{0x02, 0, 0, 0, 0, 0x04};
inline constexpr Mac kServerMac{0x02, 0, 0, 0, 0, 0x05};
inline constexpr Mac kRouterMac{0x02, 0, 0, 0, 0, 0x06};

inline constexpr std::uint16_t kGuestPort = 40000;
inline constexpr std::uint16_t kServerPort = 443;
inline constexpr std::uint16_t kUplinkPort = 33000;
inline constexpr std::uint64_t kSpliceId = 0x1122334455667788;

inline Bytes timestamps_option(std::uint32_t tsval, std::uint32_t tsecr) {
    Bytes option{1, 1, 8, 10};
    put32(option, tsval);
    put32(option, tsecr);
    return option;
}

inline tg_flow flow_key(const IpAddress& near, std::uint16_t near_port, const IpAddress& far,
                        std::uint16_t far_port) {
    tg_flow flow{};
    flow.guest_address = to_tg(near);
    flow.peer_address = to_tg(far);
    flow.guest_port = htons(near_port);
    flow.peer_port = htons(far_port);
    flow.protocol = IPPROTO_TCP;
    return flow;
}

/// The guest knows the server by another address and port than the host does, as with the gateway's.
struct SpliceCase {
    explicit SpliceCase(const Family& addresses)
        : family(addresses),
          seen(*IpAddress::parse(addresses.guest.is_v4() ? "203.0.113.9" : "2001:db8:9::9")) {
        splice.flow = flow();
        splice.upstream = upstream();
        splice.id = kSpliceId;
        splice.guest_id = kGuestId;
        splice.slot = kGuestSlot;
        splice.guest_ifindex = Programs::tap_ifindex();
        splice.uplink_ifindex = Programs::uplink_ifindex();
        splice.state = TG_SPLICE_FORWARDING;
        auto& guest = splice.sides[TG_SPLICE_GUEST];
        guest.delta = 0xfff00000;
        guest.floor = guest.end = guest.acked = 1000;
        auto& server = splice.sides[TG_SPLICE_SERVER];
        server.delta = 77777;
        server.floor = server.end = server.acked = 0xffffff00;
    }

    [[nodiscard]] tg_flow flow() const { return flow_key(family.guest, kGuestPort, seen, kServerPort + 1); }

    [[nodiscard]] tg_flow upstream() const {
        return flow_key(family.uplink, kUplinkPort, family.server, kServerPort);
    }

    void store() const {
        product().store("flows", flow(), splice);
        product().store("upstream_flows", upstream(), splice.flow);
    }

    /// As it stands in the map now.
    [[nodiscard]] tg_splice now() const { return product().lookup<tg_splice>("flows", flow()).value(); }

    [[nodiscard]] tg_splice_side side(tg_splice_end end) const { return now().sides[end]; }

    /// Segments as each link carries them; `fields` gives all but the ports.
    [[nodiscard]] Bytes on_tap(TcpFields fields, bool from_guest, unsigned hops = 64) const {
        fields.source_port = from_guest ? kGuestPort : kServerPort + 1;
        fields.destination_port = from_guest ? kServerPort + 1 : kGuestPort;
        return from_guest ? frame(family.guest, seen, fields, kGuestMac, kTapMac, hops)
                          : frame(seen, family.guest, fields, kServerMac, kUplinkMac, hops);
    }

    [[nodiscard]] Bytes on_uplink(TcpFields fields, bool from_guest, unsigned hops = 64) const {
        fields.source_port = from_guest ? kUplinkPort : kServerPort;
        fields.destination_port = from_guest ? kServerPort : kUplinkPort;
        return from_guest ? frame(family.uplink, family.server, fields, kGuestMac, kTapMac, hops)
                          : frame(family.server, family.uplink, fields, kServerMac, kUplinkMac, hops);
    }

    [[nodiscard]] RunResult from_guest(const TcpFields& fields) const {
        return product().run("tap_ingress", on_tap(fields, true));
    }

    [[nodiscard]] RunResult from_server(const TcpFields& fields) const {
        return product().run_on("uplink_ingress", on_uplink(fields, false), Programs::uplink_ifindex());
    }

    /// `traffic_class` also is IPv4's type of service.
    static Bytes frame(const IpAddress& source, const IpAddress& destination, const TcpFields& fields,
                       const Mac& source_mac, const Mac& destination_mac, unsigned hops,
                       unsigned traffic_class = 0) {
        const Bytes segment = tcp_segment(source, destination, fields);
        if (source.is_v4()) {
            Ipv4Fields ip;
            ip.ttl = hops;
            ip.tos = traffic_class;
            return ethernet(kEtherIpv4, ipv4(source, destination, IPPROTO_TCP, segment, ip), source_mac,
                            destination_mac);
        }
        Ipv6Fields ip;
        ip.hop_limit = hops;
        ip.traffic_class = traffic_class;
        return ethernet(kEtherIpv6, ipv6(source, destination, IPPROTO_TCP, segment, ip), source_mac,
                        destination_mac);
    }

    Family family;
    IpAddress seen; ///< the server's address as the guest knows it
    tg_splice splice{};
};

/// True if the packet was rewritten and sent on.
inline testing::AssertionResult forwarded(const RunResult& result) {
    if (result.action != kRedirect || !result.drops.empty())
        return testing::AssertionFailure() << "action " << result.action << ", reason "
                                           << (result.drops.empty() ? 0 : result.drops.begin()->first);
    return testing::AssertionSuccess();
}

/// True if an uplink's packet went on as if there were no tapgate.
inline testing::AssertionResult untouched(const RunResult& result, const Bytes& sent) {
    if (result.action != kNext || !result.drops.empty() || result.packet != sent)
        return testing::AssertionFailure() << "action " << result.action;
    return testing::AssertionSuccess();
}

} // namespace tapgate::test
