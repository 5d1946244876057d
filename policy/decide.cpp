// SPDX-License-Identifier: Apache-2.0
#include "policy/decide.hpp"

#include "policy/decide_words.hpp"
#include "policy/groups.hpp"
#include "policy/match.hpp"

#include <algorithm>

namespace tapgate::policy {

namespace {

constexpr Decision kRefused = {Verdict::kDeny, Basis::kRefusedAddress, std::nullopt};

/// Walks the rules at `candidates`, given in any order and perhaps twice, each once and in the policy's
/// order.
template <typename Matcher>
Decision walk(const Policy& policy, std::vector<RuleIndex> candidates, Action default_action,
              const Matcher& match) {
    std::ranges::sort(candidates);
    candidates.erase(std::ranges::unique(candidates).begin(), candidates.end());
    RuleWalk walk(default_action);
    for (const RuleIndex index : candidates) {
        const Rule& rule = policy.rules[index];
        if (const auto decision = walk.step(index, rule, match(rule)))
            return *decision;
    }
    return walk.finish();
}

/// The rules on addresses that can match the flow.
std::vector<RuleIndex> address_candidates(const CompiledPolicy& policy, const FlowView& view) {
    std::vector<RuleIndex> candidates;
    policy.append_address_rules(view.facts.destination.address, view.group, candidates);
    if (view.embedded)
        policy.append_address_rules(*view.embedded, view.group, candidates);
    return candidates;
}

FlowView view_of(const CompiledPolicy& policy, const FlowFacts& facts, bool at_syn, const Name* wire_name) {
    return {facts, at_syn, wire_name, group_of(policy, facts.destination.address, facts.host_addresses),
            embedded_v4(facts.destination.address)};
}

/// All rules that can match the flow.
std::vector<RuleIndex> flow_candidates(const CompiledPolicy& policy, const FlowView& view) {
    std::vector<RuleIndex> candidates = address_candidates(policy, view);
    for (const BoundName& bound : view.facts.bound) {
        policy.append_domain_rules(bound.name, candidates);
        for (const Name& alias : bound.aliases)
            policy.append_domain_rules(alias, candidates);
    }
    if (view.wire_name != nullptr)
        policy.append_domain_rules(*view.wire_name, candidates);
    if (view.at_syn)
        candidates.insert(candidates.end(), policy.first_domain_denials().begin(),
                          policy.first_domain_denials().end());
    return candidates;
}

Decision decide_flow(const CompiledPolicy& policy, const FlowFacts& facts, bool at_syn,
                     const Name* wire_name) {
    const FlowView view = view_of(policy, facts, at_syn, wire_name);
    return walk(policy.policy(), flow_candidates(policy, view),
                default_action(policy.policy(), facts.direction),
                [&](const Rule& rule) { return match_flow(rule, view); });
}

} // namespace

std::string_view verdict_name(Verdict verdict) {
    return word_for(verdict, kVerdictWords);
}

std::string_view first_flight_kind_name(FirstFlightKind kind) {
    return word_for(kind, kFirstFlightKindWords);
}

std::string_view basis_name(Basis basis) {
    return word_for(basis, kBasisWords);
}

Decision decide_syn(const CompiledPolicy& policy, const FlowFacts& facts) {
    if (is_always_refused(facts.destination.address))
        return kRefused;
    return decide_flow(policy, facts, facts.protocol == Protocol::kTcp, nullptr);
}

std::optional<RuleIndex> rule_in_group(const CompiledPolicy& policy, const FlowFacts& facts,
                                       std::size_t group) {
    const FlowView view = view_of(policy, facts, facts.protocol == Protocol::kTcp, nullptr);
    std::vector<RuleIndex> candidates = flow_candidates(policy, view);
    std::ranges::sort(candidates);
    const RuleGroup& range = policy.rule_groups().at(group);
    const auto found = std::ranges::find_if(candidates, [&](RuleIndex index) {
        return index >= range.first && index <= range.last &&
               match_flow(policy.policy().rules[index], view).effect != Effect::kNone;
    });
    return found == candidates.end() ? std::nullopt : std::optional(*found);
}

Decision decide_first_flight(const CompiledPolicy& policy, const FlowFacts& facts,
                             const FirstFlight& flight) {
    const Decision at_syn = decide_syn(policy, facts);
    if (at_syn.verdict != Verdict::kDefer)
        return at_syn;
    if (const auto settled = judge_first_flight_kind(policy, facts, flight))
        return *settled;
    return decide_flow(policy, facts, false, wire_name_of(policy.policy(), flight));
}

bool connect_permitted(const CompiledPolicy& policy, const FlowFacts& facts, const FirstFlight& flight) {
    const std::uint16_t port = flight.connect_port.value();
    Decision decision;
    if (flight.name) {
        std::vector<RuleIndex> candidates;
        policy.append_domain_rules(*flight.name, candidates);
        policy.append_query_rules(candidates); // those on `any`; match_connect() passes over the others
        decision = walk(policy.policy(), std::move(candidates), Action::kDeny,
                        [&](const Rule& rule) { return match_connect(rule, *flight.name, port); });
    } else if (flight.literal && !is_always_refused(*flight.literal)) {
        FlowFacts behind;
        behind.destination = {*flight.literal, port};
        behind.host_addresses = facts.host_addresses;
        decision = decide_flow(policy, behind, false, nullptr);
    }
    return decision.verdict == Verdict::kAllow && decision.basis == Basis::kRule;
}

Decision decide_query(const CompiledPolicy& policy, const Name& name, Protocol transport,
                      std::span<const Name> aliases) {
    const QueryView query{policy.policy().dns, name, transport, aliases};
    std::vector<RuleIndex> candidates;
    policy.append_domain_rules(name, candidates);
    for (const Name& alias : aliases)
        policy.append_domain_rules(alias, candidates);
    policy.append_query_rules(candidates);
    return walk(policy.policy(), std::move(candidates), policy.policy().default_egress,
                [&](const Rule& rule) { return match_query(rule, query); });
}

bool alias_could_allow(const CompiledPolicy& policy, const Decision& decision) {
    const auto first = policy.first_alias_allowance();
    return first && decision.verdict == Verdict::kDeny && (!decision.rule || *first < *decision.rule);
}

bool HostAddresses::contains(const IpAddress& address) const {
    const auto holds = [&](std::span<const IpAddress> some) {
        return std::ranges::find(some, address) != some.end();
    };
    return holds(host) || holds(gateways);
}

std::string_view group_of(const CompiledPolicy& policy, const IpAddress& address,
                          const HostAddresses& host_addresses) {
    const auto inner = embedded_v4(address);
    if (host_addresses.contains(address) || (inner && host_addresses.contains(*inner)))
        return word_for(BuiltinGroup::kHost, kBuiltinGroups);
    const BuiltinGroup builtin = builtin_group_of(address);
    if (builtin == BuiltinGroup::kMeta)
        return word_for(builtin, kBuiltinGroups);
    if (const auto group = policy.table_group_of(address); !group.empty())
        return group;
    if (inner)
        if (const auto group = policy.table_group_of(*inner); !group.empty())
            return group;
    return word_for(builtin, kBuiltinGroups);
}

bool answer_address_permitted(const CompiledPolicy& policy, const Name& name, const IpAddress& address,
                              const HostAddresses& host_addresses, std::span<const Name> aliases) {
    if (is_always_refused(address))
        return false;
    const std::string_view group = group_of(policy, address, host_addresses);
    const std::string_view public_group = word_for(BuiltinGroup::kPublic, kBuiltinGroups);
    // A group that the operator declared says nothing of what its addresses are; the built-in list does.
    if (group == public_group ||
        (!find_builtin_group(group) && builtin_group_of(address) == BuiltinGroup::kPublic))
        return true;

    const std::vector<Rule>& rules = policy.policy().rules;
    std::vector<RuleIndex> domain_rules;
    policy.append_domain_rules(name, domain_rules);
    for (const Name& alias : aliases)
        policy.append_domain_rules(alias, domain_rules);
    for (const RuleIndex index : domain_rules) {
        const Rule& rule = rules[index];
        const bool by_name = covers(std::get<DomainTarget>(rule.target), name);
        if (rule.action == Action::kAllow && rule.direction != Direction::kIngress && rule.private_ok &&
            (by_name || rule.cname))
            return true;
    }

    FlowFacts facts;
    facts.destination.address = address;
    facts.host_addresses = host_addresses;
    const FlowView view{facts, false, nullptr, group, embedded_v4(address)};
    std::vector<RuleIndex> candidates = address_candidates(policy, view);
    std::ranges::sort(candidates);
    for (const RuleIndex index : candidates) {
        const Rule& rule = rules[index];
        // A denial of some protocols leaves the others to the rules behind it.
        const bool partial = rule.action == Action::kDeny && !rule.protocols.empty();
        if (rule.direction == Direction::kIngress || !rule.ports.empty() || partial)
            continue;
        if (match_target(rule, view).effect == Effect::kDecides)
            return rule.action == Action::kAllow;
    }
    return false;
}

} // namespace tapgate::policy
