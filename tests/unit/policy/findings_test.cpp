// SPDX-License-Identifier: Apache-2.0
#include "policy/findings.hpp"
#include "support.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <random>
#include <set>

namespace tapgate::policy {
namespace {

using test::address;
using test::compiled;
using test::name;
using test::parsed;

using Lines = std::vector<std::string>;

/// "RULE: KIND by RULE,RULE", rules counting from 1.
Lines findings(std::string_view text, const GroupTable& daemon_groups = {}) {
    Lines lines;
    for (const Finding& finding : review(parsed(text), daemon_groups)) {
        std::string line = std::to_string(finding.rule + 1) + ": " + std::string(finding_name(finding.kind));
        for (const RuleIndex by : finding.by)
            line += " " + std::to_string(by + 1);
        lines.push_back(line);
    }
    return lines;
}

TEST(Findings, a_rule_behind_one_that_covers_it_is_hidden) {
    const std::pair<std::string_view, Lines> kCases[] = {
        // addresses
        {R"(rules = ["deny@any", "allow@10.0.0.0/8", "allow@private", "allow@host"])",
         {"2: hidden 1", "3: hidden 1", "4: hidden 1"}},
        {R"(rules = ["deny@10.0.0.0/8", "allow@10.1.0.0/16:tcp:443", "allow@11.0.0.0/8"])", {"2: hidden 1"}},
        {R"(rules = ["allow@[2001:db8::/32]", "deny@[2001:db8:1::/48]"])", {"2: hidden 1"}},
        {R"(rules = ["allow@private", "deny@private:tcp:22"])", {"2: hidden 1"}},
        {R"(rules = ["allow@corp", "deny@corp"]
            [groups]
            corp = ["10.20.0.0/16"])",
         {"2: hidden 1"}},
        // A block that holds every block of a declared group.
        {R"(rules = ["deny@10.0.0.0/8", "allow@corp"]
            [groups]
            corp = ["10.20.0.0/16", "10.30.0.1"])",
         {"2: hidden 1"}},
        // The same file twice, and only the first one tells.
        {R"(rules = ["allow@10.0.0.1", "allow@10.0.0.1", "allow@10.0.0.1"])", {"2: hidden 1", "3: hidden 1"}},
        // names
        {R"(rules = ["deny@*.example.com", "allow@a.example.com:tcp:443"])", {"2: hidden 1"}},
        {R"(rules = ["allow@*.example.com", "allow@*.b.example.com", "allow@b.example.com:tcp"])",
         {"2: hidden 1", "3: hidden 1"}},
        {R"(rules = ["deny@a.example.com", "deny@a.example.com:tcp"])", {"2: hidden 1"}},
        {R"(rules = ["deny@any", "allow@a.example.com:tcp:443", "deny@*.b.example"])",
         {"2: hidden 1", "3: hidden 1"}},
        // The flows go to one rule, the queries to another.
        {R"(rules = ["allow@dns", "allow@any:tcp:443", "allow@a.example.com:tcp:443"])", {"3: hidden 1 2"}},
        {R"(rules = ["allow@dns", "deny@dns:udp", "allow@any:udp:53", "allow@dns"])",
         {"2: hidden 1", "4: hidden 1"}},
        // directions, protocols, ports
        {R"(rules = ["deny:any@any:any:1-1024", "allow:ingress@any:tcp:22,80-90"])", {"2: hidden 1"}},
        {R"(rules = ["deny@8.8.8.8:tcp,udp", "allow@8.8.8.8:any:53"])", {"2: hidden 1"}},
    };
    for (const auto& [text, expected] : kCases)
        EXPECT_EQ(findings(text), expected) << text;
}

