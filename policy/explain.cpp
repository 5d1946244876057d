// SPDX-License-Identifier: Apache-2.0
#include "policy/decide.hpp"
#include "policy/ground.hpp"
#include "policy/groups.hpp"
#include "policy/match.hpp"
#include "policy/parse.hpp"
#include "policy/rule_text.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace tapgate::policy {

namespace {

/// "pypi.org", with the alias that tied it to the rule if the name itself did not.
std::string bound_text(const Rule& rule, const BoundName& bound) {
    const auto& target = std::get<DomainTarget>(rule.target);
    if (covers(target, bound.name))
        return bound.name.text();
    for (const Name& alias : bound.aliases)
        if (covers(target, alias))
            return fmt::format("{} (by its alias {})", bound.name.text(), alias.text());
    return bound.name.text();
}

std::string flow_reason(const Rule& rule, const FlowView& view, Why why) {
    const FlowFacts& facts = view.facts;
    const std::string address = facts.destination.address.to_string();
    const std::string target = format_target(rule.target);
    const std::string wire = view.wire_name != nullptr ? view.wire_name->text() : std::string{};
    switch (why) {
    case Why::kOtherDirection:
        return fmt::format("the flow is {}, the rule {}", word_for(facts.direction, kDirections),
                           word_for(rule.direction, kDirections));
    case Why::kOtherProtocol:
        return fmt::format("the rule is not for {}", word_for(facts.protocol, kProtocols));
    case Why::kOtherPort:
        return fmt::format("the rule is not for port {}", facts.destination.port);
    case Why::kPortsAndIcmp:
        return "the rule has ports, which ICMP has not";
    case Why::kQueriesOnly:
        return "dns speaks of name queries only";
    case Why::kAny:
        return "any destination";
    case Why::kInGroup:
        return fmt::format("address {} is in group {}", address, view.group);
    case Why::kOtherGroup:
        return fmt::format("address {} is in group {}, not {}", address, view.group, target);
    case Why::kInPrefix:
        return fmt::format("address {} is in {}", address, target);
    case Why::kTranslatedPrefix:
        return fmt::format("address {} translates to {}, which is in {}", address, view.embedded->to_string(),
                           target);
    case Why::kOtherPrefix:
        return fmt::format("address {} is not in {}", address, target);
    case Why::kNotBound:
        return fmt::format("no live binding ties {} to {}", address, target);
    case Why::kBound:
        return fmt::format("there is no name on the wire, and {} is bound to {}", address,
                           bound_text(rule, *binding_of(rule, facts)));
    case Why::kBoundWaits:
        return fmt::format("{} is bound to {}; the name on the wire decides", address,
                           bound_text(rule, *binding_of(rule, facts)));
    case Why::kDenyWaits:
        return "denies if the name on the wire satisfies it";
    case Why::kNamed:
        return rule.action == Action::kDeny
                   ? fmt::format("the name on the wire is {}", wire)
                   : fmt::format("the name on the wire is {}, and {} is bound to {}", wire, address,
                                 bound_text(rule, *binding_of(rule, facts)));
    case Why::kOtherName:
        return fmt::format("the name on the wire is {}, not {}", wire, target);
    case Why::kNamedNotBound:
        return fmt::format("the name on the wire is {}, but no live binding ties {} to {}", wire, address,
                           target);
    case Why::kQueryName:
    case Why::kQueryAlias:
    case Why::kOtherQueryName:
    case Why::kQueryTarget:
    case Why::kNamesOnly:
    case Why::kNoQueryTarget:
    case Why::kNoQueryPort:
        break;
    }
    TAPGATE_ASSERT(!"a reason of queries for a flow");
    return {};
}

std::string query_reason(const Rule& rule, const QueryView& query, Why why) {
    const Name& name = query.name;
    const std::string target = format_target(rule.target);
    switch (why) {
    case Why::kOtherDirection:
        return "queries are egress, the rule ingress";
    case Why::kQueryName:
        return fmt::format("{} is covered by {}", name.text(), target);
    case Why::kQueryAlias:
        return fmt::format("an alias of {} in the answer is covered by {}", name.text(), target);
    case Why::kOtherQueryName:
        return fmt::format("{} is not covered by {}", name.text(), target);
    case Why::kQueryTarget:
        return fmt::format("{} on port 53 covers every name", target);
    case Why::kNoQueryTarget:
        return fmt::format("{} says nothing of name queries", target);
    case Why::kNoQueryPort:
        return fmt::format("the rule is not for {} to port 53", word_for(query.transport, kProtocols));
    case Why::kNamesOnly:
        return "only rules on names allow queries ([dns] resolve is \"allowed\")";
    case Why::kOtherProtocol:
    case Why::kOtherPort:
    case Why::kPortsAndIcmp:
    case Why::kQueriesOnly:
    case Why::kAny:
    case Why::kInGroup:
    case Why::kOtherGroup:
    case Why::kInPrefix:
    case Why::kTranslatedPrefix:
    case Why::kOtherPrefix:
    case Why::kNotBound:
    case Why::kBound:
    case Why::kBoundWaits:
    case Why::kDenyWaits:
    case Why::kNamed:
    case Why::kOtherName:
    case Why::kNamedNotBound:
        break;
    }
    TAPGATE_ASSERT(!"a reason of flows for a query");
    return {};
}

std::string summary_of(const Policy& policy, const Explanation& explanation, std::string_view default_key) {
    const Decision& decision = explanation.decision;
    const std::string_view verdict = verdict_name(decision.verdict);
    switch (decision.basis) {
    case Basis::kRule: {
        const std::string text = format_rule(policy.rules.at(*decision.rule));
        const std::string rule =
            explanation.place.empty()
                ? fmt::format("rule {} ({})", *decision.rule + 1, text)
                : fmt::format("rule {} ({}: {})", *decision.rule + 1, explanation.place, text);
        if (decision.verdict == Verdict::kDefer)
            return fmt::format("{}: {} needs the name on the wire", verdict, rule);
        return fmt::format("{}: {}: {}", verdict, rule, explanation.steps.back().reason);
    }
    case Basis::kDefault:
        return fmt::format("{}: no rule matched, and {} is {}", verdict, default_key, verdict);
    case Basis::kRefusedAddress:
        return fmt::format("{}: this address is refused whatever the policy says", verdict);
    case Basis::kTlsBad:
        return fmt::format("{}: a name decides, and the TLS hello cannot be read", verdict);
    case Basis::kNoSni:
        return fmt::format("{}: a name decides, the TLS hello has none, and [tls] no_sni is deny", verdict);
    case Basis::kEch:
        return fmt::format("{}: a name decides, the hello is encrypted, and [tls] ech is deny", verdict);
    case Basis::kHttpBad:
        return fmt::format("{}: a name decides, and the HTTP request does not name this server legibly",
                           verdict);
    case Basis::kConnect:
        return fmt::format("{}: a name decides, and no rule allows what CONNECT asks the server for",
                           verdict);
    }
    return std::string(verdict);
}

std::string_view default_of(const FlowFacts& facts) {
    return facts.direction == Direction::kIngress ? "default_ingress" : "default_egress";
}

/// Fills in what follows from the decision.
void finish(const Policy& policy, std::string_view default_key, Explanation& explanation) {
    if (explanation.decision.rule)
        explanation.place = place_of(policy, *explanation.decision.rule);
    explanation.summary = summary_of(policy, explanation, default_key);
}

ExplainStep step_of(const Policy& policy, std::size_t index, const Match& match, std::string reason) {
    const bool matched = match.effect == Effect::kDecides || match.effect == Effect::kMayAllow;
    return {index, place_of(policy, index), matched, std::move(reason)};
}

/// The plain ordered walk over all rules.
template <typename Matcher, typename Reason>
void walk_all(const Policy& policy, Action default_action, const Matcher& match, const Reason& reason,
              Explanation& explanation) {
    RuleWalk walk(default_action);
    for (std::size_t index = 0; index < policy.rules.size(); ++index) {
        const Rule& rule = policy.rules[index];
        const Match result = match(rule);
        explanation.steps.push_back(step_of(policy, index, result, reason(rule, result.why)));
        if (const auto decision = walk.step(index, rule, result)) {
            explanation.decision = *decision;
            return;
        }
    }
    explanation.decision = walk.finish();
}

void walk_flow(const CompiledPolicy& policy, const FlowFacts& facts, bool at_syn, const Name* wire_name,
               Explanation& explanation) {
    const FlowView view{facts, at_syn, wire_name, explanation.address_group,
                        embedded_v4(facts.destination.address)};
    explanation.steps.clear();
    walk_all(
        policy.policy(), default_action(policy.policy(), facts.direction),
        [&](const Rule& rule) { return match_flow(rule, view); },
        [&](const Rule& rule, Why why) { return flow_reason(rule, view, why); }, explanation);
}

} // namespace

