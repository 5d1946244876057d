// SPDX-License-Identifier: Apache-2.0
#include "policy/match.hpp"

#include "policy/groups.hpp"

#include <algorithm>

namespace tapgate::policy {

namespace {

bool has_port(const Rule& rule, std::uint16_t port) {
    return rule.ports.empty() || std::ranges::any_of(rule.ports, [port](const PortRange& range) {
               return range.first <= port && port <= range.last;
           });
}

/// Why direction, protocol or port keep the rule from applying; empty if they do not.
std::optional<Why> service_mismatch(const Rule& rule, const FlowFacts& facts) {
    if (rule.direction != Direction::kAny && rule.direction != facts.direction)
        return Why::kOtherDirection;
    if (!rule.protocols.includes(facts.protocol))
        return Why::kOtherProtocol;
    if (is_icmp(facts.protocol) && !rule.ports.empty())
        return Why::kPortsAndIcmp;
    if (!is_icmp(facts.protocol) && !has_port(rule, facts.destination.port))
        return Why::kOtherPort;
    return std::nullopt;
}

bool is_bound_by(const Rule& rule, const DomainTarget& target, const BoundName& bound) {
    return covers(target, bound.name) ||
           (rule.cname &&
            std::ranges::any_of(bound.aliases, [&](const Name& alias) { return covers(target, alias); }));
}

/// Whether the name on the wire satisfies the rule: by itself, or for `cname` rules by the aliases under
/// which the guest was told this address.
bool satisfies(const Rule& rule, const DomainTarget& target, const FlowView& view) {
    if (covers(target, *view.wire_name))
        return true;
    return rule.cname && std::ranges::any_of(view.facts.bound, [&](const BoundName& bound) {
               return bound.name == *view.wire_name && is_bound_by(rule, target, bound);
           });
}

Match match_domain(const Rule& rule, const DomainTarget& target, const FlowView& view) {
    const bool allow = rule.action == Action::kAllow;
    if (view.at_syn) {
        if (!allow)
            return {Effect::kMayDeny, Why::kDenyWaits};
        if (binding_of(rule, view.facts) == nullptr)
            return {Effect::kNone, Why::kNotBound};
        return {Effect::kMayAllow, Why::kBoundWaits};
    }
    if (view.wire_name == nullptr) {
        if (binding_of(rule, view.facts) == nullptr)
            return {Effect::kNone, Why::kNotBound};
        return {Effect::kDecides, Why::kBound};
    }
    if (!satisfies(rule, target, view))
        return {Effect::kNone, Why::kOtherName};
    // An allowed name sent to an address that it does not have is an attack (B04), a denied one is denied.
    if (allow && binding_of(rule, view.facts) == nullptr)
        return {Effect::kNone, Why::kNamedNotBound};
    return {Effect::kDecides, Why::kNamed};
}

Match match_prefix(const Rule& rule, const IpPrefix& prefix, const FlowView& view) {
    if (prefix.contains(view.facts.destination.address))
        return {Effect::kDecides, Why::kInPrefix};
    // Otherwise a NAT64 or 6to4 spelling would walk around a denied IPv4 block. Allowing by such a spelling
    // takes an explicit rule, so the translation only ever denies.
    if (rule.action == Action::kDeny && view.embedded && prefix.contains(*view.embedded))
        return {Effect::kDecides, Why::kTranslatedPrefix};
    return {Effect::kNone, Why::kOtherPrefix};
}

} // namespace

bool covers(const DomainTarget& target, const Name& name) {
    return target.suffix ? name.is_in(target.name) : name == target.name;
}

const BoundName* binding_of(const Rule& rule, const FlowFacts& facts) {
    const auto& target = std::get<DomainTarget>(rule.target);
    const auto found = std::ranges::find_if(
        facts.bound, [&](const BoundName& bound) { return is_bound_by(rule, target, bound); });
    return found == facts.bound.end() ? nullptr : &*found;
}

Match match_flow(const Rule& rule, const FlowView& view) {
    if (const auto why = service_mismatch(rule, view.facts))
        return {Effect::kNone, *why};
    return match_target(rule, view);
}

Match match_target(const Rule& rule, const FlowView& view) {
    struct Visitor {
        const Rule& rule;
        const FlowView& view;

        Match operator()(const AnyTarget&) const { return {Effect::kDecides, Why::kAny}; }

        Match operator()(const DnsTarget&) const { return {Effect::kNone, Why::kQueriesOnly}; }

        Match operator()(const GroupTarget& target) const {
            return group_name(target) == view.group ? Match{Effect::kDecides, Why::kInGroup}
                                                    : Match{Effect::kNone, Why::kOtherGroup};
        }

        Match operator()(const PrefixTarget& target) const { return match_prefix(rule, target.prefix, view); }

        Match operator()(const DomainTarget& target) const { return match_domain(rule, target, view); }
    };

    return std::visit(Visitor{rule, view}, rule.target);
}

Match match_query(const Rule& rule, const QueryView& query) {
    if (rule.direction == Direction::kIngress)
        return {Effect::kNone, Why::kOtherDirection};
    if (const auto* domain = std::get_if<DomainTarget>(&rule.target)) {
        if (covers(*domain, query.name))
            return {Effect::kDecides, Why::kQueryName};
        if (rule.cname &&
            std::ranges::any_of(query.aliases, [&](const Name& alias) { return covers(*domain, alias); }))
            return {Effect::kDecides, Why::kQueryAlias};
        return {Effect::kNone, Why::kOtherQueryName};
    }
    const auto* group = std::get_if<GroupTarget>(&rule.target);
    const bool host = group != nullptr && group_name(*group) == word_for(BuiltinGroup::kHost, kBuiltinGroups);
    if (!host && !std::holds_alternative<AnyTarget>(rule.target) &&
        !std::holds_alternative<DnsTarget>(rule.target))
        return {Effect::kNone, Why::kNoQueryTarget};
    if (!rule.protocols.includes(query.transport) || !has_port(rule, kDnsPort))
        return {Effect::kNone, Why::kNoQueryPort};
    if (rule.action == Action::kAllow && query.settings.only_allowed_names)
        return {Effect::kNone, Why::kNamesOnly};
    return {Effect::kDecides, Why::kQueryTarget};
}

std::optional<Decision> RuleWalk::step(std::size_t index, const Rule& rule, const Match& match) {
    switch (match.effect) {
    case Effect::kNone:
        return std::nullopt;
    case Effect::kMayDeny:
        if (!waiting_denial_)
            waiting_denial_ = index;
        return std::nullopt;
    case Effect::kMayAllow:
        return Decision{Verdict::kDefer, Basis::kRule, waiting_denial_.value_or(index)};
    case Effect::kDecides:
        if (rule.action == Action::kAllow)
            return waiting_denial_ ? Decision{Verdict::kDefer, Basis::kRule, waiting_denial_}
                                   : Decision{Verdict::kAllow, Basis::kRule, index};
        break;
    }
    return Decision{Verdict::kDeny, Basis::kRule, index};
}

Decision RuleWalk::finish() const {
    if (default_action_ == Action::kDeny)
        return {Verdict::kDeny, Basis::kDefault, std::nullopt};
    if (waiting_denial_)
        return {Verdict::kDefer, Basis::kRule, waiting_denial_};
    return {Verdict::kAllow, Basis::kDefault, std::nullopt};
}

Match match_connect(const Rule& rule, const Name& name, std::uint16_t port) {
    if (rule.direction == Direction::kIngress)
        return {Effect::kNone, Why::kOtherDirection};
    if (!rule.protocols.includes(Protocol::kTcp))
        return {Effect::kNone, Why::kOtherProtocol};
    if (!has_port(rule, port))
        return {Effect::kNone, Why::kOtherPort};
    if (std::holds_alternative<AnyTarget>(rule.target))
        return {Effect::kDecides, Why::kAny};
    const auto* domain = std::get_if<DomainTarget>(&rule.target);
    if (domain != nullptr && covers(*domain, name))
        return {Effect::kDecides, Why::kNamed};
    return {Effect::kNone, Why::kOtherName};
}

std::optional<Decision> judge_first_flight_kind(const CompiledPolicy& compiled, const FlowFacts& facts,
                                                const FirstFlight& flight) {
    const Policy& policy = compiled.policy();
    const auto denied = [](Basis basis) { return Decision{Verdict::kDeny, basis, std::nullopt}; };
    switch (flight.kind) {
    case FirstFlightKind::kTlsBad:
        return denied(Basis::kTlsBad);
    case FirstFlightKind::kTls:
        if (!flight.name)
            return denied(Basis::kTlsBad);
        if (flight.ech && policy.ech == Ech::kDeny)
            return denied(Basis::kEch);
        return std::nullopt;
    case FirstFlightKind::kTlsNoSni:
        if (flight.ech && policy.ech == Ech::kDeny)
            return denied(Basis::kEch);
        if (policy.no_sni == NoSni::kDeny)
            return denied(Basis::kNoSni);
        return std::nullopt;
    case FirstFlightKind::kHttp:
        if (policy.http_host == HttpHost::kIgnore)
            return std::nullopt;
        if (flight.connect_port)
            return connect_permitted(compiled, facts, flight) ? std::nullopt
                                                              : std::optional(denied(Basis::kConnect));
        // A literal that is another address asks the server to go there for the guest (B40).
        if (!flight.name && flight.literal && *flight.literal != facts.destination.address)
            return denied(Basis::kHttpBad);
        return std::nullopt;
    case FirstFlightKind::kHttpBad:
        if (policy.http_host != HttpHost::kIgnore)
            return denied(Basis::kHttpBad);
        return std::nullopt;
    case FirstFlightKind::kPlain:
        return std::nullopt;
    }
    return denied(Basis::kTlsBad);
}

const Name* wire_name_of(const Policy& policy, const FirstFlight& flight) {
    // What CONNECT names is not the server: the server itself is judged as one without a name.
    const bool http = flight.kind == FirstFlightKind::kHttp && policy.http_host != HttpHost::kIgnore &&
                      !flight.connect_port;
    const bool named = (http || flight.kind == FirstFlightKind::kTls) && flight.name.has_value();
    return named ? &*flight.name : nullptr;
}

Action default_action(const Policy& policy, Direction direction) {
    return direction == Direction::kIngress ? policy.default_ingress : policy.default_egress;
}

} // namespace tapgate::policy