TEST(Findings, a_rule_that_still_decides_something_is_not_hidden) {
    for (const std::string_view text : {
             R"(rules = ["deny@any:tcp:443", "allow@any"])",
             R"(rules = ["deny@any:any:1-65535", "allow@any"])", // ICMP, and port 0
             R"(rules = ["deny:ingress@any", "allow@any"])",
             R"(rules = ["deny@10.0.0.0/9", "deny@10.128.0.0/9", "deny@10.0.0.0/8"])", // only together
             R"(rules = ["deny@0.0.0.0/0", "deny@[2001:db8::1]"])",                    // IPv4 is not IPv6
             R"(rules = ["allow@10.0.0.0/8", "deny@10.0.0.1"])", // 64:ff9b::10.0.0.1 is denied
             R"(rules = ["allow@*.example.com", "allow@example.org", "allow@notexample.com"])",
             R"(rules = ["allow@a.example.com", "allow@*.a.example.com"])",
             R"(rules = ["allow@any:tcp:443", "allow@a.example.com:tcp:443"])", // its queries
             R"(rules = ["allow@host:tcp:443", "allow@any:udp:53", "allow@dns"])",
             R"(rules = ["deny@private:tcp", "allow@private"])",
             R"(rules = ["deny@private:tcp", "allow@private:tcp"])", // what answers may carry
             R"(rules = ["allow@private", "deny@corp"]
                [groups]
                corp = ["10.20.0.0/16"])",
             R"(rules = ["deny@10.0.0.0/8", "allow@corp"]
                [groups]
                corp = ["10.20.0.0/16", "192.0.2.0/24"])",
             R"(rules = ["allow@10.0.0.0/8", "deny@corp"]
                [groups]
                corp = ["10.20.0.0/16"])", // 64:ff9b::10.20.0.1 is in corp
             R"(rules = ["allow@a.example.com", "deny@any", "allow:ingress@a.example.com"])",
             R"(rules = ["allow@dns", { action = "allow", destination = "*.example.com" },
                 { action = "allow", destination = "a.example.com", options = ["private-ok"] },
                 { action = "allow", destination = "b.example.com", options = ["cname"] }])",
         })
        EXPECT_EQ(findings(text), Lines{}) << text;
}

TEST(Findings, an_option_is_covered_by_a_rule_that_has_it) {
    EXPECT_EQ(findings(R"(rules = [
        { action = "allow", destination = "*.example.com", options = ["private-ok", "cname"] },
        { action = "allow", destination = "a.example.com", options = ["private-ok"] },
        { action = "deny", destination = "*.example.com", options = ["cname"] },
        { action = "allow", destination = "b.example.com", options = ["cname"] }])"),
              (Lines{"1: alias-opens-queries", "2: hidden 1", "3: denial-behind-name 1", "4: hidden 1"}));
}

TEST(Findings, a_rule_that_matches_nothing_is_told_without_another_rule) {
    EXPECT_EQ(findings(R"(rules = ["allow@dns:icmpv4", "allow:ingress@dns", "deny@240.0.0.0/8", "allow@[::]",
                           "allow@dns:tcp:443"])"),
              (Lines{"1: matches-nothing", "2: matches-nothing", "3: matches-nothing", "4: matches-nothing",
                     "5: matches-nothing"}));
}

TEST(Findings, a_block_behind_its_group_decides_for_the_host_at_most) {
    EXPECT_EQ(
        findings(R"(rules = ["deny@private", "allow@10.1.0.0/16", "allow@[fd10::/16]", "allow@8.8.8.8"])"),
        (Lines{"2: hidden-but-host 1", "3: hidden-but-host 1"}));
    EXPECT_EQ(findings(R"(rules = ["deny@host", "deny@private", "allow@10.1.0.0/16"])"),
              (Lines{"3: hidden 1 2"}));
    // Blocks of several groups.
    EXPECT_EQ(findings(R"(rules = ["deny@link-local", "allow@169.254.0.0/16"])"), Lines{});
    EXPECT_EQ(
        findings(R"(rules = ["deny@public", "allow@0.0.0.0/0", "allow@[64:ff9b::/96]", "allow@[::/0]"])"),
        Lines{});
    EXPECT_EQ(findings(R"(rules = ["deny@private", "allow@10.0.0.0/8"]
                           [groups]
                           corp = ["10.20.0.0/16"])"),
              Lines{});
    EXPECT_EQ(findings(R"(rules = ["deny@private", "allow@10.0.0.0/8"])",
                       {{"corp", {*IpPrefix::parse("10.20.0.0/16")}}}),
              Lines{});
    EXPECT_EQ(findings(R"(rules = ["deny@corp", "allow@10.20.1.0/24"]
                           [groups]
                           corp = ["10.20.0.0/16", "10.20.1.128/25"])"),
              (Lines{"2: hidden-but-host 1"}));
}

TEST(Findings, a_denied_name_that_comes_too_late_is_a_pitfall) {
    EXPECT_EQ(
        findings(R"(rules = ["allow@public:tcp:443", "deny@*.evil.example", "deny@worse.example:udp"])"),
        (Lines{"2: denial-behind-any 1"}));
    EXPECT_EQ(findings(R"(rules = ["allow@any:tcp:443", "deny@*.evil.example:tcp:443"])"),
              (Lines{"2: denial-behind-any 1"}));
    EXPECT_EQ(findings(R"(rules = ["allow@*.example.com:tcp:443", "deny@bad.example.com"])"),
              (Lines{"2: denial-behind-name 1"}));
    EXPECT_EQ(findings(R"(rules = ["deny@bad.example.com", "allow@*.example.com:tcp:443", "allow@private"])"),
              Lines{});
    EXPECT_EQ(findings(R"(rules = ["allow@private", "deny@evil.example"])"), Lines{});
}

