// SPDX-License-Identifier: Apache-2.0
#include "harness/sandbox.hpp"
#include "harness/wait.hpp"
#include "netns/pattern.hpp"
#include "netns/world.hpp"

#include <fmt/format.h>

#include <algorithm>

#include <net/if.h>

// Starting, stopping, dying, swapping: nothing opens by accident and nobody else is disturbed (I5, I6).
namespace tapgate::test {
namespace {

constexpr unsigned kServer = 10;
constexpr std::uint16_t kPort = 7000;
constexpr std::chrono::milliseconds kShort{500};

class Lifecycle : public testing::TestWithParam<const Family*> {
  protected:
    static const Family& family() { return *GetParam(); }

    static Endpoint server(std::uint16_t port = kPort) { return {family().server(kServer), port}; }

    static DaemonConfig open_config() {
        DaemonConfig config;
        config.policy = policy_text({"allow@www.open.test:tcp:7000"});
        return config;
    }

    static std::vector<std::string> zone() { return {dual_stack("www.open.test", kServer)}; }
};

TEST_P(Lifecycle, B46_after_a_kill_nothing_passes_and_a_restart_serves_again) {
    World world(open_config(), zone());
    const NetNs& guest = world.topology.guest().ns;
    CaptureServer upstream(world.topology.internet(), server());
    resolve(world, family(), "www.open.test");
    EXPECT_PRED1(was_served, exchange(guest, server(), "\x01"));

    world.daemon.kill();
    UplinkWatch uplink(world);
    EXPECT_FALSE(TcpStream::connect(guest, server(), kShort).has_value());
    EXPECT_FALSE(ask(guest, {family().gateway, 53}, "www.open.test", family().record, kShort).has_value());
    EXPECT_FALSE(ask(guest, {family().resolver, 53}, "www.open.test", family().record, kShort).has_value());
    EXPECT_EQ(upstream.accepted(), 1U);

    world.daemon.start();
    EXPECT_GT(world.daemon.drops("no-listener"), 0U);
    // What the guest was told before the crash still holds.
    EXPECT_EQ(world.daemon.bindings("www.open.test"),
              std::vector<std::string>{family().server(kServer).to_string()});
    EXPECT_PRED1(was_served, exchange(guest, server(), "\x01"));
    resolve(world, family(), "www.open.test");
    EXPECT_PRED1(was_served, exchange(guest, server(), "\x01"));
    EXPECT_EQ(uplink.leaks({}), std::vector<std::string>{});
}

TEST_P(Lifecycle, B46_after_an_orderly_stop_nothing_passes_either) {
    World world(open_config(), zone());
    const NetNs& guest = world.topology.guest().ns;
    CaptureServer upstream(world.topology.internet(), server());
    resolve(world, family(), "www.open.test");
    world.daemon.stop();
    EXPECT_FALSE(TcpStream::connect(guest, server(), kShort).has_value());
    const TcpServer on_host(world.topology.host(), {family().gateway, 8000}, echo);
    EXPECT_FALSE(TcpStream::connect(guest, on_host.endpoint(), kShort).has_value());
    world.daemon.start();
    EXPECT_PRED1(was_served, exchange(guest, server(), "\x01"));
}

TEST_P(Lifecycle, a_transfer_cut_by_a_crash_never_looks_complete) {
    World world(open_config(), zone());
    const TcpServer source(world.topology.internet(), server(), [](TcpStream& stream) {
        stream.receive(1);
        stream.send("the beginning");
        stream.receive_to_end(); // and never the rest
    });
    resolve(world, family(), "www.open.test");
    auto stream = TcpStream::connect(world.topology.guest().ns, server());
    ASSERT_TRUE(stream.has_value());
    stream->send(std::string_view("\0", 1));
    EXPECT_EQ(stream->receive(13).bytes, "the beginning");
    world.daemon.kill();
    EXPECT_NE(stream->receive_to_end(std::chrono::seconds(2)).end, End::kFin);
    world.daemon.start();
}

TEST_P(Lifecycle, steering_rules_are_there_while_the_daemon_runs_and_gone_afterwards) {
    const Topology topology;
    const std::string version = family().name == "IPv4" ? "-4" : "-6";
    const auto rules = [&] { return must_run({"ip", version, "rule", "show"}, &topology.host()); };
    const std::string before = rules();
    Daemon daemon(topology, open_config());
    EXPECT_NE(rules(), before);
    EXPECT_NE(rules().find("0x7461"), std::string::npos) << rules();
    daemon.stop();
    EXPECT_EQ(rules(), before);
    EXPECT_EQ(run_program({"ip", version, "route", "show", "table", "29793"}, &topology.host()).out, "");
}

TEST_P(Lifecycle, a_swapped_policy_rules_new_flows_and_a_bad_one_changes_nothing) {
    World world(open_config(), zone());
    const NetNs& guest = world.topology.guest().ns;
    CaptureServer upstream(world.topology.internet(), server());
    resolve(world, family(), "www.open.test");
    EXPECT_PRED1(was_served, exchange(guest, server(), "\x01"));

    world.daemon.load_policy(policy_text({}));
    EXPECT_PRED1(was_reset, exchange(guest, server(), "\x01"));
    const auto generation = world.daemon.guest().at("generation").to_number<std::uint64_t>();

    const auto bad = write_scratch("bad.toml", "rules = [\"allow@any\", \"alow@any\"]\n");
    const Daemon::Reply refused = world.daemon.cli({"policy", "load", "main", bad});
    EXPECT_EQ(refused.exit_code, 1);
    EXPECT_NE(boost::json::serialize(refused.json).find("bad.toml:1:"), std::string::npos)
        << boost::json::serialize(refused.json);
    EXPECT_EQ(world.daemon.guest().at("generation").to_number<std::uint64_t>(), generation);
    EXPECT_PRED1(was_reset, exchange(guest, server(), "\x01"));

    world.daemon.load_policy(open_config().policy);
    EXPECT_GT(world.daemon.guest().at("generation").to_number<std::uint64_t>(), generation);
    EXPECT_PRED1(was_served, exchange(guest, server(), "\x01"));
}

TEST_P(Lifecycle, a_guest_comes_and_goes_with_its_interface_without_disturbing_another) {
    DaemonConfig config = open_config();
    config.guests.push_back({"vm-%i", "tap[1-9]*", Topology::guest_addresses(1)});
    config.guests.back().interface = "tap1*";
    World world(config, zone());
    const TcpServer source(world.topology.internet(), server(), [](TcpStream& stream) { echo(stream); });
    resolve(world, family(), "www.open.test");
    auto steady = TcpStream::connect(world.topology.guest().ns, server());
    ASSERT_TRUE(steady.has_value());
    const auto steady_works = [&] {
        return steady->send("\x01ping") == 0 && steady->receive(5).bytes == "\x01ping";
    };
    EXPECT_TRUE(steady_works());

    const std::string gateway = family().name == "IPv4" ? "192.0.2.17" : "2001:db8:1:1::1";
    for (int round = 0; round < 2; ++round) {
        const NetNs& other = world.topology.add_guest(1).ns;
        ASSERT_TRUE(wait_until([&] {
            const boost::json::object shown = world.daemon.guest("vm-tap1");
            return shown.contains("state") && shown.at("state").as_string() == "attached";
        }));
        // Its gateway addresses are noticed when they are configured, which may be after the link.
        std::optional<DnsReply> reply;
        EXPECT_TRUE(wait_until([&] {
            reply =
                ask(other, {IpAddress::parse(gateway).value(), 53}, "www.open.test", family().record, kShort);
            return reply && reply->rcode == kNoError;
        }));
        auto stream = TcpStream::connect(other, server());
        ASSERT_TRUE(stream.has_value());
        stream->send("\x02pong");
        EXPECT_EQ(stream->receive(5).bytes, "\x02pong");
        EXPECT_TRUE(steady_works());

        world.topology.remove_guest_link(1);
        EXPECT_TRUE(wait_until([&] {
            const boost::json::object shown = world.daemon.guest("vm-tap1");
            return shown.empty() || shown.at("state").as_string() != "attached";
        }));
        EXPECT_TRUE(wait_until([&] { return world.daemon.flows().size() == 1; }));
        EXPECT_TRUE(steady_works());
    }
}

TEST_P(Lifecycle, B38_the_next_guest_on_an_interface_and_address_inherits_nothing) {
    DaemonConfig config = open_config();
    config.guests = {{"vm-%i", "tap1*", Topology::guest_addresses(1)}};
    World world(config, zone());
    const TcpServer upstream(world.topology.internet(), server(), echo);
    const Endpoint gateway{
        IpAddress::parse(family().name == "IPv4" ? "192.0.2.17" : "2001:db8:1:1::1").value(), 53};
    const auto attached_id = [&]() -> std::uint64_t {
        const boost::json::object shown = world.daemon.guest("vm-tap1");
        const bool attached = shown.contains("state") && shown.at("state").as_string() == "attached";
        return attached ? shown.at("id").to_number<std::uint64_t>() : 0;
    };

    const NetNs& first = world.topology.add_guest(1).ns;
    EXPECT_TRUE(wait_until([&] {
        const auto reply = ask(first, gateway, "www.open.test", family().record, kShort);
        return reply && reply->rcode == kNoError;
    }));
    const std::uint64_t first_id = attached_id();
    auto stream = TcpStream::connect(first, server());
    ASSERT_TRUE(stream.has_value());
    stream->send("\x01ping");
    EXPECT_EQ(stream->receive(5).bytes, "\x01ping");
    EXPECT_FALSE(world.daemon.bindings("www.open.test").empty());

    world.topology.remove_guest_link(1);
    EXPECT_TRUE(wait_until([&] { return attached_id() == 0; }));
    const NetNs& second = world.topology.add_guest(1).ns;
    EXPECT_TRUE(wait_until([&] { return attached_id() != 0; }));
    EXPECT_NE(attached_id(), first_id);
    EXPECT_TRUE(world.daemon.bindings("www.open.test").empty());
    EXPECT_TRUE(world.daemon.flows().empty());
    EXPECT_PRED1(was_reset, exchange(second, server(), "\x01"));
    EXPECT_EQ(upstream.accepted(), 1U);
}

TEST_P(Lifecycle, a_guest_added_by_command_works_and_one_removed_is_forgotten) {
    Topology topology(2);
    const Resolver resolver(topology.internet(), zone());
    const Daemon daemon(topology, open_config());
    const std::string gateway = family().name == "IPv4" ? "192.0.2.17" : "2001:db8:1:1::1";
    daemon.ask({"guest", "add", "late", "--interface", "tap1", "--address",
                Topology::guest_addresses(1).at(0), "--address", Topology::guest_addresses(1).at(1),
                "--policy", "main"});
    const auto reply = ask(topology.guest(1).ns, {IpAddress::parse(gateway).value(), 53}, "www.open.test",
                           family().record, kPatience);
    ASSERT_TRUE(reply.has_value());
    EXPECT_EQ(reply->rcode, kNoError);
    EXPECT_EQ(daemon
                  .cli({"guest", "add", "late", "--interface", "tap1", "--address", "192.0.2.30", "--policy",
                        "main"})
                  .exit_code,
              1);
    daemon.ask({"guest", "del", "late"});
    EXPECT_TRUE(daemon.guest("late").empty());
    EXPECT_EQ(daemon.cli({"guest", "del", "late"}).exit_code, 1);
}

TEST_P(Lifecycle, the_gateway_means_the_hosts_loopback_only_if_the_policy_allows_host) {
    const Topology topology;
    DaemonConfig config;
    config.policy = policy_text({"allow@public:tcp"});
    Daemon daemon(topology, config);
    const NetNs& guest = topology.guest().ns;
    const IpAddress loopback = IpAddress::parse(family().name == "IPv4" ? "127.0.0.1" : "::1").value();
    CaptureServer service(topology.host(), {loopback, kPort});
    CaptureServer beside(topology.host(), {family().uplink, kPort});
    const Endpoint gateway{family().gateway, kPort};
    const Endpoint own_public{family().uplink, kPort};

    EXPECT_PRED1(was_reset, exchange(guest, gateway, "\x01"));
    EXPECT_PRED1(was_reset, exchange(guest, own_public, "\x01")); // `public` never covers the host itself
    daemon.load_policy(policy_text({fmt::format("allow@host:tcp:{}", kPort)}));
    EXPECT_PRED1(was_served, exchange(guest, gateway, "\x01"));
    EXPECT_EQ(service.accepted(), 1U);
    EXPECT_PRED1(was_reset, exchange(guest, {family().gateway, kPort + 1}, "\x01"));
    EXPECT_FALSE(TcpStream::connect(guest, {loopback, kPort}, kShort).has_value());
}

TEST_P(Lifecycle, the_gateway_falls_back_to_the_other_loopback) {
    const Topology topology;
    DaemonConfig config;
    config.policy = policy_text({"allow@host:tcp:7000"});
    const Daemon daemon(topology, config);
    const IpAddress other = IpAddress::parse(family().name == "IPv4" ? "::1" : "127.0.0.1").value();
    CaptureServer service(topology.host(), {other, kPort});
    EXPECT_PRED1(was_served, exchange(topology.guest().ns, {family().gateway, kPort}, "\x01"));
}

INSTANTIATE_TEST_SUITE_P(Family, Lifecycle, families(), family_name);

/// Starts that must fail: one line that says what to do, exit code 1, nothing attached.
class FailedStart : public testing::Test {
  protected:
    /// A file with these tables; the policy is an empty one.
    static std::string config_file(const std::string& name, const std::string& text) {
        const auto policy = write_scratch(name + "-policy.toml", policy_text({}));
        return write_scratch(name + ".toml",
                             fmt::format("[daemon]\nworkers = 1\ncontrol_socket = \"{0}/{1}.sock\"\n"
                                         "pin_dir = \"/sys/fs/bpf/{1}\"\n{2}\n[policy.main]\n"
                                         "file = \"{3}\"\n",
                                         scratch_dir().string(), name, text, policy.string()));
    }

