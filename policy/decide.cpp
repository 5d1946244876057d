// SPDX-License-Identifier: Apache-2.0
#include "policy/decide.hpp"

#include "policy/decide_words.hpp"
#include "policy/groups.hpp"
#include "policy/match.hpp"

#include <algorithm>

namespace tapgate::policy {

namespace {

constexpr Decision kRefused = {Verdict::kDeny, Basis::kRefusedAddress, std::nullopt};

/// Walks the rules at `address_rules` and `domain_rules` in their common order, each once.
template <typename Matcher>
Decision walk(const Policy& policy, const std::vector<RuleIndex>& address_rules,
              std::vector<RuleIndex> domain_rules, Action default_action, const Matcher& match) {
    std::ranges::sort(domain_rules);
    domain_rules.erase(std::ranges::unique(domain_rules).begin(), domain_rules.end());
    RuleWalk walk(default_action);
    auto address = address_rules.begin();
    auto domain = domain_rules.begin();
    while (address != address_rules.end() || domain != domain_rules.end()) {
        const bool take_domain =
            address == address_rules.end() || (domain != domain_rules.end() && *domain < *address);
        const RuleIndex index = take_domain ? *domain++ : *address++;
        const Rule& rule = policy.rules[index];
        if (const auto decision = walk.step(index, rule, match(rule)))
            return *decision;
    }
    return walk.finish();
}

Decision decide_flow(const CompiledPolicy& policy, const FlowFacts& facts, bool at_syn,
                     const Name* wire_name) {
    const FlowView view{facts, at_syn, wire_name,
                        group_of(policy, facts.destination.address, facts.host_addresses),
                        embedded_v4(facts.destination.address)};
    std::vector<RuleIndex> domain_rules;
    for (const BoundName& bound : facts.bound) {
        policy.append_domain_rules(bound.name, domain_rules);
        for (const Name& alias : bound.aliases)
            policy.append_domain_rules(alias, domain_rules);
    }
    if (wire_name != nullptr)
        policy.append_domain_rules(*wire_name, domain_rules);
    if (at_syn)
        domain_rules.insert(domain_rules.end(), policy.first_domain_denials().begin(),
                            policy.first_domain_denials().end());
    return walk(policy.policy(), policy.address_rules(), std::move(domain_rules),
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

Decision decide_first_flight(const CompiledPolicy& policy, const FlowFacts& facts,
                             const FirstFlight& flight) {
    const Decision at_syn = decide_syn(policy, facts);
    if (at_syn.verdict != Verdict::kDefer)
        return at_syn;
    if (const auto settled = judge_first_flight_kind(policy.policy(), facts, flight))
        return *settled;
    return decide_flow(policy, facts, false, wire_name_of(policy.policy(), flight));
}

Decision decide_query(const CompiledPolicy& policy, const Name& name, Protocol transport) {
    std::vector<RuleIndex> domain_rules;
    policy.append_domain_rules(name, domain_rules);
    return walk(policy.policy(), policy.address_rules(), std::move(domain_rules),
                policy.policy().default_egress,
                [&](const Rule& rule) { return match_query(rule, name, transport); });
}

std::string_view group_of(const CompiledPolicy& policy, const IpAddress& address,
                          std::span<const IpAddress> host_addresses) {
    const auto inner = embedded_v4(address);
    const auto is_host = [&](const IpAddress& candidate) {
        return std::ranges::find(host_addresses, candidate) != host_addresses.end();
    };
    if (is_host(address) || (inner && is_host(*inner)))
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
                              std::span<const IpAddress> host_addresses, std::span<const Name> aliases) {
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
    for (const RuleIndex index : policy.address_rules()) {
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
