// SPDX-License-Identifier: Apache-2.0
#include "harness/wait.hpp"
#include "netns/world.hpp"

#include <fmt/format.h>

#include <cerrno>

#include <poll.h>
#include <sys/socket.h>

// Packets by which a guest tries to get past the programs on its tap. Each is dropped with its reason, and
// nothing of it is seen on the uplink.
namespace tapgate::test {
namespace {

constexpr Mac kGuestMac = {2, 0, 0, 0, 0, 2};
constexpr Mac kTapMac = {2, 0, 0, 0, 1, 1};
constexpr unsigned kOpen = 10;
constexpr std::uint16_t kPort = 7000;
constexpr std::uint16_t kFrom = 40000;

class Bypass : public WorldTest<Bypass> {
  public:
    static std::unique_ptr<World> make_world() {
        DaemonConfig config;
        config.policy = kOpenPolicy();
        return std::make_unique<World>(config, std::vector<std::string>{dual_stack("www.open.test", kOpen)});
    }

  protected:
    static std::string kOpenPolicy() { return policy_text({"allow@dns", "allow@public:tcp:7000"}); }

    void SetUp() override {
        WorldTest::SetUp();
        // The guest's MAC is known from here on.
        EXPECT_TRUE(allowed_exchange_works());
    }

    /// An exchange that the policy allows; what was sent before it has then passed the tap.
    static bool allowed_exchange_works() {
        CaptureServer server(world().topology.internet(), open());
        return was_served(exchange(guest(), server.endpoint(), "\x01"));
    }

    [[nodiscard]] static Endpoint open() { return server(kOpen, kPort); }

    [[nodiscard]] static Endpoint here() { return {family().guest, kFrom}; }

    /// A SYN to the open server as one IP packet.
    [[nodiscard]] static Bytes syn_from(const Endpoint& from) {
        return ip_packet(from.address, open().address, kProtocolTcp,
                         tcp_segment(from, open(), kTcpSyn, 1000, 0));
    }

    /// A DNS query as a UDP datagram.
    [[nodiscard]] static Bytes query_from(const Endpoint& from) {
        return udp_datagram(from, {family().gateway, 53}, make_query(7, "www.open.test", family().record));
    }

