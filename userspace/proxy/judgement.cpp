// SPDX-License-Identifier: Apache-2.0
#include "proxy/judgement.hpp"

#include "policy/parse.hpp"

#include <algorithm>
#include <utility>

namespace tapgate::proxy {

Result<void> SessionFacts::learn(KernelState& kernel, const Guest& guest,
                                 std::shared_ptr<const std::vector<IpAddress>> host_now) {
    host = std::move(host_now);
    gateways = guest.gateways;
    bound.clear();
    const auto names = kernel.bound_names(guest.id, destination.address);
    if (!names)
        return fail(names.error());
    for (const KernelState::BoundName& told : *names) {
        auto name = policy::Name::from_wire(told.name);
        if (!name)
            continue;
        policy::BoundName& out = bound.emplace_back(policy::BoundName{std::move(*name), {}});
        for (const std::string& text : told.aliases)
            if (auto alias = policy::Name::from_wire(text))
                out.aliases.push_back(std::move(*alias));
    }
    return {};
}

Result<void> SessionFacts::learn_more(KernelState& kernel, const Guest& guest,
                                      std::shared_ptr<const std::vector<IpAddress>> host_now) {
    std::vector<policy::BoundName> before = std::move(bound);
    Result<void> learned = learn(kernel, guest, std::move(host_now));
    for (policy::BoundName& known : before) {
        if (std::ranges::find(bound, known.name, &policy::BoundName::name) == bound.end())
            bound.push_back(std::move(known));
    }
    return learned;
}

policy::HostAddresses SessionFacts::host_addresses() const {
    return {host ? std::span(*host) : std::span<const IpAddress>(), gateways};
}

policy::FlowFacts SessionFacts::flow() const {
    policy::FlowFacts facts;
    facts.destination = destination;
    facts.protocol = policy::Protocol::kTcp;
    facts.bound = bound;
    facts.host_addresses = host_addresses();
    return facts;
}

DecidingRule deciding_rule(const policy::CompiledPolicy& policy, const policy::Decision& decision) {
    if (!decision.rule)
        return {};
    const policy::Rule& rule = policy.policy().rules[*decision.rule];
    return {policy::format_rule(rule), static_cast<std::uint32_t>(*decision.rule + 1), rule.location.line};
}

Judgement judgement_of(const PolicyGeneration& policy, const policy::Decision& decision) {
    return {policy.generation, decision.verdict == policy::Verdict::kAllow,
            deciding_rule(*policy.compiled, decision), std::string(policy::basis_name(decision.basis))};
}

Judgement judge_again(const PolicyGeneration& policy, const SessionFacts& facts) {
    if (facts.flight)
        return judgement_of(policy,
                            policy::decide_first_flight(*policy.compiled, facts.flow(), *facts.flight));
    const policy::Decision at_syn = policy::decide_syn(*policy.compiled, facts.flow());
    Judgement judgement = judgement_of(policy, at_syn);
    if (at_syn.verdict == policy::Verdict::kDefer)
        judgement.basis = "name-not-seen";
    return judgement;
}

} // namespace tapgate::proxy
