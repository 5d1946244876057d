// SPDX-License-Identifier: Apache-2.0
//
// Asserts: a datagram that a program on tc egress drops makes sendmsg() fail with ENOBUFS on a socket with
// IP_RECVERR or IPV6_RECVERR, and passes for sent on any other (udp_send_skb() in net/ipv4/udp.c).
//
// The design needs it for DNS (userspace/proxy/dns_udp_server.cpp): an answer that tap_egress could not
// record becomes SERVFAIL, not silence.
#include "attach.hpp"
#include "harness/topology.hpp"
#include "harness/udp_responder.hpp"
#include "harness/wait.hpp"
#include "traffic.skel.h"

#include <bpf/bpf.h>
#include <gtest/gtest.h>

#include <memory>
#include <tuple>

#include <netinet/in.h>
#include <sys/socket.h>

namespace tapgate::assumptions {
namespace {

enum class Kind { kClsact, kTcx };

struct Unload {
    void operator()(traffic* bpf) const { traffic::destroy(bpf); }
};

class DropReport : public testing::TestWithParam<std::tuple<Kind, const test::Family*>> {
  protected:
    void SetUp() override {
        if (std::get<Kind>(GetParam()) == Kind::kTcx && !has_tcx())
            GTEST_SKIP() << "no tcx before Linux 6.6";
        ASSERT_NE(bpf_, nullptr);
        // The guest's neighbour entry is there before anything is dropped.
        host_.send(guest_.local(), {'1'});
        ASSERT_TRUE(guest_.receive(test::kPatience).has_value());
        const int program = ::bpf_program__fd(is_v4() ? bpf_->progs.drop_udp : bpf_->progs.drop_ipv6_udp);
        if (std::get<Kind>(GetParam()) == Kind::kClsact)
            attach_clsact(topology_.host(), topology_.guest().tap, Direction::kEgress, program);
        else
            link_ = attach_tcx(topology_.host(), topology_.guest().tap, Direction::kEgress, program);
    }

    [[nodiscard]] const test::Family& family() const { return *std::get<const test::Family*>(GetParam()); }

    [[nodiscard]] bool is_v4() const { return family().guest.is_v4(); }

    /// errno of a datagram to the guest; 0 if it counts as sent.
    [[nodiscard]] int send_error() const {
        sockaddr_storage to{};
        const unsigned length = guest_.local().to_sockaddr(to);
        return ::sendto(host_.fd(), "2", 1, MSG_DONTWAIT, reinterpret_cast<const sockaddr*>(&to), length) == 1
                   ? 0
                   : errno;
    }

    test::Topology topology_;
    std::unique_ptr<traffic, Unload> bpf_{traffic::open_and_load()};
    UniqueFd link_;
    const test::UdpSocket guest_{topology_.guest().ns, {family().guest, 0}};
    const test::UdpSocket host_{topology_.host(), {family().gateway, 5353}};
};

TEST_P(DropReport, a_drop_is_an_error_for_a_socket_that_asked_for_errors) {
    const int on = 1;
    ASSERT_EQ(is_v4() ? ::setsockopt(host_.fd(), SOL_IP, IP_RECVERR, &on, sizeof on)
                      : ::setsockopt(host_.fd(), SOL_IPV6, IPV6_RECVERR, &on, sizeof on),
              0);
    EXPECT_EQ(send_error(), ENOBUFS);
    EXPECT_EQ(bpf_->bss->dropped, 1U);
}

TEST_P(DropReport, a_drop_passes_for_sent_on_other_sockets) {
    EXPECT_EQ(send_error(), 0);
    EXPECT_EQ(bpf_->bss->dropped, 1U);
}

INSTANTIATE_TEST_SUITE_P(Kinds, DropReport,
                         testing::Combine(testing::Values(Kind::kClsact, Kind::kTcx),
                                          testing::Values(&test::ipv4(), &test::ipv6())),
                         [](const auto& instance) {
                             return std::string(std::get<Kind>(instance.param) == Kind::kTcx ? "tcx"
                                                                                             : "clsact") +
                                    std::get<const test::Family*>(instance.param)->name;
                         });

} // namespace
} // namespace tapgate::assumptions
