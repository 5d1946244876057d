// SPDX-License-Identifier: Apache-2.0
#include "dns_case.hpp"

#include <array>

namespace tapgate::test {

namespace {

std::uint8_t icmp_of(const Family& family) {
    return family.guest.is_v4() ? std::uint8_t{IPPROTO_ICMP} : std::uint8_t{IPPROTO_ICMPV6};
}

Bytes icmp_frame(const Family& family, unsigned type, std::size_t size = 8) {
    Bytes message(size);
    message[0] = static_cast<std::uint8_t>(type);
    return ip_frame(family.guest, family.server, icmp_of(family), message);
}

/// The ICMP error about `sent`, a frame of family.guest to family.server, whole.
Bytes prohibited_frame(const Family& family, const Bytes& sent) {
    const bool v4 = family.guest.is_v4();
    const long quoted = (v4 ? 20 : 40) + 8;
    Bytes error;
    put8(error, v4 ? 3 : 1);
    put8(error, v4 ? 13 : 1);
    put16(error, 0);
    put32(error, 0);
    error.insert(error.end(), sent.begin() + 14, sent.begin() + 14 + quoted);
    set16(error, 2,
          v4 ? internet_checksum(error)
             : transport_checksum(family.server, family.guest, IPPROTO_ICMPV6, error));
    return ip_frame(family.server, family.guest, icmp_of(family), error, kHostMac, kGuestMac);
}

class ProhibitedTest : public ProgRunTest {
  protected:
    static testing::AssertionResult answered(const Family& family, const Bytes& sent, tg_drop_reason reason) {
        const RunResult result = ingress(sent);
        if (const auto as_told = refused(result, reason); !as_told)
            return as_told;
        if (result.action != kRedirect)
            return testing::AssertionFailure() << "no answer";
        if (result.packet != prohibited_frame(family, sent))
            return testing::AssertionFailure() << testing::PrintToString(result.packet);
        return testing::AssertionSuccess();
    }

