// SPDX-License-Identifier: Apache-2.0
#include "dns_builder.hpp"
#include "program_fixture.hpp"

namespace tapgate::test {

namespace {

class IpTest : public ProgRunTest {
  protected:
    static RunResult run_ipv4(const Ipv4Fields& fields) {
        return ingress(ethernet(
            kEtherIpv4, ipv4(kGuest4, kServer4, IPPROTO_TCP, tcp_segment(kGuest4, kServer4, {}), fields)));
    }

    static RunResult run_ipv6(std::uint8_t next, const Bytes& payload, const Ipv6Fields& fields = {}) {
        return ingress(ethernet(kEtherIpv6, ipv6(kGuest6, kServer6, next, payload, fields)));
    }

    static Bytes syn6() { return tcp_segment(kGuest6, kServer6, {}); }

    /// An extension header of `size` bytes before `payload`.
    static Bytes extension(std::uint8_t next, std::size_t size, const Bytes& payload) {
        Bytes header(size);
        header[0] = next;
        header[1] = static_cast<std::uint8_t>(size / 8 - 1);
        header[2] = 1; // PadN over the rest
        header[3] = static_cast<std::uint8_t>(size - 4);
        append(header, payload);
        return header;
    }
};

TEST_F(IpTest, a_clean_packet_gets_as_far_as_the_daemon) {
    for (const auto& family : families())
        EXPECT_TRUE(refused(ingress(tcp_frame(family.guest, family.server, {})), kAccepted)) << family.name;
}

TEST_F(IpTest, padding_behind_the_ip_packet_is_ignored) {
    for (const auto& family : families()) {
        Bytes packet = tcp_frame(family.guest, family.server, {});
        packet.resize(packet.size() + 6);
        EXPECT_TRUE(refused(ingress(packet), kAccepted)) << family.name;
    }
}

TEST_F(IpTest, malformed_ipv4_headers_are_refused) {
    Ipv4Fields fields;
    fields.version = 6;
    EXPECT_TRUE(refused(run_ipv4(fields), TG_DROP_IP_HEADER));
    fields = {};
    fields.ihl = 4;
    EXPECT_TRUE(refused(run_ipv4(fields), TG_DROP_IP_HEADER));
    fields.ihl = 6;
    EXPECT_TRUE(refused(run_ipv4(fields), TG_DROP_IP_OPTIONS));
    fields = {};
    fields.total_length = 0;
    EXPECT_TRUE(refused(run_ipv4(fields), TG_DROP_IP_HEADER));
    fields.total_length = 19;
    EXPECT_TRUE(refused(run_ipv4(fields), TG_DROP_IP_HEADER));
    fields.total_length = 41;
    EXPECT_TRUE(refused(run_ipv4(fields), TG_DROP_TRUNCATED));
    fields.total_length = 39;
    EXPECT_TRUE(refused(run_ipv4(fields), TG_DROP_TRUNCATED));
    fields = {};
    fields.fragment = 0x8000;
    EXPECT_TRUE(refused(run_ipv4(fields), TG_DROP_IP_HEADER));
}

TEST_F(IpTest, fragments_are_refused) {
    Ipv4Fields fields;
    for (const unsigned fragment : {0x2000U, 0x0001U, 0x1fffU, 0x6001U}) {
        fields.fragment = fragment;
        EXPECT_TRUE(refused(run_ipv4(fields), TG_DROP_FRAGMENT)) << fragment;
    }
    // First fragment, later fragment, and one that is whole ("atomic", RFC 6946).
    for (const unsigned offset : {1U, 8U, 0U}) {
        Bytes fragment{IPPROTO_TCP, 0};
        put16(fragment, offset);
        put32(fragment, 1);
        append(fragment, syn6());
        EXPECT_TRUE(refused(run_ipv6(IPPROTO_FRAGMENT, fragment), TG_DROP_FRAGMENT)) << offset;
        EXPECT_TRUE(
            refused(run_ipv6(IPPROTO_DSTOPTS, extension(IPPROTO_FRAGMENT, 8, fragment)), TG_DROP_FRAGMENT));
    }
    const DnsBuilder query(1, 0x0100, dns_name("allowed.test"), kTypeA);
    fields.fragment = 0x2000;
    EXPECT_TRUE(refused(
        ingress(ethernet(kEtherIpv4, ipv4(kGuest4, kServer4, IPPROTO_UDP,
                                          udp_datagram(kGuest4, kServer4, 5000, 53, query.bytes()), fields))),
        TG_DROP_FRAGMENT));
}

TEST_F(IpTest, B26_spoofed_sources_are_refused) {
    for (const char* source :
         {"192.0.2.1", "192.0.2.3", "0.0.0.0", "127.0.0.1", "255.255.255.255", "224.0.0.1", "198.51.100.7"})
        EXPECT_TRUE(
            refused(ingress(tcp_frame(*IpAddress::parse(source), kServer4, {})), TG_DROP_SOURCE_ADDRESS))
            << source;
    for (const char* source :
         {"2001:db8::1", "2001:db8::3", "::", "::1", "fe80::ff:fe00:2", "ff02::1", "::192.0.2.2"})
        EXPECT_TRUE(
            refused(ingress(tcp_frame(*IpAddress::parse(source), kServer6, {})), TG_DROP_SOURCE_ADDRESS))
            << source;
}

TEST_F(IpTest, B30_a_guest_without_ipv6_gets_none) {
    auto guest = Programs::default_guest();
    guest.address_count = 1;
    product().set_guest(guest);
    EXPECT_TRUE(refused(ingress(tcp_frame(kGuest6, kServer6, {})), TG_DROP_SOURCE_ADDRESS));
    EXPECT_TRUE(refused(ingress(tcp_frame(kGuest4, kServer4, {})), kAccepted));
}

TEST_F(IpTest, B31_ipv4_addresses_spelled_in_ipv6_are_refused) {
    const auto syn = [](const IpAddress& source, const IpAddress& destination) {
        return ingress(ethernet(
            kEtherIpv6, ipv6(source, destination, IPPROTO_TCP, tcp_segment(source, destination, {}))));
    };
    EXPECT_TRUE(refused(syn(kGuest4, kServer6), TG_DROP_SOURCE_ADDRESS)) << "mapped source";
    EXPECT_TRUE(refused(syn(kGuest6, kServer4), TG_DROP_IP_HEADER)) << "mapped destination";
    EXPECT_TRUE(refused(syn(kGuest6, *IpAddress::parse("::198.51.100.7")), TG_DROP_IP_HEADER))
        << "compatible";
    EXPECT_TRUE(refused(syn(kGuest6, *IpAddress::parse("::1")), TG_DROP_IP_HEADER));
    EXPECT_TRUE(refused(syn(kGuest6, *IpAddress::parse("::")), TG_DROP_REFUSED_ADDRESS));
}

TEST_F(IpTest, destinations_that_are_not_one_host_are_refused) {
    for (const char* group : {"224.0.0.1", "239.255.255.255"}) {
        EXPECT_TRUE(refused(ingress(tcp_frame(kGuest4, *IpAddress::parse(group), {})), TG_DROP_MULTICAST))
            << group;
        EXPECT_TRUE(refused(ingress(udp_frame(kGuest4, *IpAddress::parse(group), 5000, 53, Bytes(20))),
                            TG_DROP_MULTICAST))
            << group;
    }
    EXPECT_TRUE(refused(ingress(tcp_frame(kGuest6, *IpAddress::parse("ff02::1:3"), {})), TG_DROP_MULTICAST));
    for (const char* refused_always : {"0.0.0.0", "255.255.255.255"})
        EXPECT_TRUE(refused(ingress(tcp_frame(kGuest4, *IpAddress::parse(refused_always), {})),
                            TG_DROP_REFUSED_ADDRESS))
            << refused_always;
    for (const char* nowhere : {"0.1.2.3", "127.0.0.1"})
        EXPECT_TRUE(refused(ingress(tcp_frame(kGuest4, *IpAddress::parse(nowhere), {})), TG_DROP_IP_HEADER))
            << nowhere;
    for (const auto& family : families())
        EXPECT_TRUE(
            refused(ingress(ip_frame(family.guest, family.server, IPPROTO_TCP,
                                     tcp_segment(family.guest, family.server, {}), kGuestMac, kBroadcastMac)),
                    TG_DROP_MULTICAST));
}

TEST_F(IpTest, malformed_ipv6_headers_are_refused) {
    Ipv6Fields fields;
    fields.version = 4;
    EXPECT_TRUE(refused(run_ipv6(IPPROTO_TCP, syn6(), fields), TG_DROP_IP_HEADER));
    fields = {};
    fields.payload_length = 0;
    EXPECT_TRUE(refused(run_ipv6(IPPROTO_TCP, syn6(), fields), TG_DROP_IP_HEADER));
    fields.payload_length = 19;
    EXPECT_TRUE(refused(run_ipv6(IPPROTO_TCP, syn6(), fields), TG_DROP_TRUNCATED));
    fields.payload_length = 21;
    EXPECT_TRUE(refused(run_ipv6(IPPROTO_TCP, syn6(), fields), TG_DROP_TRUNCATED));
}

TEST_F(IpTest, B32_extension_headers_are_walked_under_bounds) {
    const Bytes one = extension(IPPROTO_TCP, 8, syn6());
    EXPECT_TRUE(refused(run_ipv6(IPPROTO_DSTOPTS, one), kAccepted));
    EXPECT_TRUE(refused(run_ipv6(IPPROTO_HOPOPTS, one), kAccepted));
    EXPECT_TRUE(refused(run_ipv6(IPPROTO_HOPOPTS, extension(IPPROTO_DSTOPTS, 8, one)), kAccepted));
    EXPECT_TRUE(
        refused(run_ipv6(IPPROTO_DSTOPTS, extension(IPPROTO_HOPOPTS, 8, one)), TG_DROP_EXTENSION_HEADER))
        << "hop-by-hop options not at the front";

    Bytes chain = one;
    for (int i = 1; i < 4; ++i)
        chain = extension(IPPROTO_DSTOPTS, 8, chain);
    EXPECT_TRUE(refused(run_ipv6(IPPROTO_DSTOPTS, chain), kAccepted)) << "four";
    EXPECT_TRUE(
        refused(run_ipv6(IPPROTO_DSTOPTS, extension(IPPROTO_DSTOPTS, 8, chain)), TG_DROP_EXTENSION_HEADER))
        << "five";
    EXPECT_TRUE(refused(run_ipv6(IPPROTO_DSTOPTS, extension(IPPROTO_TCP, 256, syn6())), kAccepted));
    EXPECT_TRUE(
        refused(run_ipv6(IPPROTO_DSTOPTS, extension(IPPROTO_TCP, 264, syn6())), TG_DROP_EXTENSION_HEADER));
    EXPECT_TRUE(
        refused(run_ipv6(IPPROTO_DSTOPTS, Bytes{IPPROTO_TCP, 5, 1, 4, 0, 0, 0, 0}), TG_DROP_TRUNCATED));
    for (const std::uint8_t hidden : std::initializer_list<std::uint8_t>{43, 51, 50, 59, 135, 139, 140}) {
        EXPECT_TRUE(refused(run_ipv6(hidden, one), TG_DROP_EXTENSION_HEADER)) << unsigned{hidden};
        EXPECT_TRUE(refused(run_ipv6(IPPROTO_DSTOPTS, extension(hidden, 8, one)), TG_DROP_EXTENSION_HEADER))
            << unsigned{hidden};
    }
}

TEST_F(IpTest, B31_other_protocols_are_refused) {
    for (int protocol = 0; protocol < 256; ++protocol) {
        if (protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_ICMP)
            continue;
        EXPECT_TRUE(
            refused(ingress(ip_frame(kGuest4, kServer4, static_cast<std::uint8_t>(protocol), Bytes(40))),
                    TG_DROP_PROTOCOL))
            << protocol;
    }
    // IPv4 in IPv6, IPv6 in IPv6, GRE, SCTP, and ICMP of the other family.
    for (const std::uint8_t protocol : {4, 41, 47, 132, 1, 255})
        EXPECT_TRUE(refused(run_ipv6(protocol, Bytes(40)), TG_DROP_PROTOCOL)) << unsigned{protocol};
}

TEST_F(IpTest, icmp_is_refused) {
    for (int type = 0; type < 256; ++type) {
        const Bytes icmp{static_cast<std::uint8_t>(type), 0, 0, 0, 0, 0, 0, 0};
        EXPECT_TRUE(refused(ingress(ip_frame(kGuest4, kServer4, IPPROTO_ICMP, icmp)), TG_DROP_ICMP)) << type;
        const bool link = (type >= 130 && type <= 137) || type == 143;
        EXPECT_TRUE(refused(run_ipv6(IPPROTO_ICMPV6, icmp), link ? TG_DROP_ND : TG_DROP_ICMP)) << type;
    }
}

TEST_F(IpTest, B29_vlan_tags_and_other_ethertypes_are_refused) {
    for (const auto& family : families()) {
        for (const unsigned tag : {0x8100U, 0x88a8U}) {
            Bytes packet = tcp_frame(family.guest, family.server, {});
            Bytes header;
            put16(header, tag);
            put16(header, 7);
            packet.insert(packet.begin() + 12, header.begin(), header.end());
            EXPECT_TRUE(refused(ingress(packet), TG_DROP_VLAN)) << tag;
        }
    }
    // An LLC length, PPPoE, MPLS, LLDP.
    for (const std::uint16_t type : {0x0040, 0x8863, 0x8864, 0x8847, 0x88cc})
        EXPECT_TRUE(refused(ingress(ethernet(type, Bytes(64))), TG_DROP_ETHERTYPE)) << type;
}

TEST_F(IpTest, udp_other_than_dns_is_refused) {
    for (const auto& family : families()) {
        const auto to_port = [&family](std::uint16_t port) {
            return ingress(udp_frame(family.guest, family.server, 5000, port, Bytes(40)));
        };
        for (const std::uint16_t port : {853, 5353, 5355, 137})
            EXPECT_TRUE(refused(to_port(port), TG_DROP_DNS_TRANSPORT)) << port;
        for (const std::uint16_t port : {1, 54, 123, 443, 65535})
            EXPECT_TRUE(refused(to_port(port), TG_DROP_UDP)) << port;

        for (const int wrong : {-1, 1, -40, 100}) {
            Bytes datagram = udp_datagram(family.guest, family.server, 5000, 53, Bytes(40));
            set16(datagram, 4, static_cast<unsigned>(static_cast<int>(datagram.size()) + wrong));
            EXPECT_TRUE(refused(ingress(ip_frame(family.guest, family.server, IPPROTO_UDP, datagram)),
                                TG_DROP_UDP_HEADER))
                << wrong;
        }
        EXPECT_TRUE(
            refused(ingress(udp_frame(family.guest, family.server, 0, 53, Bytes(40))), TG_DROP_UDP_HEADER));
        const DnsBuilder query(1, 0x0100, dns_name("allowed.test"), kTypeA);
        EXPECT_TRUE(refused(product().run_on("tap_ingress",
                                             udp_frame(family.guest, family.server, 5000, 53, query.bytes()),
                                             Programs::tap_ifindex(), 0, 20),
                            TG_DROP_UDP_HEADER))
            << "segmentation offload";
    }
}

TEST_F(IpTest, B28_dhcp_is_dropped_whoever_it_is_from) {
    const IpAddress anybody = *IpAddress::parse("0.0.0.0");
    const IpAddress everybody = *IpAddress::parse("255.255.255.255");
    const auto dhcp = [](const IpAddress& from, const IpAddress& to, std::uint16_t port) {
        return ingress(ip_frame(from, to, IPPROTO_UDP, udp_datagram(from, to, port, 135 - port, Bytes(240)),
                                kGuestMac, kBroadcastMac));
    };
    EXPECT_TRUE(refused(dhcp(anybody, everybody, 68), TG_DROP_SOURCE_ADDRESS))
        << "a client without an address";
    EXPECT_TRUE(refused(dhcp(kGuest4, everybody, 68), TG_DROP_MULTICAST));
    EXPECT_TRUE(refused(dhcp(kGuest4, everybody, 67), TG_DROP_MULTICAST)) << "a server of the guest's";
    EXPECT_TRUE(refused(ingress(udp_frame(kGuest4, kGateway4, 68, 67, Bytes(240))), TG_DROP_UDP));
    EXPECT_TRUE(refused(ingress(udp_frame(kGuest6, *IpAddress::parse("ff02::1:2"), 546, 547, Bytes(40))),
                        TG_DROP_MULTICAST));
}

TEST_F(IpTest, nothing_gets_to_the_daemon_cut_short) {
    const DnsBuilder query(1, 0x0100, dns_name("allowed.test"), kTypeA);
    for (const auto& family : families()) {
        for (const Bytes& whole : {tcp_frame(family.guest, family.server, {}),
                                   udp_frame(family.guest, family.server, 5000, 53, query.bytes())}) {
            ASSERT_TRUE(refused(ingress(whole), kAccepted)) << family.name;
            // The kernel runs no packet that is shorter than its IP header; live_test sends those.
            for (std::size_t size = family.guest.is_v4() ? 34 : 54; size < whole.size(); ++size)
                EXPECT_TRUE(refused(ingress(Bytes(whole.begin(), whole.begin() + static_cast<long>(size))),
                                    TG_DROP_TRUNCATED))
                    << family.name << " " << size;
        }
    }
}

} // namespace

} // namespace tapgate::test
