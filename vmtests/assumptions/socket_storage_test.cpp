// SPDX-License-Identifier: Apache-2.0
//
// Asserts: socket storage with BPF_F_CLONE, set on a listener, is inherited by the sockets it accepts; at tc
// egress skb->sk is the sending socket, so that its storage tells our packets from others'; the skb->sk of a
// SYN+ACK is a request socket, from which bpf_get_listener_sock() leads to the listener and its storage.
//
// The design needs it for tap_egress (bpf/tapgate.bpf.c: egress_tcp, egress_udp): only packets of the
// daemon's own sockets may reach a guest, and no address or port is enough to know them.
#include "harness/tcp_stream.hpp"
#include "harness/udp_responder.hpp"
#include "steered_host.hpp"
#include "steering.h"
#include "steering.skel.h"

#include <bpf/bpf.h>
#include <gtest/gtest.h>

#include <netinet/in.h>
#include <sys/socket.h>

namespace tapgate::assumptions {
namespace {

class SocketStorage : public testing::TestWithParam<const test::Family*> {
  protected:
    const test::Family& family() const { return *GetParam(); }

    int storage() { return ::bpf_map__fd(host_.bpf().maps.owned); }

    /// Opens a listener and has a guest connect to it; gives the accepted end.
    test::TcpStream connected() {
        guest_.emplace(
            test::TcpStream::connect(host_.topology().guest().ns, {family().server(9), 443}).value());
        return test::TcpStream(accept_one(listener_.get()));
    }

    void SetUp() override {
        listener_ = host_.open_socket(family(), SOCK_STREAM);
        host_.set_listener(family().guest.is_v4() ? STEER_TCP4 : STEER_TCP6, listener_.get());
    }

    void own(int socket) {
        const std::uint32_t value = 42;
        ASSERT_EQ(::bpf_map_update_elem(storage(), &socket, &value, BPF_NOEXIST), 0);
    }

    SteeredHost host_;
    UniqueFd listener_;
    std::optional<test::TcpStream> guest_;
};

TEST_P(SocketStorage, accepted_sockets_inherit_it) {
    own(listener_.get());
    const test::TcpStream accepted = connected();
    const int socket = accepted.fd();
    std::uint32_t value = 0;
    ASSERT_EQ(::bpf_map_lookup_elem(storage(), &socket, &value), 0);
    EXPECT_EQ(value, 42U);
}

TEST_P(SocketStorage, every_segment_of_an_owned_connection_shows_it_at_egress) {
    own(listener_.get());
    test::TcpStream accepted = connected();
    ASSERT_EQ(accepted.send("data"), 0);
    ASSERT_EQ(guest_->receive(4).bytes, "data");

    EXPECT_GE(host_.count(STEER_SYN_ACK_OWNED), 1U);
    EXPECT_EQ(host_.count(STEER_SYN_ACK_OTHER), 0U);
    EXPECT_GE(host_.count(STEER_SEGMENT_OWNED), 1U);
    EXPECT_EQ(host_.count(STEER_SEGMENT_OTHER), 0U);
}

TEST_P(SocketStorage, a_connection_of_another_listener_does_not_show_it) {
    test::TcpStream accepted = connected();
    ASSERT_EQ(accepted.send("data"), 0);
    ASSERT_EQ(guest_->receive(4).bytes, "data");

    EXPECT_EQ(host_.count(STEER_SYN_ACK_OWNED), 0U);
    EXPECT_EQ(host_.count(STEER_SEGMENT_OWNED), 0U);
    EXPECT_GE(host_.count(STEER_SYN_ACK_OTHER), 1U);
    EXPECT_GE(host_.count(STEER_SEGMENT_OTHER), 1U);
}

TEST_P(SocketStorage, datagrams_show_their_socket_at_egress) {
    const test::UdpSocket guest(host_.topology().guest().ns, {family().guest, 0});
    const test::UdpSocket host(host_.topology().host(), {family().gateway, 5353});
    host.send(guest.local(), {'1'});
    ASSERT_TRUE(guest.receive(test::kPatience).has_value());
    EXPECT_EQ(host_.count(STEER_DATAGRAM_OTHER), 1U);
    EXPECT_EQ(host_.count(STEER_DATAGRAM_OWNED), 0U);

    own(host.fd());
    host.send(guest.local(), {'2'});
    ASSERT_TRUE(guest.receive(test::kPatience).has_value());
    EXPECT_EQ(host_.count(STEER_DATAGRAM_OTHER), 1U);
    EXPECT_EQ(host_.count(STEER_DATAGRAM_OWNED), 1U);
}

INSTANTIATE_TEST_SUITE_P(Families, SocketStorage, testing::Values(&test::ipv4(), &test::ipv6()),
                         [](const auto& instance) { return instance.param->name; });

} // namespace
} // namespace tapgate::assumptions