    static testing::AssertionResult silent(const Bytes& sent, tg_drop_reason reason) {
        const RunResult result = ingress(sent);
        return result.action == kShot ? refused(result, reason)
                                      : testing::AssertionFailure() << "action " << result.action;
    }
};

TEST_F(ProhibitedTest, B19_quic_is_refused_at_once) {
    for (const auto& family : families()) {
        const Bytes quic = udp_frame(family.guest, family.server, 50000, 443, Bytes(1200, 0xc3));
        EXPECT_TRUE(answered(family, quic, TG_DROP_UDP)) << "allowed, but not forwarded";
        product().set_policy("");
        EXPECT_TRUE(answered(family, quic, TG_DROP_POLICY_FIRST_PACKET));
        product().set_policy(kAllowAll);
    }
}

TEST_F(ProhibitedTest, B17_other_name_services_are_refused_at_once) {
    for (const auto& family : families()) {
        for (const std::uint16_t port : {137, 853, 5353, 5355}) {
            const Bytes query = DnsBuilder(kDnsId, 0x0100, dns_name("allowed.test"), kTypeA).bytes();
            EXPECT_TRUE(answered(family, udp_frame(family.guest, family.server, kDnsPort, port, query),
                                 TG_DROP_DNS_TRANSPORT))
                << port;
        }
    }
}

TEST_F(ProhibitedTest, B18_multicast_and_broadcast_name_services_are_dropped_in_silence) {
    const Family& v4 = *families().begin();
    const Family& v6 = *(families().begin() + 1);
    const Bytes query = DnsBuilder(kDnsId, 0, dns_name("printer.local"), kTypeA).bytes();
    for (const auto& [address, port] :
         {std::pair{"224.0.0.251", 5353}, {"224.0.0.252", 5355}, {"255.255.255.255", 137}, {"239.1.1.1", 53}})
        EXPECT_TRUE(silent(
            udp_frame(v4.guest, *IpAddress::parse(address), 5353, static_cast<std::uint16_t>(port), query),
            TG_DROP_MULTICAST))
            << address;
    for (const auto& [address, port] : {std::pair{"ff02::fb", 5353}, {"ff02::1:3", 5355}, {"ff05::2", 53}})
        EXPECT_TRUE(silent(
            udp_frame(v6.guest, *IpAddress::parse(address), 5353, static_cast<std::uint16_t>(port), query),
            TG_DROP_MULTICAST))
            << address;
    // The broadcast address of a subnet, which only the frame gives away.
    Bytes frame = udp_frame(v4.guest, *IpAddress::parse("192.0.2.15"), 137, 137, query);
    std::ranges::copy(kBroadcastMac, frame.begin());
    EXPECT_TRUE(silent(frame, TG_DROP_MULTICAST));
}

TEST_F(ProhibitedTest, B50_refused_icmp_is_answered_and_icmp_errors_never_are) {
    for (const auto& family : families()) {
        const bool v4 = family.guest.is_v4();
        EXPECT_TRUE(answered(family, icmp_frame(family, v4 ? 8 : 128, 64), TG_DROP_ICMP)) << "echo request";
        EXPECT_TRUE(answered(family, icmp_frame(family, v4 ? 13 : 128), TG_DROP_ICMP));
        for (const unsigned type :
             v4 ? std::vector<unsigned>{3, 4, 5, 11, 12} : std::vector<unsigned>{1, 2, 3, 4, 100, 127})
            EXPECT_TRUE(silent(icmp_frame(family, type, 64), TG_DROP_ICMP)) << type;
        EXPECT_TRUE(silent(icmp_frame(family, v4 ? 8 : 128, 7), TG_DROP_ICMP)) << "shorter than its header";
    }
}

TEST_F(ProhibitedTest, what_is_forged_broken_or_fragmented_gets_no_answer) {
    for (const auto& family : families()) {
        EXPECT_TRUE(
            silent(udp_frame(family.stranger, family.server, 5000, 443, Bytes(8)), TG_DROP_SOURCE_ADDRESS));
        Bytes datagram = udp_datagram(family.guest, family.server, 5000, 443, Bytes(8));
        set16(datagram, 4, 9);
        EXPECT_TRUE(silent(ip_frame(family.guest, family.server, IPPROTO_UDP, datagram), TG_DROP_UDP_HEADER));
        EXPECT_TRUE(silent(ip_frame(family.guest, family.server, IPPROTO_SCTP, Bytes(20)), TG_DROP_PROTOCOL));
        Ipv4Fields first;
        first.fragment = 0x2000;
        EXPECT_TRUE(
            silent(family.guest.is_v4()
                       ? ethernet(kEtherIpv4, ipv4(family.guest, family.server, IPPROTO_UDP, datagram, first))
                       : ip_frame(family.guest, family.server, IPPROTO_FRAGMENT, Bytes(24)),
                   TG_DROP_FRAGMENT));
    }
    const Family& v6 = *(families().begin() + 1);
    Bytes l4{IPPROTO_UDP, 0, 1, 4, 0, 0, 0, 0}; // destination options: padding
    append(l4, udp_datagram(v6.guest, v6.server, 5000, 443, Bytes(8)));
    EXPECT_TRUE(silent(ip_frame(v6.guest, v6.server, IPPROTO_DSTOPTS, l4), TG_DROP_UDP));
}

TEST_F(ProhibitedTest, a_guest_gets_only_so_many_a_second) {
    for (const auto& family : families()) {
        const Bytes packet = udp_frame(family.guest, family.server, 5000, 443, Bytes(8));
        bool same_second = false;
        for (int attempt = 0; attempt < 10 && !same_second; ++attempt) {
            tg_guest_state state{};
            state.prohibition_second = boot_now() / kSecond;
            state.prohibition_count = TG_PROHIBITIONS_PER_SECOND - 1;
            product().set_state(state);
            const std::array<int, 2> actions = {ingress(packet).action, ingress(packet).action};
            same_second = boot_now() / kSecond == state.prohibition_second;
            if (same_second) {
                EXPECT_EQ(actions, (std::array<int, 2>{kRedirect, kShot}));
            }
        }
        EXPECT_TRUE(same_second);
        auto state = product().state();
        state.prohibition_second -= 1;
        product().set_state(state);
        EXPECT_TRUE(answered(family, packet, TG_DROP_UDP)) << "the next second";
    }
}

TEST_F(ProhibitedTest, an_error_like_ours_that_did_not_come_in_by_the_tap_never_reaches_the_guest) {
    for (const auto& family : families()) {
        const Bytes error =
            prohibited_frame(family, udp_frame(family.guest, family.server, 5000, 443, Bytes(8)));
        EXPECT_TRUE(refused(egress(error), TG_DROP_EGRESS_NOT_OURS)) << "of this host";
        for (const unsigned from : {1U, Programs::tap_ifindex()})
            EXPECT_TRUE(refused(product().run_on("tap_egress", error, Programs::tap_ifindex(), from),
                                TG_DROP_EGRESS_NOT_OURS))
                << "without our mark";
    }
}

} // namespace

} // namespace tapgate::test
