// SPDX-License-Identifier: Apache-2.0
#include "policy/diff.hpp"
#include "support.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace tapgate::policy {
namespace {

using test::compiled;
using test::parsed;

using Lines = std::vector<std::string>;

/// "- 1 RULE", "+ 2 RULE", "> 3 4 RULE", "KEY: BEFORE -> AFTER"; positions count from 1.
Lines lines(std::string_view before_text, std::string_view after_text) {
    const Policy before = parsed(before_text);
    const Policy after = parsed(after_text);
    const PolicyDiff result = diff(before, after);
    Lines lines;
    for (const RuleIndex i : result.removed)
        lines.push_back("- " + std::to_string(i + 1) + " " + format_rule(before.rules[i]));
    for (const RuleIndex i : result.added)
        lines.push_back("+ " + std::to_string(i + 1) + " " + format_rule(after.rules[i]));
    for (const MovedRule& moved : result.moved)
        lines.push_back("> " + std::to_string(moved.before + 1) + " " + std::to_string(moved.after + 1) +
                        " " + format_rule(after.rules[moved.after]));
    for (const ChangedSetting& setting : result.settings)
        lines.push_back(setting.key + ": " + setting.before + " -> " + setting.after);
    EXPECT_EQ(result.empty(), lines.empty());
    return lines;
}

TEST(Diff, a_policy_is_the_same_in_another_spelling) {
    EXPECT_EQ(lines(R"(rules = ["allow@Bücher.example:udp,tcp:80,81", "deny@[::ffff:10.0.0.1]"])",
                    R"({"default_egress":"deny","rules":[{"action":"allow","destination":
                        {"domain":"xn--bcher-kva.example"},"protocols":["tcp","udp"],"ports":["80-81"]},
                        "deny@10.0.0.1"]})"),
              Lines{});
}

TEST(Diff, rules_are_added_removed_and_moved) {
    EXPECT_EQ(
        lines(R"(rules = ["allow@a.example", "deny@any"])", R"(rules = ["allow@b.example", "deny@any"])"),
        (Lines{"- 1 allow@a.example", "+ 1 allow@b.example"}));
    EXPECT_EQ(lines(R"(rules = ["deny@1.1.1.1", "deny@2.2.2.2", "deny@3.3.3.3", "deny@4.4.4.4"])",
                    R"(rules = ["deny@4.4.4.4", "deny@1.1.1.1", "deny@2.2.2.2", "deny@3.3.3.3"])"),
              (Lines{"> 4 1 deny@4.4.4.4"}));
    // What others push along has not moved.
    EXPECT_EQ(lines(R"(rules = ["deny@1.1.1.1", "deny@2.2.2.2"])",
                    R"(rules = ["deny@9.9.9.9", "deny@1.1.1.1", "deny@2.2.2.2"])"),
              (Lines{"+ 1 deny@9.9.9.9"}));
}

TEST(Diff, rules_that_stand_twice_are_counted) {
    EXPECT_EQ(lines(R"(rules = ["deny@1.1.1.1", "deny@1.1.1.1"])", R"(rules = ["deny@1.1.1.1"])"),
              (Lines{"- 2 deny@1.1.1.1"}));
    EXPECT_EQ(lines(R"(rules = ["deny@1.1.1.1"])", R"(rules = ["deny@1.1.1.1", "deny@any", "deny@1.1.1.1"])"),
              (Lines{"+ 2 deny@any", "+ 3 deny@1.1.1.1"}));
}

TEST(Diff, an_option_makes_another_rule) {
    EXPECT_EQ(lines(R"(rules = ["allow@a.example"])",
                    R"(rules = [{ action = "allow", destination = "a.example", options = ["private-ok"] }])"),
              (Lines{"- 1 allow@a.example", "+ 1 allow@a.example (private-ok)"}));
}

