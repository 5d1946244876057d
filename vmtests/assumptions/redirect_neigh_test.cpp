// SPDX-License-Identifier: Apache-2.0
//
// Asserts: bpf_redirect_neigh() at tc ingress of a guest's interface sends the packet out of another
// interface, to the next hop that the host's routes give for its destination, with that neighbour resolved by
// the kernel, although ip_forward is off.
//
// The design needs it for the kernel splice (DESIGN 9.1): spliced packets go from tap to uplink without the
// host being a router.
#include "attach.hpp"
#include "harness/topology.hpp"
#include "harness/udp_responder.hpp"
#include "harness/wait.hpp"
#include "traffic.skel.h"

#include <bpf/bpf.h>
#include <gtest/gtest.h>

#include <memory>

namespace tapgate::assumptions {
namespace {

using namespace std::chrono_literals;

struct Unload {
    void operator()(traffic* bpf) const { traffic::destroy(bpf); }
};

class RedirectNeigh : public testing::TestWithParam<const test::Family*> {};

TEST_P(RedirectNeigh, a_guest_packet_leaves_through_the_uplink_without_forwarding) {
    const test::Family& family = *GetParam();
    const test::Topology topology;
    const Endpoint server{family.server(9), 9};
    // The way back, so that the internet's reverse path filter accepts the guest's address.
    test::ip_batch(topology.internet(), "route add 192.0.2.0/24 via 198.51.100.1\n"
                                        "route add 2001:db8:1::/48 via 2001:db8:2::1\n");
    const test::UdpSocket internet(topology.internet(), server);
    const test::UdpSocket guest(topology.guest().ns, {family.guest, 0});
    guest.send(server, {'1'});
    EXPECT_FALSE(internet.receive(300ms).has_value()) << "the host forwards";

    const std::unique_ptr<traffic, Unload> bpf(traffic::open());
    ASSERT_NE(bpf, nullptr);
    bpf->rodata->redirect_ifindex = interface_index(topology.host(), "wan0");
    ASSERT_EQ(traffic::load(bpf.get()), 0);
    attach_clsact(topology.host(), topology.guest().tap, Direction::kIngress,
                  ::bpf_program__fd(bpf->progs.redirect_udp));
    guest.send(server, {'2'});
    const auto arrived = internet.receive(test::kPatience);
    ASSERT_TRUE(arrived.has_value());
    EXPECT_EQ(arrived->from, guest.local());
    EXPECT_EQ(arrived->bytes, test::Bytes{'2'});
}

INSTANTIATE_TEST_SUITE_P(Families, RedirectNeigh, testing::Values(&test::ipv4(), &test::ipv6()),
                         [](const auto& instance) { return instance.param->name; });

} // namespace
} // namespace tapgate::assumptions
