// SPDX-License-Identifier: Apache-2.0
#include "base/clock.hpp"
#include "card.hpp"
#include "splice_case.hpp"

#include <algorithm>

// ICMP errors about what a spliced connection has sent: the guest must hear of them, above all of a path that
// takes only smaller packets, and in terms of its own connection.
namespace tapgate::test {

namespace {

constexpr std::uint32_t kDelta = 0xfff00000; // of SpliceCase's guest
constexpr std::uint32_t kPathMtu = 1280;

struct Error {
    unsigned type;
    unsigned code;
    std::uint32_t rest; // the four octets behind the checksum
};

Error too_big(const Family& family) {
    return family.guest.is_v4() ? Error{3, 4, kPathMtu} : Error{2, 0, kPathMtu};
}

IpAddress router_of(const Family& family) {
    return *IpAddress::parse(family.guest.is_v4() ? "203.0.113.77" : "2001:db8:77::1");
}

/// An IP packet, as an ICMP error quotes it: the header and the first octets of the segment.
Bytes quote_of(const IpAddress& source, const IpAddress& destination, const TcpFields& fields,
               std::size_t octets = 8) {
    const Bytes segment = tcp_segment(source, destination, fields);
    Bytes quote;
    if (source.is_v4()) {
        Ipv4Fields ip;
        ip.ttl = 5;
        quote = ipv4(source, destination, IPPROTO_TCP, segment, ip);
    } else {
        quote = ipv6(source, destination, IPPROTO_TCP, segment);
    }
    quote.resize(quote.size() - segment.size() + octets);
    return quote;
}

Bytes message_of(const Error& error, const IpAddress& router, const IpAddress& to, const Bytes& quote) {
    Bytes message;
    put8(message, error.type);
    put8(message, error.code);
    put16(message, 0);
    put32(message, error.rest);
    append(message, quote);
    set16(message, 2,
          router.is_v4() ? internet_checksum(message)
                         : transport_checksum(router, to, IPPROTO_ICMPV6, message));
    return message;
}

Bytes frame_of(const Error& error, const IpAddress& router, const IpAddress& to, const Bytes& quote,
               unsigned hops = 64, const Mac& source_mac = kServerMac,
               const Mac& destination_mac = kUplinkMac) {
    const Bytes message = message_of(error, router, to, quote);
    if (router.is_v4()) {
        Ipv4Fields ip;
        ip.ttl = hops;
        return ethernet(kEtherIpv4, ipv4(router, to, IPPROTO_ICMP, message, ip), source_mac, destination_mac);
    }
    Ipv6Fields ip;
    ip.hop_limit = hops;
    return ethernet(kEtherIpv6, ipv6(router, to, IPPROTO_ICMPV6, message, ip), source_mac, destination_mac);
}

class SpliceErrorTest : public ProgRunTest {
  protected:
    /// What was on its way: 400 octets behind the hand-off, of which the server has 100.
    static SpliceCase sending(const Family& family) {
        SpliceCase flow(family);
        flow.splice.sides[TG_SPLICE_GUEST].end = 1400;
        flow.splice.sides[TG_SPLICE_GUEST].acked = 1100;
        flow.store();
        return flow;
    }

    static TcpFields upstream_segment(std::uint32_t guest_sequence = 1100) {
        TcpFields fields;
        fields.source_port = kUplinkPort;
        fields.destination_port = kServerPort;
        fields.sequence = guest_sequence + kDelta;
        fields.flags = kAck;
        return fields;
    }

    static TcpFields guest_segment(std::uint32_t sequence = 1100) {
        TcpFields fields = upstream_segment();
        fields.source_port = kGuestPort;
        fields.destination_port = kServerPort + 1;
        fields.sequence = sequence;
        return fields;
    }

    static Bytes upstream_quote(const SpliceCase& flow, const TcpFields& fields) {
        return quote_of(flow.family.uplink, flow.family.server, fields);
    }

    static Bytes to_uplink(const SpliceCase& flow, const Error& error, const Bytes& quote,
                           unsigned hops = 64) {
        return frame_of(error, router_of(flow.family), flow.family.uplink, quote, hops);
    }

    static Bytes to_guest(const SpliceCase& flow, const Error& error, const Bytes& quote,
                          unsigned hops = 63) {
        return frame_of(error, router_of(flow.family), flow.family.guest, quote, hops);
    }

    static RunResult uplink(const Bytes& frame) {
        return product().run_on("uplink_ingress", frame, Programs::uplink_ifindex());
    }