    /// Sends the frames from the guest and expects each of them to be dropped for `reason`, with nothing on
    /// the uplink but the exchange that proves that they have passed.
    static void expect_dropped(const std::vector<Bytes>& frames, const std::string& reason) {
        SCOPED_TRACE(reason);
        PacketTap uplink(world().topology.internet(), "eth0");
        const PacketTap wire(guest(), "eth0");
        const std::uint64_t before = world().daemon.drops(reason);
        for (const Bytes& bytes : frames)
            wire.send(bytes);
        EXPECT_EQ(world().daemon.drops(reason), before + frames.size());
        EXPECT_TRUE(allowed_exchange_works());
        unsigned syns = 0;
        for (const Seen& seen : uplink.drain()) {
            if (!seen.from)
                continue;
            const bool of_guest = (seen.from->port >= kFrom && seen.from->port < kFrom + 10) ||
                                  seen.from->address == family().guest;
            EXPECT_FALSE(of_guest) << seen.to_string();
            syns += seen.to == open() && seen.tcp_flags == kTcpSyn ? 1 : 0;
        }
        EXPECT_EQ(syns, 1U) << "only the allowed exchange may have dialled";
        EXPECT_TRUE(world().daemon.bindings("www.open.test").empty());
    }
};

TEST_P(Bypass, the_frames_of_these_tests_would_pass_if_nothing_were_wrong_with_them) {
    CaptureServer server(world().topology.internet(), open());
    PacketTap wire(guest(), "eth0");
    wire.send(frame(kTapMac, kGuestMac, syn_from(here())));
    EXPECT_TRUE(
        wire.wait_for([](const Seen& seen) { return seen.tcp_flags == (kTcpSyn | kTcpAck); }, kPatience));
    const Endpoint asker{family().guest, kFrom + 1};
    wire.send(frame(kTapMac, kGuestMac,
                    ip_packet(asker.address, family().gateway, kProtocolUdp, query_from(asker))));
    EXPECT_TRUE(wire.wait_for([&](const Seen& seen) { return seen.to == asker; }, kPatience));
}

TEST_P(Bypass, B21_a_syn_in_fragments_is_dropped) {
    const Bytes segment = tcp_segment(here(), open(), kTcpSyn, 1000, 0, Bytes(64, 'x'));
    for (const std::size_t first : {8U, 24U}) { // ports alone in a tiny first fragment; the whole header
        const auto [head, tail] = ip_fragments(here().address, open().address, kProtocolTcp, segment, first);
        expect_dropped({frame(kTapMac, kGuestMac, head), frame(kTapMac, kGuestMac, tail)}, "fragment");
        // Out of order, and with the same part twice, as overlapping fragments have it.
        expect_dropped({frame(kTapMac, kGuestMac, tail), frame(kTapMac, kGuestMac, tail),
                        frame(kTapMac, kGuestMac, head)},
                       "fragment");
    }
}

TEST_P(Bypass, B21_a_dns_query_in_fragments_is_dropped) {
    const auto [head, tail] =
        ip_fragments(here().address, family().gateway, kProtocolUdp, query_from(here()), 16);
    expect_dropped({frame(kTapMac, kGuestMac, head), frame(kTapMac, kGuestMac, tail)}, "fragment");
}

TEST_P(Bypass, B24_segments_without_a_syn_are_dropped) {
    // A port from which no SYN was ever sent.
    const Endpoint from{family().guest, kFrom + 2};
    const auto segment = [&](std::uint8_t flags, const Bytes& payload = {}) {
        return frame(kTapMac, kGuestMac,
                     ip_packet(from.address, open().address, kProtocolTcp,
                               tcp_segment(from, open(), flags, 5000, 6000, payload)));
    };
    expect_dropped({segment(kTcpAck), segment(kTcpAck | kTcpPsh, Bytes(100, 'x')), segment(kTcpFin | kTcpAck),
                    segment(kTcpRst)},
                   "tcp-no-flow");
    expect_dropped({segment(kTcpSyn | kTcpAck)}, "tcp-ingress");
}

TEST_P(Bypass, B26_spoofed_sources_are_dropped) {
    const bool v4 = family().name == "IPv4";
    std::vector<Bytes> frames;
    const std::vector<std::string> sources =
        v4 ? std::vector<std::string>{"192.0.2.3", "192.0.2.18",  "198.51.100.1", "192.0.2.1",
                                      "127.0.0.1", "169.254.1.1", "0.0.0.0"}
           : std::vector<std::string>{"2001:db8:1::3", "2001:db8:1:1::2", "2001:db8:2::1", "2001:db8:1::1",
                                      "::1",           "fe80::1234",      "fe80::1"};
    for (const std::string& source : sources) {
        const Endpoint from{IpAddress::parse(source).value(), kFrom};
        frames.push_back(frame(kTapMac, kGuestMac, syn_from(from)));
        frames.push_back(frame(kTapMac, kGuestMac,
                               ip_packet(from.address, family().gateway, kProtocolUdp, query_from(from))));
    }
    expect_dropped(frames, "source-address");
}

TEST_P(Bypass, B26_a_spoofed_source_mac_is_dropped) {
    expect_dropped(
        {frame(kTapMac, {2, 0, 0, 0, 0, 3}, syn_from(here())), frame(kTapMac, kTapMac, syn_from(here()))},
        "source-mac");
}

TEST_P(Bypass, B29_tagged_frames_are_dropped) {
    const auto tagged = [](const std::vector<std::uint16_t>& tags) {
        const Bytes plain = frame(kTapMac, kGuestMac, syn_from(here()));
        Bytes bytes(plain.begin(), plain.begin() + 12);
        for (const std::uint16_t tag : tags) {
            bytes.push_back(static_cast<std::uint8_t>(tag >> 8U));
            bytes.push_back(static_cast<std::uint8_t>(tag));
            bytes.push_back(0);
            bytes.push_back(5);
        }
        bytes.insert(bytes.end(), plain.begin() + 12, plain.end());
        return bytes;
    };
    expect_dropped({tagged({kEtherVlan}), tagged({kEtherQinQ}), tagged({kEtherVlan, kEtherVlan}),
                    tagged({kEtherQinQ, kEtherVlan})},
                   "vlan");
}

TEST_P(Bypass, B29_other_ethertypes_and_llc_are_dropped) {
    std::vector<Bytes> frames;
    // LLC lengths, MPLS, PPPoE, LLDP, a local experimental type.
    for (const int type : {0x0040, 0x05dc, 0x8847, 0x8864, 0x88cc, 0x88b5})
        frames.push_back(frame(kTapMac, kGuestMac, syn_from(here()), static_cast<std::uint16_t>(type)));
    expect_dropped(frames, "ethertype");
}

TEST_P(Bypass, B17_other_name_services_are_refused) {
    std::vector<Bytes> frames;
    for (const int port : {137, 853, 5353, 5355}) {
        const Endpoint to{family().resolver, static_cast<std::uint16_t>(port)};
        frames.push_back(frame(kTapMac, kGuestMac,
                               ip_packet(here().address, to.address, kProtocolUdp,
                                         udp_datagram(here(), to, make_query(7, "www.open.test", "A")))));
    }
    expect_dropped(frames, "dns-transport");
}

TEST_P(Bypass, other_protocols_are_dropped) {
    std::vector<Bytes> frames;
    for (const int protocol : {4, 41, 47, 132, 253}) // 4in6/IPIP, 6in4, GRE, SCTP, experimental
        frames.push_back(frame(
            kTapMac, kGuestMac,
            ip_packet(here().address, open().address, static_cast<std::uint8_t>(protocol), Bytes(40, 0))));
    expect_dropped(frames, "protocol");
}

TEST_P(Bypass, B19_udp_other_than_dns_is_dropped) {
    const Endpoint quic = server(kOpen, 443);
    const Bytes datagram = frame(
        kTapMac, kGuestMac,
        ip_packet(here().address, quic.address, kProtocolUdp, udp_datagram(here(), quic, Bytes(1200, 0xc3))));
    expect_dropped({datagram}, "policy-first-packet");
    // And not forwarded yet where a policy allows it.
    world().daemon.load_policy(policy_text({"allow@public"}));
    expect_dropped({datagram}, "udp");
    world().daemon.load_policy(kOpenPolicy());
}

TEST_P(Bypass, B17_B19_a_client_of_quic_or_another_name_service_learns_at_once_that_there_is_none) {
    const bool v4 = family().name == "IPv4";
    for (const int port : {443, 853, 5353, 5355}) {
        const UdpSocket client(guest(), {family().guest, 0});
        sockaddr_storage to{};
        const unsigned length = server(kOpen, static_cast<std::uint16_t>(port)).to_sockaddr(to);
        ASSERT_EQ(::connect(client.fd(), reinterpret_cast<const sockaddr*>(&to), length), 0);
        ASSERT_EQ(::send(client.fd(), "x", 1, 0), 1);
        pollfd waiting{client.fd(), POLLIN, 0};
        ASSERT_EQ(::poll(&waiting, 1, static_cast<int>(kPatience.count())), 1) << port;
        char octet = 0;
        EXPECT_EQ(::recv(client.fd(), &octet, 1, MSG_DONTWAIT), -1) << port;
        EXPECT_EQ(errno, v4 ? EHOSTUNREACH : EACCES) << port; // what Linux makes of the ICMP error
    }
}

TEST_P(Bypass, B14_an_empty_or_missing_rule_list_denies) {
    const std::string empty = policy_text({});
    const std::string missing = empty.substr(empty.find('\n') + 1);
    for (const std::string& policy : {empty, missing, std::string()}) {
        world().daemon.load_policy(policy);
        CaptureServer upstream(world().topology.internet(), open());
        UplinkWatch uplink(world());
        EXPECT_PRED1(was_reset, exchange(guest(), upstream.endpoint(), client_hello("www.open.test")));
        const auto reply = ask(guest(), {family().gateway, 53}, "www.open.test", family().record, kPatience);
        EXPECT_TRUE(reply && reply->rcode == kNxDomain);
        EXPECT_EQ(upstream.accepted(), 0U);
        world().daemon.load_policy(kOpenPolicy());
        EXPECT_PRED1(was_served, exchange(guest(), upstream.endpoint(), "\x01"));
        EXPECT_EQ(uplink.leaks({{family().resolver, 53}}), std::vector<std::string>{});
    }
}

TEST_P(Bypass, B47_the_listener_resets_whoever_did_not_come_through_a_tap) {
    // Where the daemon listens for steered connections, as the host sees it.
    const NetNs& host = world().topology.host();
    const std::string prefix = family().name == "IPv4" ? "192.0.0.8:" : "[100::8]:";
    const std::string sockets = must_run({"ss", "-Hltn"}, &host);
    const std::size_t found = sockets.find(prefix);
    ASSERT_NE(found, std::string::npos) << sockets;
    const auto listener = Endpoint::parse(sockets.substr(found, sockets.find(' ', found) - found));
    ASSERT_TRUE(listener.has_value());

    const auto dropped = [] {
        const boost::json::object status = world().daemon.ask({"status", "show"});
        for (const boost::json::value& row : status.at("drops").as_array()) {
            if (row.at("reason").as_string() == "no-pending")
                return row.at("packets").to_number<std::uint64_t>();
        }
        return std::uint64_t{0};
    };
    const std::uint64_t before = dropped();
    // A root process of the host that sets our mark itself, the only way to that address. IPv4 does not even
    // find a source address for it.
    const bool v4 = family().name == "IPv4";
    auto stream = TcpStream::connect(host, *listener, kPatience, 0x7461);
    if (stream)
        EXPECT_EQ(stream->receive_to_end().end, End::kReset);
    else
        EXPECT_EQ(stream.error(), v4 ? ENETUNREACH : ECONNRESET);
    EXPECT_EQ(dropped(), before + (v4 ? 0 : 1));
}

INSTANTIATE_TEST_SUITE_P(Family, Bypass, families(), family_name);

} // namespace
} // namespace tapgate::test
