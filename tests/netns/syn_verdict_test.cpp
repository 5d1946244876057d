// SPDX-License-Identifier: Apache-2.0
#include "harness/wait.hpp"
#include "netns/events.hpp"
#include "netns/world.hpp"

#include <cerrno>

// The policy's verdict on the first packet, made in BPF, between a real guest and the daemon.
namespace tapgate::test {
namespace {

namespace json = boost::json;

constexpr unsigned kServer = 12;
constexpr unsigned kOther = 14;

class SynVerdict : public WorldTest<SynVerdict> {
  public:
    static std::unique_ptr<World> make_world() {
        return std::make_unique<World>(DaemonConfig(),
                                       std::vector<std::string>{dual_stack("named.test", kServer)});
    }

  protected:
    static Daemon& daemon() { return world().daemon; }

    /// The event of the refusal of a connection to `destination`.
    static json::object refusal(const EventMonitor& monitor, const Endpoint& destination) {
        const auto event = monitor.wait_for([&](const json::object& seen) {
            return is(seen, "type", "drop") && is(seen, "destination", destination.to_string());
        });
        EXPECT_TRUE(event) << "no drop event for " << destination.to_string();
        return event.value_or(json::object());
    }
};

TEST_P(SynVerdict, a_denied_connection_is_refused_at_once_and_its_event_names_the_rule) {
    const Endpoint denied = server(kServer, 8443);
    const std::string block =
        denied.address.is_v4() ? denied.address.to_string() : "[" + denied.address.to_string() + "]";
    daemon().load_policy(
        policy_text({"allow@dns", "deny@192.0.2.77", "deny@" + block + ":tcp:8443", "allow@public"}));
    const CaptureServer target(world().topology.internet(), denied);
    const EventMonitor monitor(daemon());
    const std::uint64_t before = daemon().drops("policy-first-packet");
    UplinkWatch uplink(world());

    EXPECT_EQ(exchange(guest(), denied, std::string("x")).connect_error, ECONNREFUSED);

    EXPECT_EQ(daemon().drops("policy-first-packet"), before + 1);
    const json::object event = refusal(monitor, denied);
    EXPECT_TRUE(is(event, "reason", "policy-first-packet")) << json::serialize(event);
    EXPECT_TRUE(is(event, "verdict", "deny")) << json::serialize(event);
    EXPECT_TRUE(is(event, "rule", "deny@" + block + ":tcp:8443")) << json::serialize(event);
    EXPECT_EQ(event.at("rule_number").to_number<unsigned>(), 3U);
    EXPECT_GT(event.at("rule_line").to_number<unsigned>(), 0U);
    EXPECT_EQ(event.at("generation"),
              daemon().ask({"policy", "show", "main"}).at("policies").at(0).at("generation"));
    EXPECT_EQ(target.accepted(), 0U);
    EXPECT_EQ(uplink.leaks({denied}), std::vector<std::string>{});
}

TEST_P(SynVerdict, what_no_rule_allows_is_refused_by_the_default_without_a_session) {
    daemon().load_policy(policy_text({"allow@named.test:tcp:443"}));
    const EventMonitor monitor(daemon());
    const Endpoint stranger = server(kOther, 443);
    EXPECT_EQ(exchange(guest(), stranger, client_hello("named.test")).connect_error, ECONNREFUSED);
    const json::object event = refusal(monitor, stranger);
    EXPECT_TRUE(is(event, "rule", "")) << json::serialize(event);
    EXPECT_TRUE(is(event, "verdict", "deny")) << json::serialize(event);
    EXPECT_TRUE(daemon().flows().empty());
    EXPECT_EQ(daemon().guest().at("sessions").to_number<unsigned>(), 0U);
}

TEST_P(SynVerdict, a_flood_of_denied_connections_makes_no_session) {
    daemon().load_policy(policy_text({}));
    const std::uint64_t before = daemon().drops("policy-first-packet");
    constexpr unsigned kConnections = 500;
    for (unsigned i = 0; i < kConnections; ++i)
        ASSERT_EQ(exchange(guest(), server(kOther, static_cast<std::uint16_t>(1000 + i)), std::string())
                      .connect_error,
                  ECONNREFUSED);
    EXPECT_EQ(daemon().drops("policy-first-packet"), before + kConnections);
    EXPECT_EQ(daemon().guest().at("sessions").to_number<unsigned>(), 0U);
    EXPECT_TRUE(daemon().flows().empty());
}

TEST_P(SynVerdict, B47_the_hosts_own_addresses_take_an_explicit_rule) {
    const Endpoint own{family().gateway, 8080};
    daemon().load_policy(policy_text({"allow@public", "allow@private", "allow@reserved"}));
    EXPECT_EQ(exchange(guest(), own, std::string("x")).connect_error, ECONNREFUSED);
    EXPECT_EQ(exchange(guest(), {family().uplink, 8080}, std::string("x")).connect_error, ECONNREFUSED);
}

INSTANTIATE_TEST_SUITE_P(Families, SynVerdict, families(), family_name);

} // namespace
} // namespace tapgate::test
