// SPDX-License-Identifier: Apache-2.0
//
// Asserts: a program goes on running, and its map goes on counting, after the process that loaded and
// attached it was killed: as a clsact filter by itself, as a tcx link because the link is pinned.
//
// The design needs it for invariant I5 (B46): the programs are what confines a guest, and must not go with
// the daemon (userspace/datapath/attach.cpp).
#include "attach.hpp"
#include "child.hpp"
#include "harness/topology.hpp"
#include "harness/udp_responder.hpp"
#include "harness/wait.hpp"
#include "traffic.skel.h"

#include <bpf/bpf.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <stdexcept>
#include <system_error>

#include <unistd.h>

namespace tapgate::assumptions {
namespace {

constexpr const char* kLinkPath = "/sys/fs/bpf/link";
constexpr const char* kMapPath = "/sys/fs/bpf/counters";

using Attach = void (*)(const test::Topology&, int program);

void attach_filter(const test::Topology& topology, int program) {
    attach_clsact(topology.host(), topology.guest().tap, Direction::kIngress, program);
}

void attach_pinned_link(const test::Topology& topology, int program) {
    const UniqueFd link = attach_tcx(topology.host(), topology.guest().tap, Direction::kIngress, program);
    if (::bpf_obj_pin(link.get(), kLinkPath) != 0)
        throw std::system_error(errno, std::generic_category(), "pin the link");
}

void expect_it_survives(Attach attach) {
    const test::Topology topology;
    Child daemon([&] {
        traffic* bpf = traffic::open_and_load();
        if (bpf == nullptr || ::bpf_map__pin(bpf->maps.bss, kMapPath) != 0)
            throw std::runtime_error("load traffic.bpf.c");
        attach(topology, ::bpf_program__fd(bpf->progs.drop_udp));
    });
    daemon.kill();

    const UniqueFd counters(::bpf_obj_get(kMapPath));
    ASSERT_TRUE(counters);
    const auto dropped = [&] {
        const std::uint32_t zero = 0;
        traffic::traffic__bss values{};
        EXPECT_EQ(::bpf_map_lookup_elem(counters.get(), &zero, &values), 0);
        return values.dropped;
    };
    const std::uint64_t before = dropped();
    const test::UdpSocket guest(topology.guest().ns, {test::ipv4().guest, 0});
    guest.send({test::ipv4().gateway, 9}, {'x'});
    EXPECT_TRUE(test::wait_until([&] { return dropped() > before; }));
    ::unlink(kLinkPath);
    ::unlink(kMapPath);
}

TEST(ProgramLifetime, a_clsact_filter_survives_its_process) {
    expect_it_survives(attach_filter);
}

TEST(ProgramLifetime, a_pinned_tcx_link_survives_its_process) {
    if (!has_tcx())
        GTEST_SKIP() << "no tcx before Linux 6.6";
    expect_it_survives(attach_pinned_link);
}

} // namespace
} // namespace tapgate::assumptions
