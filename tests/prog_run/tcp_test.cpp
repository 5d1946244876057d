// SPDX-License-Identifier: Apache-2.0
#include "base/unique_fd.hpp"
#include "program_fixture.hpp"

#include <sys/socket.h>

namespace tapgate::test {

namespace {

/// The fields of a TCP packet that the program sent back.
struct Reset {
    std::uint32_t sequence = 0;
    std::uint32_t acknowledgement = 0;
    std::uint8_t flags = 0;
};

/// Checks all of a reset but its numbers: addresses, ports, lengths and both checksums.
Reset check_reset(const Family& family, const TcpFields& sent, const Bytes& packet) {
    const bool v4 = family.guest.is_v4();
    const std::size_t l4 = v4 ? 34 : 54;
    EXPECT_EQ(packet.size(), l4 + 20);
    EXPECT_TRUE(std::equal(kGuestMac.begin(), kGuestMac.end(), packet.begin()));
    EXPECT_TRUE(std::equal(kHostMac.begin(), kHostMac.end(), packet.begin() + 6));
    const Bytes segment(packet.begin() + static_cast<long>(l4), packet.end());
    // Addresses, protocol and lengths are right if the headers are those of our own builder, ttl and flags as
    // it sets them.
    const Bytes expected = ip_frame(family.server, family.guest, IPPROTO_TCP, segment, kHostMac, kGuestMac);
    EXPECT_EQ(packet, expected);
    EXPECT_EQ(transport_checksum(family.server, family.guest, IPPROTO_TCP, segment), 0);
    EXPECT_EQ(get16(segment, 0), sent.destination_port);
    EXPECT_EQ(get16(segment, 2), sent.source_port);
    EXPECT_EQ(segment[12], 0x50);
    return {get32(segment, 4), get32(segment, 8), segment[13]};
}

class TcpTest : public ProgRunTest {
  protected:
    static RunResult send(const Family& family, const TcpFields& fields) {
        return ingress(tcp_frame(family.guest, family.server, fields));
    }

