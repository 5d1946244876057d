// SPDX-License-Identifier: Apache-2.0
#include "harness/sandbox.hpp"
#include "harness/wait.hpp"
#include "netns/world.hpp"

#include <fmt/format.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>

// The configuration is read again while the daemon runs.
namespace tapgate::test {
namespace {

constexpr unsigned kServer = 10;
constexpr std::uint16_t kPort = 7000;

class Reload : public testing::TestWithParam<const Family*> {
  protected:
    static const Family& family() { return *GetParam(); }

    static Endpoint server() { return {family().server(kServer), kPort}; }

    static DaemonConfig config() {
        DaemonConfig config;
        config.policy = policy_text({"allow@www.open.test:tcp:7000"});
        return config;
    }

    static std::vector<std::string> zone() { return {dual_stack("www.open.test", kServer)}; }

    static bool echoes(TcpStream& stream, const std::string& bytes) {
        return stream.send(bytes) == 0 && stream.receive(bytes.size()).bytes == bytes;
    }

    static std::string read(const std::filesystem::path& path) {
        std::ifstream file(path);
        return {std::istreambuf_iterator<char>(file), {}};
    }

    static void write(const std::filesystem::path& path, const std::string& text) {
        std::ofstream(path) << text;
    }

    /// Replaces `before`, which is there, by `after` in the configuration.
    static void edit(const World& world, const std::string& before, const std::string& after) {
        std::string text = read(world.daemon.config_file());
        const std::size_t at = text.find(before);
        ASSERT_NE(at, std::string::npos) << text;
        write(world.daemon.config_file(), text.replace(at, before.size(), after));
    }

