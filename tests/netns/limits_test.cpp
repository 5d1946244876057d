// SPDX-License-Identifier: Apache-2.0
#include "harness/wait.hpp"
#include "netns/world.hpp"

#include <fmt/format.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

// Every quantity a guest controls has a cap and a counter, and one guest at its caps does not slow another
// (I8).
namespace tapgate::test {
namespace {

constexpr unsigned kServer = 10;
constexpr std::uint16_t kPort = 7000;
constexpr unsigned kSessions = 4;
constexpr unsigned kHalfOpen = 8;
constexpr unsigned kBindings = 6;
constexpr unsigned kQueries = 60; // more than the other tests ask in a second

class Limits : public WorldTest<Limits> {
  public:
    static std::unique_ptr<World> make_world() {
        DaemonConfig config;
        config.policy = policy_text({"allow@dns", "allow@public:tcp:7000"});
        config.limits = fmt::format("sessions = {}\nhalf_open = {}\nbindings = {}\ndns_qps = {}", kSessions,
                                    kHalfOpen, kBindings, kQueries);
        config.guests.push_back({"vm1", "tap1", Topology::guest_addresses(1)});
        std::vector<std::string> zone;
        for (unsigned i = 0; i < 2 * kBindings; ++i)
            zone.push_back(dual_stack(fmt::format("n{}.cap.test", i), 100 + i));
        // One name with more addresses than a guest may have bindings.
        for (unsigned i = 0; i < 2 * kBindings; ++i)
            zone.push_back(dual_stack("wide.cap.test", 100 + i));
        return std::make_unique<World>(config, zone, 2);
    }

  protected:
    /// The guest, not the other one, has this binding.
    static bool is_bound(const std::string& name, const std::string& address) {
        const boost::json::object reply =
            world().daemon.ask({"dns", "show", "vm0", "--name", name, "--address", address});
        return !reply.at("bindings").as_array().empty();
    }

    TcpServer server_{world().topology.internet(), server(kServer, kPort), echo};

