// SPDX-License-Identifier: Apache-2.0
#include "card.hpp"
#include "dns_case.hpp"
#include "sockets.hpp"

#include <bpf/libbpf.h>

#include <chrono>

#include <poll.h>
#include <unistd.h>

// Packets that really go through the programs on the veth pair: what BPF_PROG_TEST_RUN cannot show, above all
// sockets, on either side.
namespace tapgate::test {

namespace {

using namespace std::chrono_literals;

/// A TCP segment from the host to `port` with exactly `flags`.
auto segment_with(std::uint16_t port, std::uint8_t flags) {
    return [port, flags](const Bytes& frame) -> bool {
        if (!is_transport(frame, IPPROTO_TCP))
            return false;
        const Bytes segment = transport_of(frame);
        return get16(segment, 2) == port && segment[13] == flags;
    };
}

class LiveTest : public ProgRunTest {
  protected:
    static void SetUpTestSuite() {
        attach(Programs::tap_ifindex(), BPF_TC_INGRESS, "tap_ingress");
        attach(Programs::tap_ifindex(), BPF_TC_EGRESS, "tap_egress");
        for (const char* command :
             {"ip rule add fwmark 0x7461 lookup 100", "ip -6 rule add fwmark 0x7461 lookup 100",
              "ip route add local default dev lo table 100",
              "ip -6 route add local default dev lo table 100"})
            ASSERT_EQ(std::system(command), 0) << command;
    }

    static void TearDownTestSuite() { detach_all(Programs::tap_ifindex()); }

    static UniqueFd listener(const Family& family) {
        return family.guest.is_v4()
                   ? open_listener(product(), TG_LISTENER_TCP4, {*IpAddress::parse("192.0.0.8"), 0})
                   : open_listener(product(), TG_LISTENER_TCP6, {*IpAddress::parse("100::8"), 0});
    }

    static std::uint64_t dropped(tg_drop_reason reason) {
        std::vector<std::uint64_t> per_cpu(static_cast<std::size_t>(libbpf_num_possible_cpus()));
        const std::uint32_t key = reason;
        EXPECT_TRUE(product().lookup_raw("drops", &key, per_cpu.data()));
        std::uint64_t sum = 0;
        for (const auto count : per_cpu)
            sum += count;
        return sum;
    }

    /// Waits until `reason` was counted once more than `before`.
    static bool counted(tg_drop_reason reason, std::uint64_t before) {
        const auto deadline = std::chrono::steady_clock::now() + 5s;
        while (dropped(reason) <= before) {
            if (std::chrono::steady_clock::now() > deadline)
                return false;
            ::usleep(1000);
        }
        return dropped(reason) == before + 1;
    }

    /// Handshake of the guest with whatever answers; empty if nobody accepts.
    UniqueFd connect(const Family& family, int listening, TcpFields& fields) const {
        fields.flags = kSyn;
        card_.send(tcp_frame(family.guest, family.server, fields));
        const Bytes answer = card_.receive(segment_with(fields.source_port, kSyn | kAck));
        if (answer.empty())
            return UniqueFd();
        fields.sequence += 1;
        fields.acknowledgement = get32(transport_of(answer), 4) + 1;
        fields.flags = kAck;
        card_.send(tcp_frame(family.guest, family.server, fields));
        pollfd waiting{listening, POLLIN, 0};
        if (::poll(&waiting, 1, 5000) != 1)
            return UniqueFd();
        return UniqueFd(::accept4(listening, nullptr, nullptr, SOCK_CLOEXEC));
    }

