// SPDX-License-Identifier: Apache-2.0
#include "netns/events.hpp"
#include "netns/world.hpp"

#include <fmt/format.h>

#include <algorithm>

// `tapgate why` says beforehand what then happens, and what it says to add makes it happen otherwise.
namespace tapgate::test {
namespace {

namespace json = boost::json;

constexpr unsigned kServer = 12;
constexpr unsigned kStranger = 14;

std::string string_of(const json::object& object, std::string_view key) {
    const json::value* value = object.if_contains({key.data(), key.size()});
    return value != nullptr && value->is_string() ? std::string(value->as_string()) : std::string();
}

class Why : public WorldTest<Why> {
  public:
    static std::unique_ptr<World> make_world() {
        return std::make_unique<World>(
            DaemonConfig(),
            std::vector<std::string>{dual_stack("named.test", kServer), dual_stack("other.test", kServer)});
    }

  protected:
    static json::object why(const std::string& target) { return world().daemon.ask({"why", "vm0", target}); }

    static std::string verdict(const std::string& target) { return string_of(why(target), "verdict"); }

    static std::string to_allow(const json::object& reply) {
        const json::value* remedy = reply.if_contains("to_allow");
        return remedy != nullptr && remedy->is_object() ? string_of(remedy->as_object(), "text")
                                                        : std::string();
    }

    /// The first step of that kind of this family, or of none; empty if there is none.
    static json::object step(const json::object& reply, std::string_view kind) {
        for (const json::value& value : reply.at("steps").as_array()) {
            const json::object& found = value.as_object();
            const std::string subject = string_of(found, "for");
            if (string_of(found, "step") == kind &&
                (kind != "syn" || subject == Endpoint{family().server(kServer), 443}.to_string()))
                return found;
        }
        return {};
    }

    static void load(const std::vector<std::string>& rules) {
        world().daemon.load_policy(policy_text(rules));
    }