    /// The other guest resolves and connects as if nothing were going on.
    static void expect_other_guest_unharmed() {
        const NetNs& other = world().topology.guest(1).ns;
        const Endpoint gateway{
            IpAddress::parse(family().name == "IPv4" ? "192.0.2.17" : "2001:db8:1:1::1").value(), 53};
        const auto reply = ask(other, gateway, "n0.cap.test", family().record, kPatience);
        EXPECT_TRUE(reply && reply->rcode == kNoError);
        auto stream = TcpStream::connect(other, server(kServer, kPort));
        ASSERT_TRUE(stream.has_value());
        stream->send("ping");
        EXPECT_EQ(stream->receive(4).bytes, "ping");
    }
};

/// True when SIGSTOP has reached every thread of the process.
bool is_stopped(pid_t pid) {
    for (const auto& task : std::filesystem::directory_iterator(fmt::format("/proc/{}/task", pid))) {
        std::ifstream status(task.path() / "status");
        std::string line;
        while (std::getline(status, line) && !line.starts_with("State:")) {
        }
        if (line.find("T (stopped)") == std::string::npos)
            return false;
    }
    return true;
}

TEST_P(Limits, sessions_over_the_cap_are_reset_and_room_is_given_back) {
    const auto session_works = [] {
        auto stream = TcpStream::connect(guest(), server(kServer, kPort));
        return stream && stream->send("ping") == 0 && stream->receive(4).bytes == "ping";
    };
    EXPECT_TRUE(wait_until([] { return world().daemon.flows().empty(); }));
    const std::uint64_t before = world().daemon.drops("session-cap");
    {
        std::vector<TcpStream> held;
        for (unsigned i = 0; i < kSessions; ++i) {
            auto stream = TcpStream::connect(guest(), server(kServer, kPort));
            ASSERT_TRUE(stream.has_value());
            stream->send("ping");
            EXPECT_EQ(stream->receive(4).bytes, "ping");
            held.push_back(std::move(*stream));
        }
        // At the SYN: no connection comes about.
        EXPECT_EQ(exchange(guest(), server(kServer, kPort), "ping").connect_error, ECONNREFUSED);
        EXPECT_EQ(world().daemon.drops("session-cap"), before + 1);
        expect_other_guest_unharmed();
        for (TcpStream& stream : held) {
            stream.send("pong");
            EXPECT_EQ(stream.receive(4).bytes, "pong") << "what was there before goes on";
        }
    }
    EXPECT_TRUE(wait_until(session_works));
}

TEST_P(Limits, why_tells_a_guest_that_has_all_its_sessions_before_it_tries) {
    const std::string target = server(kServer, kPort).to_string();
    const auto why = [&](const char* guest) { return world().daemon.ask({"why", guest, target}); };
    EXPECT_TRUE(wait_until([] { return world().daemon.flows().empty(); }));
    EXPECT_EQ(why("vm0").at("verdict").as_string(), "allow");
    std::vector<TcpStream> held;
    for (unsigned i = 0; i < kSessions; ++i) {
        auto stream = TcpStream::connect(guest(), server(kServer, kPort));
        ASSERT_TRUE(stream.has_value());
        stream->send("ping");
        EXPECT_EQ(stream->receive(4).bytes, "ping");
        held.push_back(std::move(*stream));
    }
    const std::uint64_t before = world().daemon.drops("session-cap");
    const boost::json::object reply = why("vm0");
    EXPECT_EQ(reply.at("verdict").as_string(), "deny") << boost::json::serialize(reply);
    const boost::json::object& last = reply.at("steps").as_array().back().as_object();
    EXPECT_EQ(last.at("step").as_string(), "syn");
    EXPECT_EQ(last.at("verdict").as_string(), "deny");
    EXPECT_EQ(last.at("text").as_string(), "the guest has too many sessions");
    const boost::json::object& remedy = reply.at("to_allow").as_object();
    EXPECT_EQ(remedy.at("text"), last.at("text"));
    EXPECT_FALSE(remedy.at("possible").as_bool()) << "no rule gives it more sessions";
    EXPECT_EQ(why("vm1").at("verdict").as_string(), "allow");
    EXPECT_EQ(world().daemon.drops("session-cap"), before) << "asking counts as nothing";
    // As it then is.
    EXPECT_EQ(exchange(guest(), server(kServer, kPort), "ping").connect_error, ECONNREFUSED);
    held.clear();
    EXPECT_TRUE(wait_until([&] { return why("vm0").at("verdict").as_string() == "allow"; }));
}

TEST_P(Limits, B35_a_guest_that_connects_without_end_does_not_keep_another_from_it) {
    {
        // Idle, and in every place that the guest has: what comes behind finds none.
        std::vector<TcpStream> held;
        for (unsigned i = 0; i < kSessions; ++i) {
            auto stream = TcpStream::connect(guest(), server(kServer, kPort));
            ASSERT_TRUE(stream.has_value());
            ASSERT_EQ(stream->send("ping"), 0);
            ASSERT_EQ(stream->receive(4).bytes, "ping");
            held.push_back(std::move(*stream));
        }
        std::atomic<bool> is_over{false};
        std::atomic<unsigned> refused{0};
        std::thread flood([&] {
            while (!is_over) {
                auto stream = TcpStream::connect(guest(), server(kServer, kPort));
                if (!stream || stream->receive_some(1).end == End::kReset)
                    ++refused;
            }
        });
        EXPECT_TRUE(wait_until([&] { return refused > 20; }));
        // Few enough for the cap on its own queries.
        for (unsigned i = 0; i < kQueries / 4; ++i)
            expect_other_guest_unharmed();
        is_over = true;
        flood.join();
    }
    EXPECT_TRUE(wait_until([] { return world().daemon.flows().empty(); }));
}

TEST_P(Limits, B35_a_guest_has_no_more_than_its_cap_in_the_queues_that_all_share) {
    // A daemon that accepts nothing for a while: what connects waits with the kernel.
    const Daemon& daemon = world().daemon;
    ASSERT_TRUE(wait_until([&] { return daemon.map_entries("pending") == 0; }));
    ASSERT_EQ(::kill(daemon.pid(), SIGSTOP), 0);
    ASSERT_TRUE(wait_until([&] { return is_stopped(daemon.pid()); }));
    std::vector<TcpStream> waiting;
    unsigned refused = 0;
    for (unsigned i = 0; i < 4 * kHalfOpen; ++i) {
        auto stream = TcpStream::connect(guest(), server(kServer, kPort));
        if (stream)
            waiting.push_back(std::move(*stream));
        else
            refused += stream.error() == ECONNREFUSED ? 1 : 0;
    }
    auto other = TcpStream::connect(world().topology.guest(1).ns, server(kServer, kPort));
    ASSERT_EQ(::kill(daemon.pid(), SIGCONT), 0);
    EXPECT_EQ(waiting.size(), kHalfOpen);
    EXPECT_EQ(refused, 3 * kHalfOpen);
    ASSERT_TRUE(other.has_value());
    EXPECT_EQ(other->send("ping"), 0);
    EXPECT_EQ(other->receive(4).bytes, "ping");
    waiting.clear();
    EXPECT_TRUE(wait_until([&] { return daemon.map_entries("pending") == 0; }));
}

TEST_P(Limits, half_open_connections_are_capped) {
    const PacketTap wire(guest(), "eth0");
    const std::uint64_t before = world().daemon.drops("half-open-cap");
    // SYNs whose handshake never completes: the guest's kernel answers the SYN+ACK with RST unless the source
    // port is one of its own, so the addresses are its own and the ACK is withheld by a firewall.
    must_run({"nft", "add table inet mute; add chain inet mute out { type filter hook output priority 0; }; "
                     "add rule inet mute out tcp flags & rst == rst drop"},
             &guest());
    for (std::uint16_t i = 0; i < 4 * kHalfOpen; ++i) {
        const Endpoint from{family().guest, static_cast<std::uint16_t>(20000 + i)};
        const Endpoint to = server(kServer, kPort);
        wire.send(
            frame({2, 0, 0, 0, 1, 1}, {2, 0, 0, 0, 0, 2},
                  ip_packet(from.address, to.address, kProtocolTcp, tcp_segment(from, to, kTcpSyn, i, 0))));
    }
    EXPECT_GE(world().daemon.drops("half-open-cap"), before + std::uint64_t{2} * kHalfOpen);
    expect_other_guest_unharmed();
    must_run({"nft", "delete table inet mute"}, &guest());
}

TEST_P(Limits, B43_over_the_cap_of_bindings_old_ones_make_room_or_the_answer_is_servfail) {
    for (unsigned i = 0; i < 2 * kBindings; ++i) {
        const std::string name = fmt::format("n{}.cap.test", i);
        const auto reply = ask(guest(), {family().gateway, 53}, name, family().record, kPatience);
        ASSERT_TRUE(reply.has_value()) << i;
        // Told and bound, or neither. Room is made, but not at any rate.
        EXPECT_EQ(reply->rcode, reply->addresses.empty() ? kServFail : kNoError) << i;
        for (const std::string& address : reply->addresses)
            EXPECT_TRUE(is_bound(name, address)) << name << " " << address;
        EXPECT_TRUE(!reply->addresses.empty() || i >= kBindings) << i;
    }
    EXPECT_LE(world().daemon.guest().at("bindings").to_number<unsigned>(), kBindings);
    EXPECT_GE(world().daemon.drops("dns-binding-cap"), 1U);
    EXPECT_GE(world().daemon.guest().at("dns").at("evicted").to_number<unsigned>(), 1U);
    expect_other_guest_unharmed();
    world().daemon.ask({"dns", "flush", "--guest", "vm0"});
    EXPECT_EQ(world().daemon.guest().at("bindings").to_number<unsigned>(), 0U);
    EXPECT_EQ(resolve(world(), family(), "n0.cap.test").size(), 1U);
}

TEST_P(Limits, B42_an_answer_that_can_never_be_recorded_is_never_delivered) {
    const std::uint64_t before = world().daemon.drops("dns-unrecorded");
    const auto reply = ask(guest(), {family().gateway, 53}, "wide.cap.test", family().record, kPatience);
    ASSERT_TRUE(reply.has_value());
    EXPECT_EQ(reply->rcode, kServFail);
    EXPECT_EQ(reply->addresses, std::vector<std::string>{});
    EXPECT_EQ(world().daemon.drops("dns-unrecorded"), before + 1);
    expect_other_guest_unharmed();
}

TEST_P(Limits, dns_queries_per_second_are_capped) {
    const UdpSocket socket(guest(), {family().guest, 0});
    const std::uint64_t before = world().daemon.drops("dns-rate");
    for (std::uint16_t id = 0; id < 10 * kQueries; ++id)
        socket.send({family().gateway, 53}, make_query(id, "n0.cap.test", family().record));
    // The burst may cross the border of a second, so that the allowance counts twice.
    EXPECT_TRUE(wait_until([&] {
        return world().daemon.drops("dns-rate") >= before + std::uint64_t{8} * kQueries;
    })) << world().daemon.drops("dns-rate") - before;
    expect_other_guest_unharmed();
    EXPECT_TRUE(wait_until([] {
        const auto reply = ask(guest(), {family().gateway, 53}, "n0.cap.test", family().record,
                               std::chrono::milliseconds(500));
        return reply && reply->rcode == kNoError;
    }));
}

INSTANTIATE_TEST_SUITE_P(Family, Limits, families(), family_name);

} // namespace
} // namespace tapgate::test