    const Card card_{kGuestName};
};

TEST_F(LiveTest, a_flow_is_steered_to_the_daemon_and_serves_both_ways) {
    std::uint16_t port = 41000;
    for (const auto& family : families()) {
        const UniqueFd listening = listener(family);
        TcpFields fields;
        fields.source_port = ++port;
        const UniqueFd accepted = connect(family, listening.get(), fields);
        ASSERT_TRUE(accepted) << family.name;
        sockaddr_storage local{};
        socklen_t length = sizeof local;
        ASSERT_EQ(::getsockname(accepted.get(), reinterpret_cast<sockaddr*>(&local), &length), 0);
        EXPECT_EQ(Endpoint::from_sockaddr(local), (Endpoint{family.server, 443}));
        EXPECT_EQ(product().state().half_open, 1U);
        product().set_state({});

        fields.flags = kAck | kPsh;
        fields.payload = Bytes{'h', 'i'};
        card_.send(tcp_frame(family.guest, family.server, fields));
        char text[8] = {};
        EXPECT_EQ(::recv(accepted.get(), text, sizeof text, 0), 2);
        EXPECT_EQ(::send(accepted.get(), "hello", 5, 0), 5);
        const Bytes data = card_.receive(segment_with(fields.source_port, kAck | kPsh));
        ASSERT_FALSE(data.empty());
        EXPECT_EQ(transport_checksum(family.server, family.guest, IPPROTO_TCP, transport_of(data)), 0);
    }
}

TEST_F(LiveTest, time_wait_answers_the_guest_and_the_port_can_be_used_again) {
    std::uint16_t port = 42000;
    for (const auto& family : families()) {
        const UniqueFd listening = listener(family);
        TcpFields fields;
        fields.source_port = ++port;
        UniqueFd accepted = connect(family, listening.get(), fields);
        ASSERT_TRUE(accepted) << family.name;
        accepted.reset();
        const Bytes fin = card_.receive(segment_with(fields.source_port, kFin | kAck));
        ASSERT_FALSE(fin.empty()) << family.name;
        fields.acknowledgement += 1;
        fields.flags = kFin | kAck;
        card_.send(tcp_frame(family.guest, family.server, fields));
        ASSERT_FALSE(card_.receive(segment_with(fields.source_port, kAck)).empty()) << family.name;
        // A FIN that is sent again is acknowledged by what is left of the socket.
        card_.send(tcp_frame(family.guest, family.server, fields));
        EXPECT_FALSE(card_.receive(segment_with(fields.source_port, kAck)).empty()) << family.name;

        fields.sequence += 100'000;
        fields.acknowledgement = 0;
        // What a guest's TCP does with the ACK that its SYN gets.
        fields.flags = kSyn;
        card_.send(tcp_frame(family.guest, family.server, fields));
        const Bytes challenge = card_.receive(segment_with(fields.source_port, kAck));
        ASSERT_FALSE(challenge.empty()) << family.name;
        TcpFields reset = fields;
        reset.flags = kRst;
        reset.sequence = get32(transport_of(challenge), 8);
        card_.send(tcp_frame(family.guest, family.server, reset));
        EXPECT_TRUE(connect(family, listening.get(), fields)) << family.name << ": port used again";
    }
}

TEST_F(LiveTest, a_socket_that_is_gone_resets_the_guest) {
    std::uint16_t port = 43000;
    for (const auto& family : families()) {
        const UniqueFd listening = listener(family);
        TcpFields fields;
        fields.source_port = ++port;
        UniqueFd accepted = connect(family, listening.get(), fields);
        ASSERT_TRUE(accepted) << family.name;
        const linger abort{1, 0};
        ASSERT_EQ(::setsockopt(accepted.get(), SOL_SOCKET, SO_LINGER, &abort, sizeof abort), 0);
        accepted.reset();
        EXPECT_FALSE(card_.receive(segment_with(fields.source_port, kRst | kAck)).empty()) << family.name;

        product().reset();
        const auto before = dropped(TG_DROP_TCP_NO_FLOW);
        card_.send(tcp_frame(family.guest, family.server, fields));
        const Bytes reset = card_.receive(segment_with(fields.source_port, kRst));
        ASSERT_FALSE(reset.empty()) << family.name << ": from BPF";
        EXPECT_EQ(transport_checksum(family.server, family.guest, IPPROTO_TCP, transport_of(reset)), 0);
        EXPECT_TRUE(counted(TG_DROP_TCP_NO_FLOW, before));
    }
}

// A guest's virtio card leaves checksums to the host (CHECKSUM_PARTIAL).
TEST_F(LiveTest, the_reset_for_a_segment_without_its_checksum_has_a_good_one) {
    for (const auto& family : families()) {
        TcpFields fields;
        fields.source_port = 44001;
        fields.flags = kAck | kPsh;
        fields.payload = Bytes(33, 'x');
        Bytes segment = tcp_segment(family.guest, family.server, fields);
        set16(segment, 16, 0);
        VnetHeader offload{};
        offload.flags = kNeedsChecksum;
        offload.csum_start = family.guest.is_v4() ? 34 : 54;
        offload.csum_offset = 16;
        // The field holds the sum of the pseudo-header.
        Bytes pseudo = address_bytes(family.guest);
        append(pseudo, address_bytes(family.server));
        put32(pseudo, static_cast<std::uint32_t>(segment.size()));
        put32(pseudo, IPPROTO_TCP);
        set16(segment, 16, static_cast<std::uint16_t>(~internet_checksum(pseudo)));
        card_.send(ip_frame(family.guest, family.server, IPPROTO_TCP, segment), offload);
        const Bytes reset = card_.receive(segment_with(fields.source_port, kRst));
        ASSERT_FALSE(reset.empty()) << family.name;
        EXPECT_EQ(transport_checksum(family.server, family.guest, IPPROTO_TCP, transport_of(reset)), 0)
            << family.name;
    }
}

/// A datagram whose checksum is left to the host, and what the guest's card says of it.
struct UnfinishedDatagram {
    UnfinishedDatagram(const Family& family, std::uint16_t from, std::uint16_t to, const Bytes& payload) {
        Bytes datagram = udp_datagram(family.guest, family.server, from, to, payload);
        Bytes pseudo = address_bytes(family.guest);
        append(pseudo, address_bytes(family.server));
        put32(pseudo, static_cast<std::uint32_t>(datagram.size()));
        put32(pseudo, IPPROTO_UDP);
        set16(datagram, 6, static_cast<std::uint16_t>(~internet_checksum(pseudo)));
        frame = ip_frame(family.guest, family.server, IPPROTO_UDP, datagram);
        offload.flags = kNeedsChecksum;
        offload.csum_start = family.guest.is_v4() ? 34 : 54;
        offload.csum_offset = 6;
    }

