// SPDX-License-Identifier: Apache-2.0
//
// Asserts: bpf_sk_assign() at tc ingress, of a transparent TCP listener from a sockmap, makes that listener
// take a SYN to any other address and port; a mark, a rule and a local route deliver the rest of the flow;
// the accepted socket's own address is what the guest dialled.
//
// The design needs it for all guest TCP (bpf/lib/tcp.bpf.h, userspace/proxy/listeners.cpp): one listener per
// worker, no NAT, no conntrack, and the dialled address read with getsockname().
#include "harness/tcp_stream.hpp"
#include "steered_host.hpp"
#include "steering.h"

#include <gtest/gtest.h>

#include <sys/socket.h>

namespace tapgate::assumptions {
namespace {

class TcpSteering : public testing::TestWithParam<const test::Family*> {
  protected:
    const test::Family& family() const { return *GetParam(); }

    SteeredHost host_;
};

TEST_P(TcpSteering, the_assigned_listener_takes_a_connection_to_another_address_and_port) {
    const UniqueFd listener = host_.open_socket(family(), SOCK_STREAM);
    host_.set_listener(family().guest.is_v4() ? STEER_TCP4 : STEER_TCP6, listener.get());
    const Endpoint dialled{family().server(9), 443};

    auto guest = test::TcpStream::connect(host_.topology().guest().ns, dialled);
    ASSERT_TRUE(guest.has_value()) << guest.error();
    test::TcpStream accepted(accept_one(listener.get()));

    EXPECT_EQ(accepted.local(), dialled);
    EXPECT_EQ(accepted.peer(), guest->local());
    const std::string bytes(200'000, 'x');
    EXPECT_EQ(guest->send("ping"), 0);
    EXPECT_EQ(accepted.receive(4).bytes, "ping");
    EXPECT_EQ(accepted.send(bytes), 0);
    EXPECT_EQ(guest->receive(bytes.size()).bytes.size(), bytes.size());
}

TEST_P(TcpSteering, without_a_listener_the_syn_is_for_the_program_to_refuse) {
    const auto guest = test::TcpStream::connect(host_.topology().guest().ns, {family().server(9), 443},
                                                std::chrono::milliseconds(500));
    EXPECT_FALSE(guest.has_value());
    EXPECT_GE(host_.count(STEER_NO_LISTENER), 1U);
}

INSTANTIATE_TEST_SUITE_P(Families, TcpSteering, testing::Values(&test::ipv4(), &test::ipv6()),
                         [](const auto& instance) { return instance.param->name; });

} // namespace
} // namespace tapgate::assumptions