TEST(Findings, an_allowed_name_whose_queries_are_denied_is_a_pitfall) {
    EXPECT_EQ(findings(R"(rules = ["deny@host", "allow@a.example.com:tcp:443"])"),
              (Lines{"2: unresolvable 1"}));
    EXPECT_EQ(findings(R"(rules = ["deny@*.example.com:tcp:80", "allow@a.example.com:tcp:443"])"),
              (Lines{"2: unresolvable 1"}));
    EXPECT_EQ(findings(R"(rules = ["allow@dns", "deny@host", "allow@a.example.com:tcp:443"])"), Lines{});
    EXPECT_EQ(findings(R"(rules = ["deny@dns:udp", "allow@a.example.com:tcp:443"])"), Lines{});
}

TEST(Findings, an_allowed_alias_has_every_name_asked_unless_that_is_decided_before) {
    EXPECT_EQ(
        findings(R"(rules = [{ action = "allow", destination = "cdn.example.com", options = ["cname"] }])"),
        (Lines{"1: alias-opens-queries"}));
    EXPECT_EQ(
        findings(
            R"(rules = ["allow@dns", { action = "allow", destination = "cdn.example.com", options = ["cname"] }])"),
        Lines{});
    EXPECT_EQ(
        findings(
            R"(rules = ["allow@dns", { action = "allow", destination = "cdn.example.com", options = ["cname"] }]
                          [dns]
                          resolve = "allowed")"),
        (Lines{"1: matches-nothing", "2: alias-opens-queries"}));
    EXPECT_EQ(
        findings(R"(rules = [{ action = "deny", destination = "cdn.example.com", options = ["cname"] }])"),
        Lines{});
}

TEST(Findings, B13_an_allowed_public_suffix_draws_a_warning) {
    EXPECT_EQ(
        findings(R"(rules = ["allow@*.co.uk", "allow@suffix=github.io:tcp:443", "allow@*.example.github.io",
                           "deny@*.com.br", "allow@github.io", "allow@*.公司.cn", "allow@*.example.com"])"),
        (Lines{"1: public-suffix", "2: public-suffix", "6: public-suffix"}));
}

TEST(Findings, the_text_names_both_rules_with_their_places) {
    const auto text = [](std::string_view file) {
        const Policy policy = parsed(file);
        return finding_text(policy, review(policy).at(0));
    };
    EXPECT_EQ(text("rules = [\n  \"deny@*.example.com\",\n    \"allow@a.example.com:tcp:443\",\n]"),
              "p:3:5: allow@a.example.com:tcp:443 never takes effect; an earlier rule decides first: p:2:3: "
              "deny@*.example.com");
    EXPECT_EQ(text("rules = [\"allow@240.0.0.0/4\"]"),
              "p:1:10: allow@240.0.0.0/4 never takes effect; these addresses are refused whatever the policy "
              "says");
    EXPECT_EQ(text("rules = [\"allow@dns\"]\n[dns]\nresolve = \"allowed\""),
              "p:1:10: allow@dns never takes effect; only rules on names allow queries ([dns] resolve is "
              "\"allowed\")");
    EXPECT_EQ(text("rules = [\"allow@*.co.uk\"]"),
              "p:1:10: allow@*.co.uk allows a suffix under which anyone can have a name; name the sites that "
              "are meant");
}

// Random policies: nothing that is reported may make a difference. Set TAPGATE_SEED and TAPGATE_CASES to look
// further.

constexpr std::size_t kDefaultPolicies = 1'500;
constexpr std::size_t kFactsOfAPolicy = 100;

class Generator {
  public:
    explicit Generator(std::uint64_t seed) : random_(seed) {}

    std::size_t below(std::size_t count) { return random_() % count; }

    bool one_in(std::size_t count) { return below(count) == 0; }

    template <typename Items>
    auto one_of(const Items& items) {
        return items.at(below(items.size()));
    }

    Name any_name() { return one_of(names_); }

    IpAddress any_address() { return one_of(addresses_); }