    static std::string guest_on(const std::string& interface) {
        return fmt::format(
            "[dns]\nupstreams = [\"203.0.113.53\"]\n[[guest]]\nname = \"vm0\"\ninterface = \"{}\"\n"
            "addresses = [\"192.0.2.2\"]\npolicy = \"main\"",
            interface);
    }

    void expect_refused(const std::vector<std::string>& argv, const std::string& why) {
        const Completed ended = run_program(argv, &topology_.host());
        EXPECT_EQ(ended.exit_code, 1) << ended.err;
        EXPECT_TRUE(ended.err.starts_with("Error: ")) << ended.err;
        EXPECT_EQ(std::ranges::count(ended.err, '\n'), 1) << ended.err;
        EXPECT_NE(ended.err.find(why), std::string::npos) << ended.err;
        EXPECT_EQ(ended.out, "");
        expect_nothing_attached();
    }

    /// An interface without programs lets the guest talk to the host like any other.
    void expect_nothing_attached() {
        const TcpServer host(topology_.host(), {ipv4().gateway, 8000}, echo);
        EXPECT_TRUE(TcpStream::connect(topology_.guest().ns, host.endpoint(), kShort).has_value());
        const std::string rules = must_run({"ip", "rule", "show"}, &topology_.host());
        EXPECT_EQ(rules.find("0x7461"), std::string::npos) << rules;
    }

