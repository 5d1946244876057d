// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "policy/decide.hpp"
#include "policy/parse.hpp"
#include "unit/policy/support.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <limits>
#include <optional>
#include <random>
#include <string>

// Random policies, bindings and flows, and verdicts on them by code that works on plain lists and shares
// nothing with the library but the model: the formula of DESIGN 5.1 for the SYN, and the columns of the table
// in 6.2 for the first flight.

namespace tapgate::policy::test {

inline constexpr std::size_t kDefaultSeed = 20240611;
inline constexpr std::size_t kNone = std::numeric_limits<std::size_t>::max();

inline std::size_t from_environment(const char* variable, std::size_t otherwise) {
    const char* text = std::getenv(variable);
    return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

struct Flow {
    IpAddress destination;
    std::uint16_t port = 0;
    Protocol protocol = Protocol::kTcp;
    Direction direction = Direction::kEgress;
    std::vector<BoundName> bound;

    /// As the library takes it; borrows from this. The host is the 172.16.0.1 of reference_group().
    [[nodiscard]] FlowFacts facts() const {
        static const std::array<IpAddress, 1> host = {address("172.16.0.1")};
        FlowFacts facts;
        facts.destination = {destination, port};
        facts.protocol = protocol;
        facts.direction = direction;
        facts.bound = bound;
        facts.host_addresses = host;
        return facts;
    }
};

// --- the reference ---------------------------------------------------------------------------------

inline bool reference_covers(const DomainTarget& target, const Name& wanted) {
    const std::string& zone = target.name.text();
    return wanted.text() == zone || (target.suffix && wanted.text().ends_with("." + zone));
}

inline bool reference_bound(const Rule& rule, const Flow& flow) {
    const auto& target = std::get<DomainTarget>(rule.target);
    for (const BoundName& bound : flow.bound) {
        if (reference_covers(target, bound.name))
            return true;
        for (const Name& alias : bound.aliases)
            if (rule.cname && reference_covers(target, alias))
                return true;
    }
    return false;
}

inline bool reference_named(const Rule& rule, const Flow& flow, const Name& wire) {
    const auto& target = std::get<DomainTarget>(rule.target);
    if (reference_covers(target, wire))
        return true;
    for (const BoundName& bound : flow.bound)
        for (const Name& alias : bound.aliases)
            if (rule.cname && bound.name == wire && reference_covers(target, alias))
                return true;
    return false;
}

inline bool reference_applies(const Rule& rule, const Flow& flow) {
    const bool icmp = flow.protocol == Protocol::kIcmpV4 || flow.protocol == Protocol::kIcmpV6;
    const bool direction = rule.direction == Direction::kAny || rule.direction == flow.direction;
    const bool protocol = rule.protocols.empty() || std::ranges::count(rule.protocols, flow.protocol) > 0;
    bool port = rule.ports.empty();
    for (const PortRange& range : rule.ports)
        port = port || (!icmp && flow.port >= range.first && flow.port <= range.last);
    return direction && protocol && port;
}

/// The groups of the few addresses that are drawn.
inline std::string_view reference_group(const IpAddress& at) {
    const std::string text = at.to_string();
    if (text == "172.16.0.1")
        return "host";
    if (text.starts_with("10.") || text.starts_with("fd"))
        return "private";
    if (text == "64:ff9b::a00:1") // 10.0.0.1
        return "private";
    return text.starts_with("198.51.100.") ? "corp" : "public";
}

inline bool reference_address_match(const Rule& rule, const Flow& flow) {
    if (std::holds_alternative<AnyTarget>(rule.target))
        return true;
    if (const auto* group = std::get_if<GroupTarget>(&rule.target)) {
        const std::string_view actual = reference_group(flow.destination);
        if (const auto* named = std::get_if<std::string>(&group->group))
            return *named == actual;
        const auto builtin = std::get<BuiltinGroup>(group->group);
        return (builtin == BuiltinGroup::kHost && actual == "host") ||
               (builtin == BuiltinGroup::kPrivate && actual == "private") ||
               (builtin == BuiltinGroup::kPublic && actual == "public");
    }
    if (const auto* block = std::get_if<PrefixTarget>(&rule.target)) {
        const bool nat64 = flow.destination == address("64:ff9b::a00:1");
        return block->prefix.contains(flow.destination) ||
               (nat64 && rule.action == Action::kDeny && block->prefix.contains(address("10.0.0.1")));
    }
    return false; // dns
}

inline Action reference_default(const Policy& policy, const Flow& flow) {
    return flow.direction == Direction::kIngress ? policy.default_ingress : policy.default_egress;
}

/// DESIGN 5.1, TCP only: the least of the first allowed address rule A, the first denied one D and the first
/// bound allow rule on a name B, against the first deny rule on a name X.
inline Verdict reference_syn(const Policy& policy, const Flow& flow) {
    std::size_t a = kNone;
    std::size_t b = kNone;
    std::size_t d = kNone;
    std::size_t x = kNone;
    for (std::size_t i = policy.rules.size(); i-- > 0;) {
        const Rule& rule = policy.rules[i];
        if (!reference_applies(rule, flow))
            continue;
        const bool allow = rule.action == Action::kAllow;
        if (std::holds_alternative<DomainTarget>(rule.target)) {
            if (!allow)
                x = i;
            else if (reference_bound(rule, flow))
                b = i;
        } else if (reference_address_match(rule, flow)) {
            (allow ? a : d) = i;
        }
    }
    const std::size_t f = std::min({a, d, b});
    if (f == kNone) {
        if (reference_default(policy, flow) == Action::kDeny)
            return Verdict::kDeny;
        return x == kNone ? Verdict::kAllow : Verdict::kDefer;
    }
    if (f == b)
        return Verdict::kDefer;
    if (f == d)
        return Verdict::kDeny;
    return x < a ? Verdict::kDefer : Verdict::kAllow;
}

/// The two right columns of the table in DESIGN 6.2, without regard to any SYN verdict.
inline Verdict reference_with_name(const Policy& policy, const Flow& flow, const Name* wire) {
    for (const Rule& rule : policy.rules) {
        if (!reference_applies(rule, flow))
            continue;
        const bool allow = rule.action == Action::kAllow;
        bool matches = false;
        if (!std::holds_alternative<DomainTarget>(rule.target))
            matches = reference_address_match(rule, flow);
        else if (wire == nullptr)
            matches = reference_bound(rule, flow);
        else
            matches = reference_named(rule, flow, *wire) && (!allow || reference_bound(rule, flow));
        if (matches)
            return allow ? Verdict::kAllow : Verdict::kDeny;
    }
    return reference_default(policy, flow) == Action::kAllow ? Verdict::kAllow : Verdict::kDeny;
}

// --- random cases ----------------------------------------------------------------------------------

class Generator {
  public:
    explicit Generator(std::uint64_t seed) : random_(seed) {}

    std::size_t below(std::size_t count) { return random_() % count; }

    bool one_in(std::size_t count) { return below(count) == 0; }

    Name any_name() { return names_.at(below(names_.size())); }

    Name zone() { return names_.at(below(5)); }

    Rule rule() {
        Rule rule;
        rule.action = one_in(2) ? Action::kAllow : Action::kDeny;
        rule.direction = one_in(8) ? Direction::kAny : one_in(8) ? Direction::kIngress : Direction::kEgress;
        rule.target = target();
        for (const Protocol protocol : {Protocol::kTcp, Protocol::kUdp, Protocol::kIcmpV4})
            if (one_in(5))
                rule.protocols.insert(protocol);
        while (one_in(3)) {
            const auto first = static_cast<std::uint16_t>(79 + below(4));
            rule.ports.push_back({first, static_cast<std::uint16_t>(first + below(3))});
        }
        rule.cname = std::holds_alternative<DomainTarget>(rule.target) && one_in(3);
        return rule;
    }

    Policy policy() {
        Policy policy;
        policy.default_egress = one_in(2) ? Action::kAllow : Action::kDeny;
        policy.default_ingress = one_in(2) ? Action::kAllow : Action::kDeny;
        policy.groups["corp"] = {*IpPrefix::parse("198.51.100.0/24")};
        for (std::size_t count = below(9); count > 0; --count)
            policy.rules.push_back(rule());
        policy.dns.only_allowed_names = one_in(4);
        policy.no_sni = one_in(2) ? NoSni::kCache : NoSni::kDeny;
        policy.ech = one_in(3) ? Ech::kDeny : Ech::kOuter;
        policy.http_host = one_in(3) ? HttpHost::kIgnore : HttpHost::kEvery;
        return policy;
    }

    /// More rules that meet queries, and ports among which 53 is.
    Policy query_policy() {
        Policy policy = this->policy();
        for (Rule& rule : policy.rules) {
            if (one_in(4))
                rule.target = one_in(2) ? Target(DnsTarget{}) : Target(AnyTarget{});
            rule.cname = std::holds_alternative<DomainTarget>(rule.target) && one_in(2);
            for (PortRange& range : rule.ports)
                if (one_in(2))
                    range = {static_cast<std::uint16_t>(52 + below(2)),
                             static_cast<std::uint16_t>(53 + below(3))};
        }
        return policy;
    }

    Flow flow() {
        Flow flow;
        flow.destination = addresses_.at(below(addresses_.size()));
        flow.port = static_cast<std::uint16_t>(79 + below(6));
        flow.protocol = one_in(6) ? Protocol::kUdp : one_in(12) ? Protocol::kIcmpV4 : Protocol::kTcp;
        flow.direction = one_in(8) ? Direction::kIngress : Direction::kEgress;
        while (one_in(2)) {
            BoundName bound{any_name(), {}};
            while (one_in(3))
                bound.aliases.push_back(any_name());
            flow.bound.push_back(std::move(bound));
        }
        return flow;
    }

    FirstFlight first_flight(const IpAddress& destination) {
        constexpr std::array kKinds = {FirstFlightKind::kTls,     FirstFlightKind::kTlsNoSni,
                                       FirstFlightKind::kTlsBad,  FirstFlightKind::kHttp,
                                       FirstFlightKind::kHttpBad, FirstFlightKind::kPlain};
        FirstFlight flight;
        flight.kind = kKinds.at(below(kKinds.size()));
        flight.ech = one_in(4);
        if (flight.kind == FirstFlightKind::kTls || (flight.kind == FirstFlightKind::kHttp && one_in(2)))
            flight.name = any_name();
        else if (flight.kind == FirstFlightKind::kHttp && one_in(2))
            flight.literal = one_in(2) ? destination : address("169.254.169.254");
        return flight;
    }

  private:
    Target target() {
        static const std::array blocks = {*IpPrefix::parse("10.0.0.0/8"), *IpPrefix::parse("10.0.0.1"),
                                          *IpPrefix::parse("8.8.0.0/16"), *IpPrefix::parse("0.0.0.0/0"),
                                          *IpPrefix::parse("::/0"),       *IpPrefix::parse("2606:4700::/32")};
        switch (below(10)) {
        case 0:
            return AnyTarget{};
        case 1:
            return DnsTarget{};
        case 2:
            return PrefixTarget{blocks.at(below(blocks.size()))};
        case 3:
            return GroupTarget{std::string("corp")};
        case 4:
            return GroupTarget{one_in(3)   ? BuiltinGroup::kHost
                               : one_in(2) ? BuiltinGroup::kPrivate
                                           : BuiltinGroup::kPublic};
        default:
            return DomainTarget{zone(), one_in(2)};
        }
    }

    std::mt19937_64 random_;
    std::array<Name, 8> names_ = {name("a.example"),   name("b.example"),   name("x.a.example"),
                                  name("xa.example"),  name("c.d.example"), name("x.x.a.example"),
                                  name("y.b.example"), name("z.example")};
    std::array<IpAddress, 7> addresses_ = {
        address("10.0.0.1"),     address("8.8.8.8"),        address("198.51.100.1"), address("172.16.0.1"),
        address("2606:4700::1"), address("64:ff9b::a00:1"), address("fd00::1")};
};

inline std::string describe(const Policy& policy, const Flow& flow,
                            const std::optional<FirstFlight>& flight = std::nullopt) {
    std::string text = to_json(policy) + "\nflow to " + Endpoint{flow.destination, flow.port}.to_string() +
                       " protocol " + std::to_string(static_cast<int>(flow.protocol)) + " direction " +
                       std::to_string(static_cast<int>(flow.direction)) + "\nbound:";
    for (const BoundName& bound : flow.bound) {
        text += ' ' + bound.name.text();
        for (const Name& alias : bound.aliases)
            text += "->" + alias.text();
    }
    if (flight)
        text += "\nfirst flight " + std::string(first_flight_kind_name(flight->kind)) + ' ' +
                (flight->name ? flight->name->text() : "") + (flight->ech ? " ech" : "") +
                (flight->literal ? ' ' + flight->literal->to_string() : "");
    return text;
}

} // namespace tapgate::policy::test