    /// The names of the settings that a reload names; those that need a restart with a "!".
    static std::set<std::string> reload(const World& world, const std::vector<std::string>& options = {}) {
        std::vector<std::string> words = {"daemon", "reload"};
        words.insert(words.end(), options.begin(), options.end());
        const boost::json::object reply = world.daemon.ask(words);
        std::set<std::string> names;
        if (const auto* changes = reply.if_contains("changes")) {
            for (const boost::json::value& change : changes->as_array())
                names.insert((change.at("live").as_bool() ? "" : "!") +
                             std::string(change.at("setting").as_string()));
        }
        return names;
    }
};

TEST_P(Reload, a_configuration_with_an_error_changes_nothing_and_says_the_line) {
    World world(config(), zone());
    const std::string good = read(world.daemon.config_file());
    write(world.daemon.config_file(), "[limits]\nsessions = 5\nhalf_opn = 3\n");
    const Daemon::Reply refused = world.daemon.cli({"daemon", "reload"});
    EXPECT_EQ(refused.exit_code, 1);
    const std::string message = boost::json::serialize(refused.json);
    EXPECT_NE(message.find("tapgate.toml:3:1: limits: unknown key 'half_opn'"), std::string::npos) << message;
    world.daemon.signal(SIGHUP);
    EXPECT_TRUE(wait_until([&] {
        return world.daemon.log().find("reload: nothing has changed: ") != std::string::npos;
    })) << world.daemon.log();

    // What is wrong with a policy, and a guest without an interface, are found before anything changes, too.
    write(world.daemon.config_file(), good + "[[guest]]\nname = \"new\"\ninterface = \"tap9\"\n"
                                             "addresses = [\"192.0.2.99\"]\npolicy = \"main\"\n");
    EXPECT_EQ(world.daemon.cli({"daemon", "reload"}).exit_code, 1);
    const std::string policy = read(world.daemon.policy_file());
    write(world.daemon.config_file(), good + "[log]\n");
    write(world.daemon.policy_file(), "rules = [\"alow@any\"]\n");
    EXPECT_EQ(world.daemon.cli({"daemon", "reload"}).exit_code, 1);
    write(world.daemon.policy_file(), policy);
    write(world.daemon.config_file(), good);
    EXPECT_EQ(reload(world), std::set<std::string>{});
    resolve(world, family(), "www.open.test");
    const CaptureServer upstream(world.topology.internet(), server());
    EXPECT_PRED1(was_served, exchange(world.topology.guest().ns, server(), "\x01"));
}

TEST_P(Reload, limits_timers_and_resolvers_count_at_once_and_the_rest_is_named) {
    World world(config(), zone());
    const NetNs& guest = world.topology.guest().ns;
    const TcpServer upstream(world.topology.internet(), server(), echo);
    resolve(world, family(), "www.open.test");
    auto steady = TcpStream::connect(guest, server());
    ASSERT_TRUE(steady && echoes(*steady, "\x01ping"));
    const auto id = world.daemon.guest().at("id").to_number<std::uint64_t>();

    edit(world, "workers = 2", "workers = 1");
    edit(world, "[limits]\n", "[limits]\nsessions = 1\n");
    edit(world, "[timers]\n", "[timers]\nidle_s = 1\n");
    edit(world, "[log]\n", "[log]\nlevel = \"debug\"\n");
    edit(world, "\"203.0.113.53\"", "\"203.0.113.99\"");
    const std::set<std::string> all = {"!daemon.workers", "limits.sessions", "timers.idle_s", "log.level",
                                       "dns.upstreams"};
    EXPECT_EQ(reload(world, {"--dry-run"}), all);
    EXPECT_EQ(reload(world, {"--dry-run"}), all); // it was one
    EXPECT_EQ(reload(world), all);
    EXPECT_EQ(reload(world), std::set<std::string>{"!daemon.workers"});
    const std::string log = world.daemon.log();
    EXPECT_NE(log.find("reload: limits.sessions: 2048 -> 1"), std::string::npos) << log;
    EXPECT_NE(log.find("reload: daemon.workers: 2 -> 1 (needs a restart)"), std::string::npos) << log;

    const boost::json::object status = world.daemon.ask({"status", "show"});
    EXPECT_EQ(status.at("workers").to_number<int>(), 2);
    EXPECT_EQ(status.at("upstreams").at(0).at("address").as_string(), "203.0.113.99:53");
    // It is at its new cap, with the same guest id and so with the bindings that it had.
    EXPECT_TRUE(echoes(*steady, "\x01still there"));
    EXPECT_PRED1(was_reset, exchange(guest, server(), "\x01"));
    EXPECT_GT(world.daemon.drops("session-cap"), 0U);
    EXPECT_EQ(world.daemon.guest().at("id").to_number<std::uint64_t>(), id);
    EXPECT_FALSE(world.daemon.bindings("www.open.test").empty());
    steady->finish();
    EXPECT_EQ(steady->receive_to_end().end, End::kFin);
    EXPECT_TRUE(wait_until([&] { return world.daemon.guest().at("sessions").to_number<int>() == 0; }));
    auto brief = TcpStream::connect(guest, server());
    ASSERT_TRUE(brief && echoes(*brief, "\x01ping"));
    EXPECT_EQ(brief->receive_to_end().end, End::kReset); // after the new idle time
}

TEST_P(Reload, a_policy_is_loaded_if_its_file_or_the_groups_say_something_else) {
    World world(config(), zone());
    const NetNs& guest = world.topology.guest().ns;
    const TcpServer upstream(world.topology.internet(), server(), echo);
    resolve(world, family(), "www.open.test");
    auto stream = TcpStream::connect(guest, server());
    ASSERT_TRUE(stream && echoes(*stream, "\x01ping"));

    write(world.daemon.policy_file(), policy_text({}));
    EXPECT_EQ(reload(world, {"--dry-run"}), std::set<std::string>{"policy.main rules"});
    EXPECT_TRUE(echoes(*stream, "\x01ping"));
    world.daemon.signal(SIGHUP);
    EXPECT_EQ(stream->receive_to_end().end, End::kReset);
    EXPECT_PRED1(was_reset, exchange(guest, server(), "\x01"));
    const boost::json::object shown = world.daemon.ask({"policy", "show", "main"});
    EXPECT_EQ(shown.at("policies").at(0).at("origin").as_string(), "reload");

    write(world.daemon.policy_file(), policy_text({"allow@corp:tcp"}, "corp = [\"192.0.2.200\"]"));
    EXPECT_EQ(reload(world), std::set<std::string>{"policy.main rules"});
    EXPECT_PRED1(was_reset, exchange(guest, server(), "\x01"));
    edit(world, "[policy.main]",
         fmt::format("[groups]\ncorp = [\"{}\"]\n[policy.main]", server().address.to_string()));
    EXPECT_EQ(reload(world), (std::set<std::string>{"groups.corp", "policy.main rules"}));
    auto allowed = TcpStream::connect(guest, server());
    ASSERT_TRUE(allowed.has_value());
    EXPECT_TRUE(echoes(*allowed, "\x01ping"));
}

TEST_P(Reload, guests_come_go_and_change_with_the_file) {
    World world(config(), zone(), 2);
    const NetNs& guest = world.topology.guest().ns;
    const NetNs& other = world.topology.guest(1).ns;
    const TcpServer upstream(world.topology.internet(), server(), echo);
    resolve(world, family(), "www.open.test");
    auto stream = TcpStream::connect(guest, server());
    ASSERT_TRUE(stream && echoes(*stream, "\x01ping"));
    world.daemon.ask(
        {"guest", "add", "late-%i", "--interface", "later*", "--address", "192.0.2.77", "--policy", "main"});

    const std::string good = read(world.daemon.config_file());
    const auto closed = write_scratch("closed.toml", policy_text({}));
    const std::string second = fmt::format(
        "[[guest]]\nname = \"vm1\"\ninterface = \"tap1\"\naddresses = [\"{}\", \"{}\"]\npolicy = \"main\"\n",
        Topology::guest_addresses(1).at(0), Topology::guest_addresses(1).at(1));
    write(world.daemon.config_file(), good + second);
    EXPECT_EQ(reload(world), std::set<std::string>{"guest.tap1"});
    const std::string gateway = family().name == "IPv4" ? "192.0.2.17" : "2001:db8:1:1::1";
    const auto reply =
        ask(other, {IpAddress::parse(gateway).value(), 53}, "www.open.test", family().record, kPatience);
    ASSERT_TRUE(reply && reply->rcode == kNoError);
    auto of_other = TcpStream::connect(other, server());
    ASSERT_TRUE(of_other && echoes(*of_other, "\x01ping"));

    // Another policy for the first: its connection ends, the second does not notice.
    std::string changed = good + second + fmt::format("[policy.closed]\nfile = \"{}\"\n", closed.string());
    changed.replace(changed.find("policy = \"main\""), 15, "policy = \"closed\"");
    write(world.daemon.config_file(), changed);
    EXPECT_EQ(reload(world), (std::set<std::string>{"guest.tap0", "policy.closed"}));
    EXPECT_EQ(stream->receive_to_end().end, End::kReset);
    EXPECT_PRED1(was_reset, exchange(guest, server(), "\x01"));
    EXPECT_TRUE(echoes(*of_other, "\x01ping"));

    // And gone, all but the one that a command has declared.
    write(world.daemon.config_file(),
          good.substr(0, good.find("[[guest]]")) + good.substr(good.find("[policy.main]")));
    EXPECT_EQ(reload(world), (std::set<std::string>{"guest.tap0", "guest.tap1", "!policy.closed"}));
    EXPECT_EQ(of_other->receive_to_end().end, End::kReset);
    EXPECT_TRUE(world.daemon.guest("vm0").empty());
    EXPECT_TRUE(world.daemon.guest("vm1").empty());
    EXPECT_FALSE(world.daemon.guest("late-%i").empty());
}

INSTANTIATE_TEST_SUITE_P(Family, Reload, families(), family_name);

} // namespace
} // namespace tapgate::test
