// SPDX-License-Identifier: Apache-2.0
#include "harness/wait.hpp"
#include "netns/events.hpp"
#include "netns/world.hpp"

// What an operator finds out afterwards: the daemon's memory of events.
namespace tapgate::test {
namespace {

constexpr unsigned kOpen = 10;
constexpr unsigned kShut = 11;
constexpr std::uint16_t kPort = 7000;

class Observe : public WorldTest<Observe> {
  public:
    static std::unique_ptr<World> make_world() {
        DaemonConfig config;
        config.policy = policy_text({"allow@www.open.test:tcp:7000"});
        return std::make_unique<World>(config, std::vector<std::string>{dual_stack("www.open.test", kOpen),
                                                                        dual_stack("shut.test", kShut)});
    }

    /// The events that `event show` finds, waited for until there is one: they are told beside the traffic.
    static std::vector<boost::json::object> shown(const std::vector<std::string>& options) {
        std::vector<std::string> words = {"event", "show", "--guest", "vm0"};
        words.insert(words.end(), options.begin(), options.end());
        std::vector<boost::json::object> found;
        EXPECT_TRUE(wait_until([&] {
            found.clear();
            const boost::json::object reply = world().daemon.ask(words);
            for (const boost::json::value& event : reply.at("events").as_array())
                found.push_back(event.as_object());
            return !found.empty();
        })) << boost::json::serialize(boost::json::value_from(words));
        return found;
    }
};

TEST_P(Observe, what_happened_before_anybody_watched_is_told_by_name_address_verdict_and_reason) {
    const TcpServer web(world().topology.internet(), server(kOpen, kPort), echo);
    resolve(world(), family(), "www.open.test");
    EXPECT_EQ(exchange(guest(), web.endpoint(), "\x01ping").answer, "\x01ping");
    EXPECT_PRED1(was_reset, exchange(guest(), server(kShut, kPort), "\x01"));
    const auto denied = ask(guest(), {family().gateway, 53}, "deep.shut.test", family().record, kPatience);
    EXPECT_TRUE(denied && denied->rcode == kNxDomain);

    const auto by_name = shown({"--name", "shut.test", "--verdict", "deny", "--last", "1h"});
    ASSERT_FALSE(by_name.empty());
    for (const auto& event : by_name) {
        EXPECT_TRUE(is(event, "type", "dns") && is(event, "name", "deep.shut.test")) << event;
        EXPECT_TRUE(is(event, "guest", "vm0") && is(event, "reason", "default")) << event;
    }
    const auto refused = shown({"--address", family().server(kShut).to_string()});
    ASSERT_EQ(refused.size(), 1U);
    EXPECT_TRUE(is(refused[0], "type", "drop") && is(refused[0], "reason", "policy-first-packet"))
        << refused[0];
    EXPECT_FALSE(shown({"--reason", "policy-first-packet"}).empty());
    const auto ended = shown({"--address", family().server(kOpen).to_string(), "--reason", "finished"});
    ASSERT_EQ(ended.size(), 1U);
    EXPECT_TRUE(is(ended[0], "type", "flow-end") && is(ended[0], "name", "www.open.test")) << ended[0];
}

TEST_P(Observe, a_filter_that_cannot_be_meant_and_a_guest_that_is_not_there_are_told_apart) {
    const Daemon::Reply refused = world().daemon.cli({"event", "show", "--verdict", "maybe"});
    EXPECT_EQ(refused.exit_code, 1);
    EXPECT_EQ(refused.json.at("error").at("message").as_string(),
              "'maybe' is not a verdict: allow, deny or defer");
    const boost::json::object other = world().daemon.ask({"event", "show", "--guest", "vm9"});
    for (const auto& event : other.at("events").as_array())
        EXPECT_EQ(event.at("type").as_string(), "lost") << event;
}

INSTANTIATE_TEST_SUITE_P(Family, Observe, families(), family_name);

} // namespace
} // namespace tapgate::test
