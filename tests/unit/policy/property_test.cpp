// SPDX-License-Identifier: Apache-2.0
#include "support.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <limits>
#include <random>

// Random policies, bindings and flows against an implementation of its own, which works on plain lists and
// shares nothing with the library but the model: the formula of DESIGN 5.1 for the SYN, and the columns of
// the table in 6.2 for the first flight. Set TAPGATE_SEED and TAPGATE_CASES to look further.

namespace tapgate::policy {
namespace {

using test::address;
using test::compiled;
using test::name;

constexpr std::size_t kDefaultSeed = 20240611;
constexpr std::size_t kDefaultCases = 50'000;
constexpr std::size_t kNone = std::numeric_limits<std::size_t>::max();

std::size_t from_environment(const char* variable, std::size_t otherwise) {
    const char* text = std::getenv(variable);
    return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

struct Flow {
    IpAddress destination;
    std::uint16_t port = 0;
    Protocol protocol = Protocol::kTcp;
    Direction direction = Direction::kEgress;
    std::vector<BoundName> bound;
};

// --- the reference ---------------------------------------------------------------------------------

bool reference_covers(const DomainTarget& target, const Name& wanted) {
    const std::string& zone = target.name.text();
    return wanted.text() == zone || (target.suffix && wanted.text().ends_with("." + zone));
}

bool reference_bound(const Rule& rule, const Flow& flow) {
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

bool reference_named(const Rule& rule, const Flow& flow, const Name& wire) {
    const auto& target = std::get<DomainTarget>(rule.target);
    if (reference_covers(target, wire))
        return true;
    for (const BoundName& bound : flow.bound)
        for (const Name& alias : bound.aliases)
            if (rule.cname && bound.name == wire && reference_covers(target, alias))
                return true;
    return false;
}

bool reference_applies(const Rule& rule, const Flow& flow) {
    const bool icmp = flow.protocol == Protocol::kIcmpV4 || flow.protocol == Protocol::kIcmpV6;
    const bool direction = rule.direction == Direction::kAny || rule.direction == flow.direction;
    const bool protocol = rule.protocols.empty() || std::ranges::count(rule.protocols, flow.protocol) > 0;
    bool port = rule.ports.empty();
    for (const PortRange& range : rule.ports)
        port = port || (!icmp && flow.port >= range.first && flow.port <= range.last);
    return direction && protocol && port;
}

/// The groups of the few addresses that are drawn.
std::string_view reference_group(const IpAddress& at) {
    const std::string text = at.to_string();
    if (text == "172.16.0.1")
        return "host";
    if (text.starts_with("10.") || text.starts_with("fd"))
        return "private";
    if (text == "64:ff9b::a00:1") // 10.0.0.1
        return "private";
    return text.starts_with("198.51.100.") ? "corp" : "public";
}

bool reference_address_match(const Rule& rule, const Flow& flow) {
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

Action reference_default(const Policy& policy, const Flow& flow) {
    return flow.direction == Direction::kIngress ? policy.default_ingress : policy.default_egress;
}

/// DESIGN 5.1, TCP only: the least of the first allowed address rule A, the first denied one D and the first
/// bound allow rule on a name B, against the first deny rule on a name X.
Verdict reference_syn(const Policy& policy, const Flow& flow) {
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
Verdict reference_with_name(const Policy& policy, const Flow& flow, const Name* wire) {
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
                rule.protocols.push_back(protocol);
        while (one_in(3)) {
            const auto first = static_cast<std::uint16_t>(79 + below(4));
            rule.ports.push_back({first, static_cast<std::uint16_t>(first + below(3))});
        }
        rule.cname = std::holds_alternative<DomainTarget>(rule.target) && one_in(3);
        rule.text = format_rule(rule);
        return rule;
    }

    Policy policy() {
        Policy policy;
        policy.default_egress = one_in(2) ? Action::kAllow : Action::kDeny;
        policy.default_ingress = one_in(2) ? Action::kAllow : Action::kDeny;
        policy.groups["corp"] = {*IpPrefix::parse("198.51.100.0/24")};
        for (std::size_t count = below(9); count > 0; --count)
            policy.rules.push_back(rule());
        policy.no_sni = one_in(2) ? NoSni::kCache : NoSni::kDeny;
        policy.ech = one_in(3) ? Ech::kDeny : Ech::kOuter;
        policy.http_host = one_in(3) ? HttpHost::kIgnore : HttpHost::kEvery;
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

/// What must hold of one flow under one policy; returns what does not.
std::string violation(const CompiledPolicy& policy, const Flow& flow, const FirstFlight& flight) {
    const std::array<IpAddress, 1> host = {address("172.16.0.1")};
    FlowFacts facts;
    facts.destination = {flow.destination, flow.port};
    facts.protocol = flow.protocol;
    facts.direction = flow.direction;
    facts.bound = flow.bound;
    facts.host_addresses = host;

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

std::string describe(const Policy& policy, const Flow& flow, const FirstFlight& flight) {
    std::string text = to_json(policy) + "\nflow to " + Endpoint{flow.destination, flow.port}.to_string() +
                       " protocol " + std::to_string(static_cast<int>(flow.protocol)) + " direction " +
                       std::to_string(static_cast<int>(flow.direction)) + "\nbound:";
    for (const BoundName& bound : flow.bound) {
        text += ' ' + bound.name.text();
        for (const Name& alias : bound.aliases)
            text += "->" + alias.text();
    }
    text += "\nfirst flight " + std::string(first_flight_kind_name(flight.kind)) + ' ' +
            (flight.name ? flight.name->text() : "") + (flight.ech ? " ech" : "") +
            (flight.literal ? ' ' + flight.literal->to_string() : "");
    return text;
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
        FlowFacts facts;
        facts.destination = {flow.destination, flow.port};
        facts.protocol = flow.protocol;
        facts.direction = flow.direction;
        facts.bound = flow.bound;
        ++seen.at(static_cast<std::size_t>(decide_syn(*policy, facts).verdict));
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
        Verdict expected =
            policy->policy().default_egress == Action::kAllow ? Verdict::kAllow : Verdict::kDeny;
        for (const Rule& rule : policy->policy().rules) {
            bool matches = false;
            if (const auto* domain = std::get_if<DomainTarget>(&rule.target)) {
                matches = reference_covers(*domain, wanted);
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
                matches = queries && reference_applies(rule, query);
            }
            if (matches && rule.direction != Direction::kIngress) {
                expected = rule.action == Action::kAllow ? Verdict::kAllow : Verdict::kDeny;
                break;
            }
        }
        const Decision decision = decide_query(*policy, wanted, transport);
        ASSERT_EQ(decision.verdict, expected) << to_json(policy->policy()) << ' ' << wanted.text();
        const Explanation explained = explain_query(*policy, wanted, transport);
        ASSERT_EQ(explained.decision.verdict, decision.verdict);
        ASSERT_EQ(explained.decision.rule, decision.rule);
    }
}

} // namespace
} // namespace tapgate::policy
