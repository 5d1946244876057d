// SPDX-License-Identifier: Apache-2.0
#include "policy/remedy.hpp"

#include "policy/groups.hpp"
#include "policy/match.hpp"
#include "policy/parse.hpp"
#include "policy/rule_text.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace tapgate::policy {

namespace {

Remedy obstacle(std::string text) {
    return {std::nullopt, std::nullopt, std::move(text)};
}

Rule allowance(Target target, Protocol protocol, std::uint16_t port) {
    Rule rule;
    rule.action = Action::kAllow;
    rule.target = std::move(target);
    rule.protocols.insert(protocol);
    if (!is_icmp(protocol))
        rule.ports.push_back({port, port});
    return rule;
}

/// Moves `before` in front of what denied something.
void place_before(const Decision& decision, std::optional<RuleIndex>& before) {
    if (decision.verdict != Verdict::kDeny || !decision.rule)
        return;
    const auto rule = static_cast<RuleIndex>(*decision.rule);
    before = std::min(before.value_or(rule), rule);
}

Remedy by_name(const CompiledPolicy& policy, const FlowFacts& facts, const Name& name,
               const Decision& decision) {
    Remedy remedy;
    remedy.rule = allowance(DomainTarget{name, false}, facts.protocol, facts.destination.port);
    remedy.rule->private_ok =
        !answer_address_permitted(policy, name, facts.destination.address, facts.host_addresses);
    place_before(decision, remedy.before);
    place_before(decide_query(policy, name, Protocol::kUdp), remedy.before);
    // A rule on the name that had no say yet, since the first packet was denied, would have it then.
    const std::vector<Rule>& rules = policy.policy().rules;
    const FlowView view{facts, false, &name, {}, std::nullopt};
    std::vector<RuleIndex> on_name;
    policy.append_domain_rules(name, on_name);
    for (const BoundName& bound : facts.bound)
        for (const Name& alias : bound.aliases)
            policy.append_domain_rules(alias, on_name);
    for (const RuleIndex index : on_name)
        if (rules[index].action == Action::kDeny && match_flow(rules[index], view).effect == Effect::kDecides)
            place_before({Verdict::kDeny, Basis::kRule, index}, remedy.before);
    return remedy;
}

Remedy by_address(const CompiledPolicy& policy, const FlowFacts& facts, const Decision& decision) {
    const IpAddress& address = facts.destination.address;
    const std::string_view group = group_of(policy, address, facts.host_addresses);
    if (group == word_for(BuiltinGroup::kMeta, kBuiltinGroups))
        return obstacle(
            fmt::format("{} is in group meta: it gives out what this machine is trusted with, so no "
                        "rule is proposed for it",
                        address.to_string()));
    if (group == word_for(BuiltinGroup::kHost, kBuiltinGroups))
        return obstacle(fmt::format("{} is this host itself (group host), so no rule is proposed for it",
                                    address.to_string()));
    Remedy remedy;
    remedy.rule = allowance(PrefixTarget{IpPrefix(address)}, facts.protocol, facts.destination.port);
    place_before(decision, remedy.before);
    return remedy;
}

const BoundName* binding_to(const FlowFacts& facts, const Name& name) {
    const auto found = std::ranges::find(facts.bound, name, &BoundName::name);
    return found == facts.bound.end() ? nullptr : &*found;
}

Remedy by_rule(const CompiledPolicy& policy, const FlowFacts& facts, const Name* name,
               const Decision& decision) {
    if (name != nullptr && binding_to(facts, *name) == nullptr)
        return obstacle(
            fmt::format("the guest was not told that {} has the address {}, so no rule on the name "
                        "speaks of it: it has to resolve the name through its gateway",
                        name->text(), facts.destination.address.to_string()));
    if (name == nullptr && !facts.bound.empty())
        name = &facts.bound.front().name;
    return name == nullptr ? by_address(policy, facts, decision) : by_name(policy, facts, *name, decision);
}

} // namespace

Remedy remedy_for_query(const CompiledPolicy& policy, const Name& name, std::uint16_t port,
                        std::span<const Name> aliases) {
    Remedy remedy;
    remedy.rule = allowance(DomainTarget{name, false}, Protocol::kTcp, port);
    for (const Protocol transport : {Protocol::kUdp, Protocol::kTcp}) {
        place_before(decide_query(policy, name, transport), remedy.before);
        place_before(decide_query(policy, name, transport, aliases), remedy.before);
    }
    return remedy;
}

Remedy remedy_for_flow(const CompiledPolicy& policy, const FlowFacts& facts,
                       const std::optional<FirstFlight>& flight, const Decision& decision,
                       const Name* wanted) {
    switch (decision.basis) {
    case Basis::kRule:
    case Basis::kDefault: {
        const Name* wire = flight ? wire_name_of(policy.policy(), *flight) : nullptr;
        return by_rule(policy, facts, wire != nullptr ? wire : wanted, decision);
    }
    case Basis::kRefusedAddress:
        return obstacle("no policy can allow this address");
    case Basis::kTlsBad:
        return obstacle(
            "a name decides, and the TLS hello cannot be read: the client is broken, or this is not TLS");
    case Basis::kHttpBad:
        return obstacle(
            "a name decides, and the request does not name this server: the client is broken, or takes "
            "it for a proxy");
    case Basis::kNoSni:
        return obstacle(
            "[tls] no_sni = \"cache\" has hellos without a name judged by the names of the address");
    case Basis::kEch:
        return obstacle(
            "[tls] ech = \"outer\" has the outer name judged, \"strip\" keeps clients from encrypting it");
    case Basis::kConnect:
        return obstacle("a rule must allow what CONNECT asks this server for, too");
    }
    return obstacle("nothing is known that would allow it");
}

std::string remedy_text(const Policy& policy, const Remedy& remedy) {
    if (!remedy.rule)
        return remedy.obstacle;
    std::string text = "add " + format_for_file(*remedy.rule);
    if (!remedy.before)
        return text;
    const SourceLocation& where = policy.rules.at(*remedy.before).location;
    return text + fmt::format(" before rule {}", *remedy.before + 1) +
           (where.line == 0 ? "" : fmt::format(" (line {})", where.line));
}

} // namespace tapgate::policy