    static RunResult egress_from_uplink(const Bytes& frame, std::uint32_t mark = kMark) {
        return product().run_on("tap_egress", frame, Programs::tap_ifindex(), Programs::uplink_ifindex(), 0,
                                mark);
    }
};

TEST_F(SpliceErrorTest, errors_are_translated_for_the_guest) {
    for (const auto& family : families()) {
        const SpliceCase flow = sending(family);
        const bool v4 = family.guest.is_v4();
        for (const Error& error : {too_big(family), v4 ? Error{3, 1, 0} : Error{1, 0, 0}}) {
            const auto result = uplink(to_uplink(flow, error, upstream_quote(flow, upstream_segment())));
            EXPECT_TRUE(forwarded(result)) << family.name;
            const Bytes expected = to_guest(flow, error, quote_of(family.guest, flow.seen, guest_segment()));
            EXPECT_EQ(result.packet, expected) << family.name;
            EXPECT_TRUE(passed(egress_from_uplink(expected)));
        }
        // Octets that the router quotes beyond those that count stay as they are; so does a wrong checksum.
        Bytes longer = upstream_quote(flow, upstream_segment());
        append(longer, Bytes(33, 0x5a));
        Bytes damaged = to_uplink(flow, too_big(family), longer);
        damaged.back() ^= 0x01U;
        const auto result = uplink(damaged);
        EXPECT_TRUE(forwarded(result)) << family.name;
        Bytes quote = quote_of(family.guest, flow.seen, guest_segment());
        append(quote, Bytes(33, 0x5a));
        Bytes expected = to_guest(flow, too_big(family), quote);
        expected.back() ^= 0x01U;
        EXPECT_EQ(result.packet, expected) << family.name;
    }
}

TEST_F(SpliceErrorTest, errors_about_what_is_not_on_its_way_go_to_the_host) {
    for (const auto& family : families()) {
        const SpliceCase flow = sending(family);
        const auto host_gets = [](const Bytes& frame) { return untouched(uplink(frame), frame); };
        // RFC 5927: acknowledged, and never sent. Below the hand-off: the daemon's own.
        for (const std::uint32_t sequence : {1099U, 1000U, 999U, 1400U, 0x80000000U})
            EXPECT_TRUE(
                host_gets(to_uplink(flow, too_big(family), upstream_quote(flow, upstream_segment(sequence)))))
                << sequence;
        auto other = upstream_segment();
        other.source_port += 1;
        EXPECT_TRUE(host_gets(to_uplink(flow, too_big(family), upstream_quote(flow, other))));
        EXPECT_TRUE(host_gets(to_uplink(flow, too_big(family), upstream_quote(flow, upstream_segment()), 1)))
            << "its last hop";
        Bytes cut = upstream_quote(flow, upstream_segment());
        cut.pop_back();
        EXPECT_TRUE(host_gets(to_uplink(flow, too_big(family), cut)));
        Bytes udp = upstream_quote(flow, upstream_segment());
        udp[family.guest.is_v4() ? 9 : 6] = IPPROTO_UDP;
        EXPECT_TRUE(host_gets(to_uplink(flow, too_big(family), udp)));
        for (const unsigned type : {0U, 5U, 8U, 11U, 128U, 129U, 134U, 137U})
            EXPECT_TRUE(host_gets(to_uplink(flow, {type, 0, 0}, upstream_quote(flow, upstream_segment()))))
                << type;
        for (const auto state : {TG_SPLICE_ENDED, TG_SPLICE_RECORDING, TG_SPLICE_HELD}) {
            SpliceCase idle = sending(family);
            idle.splice.state = state;
            idle.store();
            EXPECT_TRUE(host_gets(to_uplink(idle, too_big(family), upstream_quote(idle, upstream_segment()))))
                << state;
        }
    }
}

TEST_F(SpliceErrorTest, no_other_icmp_reaches_the_guest) {
    for (const auto& family : families()) {
        const SpliceCase flow = sending(family);
        const Bytes quote = quote_of(family.guest, flow.seen, guest_segment());
        const Bytes error = to_guest(flow, too_big(family), quote);
        EXPECT_TRUE(passed(egress_from_uplink(error)));
        EXPECT_TRUE(refused(egress_from_uplink(error, 0), TG_DROP_EGRESS_NOT_OURS))
            << "forwarded by the host";
        EXPECT_TRUE(refused(product().run_on("tap_egress", error, Programs::tap_ifindex(), 0, 0, kMark),
                            TG_DROP_EGRESS_NOT_OURS))
            << "made by the host";
        auto other = guest_segment();
        other.source_port += 1;
        EXPECT_TRUE(refused(
            egress_from_uplink(to_guest(flow, too_big(family), quote_of(family.guest, flow.seen, other))),
            TG_DROP_EGRESS_NOT_OURS));
        EXPECT_TRUE(
            refused(egress_from_uplink(to_guest(flow, {family.guest.is_v4() ? 8U : 128U, 0, 0}, quote)),
                    TG_DROP_EGRESS_NOT_OURS));
        EXPECT_TRUE(
            refused(egress_from_uplink(frame_of(too_big(family), router_of(family), family.stranger, quote)),
                    TG_DROP_EGRESS_NOT_OURS));
    }
}

/// The guest routes for others, over links that take less than its own.
class GuestErrorTest : public SpliceErrorTest {
  protected:
    static constexpr std::uint32_t kServerNext = 0xffffff00; // of SpliceCase
    static constexpr std::uint32_t kServerDelta = 77777;