    static tg_flow flow_of(const Family& family, const TcpFields& fields) {
        tg_flow flow{};
        flow.guest_address = to_tg(family.guest);
        flow.peer_address = to_tg(family.server);
        flow.guest_port = htons(fields.source_port);
        flow.peer_port = htons(fields.destination_port);
        flow.protocol = IPPROTO_TCP;
        return flow;
    }
};

TEST_F(TcpTest, refused_segments_are_answered_with_a_reset_by_the_rules_of_rfc_9293) {
    for (const auto& family : families()) {
        TcpFields fields;
        fields.sequence = 0xfffffff0;
        auto result = send(family, fields);
        EXPECT_TRUE(refused(result, TG_DROP_NO_LISTENER));
        ASSERT_EQ(result.action, kRedirect);
        auto reset = check_reset(family, fields, result.packet);
        EXPECT_EQ(reset.flags, kRst | kAck);
        EXPECT_EQ(reset.sequence, 0U);
        EXPECT_EQ(reset.acknowledgement, 0xfffffff1U);

        // Data in the SYN (TCP Fast Open), and an odd length.
        fields.payload = Bytes(31, 0xaa);
        result = send(family, fields);
        ASSERT_EQ(result.action, kRedirect);
        EXPECT_EQ(check_reset(family, fields, result.packet).acknowledgement, 0xfffffff1U + 31);

        fields.flags = kAck | kPsh;
        fields.acknowledgement = 0x12345678;
        result = send(family, fields);
        EXPECT_TRUE(refused(result, TG_DROP_TCP_NO_FLOW));
        ASSERT_EQ(result.action, kRedirect);
        reset = check_reset(family, fields, result.packet);
        EXPECT_EQ(reset.flags, kRst);
        EXPECT_EQ(reset.sequence, 0x12345678U);
        EXPECT_EQ(reset.acknowledgement, 0U);

        fields.flags = kSyn | kAck;
        fields.payload.clear();
        result = send(family, fields);
        EXPECT_TRUE(refused(result, TG_DROP_TCP_INGRESS));
        ASSERT_EQ(result.action, kRedirect);
        EXPECT_EQ(check_reset(family, fields, result.packet).sequence, 0x12345678U);
    }
}

TEST_F(TcpTest, a_reset_is_never_answered) {
    for (const auto& family : families()) {
        for (const std::uint8_t flags : {kRst, static_cast<std::uint8_t>(kRst | kAck)}) {
            TcpFields fields;
            fields.flags = flags;
            const auto result = send(family, fields);
            EXPECT_TRUE(refused(result, TG_DROP_TCP_NO_FLOW));
            EXPECT_EQ(result.action, kShot);
        }
    }
}

TEST_F(TcpTest, our_own_reset_may_go_to_the_guest_and_others_may_not) {
    for (const auto& family : families()) {
        TcpFields fields;
        fields.source_port = 443;
        fields.destination_port = 40000;
        fields.flags = kRst;
        const Bytes reset = tcp_frame(family.server, family.guest, fields);
        // By the host's kernel, for a socket that is gone.
        EXPECT_TRUE(passed(egress(reset)));
        // Forwarded from another interface; and back out of this one but without our mark.
        EXPECT_TRUE(refused(product().run_on("tap_egress", reset, Programs::tap_ifindex(), 1),
                            TG_DROP_EGRESS_NOT_OURS));
        EXPECT_TRUE(
            refused(product().run_on("tap_egress", reset, Programs::tap_ifindex(), Programs::tap_ifindex()),
                    TG_DROP_EGRESS_NOT_OURS));
    }
}

TEST_F(TcpTest, nothing_with_content_goes_to_the_guest_without_a_socket_of_ours) {
    for (const auto& family : families()) {
        const auto out = [&family](const TcpFields& fields) {
            return egress(tcp_frame(family.server, family.guest, fields));
        };
        TcpFields fields;
        EXPECT_TRUE(refused(out(fields), TG_DROP_EGRESS_NOT_OURS)) << "SYN";
        fields.flags = kSyn | kAck;
        EXPECT_TRUE(refused(out(fields), TG_DROP_EGRESS_NOT_OURS)) << "SYN+ACK";
        fields.flags = kAck | kFin;
        EXPECT_TRUE(refused(out(fields), TG_DROP_EGRESS_NOT_OURS)) << "FIN";
        fields.flags = kAck;
        EXPECT_TRUE(passed(out(fields))) << "a bare ACK of the kernel";
        fields.payload = Bytes(1);
        EXPECT_TRUE(refused(out(fields), TG_DROP_EGRESS_NOT_OURS)) << "data";
        fields.flags = kRst;
        EXPECT_TRUE(refused(out(fields), TG_DROP_EGRESS_NOT_OURS)) << "RST with data";
        fields.data_offset = 15;
        EXPECT_TRUE(refused(out(fields), TG_DROP_EGRESS_NOT_OURS)) << "header longer than the packet";
        // To an address that is not behind this interface.
        fields = {};
        fields.flags = kRst;
        EXPECT_TRUE(
            refused(egress(tcp_frame(family.server, family.stranger, fields)), TG_DROP_EGRESS_NOT_OURS));
    }
}

TEST_F(TcpTest, a_syn_cookie_reaches_only_a_guest_that_sent_the_syn) {
    for (const auto& family : families()) {
        TcpFields sent;
        product().store("pending", flow_of(family, sent), tg_pending{kGuestId, 1, kGuestSlot, 1, {}});
        TcpFields fields;
        fields.source_port = sent.destination_port;
        fields.destination_port = sent.source_port;
        fields.flags = kSyn | kAck | 0x40; // ECN-Echo
        const Bytes packet = tcp_frame(family.server, family.guest, fields);
        EXPECT_TRUE(passed(egress(packet)));
        EXPECT_TRUE(refused(product().run_on("tap_egress", packet, Programs::tap_ifindex(), 1),
                            TG_DROP_EGRESS_NOT_OURS))
            << "forwarded";
        product().store("pending", flow_of(family, sent), tg_pending{kGuestId - 1, 1, kGuestSlot, 1, {}});
        EXPECT_TRUE(refused(egress(packet), TG_DROP_EGRESS_NOT_OURS)) << "of another guest";
    }
}

TEST_F(TcpTest, impossible_headers_are_refused_in_silence) {
    for (const auto& family : families()) {
        for (unsigned flags = 0; flags < 64; ++flags) {
            TcpFields fields;
            fields.flags = static_cast<std::uint8_t>(flags);
            const bool syn = (flags & kSyn) != 0;
            const bool rst = (flags & kRst) != 0;
            const bool fin = (flags & kFin) != 0;
            const bool ack = (flags & kAck) != 0;
            const bool possible = syn + rst + fin <= 1 && (syn || rst || ack);
            const auto result = send(family, fields);
            if (possible)
                EXPECT_TRUE(refused(result, syn && ack ? TG_DROP_TCP_INGRESS
                                            : syn      ? TG_DROP_NO_LISTENER
                                                       : TG_DROP_TCP_NO_FLOW))
                    << flags;
            else
                EXPECT_TRUE(refused(result, TG_DROP_TCP_HEADER)) << flags;
            EXPECT_EQ(result.action, possible && !rst ? kRedirect : kShot) << flags;
        }
        for (const unsigned offset : {0U, 4U, 6U, 15U}) {
            TcpFields fields;
            fields.data_offset = offset;
            EXPECT_TRUE(refused(send(family, fields), TG_DROP_TCP_HEADER)) << offset;
        }
    }
}

TEST_F(TcpTest, B17_other_name_services_over_tcp_are_refused_with_a_reset) {
    for (const auto& family : families()) {
        for (const std::uint16_t port : {137, 853, 5353, 5355}) {
            TcpFields fields;
            fields.destination_port = port;
            const auto result = send(family, fields);
            EXPECT_TRUE(refused(result, TG_DROP_DNS_TRANSPORT));
            EXPECT_EQ(result.action, kRedirect);
        }
    }
}

TEST_F(TcpTest, a_connection_for_dns_is_for_the_daemon_whatever_the_policy_says_of_its_address) {
    product().set_policy("");
    for (const auto& family : families()) {
        TcpFields fields;
        fields.destination_port = 53;
        EXPECT_TRUE(refused(send(family, fields), TG_DROP_NO_LISTENER)) << "it alone is missing";
        fields.destination_port = 54;
        EXPECT_TRUE(refused(send(family, fields), TG_DROP_POLICY_FIRST_PACKET));
    }
}

TEST_F(TcpTest, a_listener_of_the_host_is_out_of_reach) {
    for (const auto& family : families()) {
        // On all addresses; an IPv6 socket so that one call serves both families.
        const UniqueFd fd(::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
        TcpFields fields;
        fields.destination_port = 8443;
        sockaddr_storage any{};
        const unsigned length = Endpoint{IpAddress(), fields.destination_port}.to_sockaddr(any);
        ASSERT_EQ(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&any), length), 0);
        ASSERT_EQ(::listen(fd.get(), 1), 0);
        EXPECT_TRUE(refused(send(family, fields), TG_DROP_NO_LISTENER))
            << "SYN goes to the daemon or nowhere";
        fields.flags = kAck;
        EXPECT_TRUE(refused(send(family, fields), TG_DROP_TCP_NO_FLOW));
    }
}

TEST_F(TcpTest, an_entry_of_an_earlier_guest_is_nobodys_permission) {
    for (const auto& family : families()) {
        product().store("pending", flow_of(family, {}), tg_pending{kGuestId - 1, 1, kGuestSlot, 1, {}});
        TcpFields fields;
        fields.flags = kAck;
        EXPECT_TRUE(refused(send(family, fields), TG_DROP_TCP_NO_FLOW));
        EXPECT_TRUE(refused(send(family, {}), TG_DROP_PENDING_FULL));
        EXPECT_EQ(product().state().half_open, 0U);
    }
}

} // namespace

} // namespace tapgate::test
