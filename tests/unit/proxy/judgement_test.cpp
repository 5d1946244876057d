// SPDX-License-Identifier: Apache-2.0
#include "policy/parse.hpp"
#include "proxy/judgement.hpp"

#include <gtest/gtest.h>

namespace tapgate::proxy {
namespace {

PolicyGeneration generation(std::string_view rules) {
    auto parsed = policy::parse(std::string(rules) + "[groups]\npublic = [\"203.0.113.0/24\"]\n", "p.toml");
    EXPECT_TRUE(parsed) << parsed.error().message();
    PolicyGeneration result;
    result.name = "p";
    result.generation = 7;
    result.compiled = *policy::CompiledPolicy::compile(std::move(*parsed));
    return result;
}

SessionFacts facts() {
    SessionFacts facts;
    facts.destination = Endpoint::parse("203.0.113.1:443").value();
    return facts;
}

void bind(SessionFacts& facts, std::string_view name) {
    facts.bound.push_back({policy::Name::from_wire(name).value(), {}});
}

void say_name(SessionFacts& facts, std::string_view name) {
    policy::FirstFlight flight;
    flight.kind = policy::FirstFlightKind::kTls;
    flight.name = policy::Name::from_wire(name).value();
    facts.flight = std::move(flight);
}

TEST(JudgeAgain, a_session_is_judged_by_the_name_and_bindings_it_was_admitted_on) {
    SessionFacts session = facts();
    bind(session, "a.test");
    say_name(session, "a.test");
    const Judgement allowed = judge_again(generation("rules = [\n\"allow@a.test:tcp:443\"]\n"), session);
    EXPECT_TRUE(allowed.allowed);
    EXPECT_EQ(allowed.generation, 7U);
    EXPECT_EQ(allowed.rule.text, "allow@a.test:tcp:443");
    EXPECT_EQ(allowed.rule.number, 1U);
    EXPECT_EQ(allowed.rule.line, 2U);
    const Judgement denied = judge_again(generation("rules = [\"allow@b.test:tcp:443\"]\n"), session);
    EXPECT_FALSE(denied.allowed);
    EXPECT_EQ(denied.rule.number, 0U);
    EXPECT_EQ(denied.basis, "default");
}

TEST(JudgeAgain, a_session_whose_name_nobody_saw_is_allowed_by_address_and_denied_where_a_name_decides) {
    SessionFacts session = facts();
    bind(session, "a.test");
    EXPECT_TRUE(judge_again(generation("rules = [\"allow@public:tcp\"]\n"), session).allowed);
    const Judgement by_name = judge_again(generation("rules = [\"allow@a.test:tcp:443\"]\n"), session);
    EXPECT_FALSE(by_name.allowed);
    EXPECT_EQ(by_name.basis, "name-not-seen");
    EXPECT_FALSE(
        judge_again(generation("rules = [\"deny@b.test\", \"allow@public:tcp\"]\n"), session).allowed);
}

} // namespace
} // namespace tapgate::proxy
