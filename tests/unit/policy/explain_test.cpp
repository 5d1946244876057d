// SPDX-License-Identifier: Apache-2.0
#include "support.hpp"

#include <gtest/gtest.h>

namespace tapgate::policy {
namespace {

using test::address;
using test::compiled;
using test::name;

std::vector<std::string> lines(const Explanation& explanation) {
    std::vector<std::string> result;
    for (const ExplainStep& step : explanation.steps)
        result.push_back((step.matched ? "+ " : "- ") + step.reason);
    result.push_back(explanation.summary);
    return result;
}

using Lines = std::vector<std::string>;

TEST(Explain, every_rule_of_the_walk_is_given_with_its_reason) {
    const auto policy = compiled(R"(rules = [
        "allow:ingress@any", "allow@any:udp", "allow@any:tcp:80", "allow@dns", "deny@private", "deny@[2001:db8::/32]",
        "allow@other.example", "deny@evil.example", "allow@good.example" ])");
    const std::vector<BoundName> bound = {{name("good.example"), {}}};
    FlowFacts facts;
    facts.destination = {address("8.8.8.8"), 443};
    facts.bound = bound;
    const Lines common = {"- the flow is egress, the rule ingress",
                          "- the rule is not for tcp",
                          "- the rule is not for port 443",
                          "- dns speaks of name queries only",
                          "- address 8.8.8.8 is in group public, not private",
                          "- address 8.8.8.8 is not in [2001:db8::/32]"};
    const auto with = [&](Lines more) {
        Lines all = common;
        all.insert(all.end(), more.begin(), more.end());
        return all;
    };
    EXPECT_EQ(lines(explain_flow(*policy, facts, std::nullopt)),
              with({"- no live binding ties 8.8.8.8 to other.example",
                    "- denies if the name on the wire satisfies it",
                    "+ 8.8.8.8 is bound to good.example; the name on the wire decides",
                    "defer: rule 8 (p:3:32: deny@evil.example) needs the name on the wire"}));
    EXPECT_EQ(lines(explain_flow(*policy, facts, FirstFlight{FirstFlightKind::kTls, name("good.example")})),
              with({"- the name on the wire is good.example, not other.example",
                    "- the name on the wire is good.example, not evil.example",
                    "+ the name on the wire is good.example, and 8.8.8.8 is bound to good.example",
                    "allow: rule 9 (p:3:53: allow@good.example): the name on the wire is good.example, and "
                    "8.8.8.8 is "
                    "bound to good.example"}));
    EXPECT_EQ(
        lines(explain_flow(*policy, facts, FirstFlight{FirstFlightKind::kTls, name("other.example")})),
        with({"- the name on the wire is other.example, but no live binding ties 8.8.8.8 to other.example",
              "- the name on the wire is other.example, not evil.example",
              "- the name on the wire is other.example, not good.example",
              "deny: no rule matched, and default_egress is deny"}));
    EXPECT_EQ(lines(explain_flow(*policy, facts, FirstFlight{})),
              with({"- no live binding ties 8.8.8.8 to other.example",
                    "- no live binding ties 8.8.8.8 to evil.example",
                    "+ there is no name on the wire, and 8.8.8.8 is bound to good.example",
                    "allow: rule 9 (p:3:53: allow@good.example): there is no name on the wire, and 8.8.8.8 "
                    "is bound to "
                    "good.example"}));
}

TEST(Explain, verdicts_without_a_rule_say_what_they_rest_on) {
    const auto policy =
        compiled("default_egress = \"allow\"\nrules = [\"deny@evil.example\"]\ntls.ech = \"deny\"");
    FlowFacts facts;
    facts.destination = {address("8.8.8.8"), 443};
    const auto summary = [&](const FirstFlight& flight) {
        return explain_flow(*policy, facts, flight).summary;
    };
    EXPECT_EQ(summary({FirstFlightKind::kTlsBad}), "deny: a name decides, and the TLS hello cannot be read");
    EXPECT_EQ(summary({FirstFlightKind::kTlsNoSni}),
              "deny: a name decides, the TLS hello has none, and [tls] no_sni is deny");
    EXPECT_EQ(summary({.kind = FirstFlightKind::kTls, .name = name("a.example"), .ech = true}),
              "deny: a name decides, the hello is encrypted, and [tls] ech is deny");
    EXPECT_EQ(summary({FirstFlightKind::kHttpBad}),
              "deny: a name decides, and the HTTP request does not name this server legibly");
    EXPECT_EQ(summary({FirstFlightKind::kPlain}), "allow: no rule matched, and default_egress is allow");
    facts.direction = Direction::kIngress;
    EXPECT_EQ(summary({FirstFlightKind::kPlain}), "deny: no rule matched, and default_ingress is deny");
    facts.destination.address = address("0.0.0.0");
    EXPECT_EQ(summary({FirstFlightKind::kPlain}), "deny: this address is refused whatever the policy says");
}

TEST(Explain, a_translated_address_and_an_alias_are_named) {
    const auto policy = compiled("rules = [\"deny@93.184.216.0/24\"]");
    FlowFacts facts;
    facts.destination = {address("64:ff9b::5db8:d822"), 443};
    EXPECT_EQ(explain_flow(*policy, facts, std::nullopt).steps.front().reason,
              "address 64:ff9b::5db8:d822 translates to 93.184.216.34, which is in 93.184.216.0/24");
    const auto cname =
        compiled("rules = [{ action = \"allow\", destination = \"cdn.example\", options = [\"cname\"] }]");
    const std::vector<BoundName> bound = {{name("www.example"), {name("cdn.example")}}};
    facts.bound = bound;
    EXPECT_EQ(explain_flow(*cname, facts, FirstFlight{}).steps.front().reason,
              "there is no name on the wire, and 64:ff9b::5db8:d822 is bound to www.example (by its alias "
              "cdn.example)");
}

TEST(Explain, queries_are_explained_rule_by_rule) {
    const auto policy = compiled("rules = [\"allow:ingress@dns\", \"allow@public\", \"allow@any:tcp:443\", "
                                 "\"allow@a.example:tcp:443\", \"deny@host\"]");
    EXPECT_EQ(lines(explain_query(*policy, name("b.example"), Protocol::kUdp)),
              (Lines{"- queries are egress, the rule ingress", "- public says nothing of name queries",
                     "- the rule is not for udp to port 53", "- b.example is not covered by a.example",
                     "+ host on port 53 covers every name",
                     "deny: rule 5 (p:1:95: deny@host): host on port 53 covers every name"}));
    EXPECT_EQ(explain_query(*policy, name("a.example"), Protocol::kUdp).summary,
              "allow: rule 4 (p:1:68: allow@a.example:tcp:443): a.example is covered by a.example");
}

TEST(Explain, queries_are_explained_by_their_aliases_and_by_the_mode_of_resolving) {
    const auto policy =
        compiled("rules = [\"allow@dns\", { action = \"allow\", destination = \"*.cdn.example\", "
                 "options = [\"cname\"] }]\n[dns]\nresolve = \"allowed\"");
    const std::vector<Name> aliases = {name("edge.cdn.example")};
    EXPECT_EQ(
        lines(explain_query(*policy, name("a.example"), Protocol::kUdp, aliases)),
        (Lines{"- only rules on names allow queries ([dns] resolve is \"allowed\")",
               "+ an alias of a.example in the answer is covered by *.cdn.example",
               "allow: rule 2 (p:1:23: allow@*.cdn.example (cname)): an alias of a.example in the answer "
               "is covered by *.cdn.example"}));
    EXPECT_EQ(explain_query(*policy, name("a.example"), Protocol::kUdp).summary,
              "deny: no rule matched, and default_egress is deny");
}

TEST(Explain, each_rule_of_the_walk_and_the_deciding_one_are_given_with_their_place) {
    const auto policy = compiled("rules = [\n  \"deny@private\",\n    \"allow@public\",\n]");
    FlowFacts facts;
    facts.destination = {address("8.8.8.8"), 443};
    const Explanation explanation = explain_flow(*policy, facts, std::nullopt);
    ASSERT_EQ(explanation.steps.size(), 2U);
    EXPECT_EQ(explanation.steps[0].place, "p:2:3");
    EXPECT_EQ(explanation.steps[1].place, "p:3:5");
    EXPECT_EQ(explanation.place, "p:3:5");
    facts.destination.address = address("240.0.0.1");
    EXPECT_EQ(explain_flow(*policy, facts, std::nullopt).place, "");
    const Explanation query = explain_query(*policy, name("a.example"), Protocol::kUdp);
    EXPECT_EQ(query.steps.front().place, "p:2:3");
    EXPECT_EQ(query.place, "");
}

TEST(Explain, a_rule_without_a_place_is_told_by_its_number) {
    Policy policy = test::parsed("rules = [\"allow@any\"]");
    policy.rules.front().location = {};
    FlowFacts facts;
    facts.destination = {address("8.8.8.8"), 443};
    EXPECT_EQ(explain_flow(*compiled(std::move(policy)), facts, std::nullopt).summary,
              "allow: rule 1 (allow@any): any destination");
}

TEST(Explain, every_word_of_a_decision_has_a_name) {
    EXPECT_EQ(verdict_name(Verdict::kDefer), "defer");
    EXPECT_EQ(basis_name(Basis::kRefusedAddress), "refused-address");
    EXPECT_EQ(first_flight_kind_name(FirstFlightKind::kTlsNoSni), "tls-no-sni");
    EXPECT_EQ(first_flight_kind_name(FirstFlightKind::kHttpBad), "http-bad");
}

} // namespace
} // namespace tapgate::policy
