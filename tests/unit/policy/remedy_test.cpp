// SPDX-License-Identifier: Apache-2.0
#include "harness/random_policy.hpp"
#include "policy/remedy.hpp"
#include "support.hpp"

#include <gtest/gtest.h>

namespace tapgate::policy {
namespace {

using test::address;
using test::compiled;
using test::name;

FlowFacts flow_to(std::string_view destination, std::span<const BoundName> bound) {
    FlowFacts facts;
    facts.destination = {address(destination), 443};
    facts.bound = bound;
    return facts;
}

std::string remedy_at_syn(const CompiledPolicy& policy, const FlowFacts& facts) {
    return remedy_text(policy.policy(),
                       remedy_for_flow(policy, facts, std::nullopt, decide_syn(policy, facts)));
}

std::string remedy_of(const CompiledPolicy& policy, const FlowFacts& facts, const FirstFlight& flight) {
    return remedy_text(policy.policy(),
                       remedy_for_flow(policy, facts, flight, decide_first_flight(policy, facts, flight)));
}

TEST(Remedy, of_a_name_that_nobody_thought_of_is_its_rule_anywhere) {
    const auto policy = compiled("rules = [\"allow@a.example:tcp:443\"]");
    EXPECT_EQ(remedy_text(policy->policy(), remedy_for_query(*policy, name("b.example"), 443)),
              "add 'allow@b.example:tcp:443'");
}

TEST(Remedy, stands_before_what_denies_the_name_and_says_where_that_is) {
    const auto policy = compiled("rules = [\n\"allow@dns\",\n\"deny@*.corp.example\",\n]\n"
                                 "default_egress = \"allow\"\n[groups]\nx = [\"192.0.2.0/24\"]");
    const std::vector<BoundName> bound = {{name("b.corp.example"), {}}};
    FirstFlight flight;
    flight.kind = FirstFlightKind::kTls;
    flight.name = name("b.corp.example");
    EXPECT_EQ(remedy_of(*policy, flow_to("8.8.8.8", bound), flight),
              "add 'allow@b.corp.example:tcp:443' before rule 2 (line 3)");
}

TEST(Remedy, names_the_address_if_no_name_is_known) {
    const auto policy = compiled("");
    EXPECT_EQ(remedy_at_syn(*policy, flow_to("8.8.8.8", {})), "add 'allow@8.8.8.8:tcp:443'");
    EXPECT_EQ(remedy_at_syn(*policy, flow_to("2606:4700::1", {})), "add 'allow@[2606:4700::1]:tcp:443'");
}

TEST(Remedy, of_a_name_with_an_address_that_answers_may_not_carry_says_private_ok) {
    const auto policy = compiled("");
    const std::vector<BoundName> bound = {{name("build.corp.example"), {}}};
    EXPECT_EQ(remedy_at_syn(*policy, flow_to("10.0.0.1", bound)),
              "add { action = 'allow', destination = 'build.corp.example', protocols = ['tcp'], ports "
              "= [443], "
              "options = ['private-ok'] }");
}

TEST(Remedy, is_none_where_a_rule_would_not_help_or_would_harm) {
    const auto policy = compiled("rules = [\"allow@a.example\"]\n[tls]\nech = \"deny\"");
    const std::vector<BoundName> bound = {{name("a.example"), {}}};
    const FlowFacts facts = flow_to("8.8.8.8", bound);
    FirstFlight flight;
    flight.kind = FirstFlightKind::kTlsNoSni;
    EXPECT_TRUE(remedy_of(*policy, facts, flight).starts_with("[tls] no_sni = \"cache\""));
    flight.kind = FirstFlightKind::kTls;
    flight.name = name("elsewhere.example");
    EXPECT_TRUE(
        remedy_of(*policy, facts, flight).starts_with("the guest was not told that elsewhere.example has"));
    flight.ech = true;
    EXPECT_TRUE(remedy_of(*policy, facts, flight).starts_with("[tls] ech"));
    EXPECT_TRUE(remedy_at_syn(*policy, flow_to("169.254.169.254", {})).find("group meta") !=
                std::string::npos);
    EXPECT_EQ(remedy_at_syn(*policy, flow_to("240.0.0.1", {})), "no policy can allow this address");
    FlowFacts to_host = flow_to("192.168.0.1", {});
    const std::array<IpAddress, 1> host = {address("192.168.0.1")};
    to_host.host_addresses = host;
    EXPECT_TRUE(remedy_at_syn(*policy, to_host).find("group host") != std::string::npos);
}

/// The policy with the remedy applied, read again from the text that an operator would paste.
std::shared_ptr<const CompiledPolicy> applied(const Policy& before, const Remedy& remedy) {
    const std::string text = remedy_text(before, remedy);
    const std::string_view added = std::string_view(text).substr(4, text.find(" before rule ") - 4);
    const Policy one = test::parsed("rules = [" + std::string(added) + "]");
    Policy after = before;
    after.rules.insert(after.rules.begin() +
                           remedy.before.value_or(static_cast<RuleIndex>(before.rules.size())),
                       one.rules.at(0));
    return compiled(std::move(after));
}

TEST(Remedy, applied_to_any_policy_allows_what_was_denied) {
    using namespace test; // NOLINT(google-build-using-namespace)
    Generator generator(from_environment("TAPGATE_SEED", kDefaultSeed));
    const std::size_t cases = from_environment("TAPGATE_CASES", 5'000);
    std::size_t by_name = 0;
    std::size_t by_address = 0;
    for (std::size_t i = 0; i < cases; ++i) {
        const auto policy = compiled(generator.policy());
        Flow flow = generator.flow();
        flow.direction = Direction::kEgress;
        flow.protocol = Protocol::kTcp;
        const FlowFacts facts = flow.facts();
        const Decision at_syn = decide_syn(*policy, facts);
        std::optional<FirstFlight> flight;
        if (at_syn.verdict == Verdict::kDefer)
            flight = generator.first_flight(flow.destination);
        const Decision decision = flight ? decide_first_flight(*policy, facts, *flight) : at_syn;
        if (decision.verdict != Verdict::kDeny)
            continue;
        const Remedy remedy = remedy_for_flow(*policy, facts, flight, decision);
        if (!remedy.rule) {
            EXPECT_FALSE(remedy.obstacle.empty());
            continue;
        }
        const auto after = applied(policy->policy(), remedy);
        const auto* target = std::get_if<DomainTarget>(&remedy.rule->target);
        if (!flight) {
            flight = FirstFlight();
            if (target != nullptr) {
                flight->kind = FirstFlightKind::kTls;
                flight->name = target->name;
            }
        }
        const std::string what =
            describe(policy->policy(), flow, flight) + "\n" + remedy_text(policy->policy(), remedy);
        ASSERT_EQ(decide_first_flight(*after, facts, *flight).verdict, Verdict::kAllow) << what;
        if (target != nullptr) {
            ASSERT_EQ(decide_query(*after, target->name, Protocol::kUdp).verdict, Verdict::kAllow) << what;
            ASSERT_TRUE(
                answer_address_permitted(*after, target->name, flow.destination, facts.host_addresses))
                << what;
            ++by_name;
        } else {
            ++by_address;
        }
        const Name wanted = generator.any_name();
        if (decide_query(*policy, wanted, Protocol::kUdp).verdict == Verdict::kDeny) {
            const auto asked = applied(policy->policy(), remedy_for_query(*policy, wanted, 443));
            ASSERT_EQ(decide_query(*asked, wanted, Protocol::kUdp).verdict, Verdict::kAllow) << what;
            ASSERT_EQ(decide_query(*asked, wanted, Protocol::kTcp).verdict, Verdict::kAllow) << what;
        }
    }
    EXPECT_GT(by_name, cases / 50);
    EXPECT_GT(by_address, cases / 50);
}

} // namespace
} // namespace tapgate::policy
