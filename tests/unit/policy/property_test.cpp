// SPDX-License-Identifier: Apache-2.0
#include "harness/random_policy.hpp"
#include "policy/ground.hpp"

#include <gtest/gtest.h>

#include <array>

// Random policies, bindings and flows against an implementation written apart (harness/random_policy.hpp).
// Set TAPGATE_SEED and TAPGATE_CASES to look further.

namespace tapgate::policy {
namespace {

using namespace test; // NOLINT(google-build-using-namespace): all of it is about this one header

constexpr std::size_t kDefaultCases = 50'000;

/// What must hold of one flow under one policy; returns what does not.
std::string violation(const CompiledPolicy& policy, const Flow& flow, const FirstFlight& flight) {
    const FlowFacts facts = flow.facts();
    const Decision at_syn = decide_syn(policy, facts);
    const Decision settled = decide_first_flight(policy, facts, flight);
    if (settled.verdict == Verdict::kDefer)
        return "a first flight that defers";
    if (at_syn.verdict != Verdict::kDefer && settled.verdict != at_syn.verdict)
        return "the first flight contradicts the SYN";
    if (at_syn.rule.has_value() != (at_syn.basis == Basis::kRule))
        return "a rule without its basis";

    for (const bool peeked : {false, true}) {
        const Explanation explained =
            explain_flow(policy, facts, peeked ? std::optional(flight) : std::nullopt);
        const Decision& decided = peeked ? settled : at_syn;
        if (explained.decision.verdict != decided.verdict || explained.decision.basis != decided.basis ||
            explained.decision.rule != decided.rule)
            return "explain differs from decide";
        const Explanation brief =
            ground_of_flow(policy, facts, peeked ? std::optional(flight) : std::nullopt);
        if (brief.summary != explained.summary || brief.place != explained.place ||
            brief.steps.size() != (decided.rule ? 1U : 0U))
            return "the brief explanation differs";
    }

    const Policy& model = policy.policy();
    const bool http_read = model.http_host != HttpHost::kIgnore;
    const bool named = flight.name && (flight.kind == FirstFlightKind::kTls || http_read);
    const Verdict by_table = reference_with_name(model, flow, named ? &*flight.name : nullptr);
    if (flow.protocol != Protocol::kTcp)
        return at_syn.verdict == reference_with_name(model, flow, nullptr)
                   ? ""
                   : "without a first flight the SYN verdict is not that of the bindings";
    if (at_syn.verdict != reference_syn(model, flow))
        return "the SYN verdict is not that of the formula";
    if (at_syn.verdict != Verdict::kDefer)
        return by_table == at_syn.verdict ? "" : "the table contradicts the SYN verdict";

    const bool tls = flight.kind == FirstFlightKind::kTls || flight.kind == FirstFlightKind::kTlsNoSni;
    const bool foreign = flight.literal && *flight.literal != flow.destination;
    const bool refused = flight.kind == FirstFlightKind::kTlsBad ||
                         (tls && flight.ech && model.ech == Ech::kDeny) ||
                         (flight.kind == FirstFlightKind::kTlsNoSni && model.no_sni == NoSni::kDeny) ||
                         (http_read && (flight.kind == FirstFlightKind::kHttpBad || foreign));
    if (settled.verdict != (refused ? Verdict::kDeny : by_table))
        return "the first flight's verdict is not that of the table";
    return "";
}

TEST(Property, the_syn_verdict_is_the_formula_and_is_never_contradicted) {
    const std::size_t seed = from_environment("TAPGATE_SEED", kDefaultSeed);
    const std::size_t cases = from_environment("TAPGATE_CASES", kDefaultCases);
    Generator generator(seed);
    std::array<std::size_t, 3> seen{};
    std::shared_ptr<const CompiledPolicy> policy;
    for (std::size_t i = 0; i < cases; ++i) {
        if (i % 4 == 0)
            policy = compiled(generator.policy());
        const Flow flow = generator.flow();
        const FirstFlight flight = generator.first_flight(flow.destination);
        const std::string what = violation(*policy, flow, flight);
        ASSERT_TRUE(what.empty()) << what << " (seed " << seed << ", case " << i << ")\n"
                                  << describe(policy->policy(), flow, flight);
        ++seen.at(static_cast<std::size_t>(decide_syn(*policy, flow.facts()).verdict));
    }
    // A generator that hardly ever defers would test nothing.
    for (const std::size_t count : seen)
        EXPECT_GT(count, cases / 20);
}

TEST(Property, query_verdicts_are_those_of_the_plain_walk) {
    Generator generator(from_environment("TAPGATE_SEED", kDefaultSeed));
    for (int i = 0; i < 10'000; ++i) {
        const auto policy = compiled(generator.policy());
        const Name wanted = generator.any_name();
        const Protocol transport = generator.one_in(2) ? Protocol::kUdp : Protocol::kTcp;
        std::vector<Name> aliases;
        while (generator.one_in(2))
            aliases.push_back(generator.any_name());
        Verdict expected =
            policy->policy().default_egress == Action::kAllow ? Verdict::kAllow : Verdict::kDeny;
        for (const Rule& rule : policy->policy().rules) {
            bool matches = false;
            if (const auto* domain = std::get_if<DomainTarget>(&rule.target)) {
                matches = reference_covers(*domain, wanted) ||
                          (rule.cname && std::ranges::any_of(aliases, [&](const Name& alias) {
                               return reference_covers(*domain, alias);
                           }));
            } else {
                const auto* group = std::get_if<GroupTarget>(&rule.target);
                const bool queries =
                    std::holds_alternative<AnyTarget>(rule.target) ||
                    std::holds_alternative<DnsTarget>(rule.target) ||
                    (group != nullptr &&
                     group->group == std::variant<BuiltinGroup, std::string>(BuiltinGroup::kHost));
                Flow query;
                query.port = 53;
                query.protocol = transport;
                matches = queries && reference_applies(rule, query) &&
                          !(rule.action == Action::kAllow && policy->policy().dns.only_allowed_names);
            }
            if (matches && rule.direction != Direction::kIngress) {
                expected = rule.action == Action::kAllow ? Verdict::kAllow : Verdict::kDeny;
                break;
            }
        }
        const Decision decision = decide_query(*policy, wanted, transport, aliases);
        ASSERT_EQ(decision.verdict, expected) << to_json(policy->policy()) << ' ' << wanted.text();
        // Without its aliases a name is refused for good only if no alias could have helped.
        const Decision before = decide_query(*policy, wanted, transport);
        if (before.verdict == Verdict::kDeny && !alias_could_allow(*policy, before)) {
            ASSERT_EQ(decision.verdict, Verdict::kDeny) << to_json(policy->policy()) << ' ' << wanted.text();
        }
        const Explanation explained = explain_query(*policy, wanted, transport, aliases);
        ASSERT_EQ(explained.decision.verdict, decision.verdict);
        ASSERT_EQ(explained.decision.rule, decision.rule);
    }
}

} // namespace
} // namespace tapgate::policy
