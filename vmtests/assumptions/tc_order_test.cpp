// SPDX-License-Identifier: Apache-2.0
//
// Asserts: tc ingress (clsact and tcx) sees a packet before the IP layer does: what it drops reaches no
// socket and causes no ICMP. tc egress sees what the host sends last. tcx programs run before clsact filters,
// and TC_ACT_UNSPEC hands on to them.
//
// The design needs it for invariant I1 (bpf/tapgate.bpf.c): no verdict, no passage; and for replacing one
// kind of attachment by the other without a moment when neither runs (userspace/datapath/attach.cpp).
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

enum class Kind { kClsact, kTcx };

class TcOrder : public testing::TestWithParam<Kind> {
  protected:
    void SetUp() override {
        if (GetParam() == Kind::kTcx && !has_tcx())
            GTEST_SKIP() << "no tcx before Linux 6.6";
        ASSERT_NE(bpf_, nullptr);
    }

    void attach(Kind kind, Direction direction, const bpf_program* program) {
        const int fd = ::bpf_program__fd(program);
        if (kind == Kind::kClsact)
            attach_clsact(topology_.host(), topology_.guest().tap, direction, fd);
        else
            links_.push_back(attach_tcx(topology_.host(), topology_.guest().tap, direction, fd));
    }

    test::Topology topology_;
    std::unique_ptr<traffic, Unload> bpf_{traffic::open_and_load()};
    std::vector<UniqueFd> links_;
    const test::UdpSocket guest_{topology_.guest().ns, {test::ipv4().guest, 0}};
    const test::UdpSocket host_{topology_.host(), {test::ipv4().gateway, 5353}};
};

TEST_P(TcOrder, what_ingress_drops_reaches_no_socket) {
    guest_.send(host_.local(), {'1'});
    ASSERT_TRUE(host_.receive(test::kPatience).has_value());
    attach(GetParam(), Direction::kIngress, bpf_->progs.drop_udp);
    guest_.send(host_.local(), {'2'});
    EXPECT_TRUE(test::wait_until([&] { return bpf_->bss->dropped == 1; }));
    EXPECT_FALSE(host_.receive(200ms).has_value());
}

TEST_P(TcOrder, what_egress_drops_does_not_reach_the_guest) {
    host_.send(guest_.local(), {'1'});
    ASSERT_TRUE(guest_.receive(test::kPatience).has_value());
    attach(GetParam(), Direction::kEgress, bpf_->progs.drop_udp);
    host_.send(guest_.local(), {'2'});
    EXPECT_TRUE(test::wait_until([&] { return bpf_->bss->dropped == 1; }));
    EXPECT_FALSE(guest_.receive(200ms).has_value());
}

TEST_P(TcOrder, tcx_decides_before_clsact) {
    if (!has_tcx())
        GTEST_SKIP() << "no tcx before Linux 6.6";
    // Whichever was attached first.
    const Kind other = GetParam() == Kind::kTcx ? Kind::kClsact : Kind::kTcx;
    for (const Kind kind : {GetParam(), other}) {
        attach(kind, Direction::kIngress, kind == Kind::kTcx ? bpf_->progs.drop_udp : bpf_->progs.pass_udp);
    }
    guest_.send(host_.local(), {'1'});
    EXPECT_TRUE(test::wait_until([&] { return bpf_->bss->dropped == 1; }));
    EXPECT_EQ(bpf_->bss->passed, 0U);
}

TEST_P(TcOrder, a_clsact_filter_still_runs_behind_a_tcx_program_that_does_not_decide) {
    if (!has_tcx())
        GTEST_SKIP() << "no tcx before Linux 6.6";
    attach(Kind::kTcx, Direction::kIngress, bpf_->progs.pass_udp);
    attach(Kind::kClsact, Direction::kIngress, bpf_->progs.drop_udp);
    guest_.send(host_.local(), {'1'});
    EXPECT_TRUE(test::wait_until([&] { return bpf_->bss->dropped == 1; }));
    EXPECT_EQ(bpf_->bss->passed, 1U);
}

INSTANTIATE_TEST_SUITE_P(Kinds, TcOrder, testing::Values(Kind::kClsact, Kind::kTcx),
                         [](const auto& instance) {
                             return instance.param == Kind::kTcx ? "tcx" : "clsact";
                         });

} // namespace
} // namespace tapgate::assumptions
