// SPDX-License-Identifier: Apache-2.0
#include "harness/sandbox.hpp"
#include "netns/world.hpp"

#include <fmt/format.h>

#include <system_error>
#include <utility>

// `splice` in a policy: what carries the connections of the guests under it.
namespace tapgate::test {
namespace {

constexpr unsigned kSite = 20;
constexpr std::uint16_t kPort = 8001;
const std::vector<std::string> kRules = {"allow@public:tcp:8000-8999"};

/// A policy that says it, or that says nothing.
std::string text_with(std::string_view splice) {
    return (splice.empty() ? "" : fmt::format("splice = \"{}\"\n", splice)) + policy_text(kRules);
}

/// What carries the connection, by the guest's end.
std::string carrier_of(const World& world, const TcpStream& stream) {
    for (const boost::json::value& flow : world.daemon.flows()) {
        if (flow.at("source").as_string() == stream.local().to_string())
            return std::string(flow.at("splice").as_string());
    }
    return "gone";
}

/// A connection of that guest over which an echo has come back, and what carries it.
std::pair<TcpStream, std::string> echoed(const World& world, unsigned guest, const Endpoint& to) {
    auto stream = TcpStream::connect(world.topology.guest(guest).ns, to);
    if (!stream)
        throw std::system_error(stream.error(), std::generic_category(), "connect");
    EXPECT_EQ(stream->send("ping"), 0);
    EXPECT_EQ(stream->receive(4).bytes, "ping");
    std::string carrier = carrier_of(world, *stream);
    return {std::move(*stream), std::move(carrier)};
}

/// Two guests, each under a policy of its own, and a daemon that copies where they say nothing.
class SplicePolicy : public WorldTest<SplicePolicy> {
  public:
    static std::unique_ptr<World> make_world() {
        DaemonConfig config;
        config.daemon = "workers = 2\nsplice = \"copy\"";
        config.policy = text_with("kernel");
        auto world = std::make_unique<World>(config, std::vector<std::string>{}, 2);
        load(*world, "other", "");
        std::vector<std::string> add = {"guest", "add", "vm1", "--interface", "tap1", "--policy", "other"};
        for (const std::string& address : Topology::guest_addresses(1))
            add.insert(add.end(), {"--address", address});
        world->daemon.ask(add);
        return world;
    }

  protected:
    static void load(const World& world, const std::string& name, std::string_view splice) {
        world.daemon.ask({"policy", "load", name, write_scratch(name + ".toml", text_with(splice))});
    }

    TcpServer server_{world().topology.internet(), server(kSite, kPort), echo};
};

TEST_P(SplicePolicy, each_guest_is_carried_as_its_policy_says_and_else_as_the_daemon) {
    load(world(), "other", "");
    EXPECT_EQ(echoed(world(), 0, server_.endpoint()).second, "kernel");
    EXPECT_EQ(echoed(world(), 1, server_.endpoint()).second, "copy");
    for (const auto& [policy, splice] : {std::pair("main", "kernel"), std::pair("other", "copy")}) {
        const boost::json::object reply = world().daemon.ask({"policy", "show", policy});
        EXPECT_EQ(reply.at("policies").at(0).at("splice").as_string(), splice);
    }
    const boost::json::object why = world().daemon.ask({"why", "vm0", server_.endpoint().to_string()});
    EXPECT_EQ(why.at("steps").as_array().back().at("splice").as_string(), "kernel");
}

TEST_P(SplicePolicy, a_load_changes_what_carries_new_connections_and_leaves_live_ones) {
    load(world(), "other", "kernel");
    auto [live, carrier] = echoed(world(), 1, server_.endpoint());
    EXPECT_EQ(carrier, "kernel");
    load(world(), "other", "copy");
    EXPECT_EQ(echoed(world(), 1, server_.endpoint()).second, "copy");
    EXPECT_EQ(live.send("still here"), 0);
    EXPECT_EQ(live.receive(10).bytes, "still here");
    EXPECT_EQ(carrier_of(world(), live), "kernel");
}

INSTANTIATE_TEST_SUITE_P(Family, SplicePolicy, families(), family_name);

/// A daemon that may not open raw sockets.
class SplicePolicyUnmet : public WorldTest<SplicePolicyUnmet> {
  public:
    static std::unique_ptr<World> make_world() {
        DaemonConfig config;
        config.launcher = {"setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw"};
        return std::make_unique<World>(config, std::vector<std::string>{});
    }

  protected:
    static std::uint64_t fallen_back() {
        const boost::json::object status = world().daemon.ask({"status", "show"});
        for (const boost::json::value& row : status.at("splice_refusals").as_array()) {
            if (row.at("reason").as_string() == "unavailable")
                return row.at("flows").to_number<std::uint64_t>();
        }
        return 0;
    }
};

TEST_P(SplicePolicyUnmet, the_load_warns_and_connections_are_carried_all_the_same_and_counted) {
    EXPECT_FALSE(world().daemon.load_policy(text_with("")).contains("warning"));
    for (const std::vector<std::string>& options : {std::vector<std::string>{"--dry-run"}, {}}) {
        const boost::json::object reply = world().daemon.load_policy(text_with("kernel"), options);
        ASSERT_TRUE(reply.contains("warning"));
        EXPECT_NE(reply.at("warning").as_string().find("CAP_NET_RAW"), std::string::npos);
    }
    EXPECT_NE(world().daemon.log().find("policy main: splice = \"kernel\" is not to be had here"),
              std::string::npos);
    const std::uint64_t before = fallen_back();
    const TcpServer echo_server(world().topology.internet(), server(kSite, kPort), echo);
    const auto [stream, carrier] = echoed(world(), 0, echo_server.endpoint());
    EXPECT_EQ(carrier, std::string(world().daemon.ask({"status", "show"}).at("splice").as_string()));
    EXPECT_EQ(fallen_back(), before + 1);
}

INSTANTIATE_TEST_SUITE_P(Family, SplicePolicyUnmet, families(), family_name);

} // namespace
} // namespace tapgate::test