    CaptureServer server_{world().topology.internet(), server(kServer, 443)};
};

TEST_P(Why, an_allowed_name_is_walked_to_its_end_and_BPF_says_the_same) {
    load({"allow@named.test:tcp:443"});
    resolve(world(), family(), "named.test");
    const json::object reply = why("named.test");
    EXPECT_EQ(string_of(reply, "verdict"), "allow") << json::serialize(reply);
    EXPECT_TRUE(reply.at("to_allow").is_null());
    EXPECT_EQ(string_of(step(reply, "query"), "verdict"), "allow");
    EXPECT_EQ(string_of(step(reply, "binding"), "name"), "named.test");
    const json::object syn = step(reply, "syn");
    EXPECT_EQ(string_of(syn, "kernel_verdict"), "defer");
    EXPECT_TRUE(syn.at("agree").as_bool());
    EXPECT_EQ(string_of(step(reply, "first-flight"), "for"), "TLS to named.test");
    EXPECT_FALSE(string_of(step(reply, "splice"), "splice").empty());
    EXPECT_PRED1(was_served, exchange(guest(), server_.endpoint(), client_hello("named.test")));
}

TEST_P(Why, asking_leaves_no_trace) {
    load({"allow@named.test:tcp:443"});
    resolve(world(), family(), "named.test");
    const json::object before = world().daemon.guest();
    EXPECT_EQ(verdict("named.test"), "allow");
    EXPECT_EQ(verdict(server(kStranger, 443).to_string()), "deny");
    const json::object after = world().daemon.guest();
    EXPECT_EQ(before.at("drops"), after.at("drops"));
    EXPECT_EQ(before.at("bindings"), after.at("bindings"));
    EXPECT_TRUE(world().daemon.flows().empty());
}

TEST_P(Why, a_name_that_another_one_shares_its_address_with_is_denied_by_what_it_sends) {
    load({"allow@dns", "deny@other.test", "allow@named.test:tcp:443"});
    resolve(world(), family(), "named.test");
    const json::object reply = why("other.test");
    EXPECT_EQ(string_of(reply, "verdict"), "deny") << json::serialize(reply);
    EXPECT_PRED1(was_denied_by_alert, exchange(guest(), server_.endpoint(), client_hello("other.test")));
}

TEST_P(Why, the_rule_that_it_proposes_makes_the_name_work) {
    std::vector<std::string> rules = {"deny@*.elsewhere.test", "deny@named.test", "deny@reserved"};
    load(rules);
    const json::object reply = why("named.test");
    EXPECT_EQ(string_of(reply, "verdict"), "deny");
    const json::object& remedy = reply.at("to_allow").as_object();
    EXPECT_EQ(string_of(remedy, "rule"), "allow@named.test:tcp:443");
    EXPECT_EQ(remedy.at("before").to_number<unsigned>(), 2U);

    rules.insert(rules.begin() + 1, string_of(remedy, "rule"));
    load(rules);
    resolve(world(), family(), "named.test");
    EXPECT_EQ(verdict("named.test"), "allow");
    EXPECT_PRED1(was_served, exchange(guest(), server_.endpoint(), client_hello("named.test")));
}

TEST_P(Why, a_name_that_was_not_asked_for_yet_is_judged_by_the_rules_on_names) {
    load({"allow@named.test:tcp:443"});
    const json::object reply = why("named.test:443");
    EXPECT_EQ(string_of(reply, "verdict"), "allow") << json::serialize(reply);
    EXPECT_TRUE(reply.at("assumed").as_bool());
    EXPECT_EQ(verdict("named.test:80"), "deny");
    EXPECT_EQ(verdict("stranger.test"), "deny");
}

TEST_P(Why, an_address_is_denied_with_the_rule_or_the_reason_that_does_it) {
    const Endpoint stranger = server(kStranger, 443);
    load({"allow@named.test:tcp:443"});
    const std::string block =
        stranger.address.is_v4() ? stranger.address.to_string() : "[" + stranger.address.to_string() + "]";
    EXPECT_EQ(to_allow(why(stranger.to_string())), "add 'allow@" + block + ":tcp:443'");
    EXPECT_EQ(exchange(guest(), stranger, client_hello("named.test")).connect_error, ECONNREFUSED);

    EXPECT_NE(to_allow(why("169.254.169.254:80")).find("group meta"), std::string::npos);
    EXPECT_NE(to_allow(why(Endpoint{family().gateway, 8080}.to_string())).find("group host"),
              std::string::npos);
    EXPECT_EQ(to_allow(why("240.0.0.1")), "no policy can allow this address");
    EXPECT_EQ(to_allow(why(Endpoint{stranger.address, 853}.to_string())),
              "a name service other than DNS on port 53");
    EXPECT_EQ(verdict(Endpoint{stranger.address, 53}.to_string()), "allow");
    load({"allow@any"});
    EXPECT_EQ(to_allow(why("127.0.0.1:80")), "the IP header is malformed");
    EXPECT_EQ(to_allow(why("[ff02::1]:80")), "multicast and broadcast are not forwarded");
}

TEST_P(Why, each_denial_is_told_with_what_to_add) {
    load({"deny@named.test:tcp:80", "allow@named.test:tcp:443"});
    const EventMonitor monitor(world().daemon);
    const auto told = [&monitor](std::string_view type, const Endpoint& destination, std::string_view name) {
        const auto event = monitor.wait_for([&](const json::object& seen) {
            return is(seen, "type", type) && is(seen, "verdict", "deny") &&
                   (type == "dns" ? is(seen, "name", name)
                                  : is(seen, "destination", destination.to_string()));
        });
        return event ? string_of(*event, "to_allow") : "no event";
    };
    // A question, a first packet, a first flight.
    static_cast<void>(
        ask(guest(), {family().gateway, 53}, "other.test", family().record, std::chrono::seconds(10)));
    EXPECT_EQ(told("dns", {}, "other.test"), "add 'allow@other.test:tcp:443'");
    const Endpoint stranger = server(kStranger, 443);
    EXPECT_EQ(exchange(guest(), stranger, client_hello("named.test")).connect_error, ECONNREFUSED);
    const std::string block =
        stranger.address.is_v4() ? stranger.address.to_string() : "[" + stranger.address.to_string() + "]";
    EXPECT_EQ(told("drop", stranger, {}), "add 'allow@" + block + ":tcp:443'");
    load({"allow@named.test:tcp:443"});
    resolve(world(), family(), "named.test");
    EXPECT_PRED1(was_denied_by_alert, exchange(guest(), server_.endpoint(), client_hello("other.test")));
    EXPECT_EQ(told("verdict", server_.endpoint(), {}).rfind("the guest was not told that other.test has", 0),
              0U);
}

TEST_P(Why, what_it_cannot_walk_is_an_error_that_says_why) {
    const auto message = [](const std::vector<std::string>& words) {
        const Daemon::Reply reply = world().daemon.cli(words);
        EXPECT_EQ(reply.exit_code, 1);
        return string_of(reply.json.at("error").as_object(), "message");
    };
    EXPECT_EQ(message({"why", "nobody", "named.test"}), "there is no guest 'nobody'");
    world().daemon.ask(
        {"guest", "add", "late-%i", "--interface", "late*", "--address", "192.0.2.99", "--policy", "main"});
    EXPECT_EQ(message({"why", "late-%i", "named.test"}),
              "guest 'late-%i' is not attached, so nothing of it goes anywhere: there is no interface late*");
    world().daemon.ask({"guest", "del", "late-%i"});
    EXPECT_EQ(message({"why", "vm0", "named.test:0"}), "'named.test:0' is not NAME[:PORT] or ADDRESS[:PORT]");
    EXPECT_NE(message({"why", "vm0", "not a name"}), "");
}

INSTANTIATE_TEST_SUITE_P(Families, Why, families(), family_name);

} // namespace
} // namespace tapgate::test