Explanation explain_flow(const CompiledPolicy& policy, const FlowFacts& facts,
                         const std::optional<FirstFlight>& flight) {
    Explanation explanation;
    explanation.address_group = group_of(policy, facts.destination.address, facts.host_addresses);
    if (is_always_refused(facts.destination.address)) {
        explanation.decision = {Verdict::kDeny, Basis::kRefusedAddress, std::nullopt};
    } else {
        walk_flow(policy, facts, facts.protocol == Protocol::kTcp, nullptr, explanation);
        if (flight && explanation.decision.verdict == Verdict::kDefer) {
            if (const auto settled = judge_first_flight_kind(policy, facts, *flight))
                explanation.decision = *settled;
            else
                walk_flow(policy, facts, false, wire_name_of(policy.policy(), *flight), explanation);
        }
    }
    finish(policy.policy(), default_of(facts), explanation);
    return explanation;
}

Explanation ground_of_flow(const CompiledPolicy& policy, const FlowFacts& facts,
                           const std::optional<FirstFlight>& flight) {
    Explanation explanation;
    explanation.address_group = group_of(policy, facts.destination.address, facts.host_addresses);
    const Decision at_syn = decide_syn(policy, facts);
    const bool by_flight = flight && at_syn.verdict == Verdict::kDefer;
    explanation.decision = by_flight ? decide_first_flight(policy, facts, *flight) : at_syn;
    if (const auto index = explanation.decision.rule) {
        const FlowView view{facts, !by_flight && facts.protocol == Protocol::kTcp,
                            by_flight ? wire_name_of(policy.policy(), *flight) : nullptr,
                            explanation.address_group, embedded_v4(facts.destination.address)};
        const Rule& rule = policy.policy().rules.at(*index);
        const Match match = match_flow(rule, view);
        explanation.steps.push_back(
            step_of(policy.policy(), *index, match, flow_reason(rule, view, match.why)));
    }
    finish(policy.policy(), default_of(facts), explanation);
    return explanation;
}

