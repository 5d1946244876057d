// SPDX-License-Identifier: Apache-2.0
#include "policy/compile.hpp"
#include "support.hpp"

#include <gtest/gtest.h>

#include <array>
#include <chrono>

namespace tapgate::policy {
namespace {

using test::address;
using test::compiled;
using test::name;
using test::parsed;

TEST(Compile, an_unknown_group_is_an_error_at_its_rule) {
    const auto result = CompiledPolicy::compile(parsed("rules = [\n \"allow@any\",\n  \"deny@cropp\" ]\n"
                                                       "[groups]\nlab = [\"10.9.0.0/16\"]"),
                                                {{"corp", {*IpPrefix::parse("10.20.0.0/16")}}});
    ASSERT_FALSE(result);
    EXPECT_EQ(
        result.error().message(),
        "p:3:3: deny@cropp: unknown group 'cropp'; did you mean 'corp'? valid: any, dns, host, meta, "
        "loopback, private, link-local, multicast, reserved, public, lab, corp (a host name of one label "
        "is written domain=cropp)");
}

TEST(Compile, a_group_of_the_daemon_that_cannot_have_its_name_is_an_error) {
    const auto result = CompiledPolicy::compile(Policy{}, {{"any", {*IpPrefix::parse("10.20.0.0/16")}}});
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().message(),
              "[groups]: 'any' cannot name a group; the word has a meaning of its own in rules");
}

TEST(Compile, groups_of_policy_and_daemon_join_and_the_policy_wins_a_block_that_both_name) {
    const GroupTable daemon = {{"corp", {*IpPrefix::parse("10.20.0.0/16"), *IpPrefix::parse("10.21.0.0/16")}},
                               {"public", {*IpPrefix::parse("198.51.100.0/24")}}};
    const auto policy = compiled("[groups]\nlab = [\"10.21.0.0/16\"]\ncorp = [\"2001:db8:20::/48\"]", daemon);
    const auto group = [&](std::string_view text) { return group_of(*policy, address(text), {}); };
    EXPECT_EQ(group("10.20.1.1"), "corp");
    EXPECT_EQ(group("2001:db8:20::1"), "corp");
    EXPECT_EQ(group("10.21.1.1"), "lab");
    EXPECT_EQ(group("10.22.1.1"), "private");
    EXPECT_EQ(group("198.51.100.9"), "public");
    EXPECT_EQ(group("198.51.101.9"), "public");
    EXPECT_EQ(group("203.0.113.9"), "reserved");
    EXPECT_EQ(policy->group_entries().size(), 4U);
}

TEST(Compile, the_longest_block_of_several_lengths_is_found) {
    const auto policy = compiled("[groups]\n"
                                 "a = [\"10.0.0.0/8\", \"::/0\"]\n"
                                 "b = [\"10.1.0.0/16\", \"10.3.0.0/16\", \"10.5.0.0/16\"]\n"
                                 "c = [\"10.3.3.3\", \"2001:db8::/32\"]\n"
                                 "host = [\"10.5.5.5\"]");
    const auto group = [&](std::string_view text) { return group_of(*policy, address(text), {}); };
    EXPECT_EQ(group("10.0.0.1"), "a");
    EXPECT_EQ(group("10.1.0.1"), "b");
    EXPECT_EQ(group("10.2.0.1"), "a");
    EXPECT_EQ(group("10.3.3.3"), "c");
    EXPECT_EQ(group("10.3.3.4"), "b");
    EXPECT_EQ(group("10.5.5.5"), "host");
    EXPECT_EQ(group("11.0.0.1"), "public");
    EXPECT_EQ(group("2001:db9::1"), "a");
    EXPECT_EQ(group("2001:db8::1"), "c");
}

TEST(Compile, rules_on_dns_form_groups_of_their_own_between_the_others) {
    const auto policy = compiled(
        "rules = [\"allow@any\", \"allow@10.0.0.0/8\", \"allow@dns\", \"allow@dns\", \"allow@host\"]");
    ASSERT_EQ(policy->rule_groups().size(), 3U);
    const std::array<std::size_t, 5> expected = {0, 0, 1, 1, 2};
    for (RuleIndex rule = 0; rule < expected.size(); ++rule)
        EXPECT_EQ(policy->rule_group_of(rule), expected.at(rule)) << rule;
}

TEST(Compile, a_large_allowlist_is_compiled_and_asked_without_a_walk_over_it) {
    constexpr std::size_t kRules = 100'000;
    Policy policy;
    for (std::size_t i = 0; i < kRules; ++i) {
        Rule rule;
        rule.action = i < kRules / 2 ? Action::kDeny : Action::kAllow;
        rule.target = DomainTarget{name("host" + std::to_string(i) + ".example.com"), i % 3 == 0};
        policy.rules.push_back(std::move(rule));
    }
    const auto many = compiled(std::move(policy));
    EXPECT_EQ(many->first_domain_denials().size(), 1U);
    const std::vector<BoundName> bound = {{name("www.host99996.example.com"), {}}};
    FlowFacts facts;
    facts.destination = {address("192.0.2.1"), 443};
    facts.bound = bound;
    const auto start = std::chrono::steady_clock::now();
    // A walk over the list for each of these would take minutes in a debug build; the bound leaves room for a
    // loaded machine.
    for (int i = 0; i < 1'000; ++i) {
        ASSERT_EQ(decide_syn(*many, facts).verdict, Verdict::kDefer);
        const FirstFlight flight{.kind = FirstFlightKind::kTls, .name = bound.front().name};
        ASSERT_EQ(decide_first_flight(*many, facts, flight).rule, 99'996U);
    }
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

} // namespace
} // namespace tapgate::policy
