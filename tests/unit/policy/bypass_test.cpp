// SPDX-License-Identifier: Apache-2.0
#include "support.hpp"

#include <gtest/gtest.h>

// Rows of the list of known bypasses that the policy language answers by itself.

namespace tapgate::policy {
namespace {

using test::address;
using test::compiled;
using test::name;

constexpr std::string_view kSuffixRule = R"(rules = ["allow@*.example.com:tcp:443"])";

/// The verdict on a TLS connection to an address that `wanted` was resolved to.
Verdict tls_verdict(const CompiledPolicy& policy, std::string_view wanted, std::string_view destination) {
    const std::vector<BoundName> bound = {{name(wanted), {}}};
    FlowFacts facts;
    facts.destination = {address(destination), 443};
    facts.bound = bound;
    return decide_first_flight(policy, facts, {FirstFlightKind::kTls, name(wanted)}).verdict;
}

TEST(Bypass, B13_a_suffix_matches_on_label_boundaries_only) {
    const auto policy = compiled(kSuffixRule);
    for (const std::string_view inside :
         {"example.com", "a.example.com", "a.b.example.com", "EXAMPLE.com."}) {
        EXPECT_EQ(decide_query(*policy, name(inside), Protocol::kUdp).verdict, Verdict::kAllow) << inside;
        for (const std::string_view at : {"8.8.8.8", "2606:4700::1"})
            EXPECT_EQ(tls_verdict(*policy, inside, at), Verdict::kAllow) << inside;
    }
    for (const std::string_view outside :
         {"evilexample.com", "example.com.evil.test", "example.community", "com", "xexample.com",
          "a-example.com", "example.co", "www.example.com.co"}) {
        EXPECT_EQ(decide_query(*policy, name(outside), Protocol::kUdp).verdict, Verdict::kDeny) << outside;
        for (const std::string_view at : {"8.8.8.8", "2606:4700::1"})
            EXPECT_EQ(tls_verdict(*policy, outside, at), Verdict::kDeny) << outside;
    }
}

TEST(Bypass, B13_a_denied_suffix_is_not_left_by_a_longer_or_shorter_name) {
    const auto policy = compiled(R"(
        default_egress = "allow"
        rules = ["deny@*.example.com"])");
    EXPECT_EQ(tls_verdict(*policy, "a.b.c.example.com", "8.8.8.8"), Verdict::kDeny);
    EXPECT_EQ(tls_verdict(*policy, "EXAMPLE.COM.", "8.8.8.8"), Verdict::kDeny);
    EXPECT_EQ(tls_verdict(*policy, "notexample.com", "8.8.8.8"), Verdict::kAllow);
}

TEST(Bypass, B13_odd_wildcards_are_errors) {
    for (const std::string_view target :
         {"*", "*.", "*.com", "*example.com", "a.*.com", "a*.example.com", "*.*.com", "example.*",
          "*.example.*", "**.example.com", "suffix=*.example.com", "domain=*.example.com", ".example.com"})
        EXPECT_FALSE(parse_rule("allow@" + std::string(target))) << target;
}

TEST(Bypass, B40_connect_takes_a_rule_on_the_proxy_and_one_on_what_is_behind_it) {
    const auto policy = compiled(R"(
        rules = [
          "deny@bad.zone.example:tcp:443",
          "allow@proxy.example:tcp:3128",
          "allow@*.zone.example:tcp:443",
          "allow@8.8.8.8:tcp:443",
        ])");
    const std::vector<BoundName> bound = {{name("proxy.example"), {}}};
    for (const std::string_view at : {"203.0.113.9", "2606:4700::1"}) {
        FlowFacts facts;
        facts.destination = {address(at), 3128};
        facts.bound = bound;
        const auto connect = [&](std::string_view to, std::uint16_t port) {
            FirstFlight flight{FirstFlightKind::kHttp, Name::from_wire(to), IpAddress::parse(to)};
            flight.connect_port = port;
            return decide_first_flight(*policy, facts, flight);
        };
        EXPECT_EQ(connect("a.zone.example", 443).verdict, Verdict::kAllow);
        EXPECT_EQ(connect("8.8.8.8", 443).verdict, Verdict::kAllow);
        EXPECT_EQ(connect("bad.zone.example", 443).basis, Basis::kConnect);
        EXPECT_EQ(connect("a.zone.example", 22).basis, Basis::kConnect);
        EXPECT_EQ(connect("evil.test", 443).basis, Basis::kConnect);
        EXPECT_EQ(connect("8.8.8.8", 22).basis, Basis::kConnect);
        EXPECT_EQ(connect("169.254.169.254", 443).basis, Basis::kConnect);
        EXPECT_EQ(connect("0.0.0.0", 443).basis, Basis::kConnect);
        // Who may be behind the proxy may not be asked to be one.
        facts.bound = {};
        EXPECT_EQ(connect("a.zone.example", 443).verdict, Verdict::kDeny);
    }
}

TEST(Bypass, B40_a_default_is_no_rule_that_allows_connect) {
    const auto policy = compiled("default_egress = \"allow\"\nrules = [\"deny@evil.test\"]");
    FlowFacts facts;
    facts.destination = {address("8.8.8.8"), 80};
    FirstFlight flight{FirstFlightKind::kHttp, name("good.test")};
    EXPECT_EQ(decide_first_flight(*policy, facts, flight).verdict, Verdict::kAllow);
    flight.connect_port = 443;
    EXPECT_EQ(decide_first_flight(*policy, facts, flight).basis, Basis::kConnect);
    EXPECT_EQ(explain_flow(*policy, facts, flight).decision.basis, Basis::kConnect);
    const auto any = compiled("rules = [\"deny@evil.test\", \"allow@any\"]");
    EXPECT_EQ(decide_first_flight(*any, facts, flight).verdict, Verdict::kAllow);
    flight.name = name("evil.test");
    EXPECT_EQ(decide_first_flight(*any, facts, flight).basis, Basis::kConnect);
}

TEST(Bypass, B14_an_empty_or_missing_allowlist_denies) {
    for (const std::string_view text :
         {"", "# nothing\n", "{}", "rules = []", R"({"rules":[]})", "[groups]\n",
          "[tls]\nno_sni = \"cache\"\n[http]\nhost = \"ignore\"\n"}) {
        const auto policy = compiled(text);
        for (const std::string_view at : {"8.8.8.8", "2606:4700::1", "10.0.0.1", "::1", "169.254.169.254"}) {
            EXPECT_EQ(tls_verdict(*policy, "a.example", at), Verdict::kDeny) << text << at;
            for (const Protocol protocol :
                 {Protocol::kTcp, Protocol::kUdp, Protocol::kIcmpV4, Protocol::kIcmpV6})
                for (const Direction direction : {Direction::kEgress, Direction::kIngress}) {
                    FlowFacts facts;
                    facts.destination = {address(at), 53};
                    facts.protocol = protocol;
                    facts.direction = direction;
                    EXPECT_EQ(decide_syn(*policy, facts).verdict, Verdict::kDeny) << text << at;
                }
        }
        for (const Protocol transport : {Protocol::kUdp, Protocol::kTcp})
            EXPECT_EQ(decide_query(*policy, name("a.example"), transport).verdict, Verdict::kDeny) << text;
        EXPECT_FALSE(answer_address_permitted(*policy, name("a.example"), address("10.0.0.1"), {})) << text;
    }
}

TEST(Bypass, B14_a_list_of_denials_alone_allows_nothing) {
    const auto policy = compiled(R"(rules = ["deny@a.example", "deny@meta"])");
    EXPECT_EQ(tls_verdict(*policy, "b.example", "8.8.8.8"), Verdict::kDeny);
    EXPECT_EQ(decide_query(*policy, name("b.example"), Protocol::kUdp).verdict, Verdict::kDeny);
}

TEST(Bypass, B14_an_empty_list_in_a_rule_is_an_error_and_not_any) {
    for (const std::string_view key : {"protocols", "ports", "options"})
        EXPECT_FALSE(parse("rules = [{ action = \"allow\", destination = \"a.example\", " + std::string(key) +
                               " = [] }]",
                           "p"))
            << key;
    EXPECT_FALSE(parse("rules = [\"allow@\"]", "p"));
    EXPECT_FALSE(parse("[groups]\ncorp = []\n", "p"));
}

} // namespace
} // namespace tapgate::policy