    static SpliceCase receiving(const Family& family) {
        SpliceCase flow(family);
        flow.splice.sides[TG_SPLICE_SERVER].end = kServerNext + 400; // wraps
        flow.store();
        return flow;
    }

    static TcpFields from_server(bool as_guest_sees_it, std::uint32_t offset) {
        TcpFields fields;
        fields.source_port = as_guest_sees_it ? kServerPort + 1 : kServerPort;
        fields.destination_port = as_guest_sees_it ? kGuestPort : kUplinkPort;
        fields.sequence = kServerNext + offset + (as_guest_sees_it ? kServerDelta : 0);
        fields.flags = kAck;
        return fields;
    }

    static Bytes sent(const SpliceCase& flow, const Error& error, std::uint32_t offset = 300) {
        return frame_of(error, flow.family.guest, flow.seen,
                        quote_of(flow.seen, flow.family.guest, from_server(true, offset)), 64, kGuestMac,
                        kTapMac);
    }
};

TEST_F(GuestErrorTest, a_guest_may_tell_its_server_that_packets_are_too_big) {
    for (const auto& family : families()) {
        const SpliceCase flow = receiving(family);
        const auto result = ingress(sent(flow, too_big(family)));
        EXPECT_TRUE(forwarded(result)) << family.name;
        EXPECT_EQ(result.packet, frame_of(too_big(family), family.uplink, family.server,
                                          quote_of(family.server, family.uplink, from_server(false, 300)), 63,
                                          kGuestMac, kTapMac))
            << family.name;
    }
}

TEST_F(GuestErrorTest, B50_any_other_error_of_a_guest_is_refused) {
    for (const auto& family : families()) {
        const SpliceCase flow = receiving(family);
        const bool v4 = family.guest.is_v4();
        EXPECT_TRUE(refused(ingress(sent(flow, v4 ? Error{3, 1, 0} : Error{1, 0, 0})), TG_DROP_ICMP));
        EXPECT_TRUE(refused(ingress(sent(flow, v4 ? Error{3, 3, 0} : Error{1, 4, 0})), TG_DROP_ICMP));
        for (const std::uint32_t offset : {0U - 1U, 400U, 0x80000000U})
            EXPECT_TRUE(refused(ingress(sent(flow, too_big(family), offset)), TG_DROP_ICMP)) << offset;
        // To somebody else than the one who has sent what it quotes.
        EXPECT_TRUE(refused(ingress(frame_of(too_big(family), family.guest, family.server,
                                             quote_of(flow.seen, family.guest, from_server(true, 300)), 64,
                                             kGuestMac, kTapMac)),
                            TG_DROP_ICMP));
        SpliceCase others = receiving(family);
        others.splice.guest_id = kGuestId - 1;
        others.store();
        EXPECT_TRUE(refused(ingress(sent(others, too_big(family))), TG_DROP_ICMP));
    }
}

TEST_F(GuestErrorTest, errors_of_a_guest_share_the_rate_of_those_that_it_is_sent) {
    constexpr auto second = [] {
        return static_cast<std::uint64_t>(
            std::chrono::floor<std::chrono::seconds>(BootClock::now().time_since_epoch()).count());
    };
    for (const auto& family : families()) {
        const SpliceCase flow = receiving(family);
        bool same_second = false;
        for (int attempt = 0; attempt < 10 && !same_second; ++attempt) {
            tg_guest_state state{};
            state.prohibition_second = second();
            state.prohibition_count = TG_PROHIBITIONS_PER_SECOND - 1;
            product().set_state(state);
            const std::array<int, 2> actions = {ingress(sent(flow, too_big(family))).action,
                                                ingress(sent(flow, too_big(family))).action};
            same_second = second() == state.prohibition_second;
            if (same_second) {
                EXPECT_EQ(actions, (std::array<int, 2>{kRedirect, kShot}));
            }
        }
        EXPECT_TRUE(same_second);
    }
}

class SpliceErrorLiveTest : public SpliceErrorTest {
  protected:
    static void SetUpTestSuite() {
        attach(Programs::tap_ifindex(), BPF_TC_EGRESS, "tap_egress");
        attach(Programs::uplink_ifindex(), BPF_TC_INGRESS, "uplink_ingress");
    }

    static void TearDownTestSuite() {
        detach_all(Programs::tap_ifindex());
        detach_all(Programs::uplink_ifindex());
    }

    const Card guest_{kGuestName};
    const Card server_{kServerName};
};

TEST_F(SpliceErrorLiveTest, an_error_reaches_the_guest) {
    for (const auto& family : families()) {
        const SpliceCase flow = sending(family);
        server_.send(to_uplink(flow, too_big(family), upstream_quote(flow, upstream_segment())));
        Bytes expected = to_guest(flow, too_big(family), quote_of(family.guest, flow.seen, guest_segment()));
        std::ranges::copy(kGuestMac, expected.begin());
        std::ranges::copy(kTapMac, expected.begin() + 6);
        EXPECT_EQ(guest_.receive([&expected](const Bytes& frame) { return frame == expected; }), expected)
            << family.name;
    }
}

} // namespace

} // namespace tapgate::test
