// SPDX-License-Identifier: Apache-2.0
//
// Asserts: a raw socket that brings its own IP header sends a TCP segment from an address and port that a
// connection of the host has, and from one that the host has not, as it stands: with DF, and by the route to
// its destination. What the route's interface cannot take whole is refused, never fragmented. A connection in
// repair mode stays silent meanwhile, and keeps its port from others to that server.
//
// The design needs it for the kernel splice (DESIGN 9.1, steps 5 and 6): the guest's first flight goes to the
// server with the numbers of a connection whose socket says nothing any more, resets go to both ends.
#include "harness/packets.hpp"
#include "harness/tcp_server.hpp"
#include "harness/topology.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <string>
#include <utility>

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

namespace tapgate::assumptions {
namespace {

using test::Bytes;

constexpr std::size_t kFragmentField = 6; // of an IPv4 header (RFC 791 3.1)
constexpr std::size_t kChecksum = 10;
constexpr std::uint8_t kDontFragment = 0x40;

void set(const test::TcpStream& stream, int option, int value) {
    ASSERT_EQ(::setsockopt(stream.fd(), IPPROTO_TCP, option, &value, sizeof value), 0);
}

/// The next number of a queue of a connection in repair mode.
std::uint32_t sequence_of(const test::TcpStream& stream, int queue) {
    set(stream, TCP_REPAIR_QUEUE, queue);
    std::uint32_t value = 0;
    socklen_t length = sizeof value;
    EXPECT_EQ(::getsockopt(stream.fd(), IPPROTO_TCP, TCP_QUEUE_SEQ, &value, &length), 0);
    return value;
}

class RawSegments : public testing::TestWithParam<const test::Family*> {
  protected:
    static const test::Family& family() { return *GetParam(); }

    [[nodiscard]] const test::NetNs& host() const { return topology_.host(); }

    /// IPv4 with DF, and without a checksum, which the kernel fills in.
    static Bytes packet(const Endpoint& from, const Endpoint& to, std::uint32_t sequence,
                        std::uint32_t acknowledgement, const Bytes& payload) {
        Bytes packet = test::ip_packet(
            from.address, to.address, test::kProtocolTcp,
            test::tcp_segment(from, to, test::kTcpPsh | test::kTcpAck, sequence, acknowledgement, payload));
        if (from.address.is_v4()) {
            packet[kFragmentField] = kDontFragment;
            std::fill_n(packet.begin() + kChecksum, 2, std::uint8_t{0});
        }
        return packet;
    }

    /// 0, or the errno of sendto().
    [[nodiscard]] int send(const Bytes& packet, const IpAddress& to) const {
        sockaddr_storage storage{};
        const socklen_t length = Endpoint{to, 0}.to_sockaddr(storage);
        const ssize_t sent = ::sendto(raw_.get(), packet.data(), packet.size(), 0,
                                      reinterpret_cast<const sockaddr*>(&storage), length);
        return sent < 0 ? errno : 0;
    }

    /// A connection from that address and port, as the daemon dials, and the errno of connect().
    [[nodiscard]] std::pair<test::TcpStream, int> connect_from(const Endpoint& local,
                                                               const Endpoint& remote) const {
        sockaddr_storage from{};
        const socklen_t from_length = local.to_sockaddr(from);
        sockaddr_storage to{};
        const socklen_t to_length = remote.to_sockaddr(to);
        UniqueFd fd(host().run([&] { return ::socket(from.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0); }));
        const int on = 1;
        ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        EXPECT_EQ(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&from), from_length), 0);
        const int error =
            ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), to_length) == 0 ? 0 : errno;
        return {test::TcpStream(std::move(fd)), error};
    }

    /// True if the wire carries just this packet, but for the checksum of its IPv4 header.
    static bool carries(test::PacketTap& wire, const Bytes& packet) {
        return wire
            .wait_for(
                [&](test::Seen seen) {
                    if (seen.packet.size() < packet.size())
                        return false;
                    seen.packet.resize(packet.size()); // without Ethernet's padding of short frames
                    if (family().internet.is_v4())
                        std::fill_n(seen.packet.begin() + kChecksum, 2, std::uint8_t{0});
                    return seen.packet == packet;
                },
                test::kPatience)
            .has_value();
    }

    test::Topology topology_;
    UniqueFd raw_{host().run([] {
        return ::socket(family().internet.is_v4() ? AF_INET : AF_INET6, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
    })};
};

TEST_P(RawSegments, a_segment_for_a_silent_connection_goes_as_it_stands_and_its_server_takes_it) {
    std::string got;
    std::atomic<bool> has_got{false};
    const test::TcpServer server(topology_.internet(), {family().server(9), 9}, [&](test::TcpStream& stream) {
        got = stream.receive(5).bytes;
        has_got = true;
        stream.receive_to_end();
    });
    const test::TcpStream stream = test::TcpStream::connect(host(), server.endpoint()).value();
    set(stream, TCP_REPAIR, TCP_REPAIR_ON);
    const Bytes segment = packet(stream.local(), server.endpoint(), sequence_of(stream, TCP_SEND_QUEUE),
                                 sequence_of(stream, TCP_RECV_QUEUE), {'a', 'b', 'c', 'd', 'e'});
    test::PacketTap wire(host(), "wan0");
    EXPECT_EQ(send(segment, server.endpoint().address), 0);
    EXPECT_TRUE(carries(wire, segment));
    EXPECT_TRUE(test::wait_until([&] { return has_got.load(); }));
    EXPECT_EQ(got, "abcde");
}

TEST_P(RawSegments, a_segment_from_an_address_that_the_host_has_not_leaves_where_its_destination_is) {
    test::PacketTap tap(host(), topology_.guest().tap);
    const Endpoint guest{family().guest, 12345};
    const Bytes segment = packet({family().server(9), 443}, guest, 1, 2, {'x'});
    EXPECT_EQ(send(segment, guest.address), 0);
    EXPECT_TRUE(carries(tap, segment));
}

TEST_P(RawSegments, a_segment_larger_than_the_interface_takes_is_refused) {
    const Endpoint server{family().server(9), 9};
    const Bytes segment = packet({family().uplink, 12345}, server, 1, 2, Bytes(1500));
    EXPECT_EQ(send(segment, server.address), EMSGSIZE);
}

TEST_P(RawSegments, a_silent_connection_keeps_its_port_from_others_to_its_server) {
    const test::TcpServer server(topology_.internet(), {family().server(9), 9}, test::echo);
    const auto [silent, error] = connect_from({family().uplink, 0}, server.endpoint());
    ASSERT_EQ(error, 0);
    set(silent, TCP_REPAIR, TCP_REPAIR_ON);
    const int on = 1; // which TCP_REPAIR takes away
    ::setsockopt(silent.fd(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    EXPECT_EQ(connect_from(silent.local(), server.endpoint()).second, EADDRNOTAVAIL);
    const test::TcpServer other(topology_.internet(), {family().server(9), 10}, test::echo);
    EXPECT_EQ(connect_from(silent.local(), other.endpoint()).second, 0);
}

INSTANTIATE_TEST_SUITE_P(Families, RawSegments, testing::Values(&test::ipv4(), &test::ipv6()),
                         [](const auto& instance) { return instance.param->name; });

} // namespace
} // namespace tapgate::assumptions
