// SPDX-License-Identifier: Apache-2.0
#include "harness/sandbox.hpp"
#include "harness/wait.hpp"
#include "netns/world.hpp"

#include <fmt/format.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <iostream>
#include <memory>
#include <thread>

// One daemon after another under load: an upgrade, a restart, a crash.
namespace tapgate::test {
namespace {

constexpr unsigned kServer = 10;
constexpr unsigned kDenied = 11;
constexpr std::uint16_t kPort = 7000;
constexpr std::chrono::milliseconds kPatienceUnderLoad{5000};

using Clock = std::chrono::steady_clock;

/// What the guest does all the time: connections to a server that is allowed and to one that is not, and
/// queries.
class Load {
  public:
    Load(const World& world, const Family& family)
        : connecting_([this, &world, &family] { connect(world, family); }),
          denied_([this, &world, &family] { try_denied(world, family); }),
          asking_([this, &world, &family] { query(world, family); }) {}

    Load(const Load&) = delete;
    Load& operator=(const Load&) = delete;

    ~Load() { stop(); }

    void stop() {
        stops_ = true;
        for (std::thread* thread : {&connecting_, &denied_, &asking_}) {
            if (thread->joinable())
                thread->join();
        }
    }

    /// Waits until each of the three has come round some times more.
    [[nodiscard]] bool goes_on() const {
        const unsigned served = served_;
        const unsigned refused = refused_;
        const unsigned answered = answered_;
        return wait_until(
            [&] { return served_ > served + 10 && refused_ > refused + 10 && answered_ > answered + 10; },
            std::chrono::minutes(1));
    }

    [[nodiscard]] unsigned served() const { return served_; }

    [[nodiscard]] unsigned answered() const { return answered_; }

    [[nodiscard]] unsigned failed_connections() const { return failed_connections_; }

    [[nodiscard]] unsigned failed_queries() const { return failed_queries_; }

    /// The errno of the last connection that failed, 0 if it was after the handshake.
    [[nodiscard]] int last_error() const { return last_error_; }

    /// The rcode of the last query that failed, -1 if there was no answer.
    [[nodiscard]] int query_failure() const { return query_failure_; }

    [[nodiscard]] bool denied_got_through() const { return denied_got_through_; }

    /// The longest time without a connection that was served.
    [[nodiscard]] std::chrono::milliseconds longest_gap() const { return longest_gap_.load(); }

  private:
    void connect(const World& world, const Family& family) {
        Clock::time_point last = Clock::now();
        while (!stops_) {
            auto stream = TcpStream::connect(world.topology.guest().ns, {family.server(kServer), kPort},
                                             kPatienceUnderLoad);
            if (stream && stream->send("\x01ping") == 0 &&
                stream->receive(5, kPatienceUnderLoad).bytes == "\x01ping") {
                const auto gap = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - last);
                longest_gap_ = std::max(longest_gap_.load(), gap);
                last = Clock::now();
                ++served_;
            } else {
                last_error_ = stream ? 0 : stream.error();
                ++failed_connections_;
            }
        }
    }

    void try_denied(const World& world, const Family& family) {
        while (!stops_) {
            auto stream = TcpStream::connect(world.topology.guest().ns, {family.server(kDenied), kPort},
                                             kPatienceUnderLoad);
            if (stream && stream->send("\x01ping") == 0 &&
                !stream->receive(5, kPatienceUnderLoad).bytes.empty())
                denied_got_through_ = true;
            ++refused_;
        }
    }

    void query(const World& world, const Family& family) {
        while (!stops_) {
            const auto reply = ask(world.topology.guest().ns, {family.gateway, 53}, "www.open.test",
                                   family.record, kPatienceUnderLoad);
            if (reply && reply->rcode == kNoError)
                ++answered_;
            else {
                query_failure_ = reply ? static_cast<int>(reply->rcode) : -1;
                ++failed_queries_;
            }
        }
    }

    std::atomic<bool> stops_{false};
    std::atomic<unsigned> served_{0};
    std::atomic<unsigned> refused_{0};
    std::atomic<unsigned> answered_{0};
    std::atomic<unsigned> failed_connections_{0};
    std::atomic<unsigned> failed_queries_{0};
    std::atomic<int> last_error_{0};
    std::atomic<int> query_failure_{0};
    std::atomic<bool> denied_got_through_{false};
    std::atomic<std::chrono::milliseconds> longest_gap_{};
    std::thread connecting_;
    std::thread denied_;
    std::thread asking_;
};

class HandOver : public testing::TestWithParam<const Family*> {
  protected:
    static const Family& family() { return *GetParam(); }

    static Endpoint server() { return {family().server(kServer), kPort}; }

    static DaemonConfig config() {
        DaemonConfig config;
        config.policy = policy_text({"allow@www.open.test:tcp:7000"});
        config.drain_seconds = 3600;
        config.limits = "dns_qps = 100000"; // the load asks as fast as it can
        return config;
    }