    Bytes frame;
    VnetHeader offload{};
};

TEST_F(LiveTest, a_denied_name_is_answered_whoever_fills_in_the_checksums) {
    product().set_policy("[deny]\ntext = \"no\"");
    for (const auto& family : families()) {
        DnsBuilder message(kDnsId, 0x0100, dns_name("denied.test"), kTypeA);
        message.record({0}, 41, 0, {}, 1232, 10);
        const UnfinishedDatagram unfinished(family, kDnsPort, 53, message.bytes());
        for (const bool whole : {true, false}) {
            if (whole)
                card_.send(udp_frame(family.guest, family.server, kDnsPort, 53, message.bytes()));
            else
                card_.send(unfinished.frame, unfinished.offload);
            const Bytes answer =
                card_.receive([](const Bytes& frame) { return is_transport(frame, IPPROTO_UDP); });
            ASSERT_FALSE(answer.empty()) << family.name << whole;
            const Bytes datagram = transport_of(answer);
            EXPECT_EQ(get16(datagram, 8), kDnsId);
            EXPECT_EQ(get16(datagram, 10), 0x8183);
            EXPECT_EQ(transport_checksum(family.server, family.guest, IPPROTO_UDP, datagram), 0)
                << family.name << whole;
        }
    }
}

TEST_F(LiveTest, refused_udp_is_answered_by_icmp_whoever_fills_in_the_checksums) {
    for (const auto& family : families()) {
        const bool v4 = family.guest.is_v4();
        const UnfinishedDatagram unfinished(family, 50000, 443, Bytes(33, 0xc3));
        for (const bool whole : {true, false}) {
            if (whole)
                card_.send(udp_frame(family.guest, family.server, 50000, 443, Bytes(33, 0xc3)));
            else
                card_.send(unfinished.frame, unfinished.offload);
            const Bytes answer = card_.receive([v4](const Bytes& frame) {
                const std::uint8_t protocol = v4 ? std::uint8_t{IPPROTO_ICMP} : std::uint8_t{IPPROTO_ICMPV6};
                return is_transport(frame, protocol) && transport_of(frame)[0] == (v4 ? 3 : 1);
            });
            ASSERT_FALSE(answer.empty()) << family.name << whole;
            const Bytes error = transport_of(answer);
            EXPECT_EQ(error[1], v4 ? 13 : 1);
            EXPECT_EQ(v4 ? internet_checksum(error)
                         : transport_checksum(family.server, family.guest, IPPROTO_ICMPV6, error),
                      0)
                << family.name << whole;
        }
    }
}

TEST_F(LiveTest, a_dns_answer_is_recorded_before_the_guest_has_it_and_a_forged_one_never_arrives) {
    for (const auto& family : families()) {
        const bool v4 = family.guest.is_v4();
        const auto kind = v4 ? TG_LISTENER_DNS4 : TG_LISTENER_DNS6;
        const UniqueFd socket = open_listener(product(), kind, {family.server, 53});
        const Bytes name = dns_name("allowed.test");
        card_.send(udp_frame(family.guest, family.server, kDnsPort, 53,
                             DnsBuilder(kDnsId, 0x0100, name, kTypeA).bytes()));
        pollfd waiting{socket.get(), POLLIN, 0};
        ASSERT_EQ(::poll(&waiting, 1, 5000), 1) << family.name;
        Bytes query(512);
        ASSERT_GT(::recv(socket.get(), query.data(), query.size(), 0), 12);
        ASSERT_TRUE(product().lookup<tg_dns_question>("dns_pending", dns_key(family)));
        EXPECT_EQ(product().state().dns_pending, 1U);

        sockaddr_storage guest{};
        const unsigned length = Endpoint{family.guest, kDnsPort}.to_sockaddr(guest);
        const auto deliver = [&](int fd, std::uint16_t id) {
            const auto message = DnsBuilder(id, kAnswerFlags, name, kTypeA)
                                     .address(dns_question_pointer(), 300, "203.0.113.5");
            // What the program refuses, the sender is told of by an error or not at all.
            (void)!::sendto(fd, message.bytes().data(), message.bytes().size(), 0,
                            reinterpret_cast<const sockaddr*>(&guest), length);
        };
        tg_binding_key key{};
        key.guest_id = kGuestId;
        key.address = to_tg(*IpAddress::parse("203.0.113.5"));

        const std::uint32_t not_ours = 0;
        product().store("owned_sockets", socket.get(), not_ours);
        auto before = dropped(TG_DROP_EGRESS_NOT_OURS);
        deliver(socket.get(), kDnsId);
        EXPECT_TRUE(counted(TG_DROP_EGRESS_NOT_OURS, before)) << family.name;
        product().store("owned_sockets", socket.get(), tg_owned{static_cast<std::uint32_t>(kind) + 1});
        before = dropped(TG_DROP_DNS_ANSWER_UNASKED);
        deliver(socket.get(), kDnsId + 1);
        EXPECT_TRUE(counted(TG_DROP_DNS_ANSWER_UNASKED, before)) << family.name;
        EXPECT_FALSE(product().lookup<tg_binding>("bindings", key)) << family.name;

        deliver(socket.get(), kDnsId);
        // The first datagram that arrives is the good one.
        const Bytes answer =
            card_.receive([](const Bytes& frame) { return is_transport(frame, IPPROTO_UDP); });
        ASSERT_FALSE(answer.empty()) << family.name;
        EXPECT_EQ(get16(transport_of(answer), 8), kDnsId);
        EXPECT_EQ(transport_checksum(family.server, family.guest, IPPROTO_UDP, transport_of(answer)), 0);
        EXPECT_TRUE(product().lookup<tg_binding>("bindings", key)) << family.name;
        EXPECT_EQ(product().state().dns_pending, 0U);
        product().reset();
    }
}

TEST_F(LiveTest, a_vlan_tag_that_the_kernel_moved_to_metadata_is_seen) {
    for (const auto& family : families()) {
        Bytes packet = tcp_frame(family.guest, family.server, {});
        const Bytes tag{0x81, 0x00, 0x00, 0x05};
        packet.insert(packet.begin() + 12, tag.begin(), tag.end());
        const auto before = dropped(TG_DROP_VLAN);
        card_.send(packet);
        EXPECT_TRUE(counted(TG_DROP_VLAN, before)) << family.name;
    }
}

TEST_F(LiveTest, frames_cut_inside_the_ip_header_are_dropped) {
    for (const auto& family : families()) {
        const Bytes whole = tcp_frame(family.guest, family.server, {});
        for (std::size_t size = 15; size < (family.guest.is_v4() ? 34U : 54U); ++size) {
            const auto before = dropped(TG_DROP_TRUNCATED);
            card_.send(Bytes(whole.begin(), whole.begin() + static_cast<long>(size)));
            EXPECT_TRUE(counted(TG_DROP_TRUNCATED, before)) << family.name << " " << size;
        }
    }
}

TEST_F(LiveTest, another_program_of_the_host_cannot_talk_to_the_guest) {
    for (const auto& family : families()) {
        const UniqueFd fd(::socket(family.guest.is_v4() ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        sockaddr_storage guest{};
        const unsigned length = Endpoint{family.guest, 5000}.to_sockaddr(guest);
        const auto before = dropped(TG_DROP_EGRESS_NOT_OURS);
        (void)!::sendto(fd.get(), "x", 1, 0, reinterpret_cast<const sockaddr*>(&guest), length);
        EXPECT_TRUE(counted(TG_DROP_EGRESS_NOT_OURS, before)) << family.name;
    }
}

} // namespace

} // namespace tapgate::test