TEST(Diff, settings_are_told_by_their_keys) {
    EXPECT_EQ(
        lines("[groups]\ncorp = [\"10.0.0.0/8\", \"8.8.8.8\"]\nold = [\"1.1.1.1\"]",
              "default_egress = \"allow\"\ndefault_ingress = \"allow\"\nsplice = \"copy\"\n[groups]\n"
              "corp = [\"8.8.8.8\", \"10.0.0.0/8\"]\npublic = [\"198.51.100.0/24\"]\n[dns]\nresolve = "
              "\"allowed\"\nmax_label = 9\nmax_name = 99\nnames_per_zone = 5\n[tls]\nno_sni = "
              "\"cache\"\n"
              "ech = \"strip\"\n[http]\nhost = \"first\"\n[deny]\nlive_flows = \"drain 2m\"\nstyle = "
              "\"reset\"\ntext = \"no\""),
        (Lines{"default_egress: deny -> allow", "default_ingress: deny -> allow", "splice:  -> copy",
               "groups.old: 1.1.1.1 -> ", "groups.public:  -> 198.51.100.0/24", "dns.resolve: all -> allowed",
               "dns.max_label: 0 -> 9", "dns.max_name: 0 -> 99", "dns.names_per_zone: 0 -> 5",
               "tls.no_sni: deny -> cache", "tls.ech: outer -> strip", "http.host: every -> first",
               "deny.live_flows: cut -> drain 120s", "deny.style: readable -> reset", "deny.text:  -> no"}));
}

TEST(Diff, the_changes_turn_one_policy_into_the_other) {
    std::mt19937 random(7);
    for (int round = 0; round < 300; ++round) {
        const auto draw = [&] {
            Policy policy;
            for (auto count = random() % 12; count > 0; --count)
                policy.rules.push_back(*parse_rule("deny@10.0.0." + std::to_string(random() % 8)));
            return policy;
        };
        const Policy before = draw();
        const Policy after = draw();
        const PolicyDiff changes = diff(before, after);
        // Without the removed, the added and the moved ones, both have the same rules in the same order.
        std::vector<std::string> old_rest;
        std::vector<std::string> new_rest;
        for (RuleIndex i = 0; i < before.rules.size(); ++i)
            if (!std::ranges::count(changes.removed, i) &&
                !std::ranges::count(changes.moved, i, &MovedRule::before))
                old_rest.push_back(format_rule(before.rules[i]));
        for (RuleIndex i = 0; i < after.rules.size(); ++i)
            if (!std::ranges::count(changes.added, i) &&
                !std::ranges::count(changes.moved, i, &MovedRule::after))
                new_rest.push_back(format_rule(after.rules[i]));
        ASSERT_EQ(old_rest, new_rest);
        for (const MovedRule& moved : changes.moved)
            ASSERT_EQ(format_rule(before.rules[moved.before]), format_rule(after.rules[moved.after]));
        for (const RuleIndex i : changes.added)
            for (const RuleIndex j : changes.removed)
                ASSERT_NE(format_rule(after.rules[i]), format_rule(before.rules[j]));
    }
}

TEST(DiffVerdicts, cases_are_judged_under_both_policies_and_not_under_their_own) {
    const auto before = compiled(R"(rules = ["allow@a.example:tcp:443"])");
    const auto after = compiled(R"(rules = ["allow@b.example:tcp:443", "allow@8.8.8.8:tcp:443"])");
    constexpr std::string_view kCases =
        R"({"id":"query-a","query":"a.example","policy":{"default_egress":"allow"},"expect":{"verdict":"allow"}})"
        "\n\n"
        R"({"query":"c.example"})"
        "\n"
        R"({"dst":"8.8.8.8:443","bindings":{"a.example":["8.8.8.8"]},"first_flight":{"kind":"tls","sni":"a.example"}})"
        "\n";
    const auto result = diff_verdicts(*before, *after, kCases, "c");
    ASSERT_TRUE(result) << result.error().message();
    EXPECT_EQ(result->same, 1U);
    ASSERT_EQ(result->changed.size(), 2U);
    EXPECT_EQ(result->changed[0].id, "query-a");
    EXPECT_EQ(result->changed[0].before, "allow (rule 1: allow@a.example:tcp:443)");
    EXPECT_EQ(result->changed[0].after, "deny (default)");
    EXPECT_EQ(result->changed[1].id, "line 4");
    EXPECT_EQ(result->changed[1].before, "syn defer, allow (rule 1: allow@a.example:tcp:443)");
    EXPECT_EQ(result->changed[1].after, "syn allow, allow (rule 2: allow@8.8.8.8:tcp:443)");
}

TEST(DiffVerdicts, a_case_that_cannot_be_read_is_an_error_with_its_place) {
    const auto policy = compiled("");
    EXPECT_EQ(
        diff_verdicts(*policy, *policy, "{\"query\":\"a.example\"}\n{\"qeury\":\"a\"}\n", "c")
            .error()
            .message(),
        "c:2:2: unknown key in a case: 'qeury'; did you mean 'query'? valid: id, note, policy, gateway, "
        "bindings, aliases, dst, proto, direction, first_flight, query, transport, expect");
}

} // namespace
} // namespace tapgate::policy