    static std::vector<std::string> zone() {
        return {dual_stack("www.open.test", kServer), dual_stack("www.closed.test", kDenied)};
    }

    static bool echoes(TcpStream& stream, const std::string& bytes) {
        return stream.send(bytes) == 0 && stream.receive(bytes.size()).bytes == bytes;
    }

    /// What has to be the same whichever daemon runs.
    static std::string state(const World& world) {
        const boost::json::object guest = world.daemon.guest();
        std::string text = fmt::format("guest {} generation {}", guest.at("id").to_number<std::uint64_t>(),
                                       guest.at("generation").to_number<std::uint64_t>());
        for (const std::string& address : world.daemon.bindings("www.open.test"))
            text += " " + address;
        return text;
    }
};

TEST_P(HandOver, an_upgrade_loses_no_connection_and_no_query) {
    World world(config(), zone());
    const TcpServer upstream(world.topology.internet(), server(), echo);
    const TcpServer closed(world.topology.internet(), {family().server(kDenied), kPort}, echo);
    // In force is what was loaded last, not what the file says, and there is a guest that no file names.
    world.daemon.load_policy(policy_text({"allow@www.open.test:tcp:7000", "deny@any"}));
    world.daemon.ask(
        {"guest", "add", "late-%i", "--interface", "later*", "--address", "192.0.2.77", "--policy", "main"});
    resolve(world, family(), "www.open.test");
    auto bulk = TcpStream::connect(world.topology.guest().ns, server());
    ASSERT_TRUE(bulk && echoes(*bulk, "\x01" + std::string(100'000, 'a')));
    const std::string before = state(world);
    Load load(world, family());
    ASSERT_TRUE(load.goes_on());

    for (int round = 0; round < 2; ++round) {
        world.daemon.take_over();
        EXPECT_TRUE(load.goes_on());
        EXPECT_EQ(state(world), before);
        EXPECT_EQ(world.daemon.guest("late-%i").at("state").as_string(), "waiting");
        EXPECT_EQ(world.daemon.ask({"policy", "show"}).at("policies").at(0).at("rules").to_number<int>(), 2);
        EXPECT_TRUE(echoes(*bulk, std::string(100'000, 'b'))) << "the daemon before carries it on";
        bulk->finish();
        EXPECT_EQ(bulk->receive_to_end().end, End::kFin);
        world.daemon.finish_predecessor();
        bulk = TcpStream::connect(world.topology.guest().ns, server());
        ASSERT_TRUE(bulk && echoes(*bulk, "\x01" + std::string(100'000, 'a')));
    }
    EXPECT_TRUE(load.goes_on());
    load.stop();
    EXPECT_EQ(load.failed_connections(), 0U) << "of " << load.served() << ", errno " << load.last_error();
    EXPECT_EQ(load.failed_queries(), 0U) << "of " << load.answered() << ", rcode " << load.query_failure();
    EXPECT_FALSE(load.denied_got_through());
    EXPECT_EQ(closed.accepted(), 0U);
    // What goes at the end is what the daemon before has left in place for this one.
    bulk->reset();
    world.daemon.stop();
    const std::string rules = must_run({"ip", "rule", "show"}, &world.topology.host());
    EXPECT_EQ(rules.find("0x7461"), std::string::npos) << rules;
}

TEST_P(HandOver, what_bpf_carries_goes_to_the_next_daemon_at_once) {
    DaemonConfig kernel = config();
    kernel.daemon = "splice = \"kernel\"";
    World world(kernel, zone());
    const TcpServer upstream(world.topology.internet(), server(), echo);
    resolve(world, family(), "www.open.test");
    auto stream = TcpStream::connect(world.topology.guest().ns, server());
    ASSERT_TRUE(stream && echoes(*stream, "\x01ping"));
    const auto is_spliced = [&] {
        const boost::json::array flows = world.daemon.flows();
        return flows.size() == 1 && flows[0].at("splice").as_string() == "kernel";
    };
    EXPECT_TRUE(wait_until(is_spliced));
    for (int round = 0; round < 2; ++round) {
        world.daemon.take_over();
        world.daemon.finish_predecessor(); // it has no session left
        EXPECT_TRUE(wait_until(is_spliced));
        EXPECT_TRUE(echoes(*stream, std::string(100'000, 'b')));
    }
    stream->finish();
    EXPECT_EQ(stream->receive_to_end().end, End::kFin);
    EXPECT_TRUE(wait_until([&] { return world.daemon.flows().empty(); }));
}

TEST_P(HandOver, a_policy_swapped_afterwards_ends_what_the_daemon_before_carries) {
    World world(config(), zone());
    const TcpServer upstream(world.topology.internet(), server(), echo);
    resolve(world, family(), "www.open.test");
    auto stream = TcpStream::connect(world.topology.guest().ns, server());
    ASSERT_TRUE(stream && echoes(*stream, "\x01ping"));
    world.daemon.take_over();
    EXPECT_TRUE(echoes(*stream, "\x01still there"));
    world.daemon.load_policy(policy_text({}));
    EXPECT_EQ(stream->receive_to_end().end, End::kReset);
    world.daemon.finish_predecessor();
}

TEST_P(HandOver, a_policy_that_was_rolled_back_stays_so_and_its_file_is_watched_on) {
    DaemonConfig watching = config();
    watching.policy_options = "watch = true";
    World world(watching, zone());
    const auto write_file = [&](const std::vector<std::string>& rules) {
        const std::filesystem::path fresh = write_scratch("fresh.toml", policy_text(rules));
        std::filesystem::rename(fresh, world.daemon.policy_file());
    };
    const auto has_rules = [&](int count) {
        return world.daemon.ask({"policy", "show"}).at("policies").at(0).at("rules").to_number<int>() ==
               count;
    };
    write_file({"allow@any", "deny@any"});
    ASSERT_TRUE(wait_until([&] { return has_rules(2); }));
    world.daemon.ask({"policy", "rollback", "main"});
    ASSERT_TRUE(has_rules(1));
    for (int round = 0; round < 2; ++round) {
        world.daemon.take_over();
        world.daemon.finish_predecessor();
        EXPECT_TRUE(has_rules(1)); // the file is looked at before any command
    }
    write_file({"allow@www.open.test:tcp:7000", "deny@www.closed.test", "deny@any"});
    EXPECT_TRUE(wait_until([&] { return has_rules(3); }));
}

TEST_P(HandOver, another_abi_is_refused_and_the_daemon_goes_on) {
    World world(config(), zone());
    const TcpServer upstream(world.topology.internet(), server(), echo);
    const auto write_version = [&](unsigned version) {
        const std::string map = fmt::format("{}/maps/abi", world.daemon.pin_dir());
        const std::string dump = must_run({"bpftool", "-j", "map", "dump", "pinned", map});
        std::vector<std::string> words = {"bpftool", "map", "update", "pinned", map,    "key",
                                          "0",       "0",   "0",      "0",      "value"};
        const boost::json::value rows = boost::json::parse(dump);
        for (const boost::json::value& byte : rows.at(0).at("value").as_array())
            words.emplace_back(byte.as_string());
        words.at(11) = fmt::format("{}", version);
        must_run(words);
    };
    write_version(250);
    const Completed refused = run_program(
        {daemon_program(), "--take-over", "--config", world.daemon.config_file()}, &world.topology.host());
    EXPECT_EQ(refused.exit_code, 1);
    EXPECT_NE(refused.err.find("ABI version 250"), std::string::npos) << refused.err;
    EXPECT_EQ(world.daemon.ask({"status", "show"}).at("state").as_string(), "serving");
    resolve(world, family(), "www.open.test");
    auto stream = TcpStream::connect(world.topology.guest().ns, server());
    ASSERT_TRUE(stream.has_value());
    EXPECT_TRUE(echoes(*stream, "\x01ping"));
}

TEST_P(HandOver, without_a_daemon_it_is_a_start) {
    World world(config(), zone());
    world.daemon.kill();
    const NetNs& host = world.topology.host();
    Process alone({daemon_program(), "--take-over", "--config", world.daemon.config_file()}, &host);
    EXPECT_TRUE(wait_until(
        [&] {
            return run_program({cli_program(), "-s", world.daemon.control_socket(), "guest", "show", "vm0"})
                       .exit_code == 0;
        },
        std::chrono::minutes(1)))
        << alone.err();
    EXPECT_EQ(alone.stop(), 0) << alone.err();
}

TEST_P(HandOver, after_a_restart_and_a_crash_all_is_as_it_was_and_nothing_has_passed) {
    DaemonConfig configuration = config();
    configuration.drain_seconds = 0;
    World world(configuration, zone());
    const TcpServer upstream(world.topology.internet(), server(), echo);
    const TcpServer closed(world.topology.internet(), {family().server(kDenied), kPort}, echo);
    resolve(world, family(), "www.open.test");
    const std::string before = state(world);
    for (const bool crash : {false, true}) {
        Load load(world, family());
        ASSERT_TRUE(load.goes_on());
        if (crash)
            world.daemon.kill();
        else
            world.daemon.stop();
        world.daemon.start();
        EXPECT_TRUE(load.goes_on());
        load.stop();
        EXPECT_EQ(state(world), before);
        EXPECT_FALSE(load.denied_got_through());
        std::cout << fmt::format(
            "{}: {} of {} connections failed, {} of {} queries; the longest time without a "
            "connection was {} ms\n",
            crash ? "kill -9" : "restart", load.failed_connections(),
            load.failed_connections() + load.served(), load.failed_queries(),
            load.failed_queries() + load.answered(), load.longest_gap().count());
    }
    EXPECT_EQ(closed.accepted(), 0U);
}

INSTANTIATE_TEST_SUITE_P(Family, HandOver, families(), family_name);

} // namespace
} // namespace tapgate::test