Explanation ground_of_query(const CompiledPolicy& policy, const Name& name, Protocol transport) {
    Explanation explanation;
    explanation.decision = decide_query(policy, name, transport);
    if (const auto index = explanation.decision.rule) {
        const QueryView query{policy.policy().dns, name, transport, {}};
        const Rule& rule = policy.policy().rules.at(*index);
        const Match match = match_query(rule, query);
        explanation.steps.push_back(
            step_of(policy.policy(), *index, match, query_reason(rule, query, match.why)));
    }
    finish(policy.policy(), "default_egress", explanation);
    return explanation;
}

Explanation explain_query(const CompiledPolicy& policy, const Name& name, Protocol transport,
                          std::span<const Name> aliases) {
    const QueryView query{policy.policy().dns, name, transport, aliases};
    Explanation explanation;
    walk_all(
        policy.policy(), policy.policy().default_egress,
        [&](const Rule& rule) { return match_query(rule, query); },
        [&](const Rule& rule, Why why) { return query_reason(rule, query, why); }, explanation);
    finish(policy.policy(), "default_egress", explanation);
    return explanation;
}

std::string over_length(const DnsSettings& limits, const Name& name) {
    const std::string& text = name.text();
    if (limits.max_name != 0 && text.size() > limits.max_name)
        return fmt::format("the name has {} octets, dns.max_name is {}", text.size(), limits.max_name);
    std::size_t longest = 0;
    for (std::size_t begin = 0; begin <= text.size();) {
        const std::size_t end = std::min(text.find('.', begin), text.size());
        longest = std::max(longest, end - begin);
        begin = end + 1;
    }
    if (limits.max_label != 0 && longest > limits.max_label)
        return fmt::format("a label has {} octets, dns.max_label is {}", longest, limits.max_label);
    return {};
}

} // namespace tapgate::policy
