// SPDX-License-Identifier: Apache-2.0
#include "harness/dns.hpp"
#include "harness/packets.hpp"
#include "harness/services.hpp"
#include "harness/tcp_server.hpp"
#include "harness/topology.hpp"
#include "harness/wait.hpp"

#include <gtest/gtest.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <optional>

// What the other tests rely on: that the fixture works, and that without the product nothing gets through.
namespace tapgate::test {
namespace {

class Harness : public testing::TestWithParam<const Family*> {};

TEST_P(Harness, the_host_reaches_the_internet_and_the_guest_reaches_the_host) {
    const Topology topology;
    const Family& family = *GetParam();
    const TcpServer internet(topology.internet(), {family.server(10), 7000}, echo);
    const TcpServer host(topology.host(), {family.gateway, 7000}, echo);
    EXPECT_TRUE(TcpStream::connect(topology.host(), internet.endpoint()).has_value());
    EXPECT_TRUE(TcpStream::connect(topology.guest().ns, host.endpoint()).has_value());
}

TEST_P(Harness, without_the_daemon_the_guest_has_no_way_out) {
    const Topology topology;
    const Family& family = *GetParam();
    const TcpServer internet(topology.internet(), {family.server(10), 7000}, echo);
    PacketTap uplink(topology.internet(), "eth0");
    EXPECT_FALSE(TcpStream::connect(topology.guest().ns, internet.endpoint(), std::chrono::milliseconds(300))
                     .has_value());
    EXPECT_TRUE(TcpStream::connect(topology.host(), internet.endpoint()).has_value());
    for (const Seen& seen : uplink.drain())
        EXPECT_TRUE(!seen.from || seen.from->address != family.guest) << seen.to_string();
}

TEST_P(Harness, a_second_guest_has_its_own_network) {
    Topology topology(2);
    const Family& family = *GetParam();
    const IpAddress gateway =
        IpAddress::parse(family.name == "IPv4" ? "192.0.2.17" : "2001:db8:1:1::1").value();
    const TcpServer host(topology.host(), {gateway, 7000}, echo);
    EXPECT_TRUE(TcpStream::connect(topology.guest(1).ns, host.endpoint()).has_value());
    topology.remove_guest_link(1);
    EXPECT_EQ(TcpStream::connect(topology.guest(1).ns, host.endpoint()).error(), ENETUNREACH);
    topology.add_guest(1);
    EXPECT_TRUE(TcpStream::connect(topology.guest(1).ns, host.endpoint()).has_value());
}

TEST_P(Harness, the_resolver_follows_aliases) {
    const Topology topology;
    const Family& family = *GetParam();
    const Resolver resolver(topology.internet(), {"www.alias.test. 60 IN CNAME end.alias.test.",
                                                  dual_stack("end.alias.test", 15)});
    const auto reply =
        ask(topology.host(), {family.resolver, 53}, "www.alias.test", family.record, kPatience);
    ASSERT_TRUE(reply.has_value());
    EXPECT_EQ(reply->addresses, std::vector<std::string>{family.server(15).to_string()});
    const auto missing = ask(topology.host(), {family.resolver, 53}, "none.test", family.record, kPatience);
    ASSERT_TRUE(missing.has_value());
    EXPECT_EQ(missing->rcode, kNxDomain);
}

TEST_P(Harness, the_web_server_serves_with_a_certificate_that_clients_can_check) {
    const Topology topology;
    const WebServer web(topology.internet(), {10}, {"www.web.test"});
    const std::string address = Endpoint{GetParam()->server(10), 443}.to_string();
    const std::string served = must_run(
        {"curl", "-sS", "--cacert", web.ca_file(), "--connect-to", "::" + address, "https://www.web.test/"},
        &topology.host());
    EXPECT_EQ(served, "served www.web.test\n");
}

TEST_P(Harness, frames_made_by_hand_are_accepted_by_the_kernel) {
    const Topology topology;
    const Family& family = *GetParam();
    const TcpServer host(topology.host(), {family.gateway, 7000}, echo);
    PacketTap tap(topology.guest().ns, "eth0");
    const Endpoint from{family.guest, 40000};
    std::optional<Seen> reply;
    // The link may be up a little later than its addresses.
    ASSERT_TRUE(wait_until([&] {
        tap.send(frame({2, 0, 0, 0, 1, 1}, {2, 0, 0, 0, 0, 2},
                       ip_packet(from.address, host.endpoint().address, kProtocolTcp,
                                 tcp_segment(from, host.endpoint(), kTcpSyn, 1000, 0))));
        reply =
            tap.wait_for([&](const Seen& seen) { return seen.to == from && (seen.tcp_flags & kTcpSyn) != 0; },
                         std::chrono::milliseconds(200));
        return reply.has_value();
    }));
    EXPECT_EQ(reply->tcp_flags, kTcpSyn | kTcpAck);
    EXPECT_EQ(reply->tcp_ack, 1001U);
}

INSTANTIATE_TEST_SUITE_P(Family, Harness, testing::Values(&ipv4(), &ipv6()),
                         [](const auto& tested) { return tested.param->name; });

TEST(Process, exit_codes_and_output_are_reported) {
    const Completed completed = run_program({"sh", "-c", "echo out; echo err >&2; exit 3"});
    EXPECT_EQ(completed.exit_code, 3);
    EXPECT_EQ(completed.out, "out\n");
    EXPECT_EQ(completed.err, "err\n");
}

TEST(Process, a_program_that_does_not_exist_ends_with_127) {
    EXPECT_EQ(run_program({"no-such-program"}).exit_code, 127);
}

TEST(Process, a_running_program_can_be_killed) {
    Process process({"sleep", "600"});
    EXPECT_TRUE(process.running());
    process.signal(SIGKILL);
    EXPECT_EQ(process.wait(kPatience), 128 + SIGKILL);
}

} // namespace
} // namespace tapgate::test
