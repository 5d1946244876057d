// SPDX-License-Identifier: Apache-2.0
#include "harness/wait.hpp"
#include "netns/world.hpp"

#include <csignal>

// A stop lets the connections that are there end, for a time, and no new one begin.
namespace tapgate::test {
namespace {

constexpr unsigned kServer = 10;
constexpr std::uint16_t kPort = 7000;

class Drain : public testing::TestWithParam<const Family*> {
  protected:
    static const Family& family() { return *GetParam(); }

    static Endpoint server() { return {family().server(kServer), kPort}; }

    static DaemonConfig config(unsigned drain_seconds) {
        DaemonConfig config;
        config.policy = policy_text({"allow@www.open.test:tcp:7000"});
        config.drain_seconds = drain_seconds;
        return config;
    }

    static std::vector<std::string> zone() { return {dual_stack("www.open.test", kServer)}; }

    static bool echoes(TcpStream& stream, const std::string& bytes) {
        return stream.send(bytes) == 0 && stream.receive(bytes.size()).bytes == bytes;
    }

    /// A connection of the guest on which something was said.
    static TcpStream open_stream(const World& world) {
        resolve(world, family(), "www.open.test");
        auto stream = TcpStream::connect(world.topology.guest().ns, server());
        if (!stream || !echoes(*stream, "\x01ping"))
            throw std::runtime_error("the guest cannot connect");
        return std::move(*stream);
    }

    static bool is_draining(const World& world) {
        return world.daemon.ask({"status", "show"}).at("state").as_string() == "draining";
    }
};

TEST_P(Drain, a_stop_lets_a_connection_end_and_refuses_new_ones) {
    World world(config(3600), zone());
    const NetNs& guest = world.topology.guest().ns;
    const TcpServer upstream(world.topology.internet(), server(), echo);
    EXPECT_EQ(world.daemon.ask({"status", "show"}).at("state").as_string(), "serving");
    TcpStream stream = open_stream(world);
    const auto refused_before = world.daemon.drops("no-listener");

    world.daemon.signal(SIGTERM);
    ASSERT_TRUE(wait_until([&] { return is_draining(world); }));
    const boost::json::object status = world.daemon.ask({"status", "show"});
    EXPECT_EQ(status.at("sessions").to_number<int>(), 1);
    EXPECT_GT(status.at("drain_seconds").to_number<int>(), 3500);
    const Outcome refused = exchange(guest, server(), "\x01");
    EXPECT_EQ(refused.connect_error, ECONNREFUSED);
    EXPECT_EQ(upstream.accepted(), 1U);
    EXPECT_GT(world.daemon.drops("no-listener"), refused_before);
    resolve(world, family(), "www.open.test");
    EXPECT_TRUE(echoes(stream, "\x01still there"));
    const std::string log = world.daemon.log();
    EXPECT_NE(log.find("stopping (Terminated): 1 sessions have 3600 s to end"), std::string::npos) << log;

    stream.finish();
    EXPECT_EQ(stream.receive_to_end().end, End::kFin);
    world.daemon.finish();
}

TEST_P(Drain, what_is_left_when_the_time_is_over_is_reset) {
    World world(config(1), zone());
    const TcpServer upstream(world.topology.internet(), server(), echo);
    TcpStream stream = open_stream(world);
    world.daemon.signal(SIGTERM);
    EXPECT_EQ(stream.receive_to_end().end, End::kReset);
    world.daemon.finish();
    EXPECT_PRED1(was_reset, exchange(world.topology.guest().ns, server(), "\x01"));
}

TEST_P(Drain, a_second_signal_ends_the_drain) {
    World world(config(3600), zone());
    const TcpServer upstream(world.topology.internet(), server(), echo);
    TcpStream stream = open_stream(world);
    world.daemon.signal(SIGTERM);
    ASSERT_TRUE(wait_until([&] { return is_draining(world); }));
    world.daemon.signal(SIGTERM);
    EXPECT_EQ(stream.receive_to_end().end, End::kReset);
    world.daemon.finish();
}

INSTANTIATE_TEST_SUITE_P(Family, Drain, families(), family_name);

} // namespace
} // namespace tapgate::test