    Policy policy() {
        Policy policy;
        policy.default_egress = one_in(2) ? Action::kAllow : Action::kDeny;
        policy.default_ingress = one_in(2) ? Action::kAllow : Action::kDeny;
        if (one_in(2))
            policy.groups["corp"] = {*IpPrefix::parse("10.0.0.0/30"), *IpPrefix::parse("fd00::/64")};
        if (one_in(4))
            policy.groups["public"] = {*IpPrefix::parse("64:ff9b::/112")};
        for (std::size_t count = 2 + below(7); count > 0; --count)
            policy.rules.push_back(rule(policy.groups.contains("corp")));
        policy.dns.only_allowed_names = one_in(4);
        policy.no_sni = one_in(2) ? NoSni::kCache : NoSni::kDeny;
        return policy;
    }

    std::vector<BoundName> bindings() {
        std::vector<BoundName> bound;
        while (one_in(2)) {
            bound.push_back({any_name(), {}});
            while (one_in(3))
                bound.back().aliases.push_back(any_name());
        }
        return bound;
    }

    FlowFacts flow(const std::vector<BoundName>& bound, const std::vector<IpAddress>& host) {
        constexpr std::array kProtocols = {Protocol::kTcp, Protocol::kTcp, Protocol::kTcp, Protocol::kUdp,
                                           Protocol::kIcmpV4};
        constexpr std::array<std::uint16_t, 6> kPorts = {0, 53, 79, 80, 81, 443};
        FlowFacts facts;
        facts.destination = {any_address(), one_of(kPorts)};
        facts.protocol = one_of(kProtocols);
        facts.direction = one_in(6) ? Direction::kIngress : Direction::kEgress;
        facts.bound = bound;
        facts.host_addresses = host;
        return facts;
    }

    FirstFlight flight() {
        FirstFlight flight;
        flight.kind = one_in(3)   ? FirstFlightKind::kPlain
                      : one_in(5) ? FirstFlightKind::kTlsNoSni
                                  : FirstFlightKind::kTls;
        if (flight.kind == FirstFlightKind::kTls)
            flight.name = any_name();
        return flight;
    }

    std::vector<IpAddress> host_addresses() {
        return one_in(2) ? std::vector<IpAddress>{} : std::vector<IpAddress>{any_address()};
    }

  private:
    Rule rule(bool with_corp) {
        Rule rule;
        rule.action = one_in(2) ? Action::kAllow : Action::kDeny;
        rule.direction = one_in(5) ? Direction::kAny : one_in(8) ? Direction::kIngress : Direction::kEgress;
        rule.target = target(with_corp);
        for (const Protocol protocol : {Protocol::kTcp, Protocol::kUdp, Protocol::kIcmpV4})
            if (one_in(5))
                rule.protocols.insert(protocol);
        if (one_in(4))
            rule.ports.push_back(one_in(2) ? PortRange{1, 65535}
                                           : PortRange{static_cast<std::uint16_t>(50 + 30 * below(2)), 81});
        if (std::holds_alternative<DomainTarget>(rule.target)) {
            rule.cname = one_in(4);
            rule.private_ok = rule.action == Action::kAllow && one_in(4);
        }
        return rule;
    }

    Target target(bool with_corp) {
        static const std::array blocks = {*IpPrefix::parse("10.0.0.0/8"),   *IpPrefix::parse("10.0.0.0/29"),
                                          *IpPrefix::parse("10.0.0.1"),     *IpPrefix::parse("0.0.0.0/0"),
                                          *IpPrefix::parse("::/0"),         *IpPrefix::parse("fd00::/8"),
                                          *IpPrefix::parse("fd00::/64"),    *IpPrefix::parse("fd00::1"),
                                          *IpPrefix::parse("64:ff9b::/96"), *IpPrefix::parse("240.0.0.0/4")};
        constexpr std::array kGroups = {BuiltinGroup::kHost, BuiltinGroup::kPrivate, BuiltinGroup::kPublic};
        switch (below(12)) {
        case 0:
            return AnyTarget{};
        case 1:
            return DnsTarget{};
        case 2:
            return with_corp ? Target(GroupTarget{std::string("corp")}) : AnyTarget{};
        case 3:
        case 4:
            return GroupTarget{one_of(kGroups)};
        case 5:
        case 6:
        case 7:
            return PrefixTarget{one_of(blocks)};
        default:
            return DomainTarget{one_of(zones_), one_in(2)};
        }
    }

    std::mt19937_64 random_;
    std::array<Name, 3> zones_ = {name("a.example"), name("x.a.example"), name("b.example")};
    std::array<Name, 6> names_ = {name("a.example"), name("x.a.example"),   name("b.example"),
                                  name("c.example"), name("y.x.a.example"), name("xa.example")};
    std::array<IpAddress, 10> addresses_ = {
        address("10.0.0.1"),         address("10.0.0.6"), address("10.9.0.1"), address("8.8.8.8"),
        address("fd00::1"),          address("fd00:1::"), address("fd01::1"),  address("64:ff9b::a00:1"),
        address("64:ff9b::808:808"), address("240.0.0.1")};
};