    Topology topology_;
};

TEST_F(FailedStart, bad_configuration_names_line_and_column) {
    const std::string file = config_file("bad", guest_on("tap0") + "\npolcy = \"main\"");
    expect_refused({daemon_program(), "--config", file}, "bad.toml:");
    expect_refused({daemon_program(), "--config", file}, "polcy");
    expect_refused({daemon_program(), "--check", "--config", file}, "polcy");
    expect_refused({daemon_program(), "--config", "/nonexistent.toml"}, "/nonexistent.toml");
}

TEST_F(FailedStart, a_bad_policy_names_file_line_and_column) {
    const std::string file = config_file("badpolicy", guest_on("tap0"));
    write_scratch("badpolicy-policy.toml", "rules = [\n  \"alow@any\",\n]\n");
    expect_refused({daemon_program(), "--config", file}, "badpolicy-policy.toml:2:3");
}

TEST_F(FailedStart, a_good_configuration_passes_the_check_and_attaches_nothing) {
    const std::string file = config_file("good", guest_on("tap0"));
    const Completed checked = run_program({daemon_program(), "--check", "--config", file}, &topology_.host());
    EXPECT_EQ(checked.exit_code, 0) << checked.err;
    expect_nothing_attached();
}

TEST_F(FailedStart, a_missing_interface_is_named) {
    const std::string file = config_file("missing", guest_on("tap9"));
    expect_refused({daemon_program(), "--config", file}, "tap9");
}

TEST_F(FailedStart, missing_capabilities_are_named) {
    const std::string file = config_file("unprivileged", guest_on("tap0"));
    expect_refused({"setpriv", "--bounding-set=-all", "--inh-caps=-all", daemon_program(), "--config", file},
                   "CAP_");
    expect_refused(
        {"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", daemon_program(), "--config", file},
        "CAP_");
}

TEST_F(FailedStart, a_second_daemon_on_the_same_pins_is_refused_and_the_first_goes_on) {
    const Topology topology;
    const Resolver resolver(topology.internet(), {dual_stack("www.open.test", kServer)});
    DaemonConfig config;
    config.policy = policy_text({"allow@www.open.test:tcp:7000"});
    Daemon first(topology, config);
    const Completed second =
        run_program({daemon_program(), "--config", first.config_file()}, &topology.host());
    EXPECT_EQ(second.exit_code, 1);
    EXPECT_TRUE(second.err.starts_with("Error: ")) << second.err;
    EXPECT_EQ(std::ranges::count(second.err, '\n'), 1) << second.err;
    EXPECT_NE(second.err.find("another tapgated"), std::string::npos) << second.err;

    CaptureServer upstream(topology.internet(), {ipv4().server(kServer), kPort});
    const auto reply = ask(topology.guest().ns, {ipv4().gateway, 53}, "www.open.test", "A", kPatience);
    EXPECT_TRUE(reply && reply->rcode == kNoError);
    EXPECT_PRED1(was_served, exchange(topology.guest().ns, upstream.endpoint(), "\x01"));
}

TEST_F(FailedStart, cleanup_removes_what_a_stopped_daemon_leaves_in_place) {
    const TcpServer host(topology_.host(), {ipv4().gateway, 8000}, echo);
    Daemon daemon(topology_, DaemonConfig{});
    daemon.stop();
    EXPECT_FALSE(TcpStream::connect(topology_.guest().ns, host.endpoint(), kShort).has_value());
    must_run({daemon_program(), "--cleanup", "--config", daemon.config_file()}, &topology_.host());
    EXPECT_TRUE(TcpStream::connect(topology_.guest().ns, host.endpoint(), kShort).has_value());
    EXPECT_FALSE(std::filesystem::exists(daemon.pin_dir()));
}

} // namespace
} // namespace tapgate::test