/// Everything that can be asked about one set of facts, under two policies that should not differ.
/// `may_deny_earlier` is the exception that review() states.
std::string difference(const CompiledPolicy& a, const CompiledPolicy& b, const FlowFacts& facts,
                       const FirstFlight& flight, const Name& wanted, const std::vector<Name>& aliases,
                       bool may_deny_earlier) {
    const Verdict syn_a = decide_syn(a, facts).verdict;
    const Verdict syn_b = decide_syn(b, facts).verdict;
    if (syn_a != syn_b && !(may_deny_earlier && syn_a == Verdict::kDefer && syn_b == Verdict::kDeny))
        return "the verdict at SYN";
    if (decide_first_flight(a, facts, flight).verdict != decide_first_flight(b, facts, flight).verdict)
        return "the verdict at the first flight";
    for (const Protocol transport : {Protocol::kUdp, Protocol::kTcp})
        if (decide_query(a, wanted, transport, aliases).verdict !=
            decide_query(b, wanted, transport, aliases).verdict)
            return "the verdict on a query";
    if (answer_address_permitted(a, wanted, facts.destination.address, facts.host_addresses, aliases) !=
        answer_address_permitted(b, wanted, facts.destination.address, facts.host_addresses, aliases))
        return "what an answer may carry";
    return {};
}

bool only_for_the_host(const Finding& finding) {
    return finding.kind == FindingKind::kHiddenButHost;
}

TEST(FindingsProperty, without_the_rules_that_are_reported_every_decision_is_the_same) {
    const auto from_environment = [](const char* variable, std::size_t otherwise) {
        const char* text = std::getenv(variable);
        return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
    };
    Generator generate(from_environment("TAPGATE_SEED", 20241124));
    const std::size_t count = from_environment("TAPGATE_CASES", kDefaultPolicies);
    std::set<FindingKind> seen;
    for (std::size_t i = 0; i < count; ++i) {
        const Policy policy = generate.policy();
        std::vector<Finding> reported;
        for (Finding& finding : review(policy)) {
            seen.insert(finding.kind);
            if (is_without_effect(finding.kind) || only_for_the_host(finding))
                reported.push_back(std::move(finding));
        }
        if (reported.empty())
            continue;
        const auto whole = compiled(policy);
        // Each alone, and the certain ones all at once.
        std::vector<std::vector<Finding>> removals;
        for (const Finding& finding : reported)
            removals.push_back({finding});
        removals.emplace_back();
        for (const Finding& finding : reported)
            if (!only_for_the_host(finding))
                removals.back().push_back(finding);
        for (const std::vector<Finding>& removed : removals) {
            Policy rest = policy;
            bool may_deny_earlier = false;
            bool host_differs = false;
            std::string text;
            for (auto finding = removed.rbegin(); finding != removed.rend(); ++finding) {
                const Rule& rule = policy.rules[finding->rule];
                text += finding_text(policy, *finding) + "\n";
                may_deny_earlier |=
                    rule.action == Action::kAllow && std::holds_alternative<DomainTarget>(rule.target);
                host_differs |= only_for_the_host(*finding);
                rest.rules.erase(rest.rules.begin() + finding->rule);
            }
            const auto without = compiled(std::move(rest));
            for (std::size_t j = 0; j < kFactsOfAPolicy; ++j) {
                const auto host = host_differs ? std::vector<IpAddress>{} : generate.host_addresses();
                const auto bound = generate.bindings();
                const std::vector<Name> aliases = bound.empty() ? std::vector<Name>{} : bound.front().aliases;
                const FlowFacts facts = generate.flow(bound, host);
                ASSERT_EQ(difference(*whole, *without, facts, generate.flight(), generate.any_name(), aliases,
                                     may_deny_earlier),
                          "")
                    << to_json(policy) << "\n"
                    << text << facts.destination.to_string();
            }
        }
    }
    for (const FindingKind kind :
         {FindingKind::kHidden, FindingKind::kMatchesNothing, FindingKind::kHiddenButHost,
          FindingKind::kDenialBehindAny, FindingKind::kDenialBehindName, FindingKind::kUnresolvable,
          FindingKind::kAliasOpensQueries})
        EXPECT_TRUE(seen.contains(kind)) << finding_name(kind);
}

} // namespace
} // namespace tapgate::policy
