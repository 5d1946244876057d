// SPDX-License-Identifier: Apache-2.0
#include "fake_daemon.hpp"

#include <boost/json/parse.hpp>
#include <gtest/gtest.h>

#include <algorithm>

namespace tapgate::cli {
namespace {

namespace json = boost::json;

constexpr auto kPolicy = R"(
rules = ["allow@good.test:tcp:443", "deny@any"]
[groups]
public = ["203.0.113.0/24"]
)";

json::object explain(const std::vector<std::string>& options) {
    const TempDir dir;
    std::vector<std::string> words = {"-j", "policy", "explain", dir.write("p.toml", kPolicy)};
    words.insert(words.end(), options.begin(), options.end());
    const Outcome outcome = run_cli(words);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.out;
    return json::parse(outcome.out).as_object();
}

TEST(PolicyCheck, a_good_file_is_summarised) {
    const TempDir dir;
    const std::string file = dir.write("p.toml", kPolicy);
    const Outcome text = run_cli({"policy", "check", file});
    EXPECT_EQ(text.exit_code, 0) << text.err;
    EXPECT_EQ(text.out, file + ": ok, 2 rules, default egress deny, default ingress deny\n");
    EXPECT_EQ(run_cli({"-j", "policy", "check", file}).out,
              "{\"schema\":1,\"file\":\"" + file +
                  "\",\"rules\":2,\"default_egress\":\"deny\",\"default_ingress\":\"deny\",\"kernel_bytes\":"
                  "2560,\"findings\":[]}\n");
}

TEST(PolicyCheck, rules_without_effect_are_told_and_fail_a_strict_check) {
    const TempDir dir;
    const std::string file =
        dir.write("p.toml", "rules = [\n  \"deny@*.good.test\",\n  \"allow@a.good.test\",\n]\n");
    const Outcome text = run_cli({"policy", "check", file});
    EXPECT_EQ(text.exit_code, 0) << text.err;
    EXPECT_EQ(text.out, "Warning: " + file +
                            ":3:3: allow@a.good.test never takes effect; an earlier rule decides first: " +
                            file + ":2:3: deny@*.good.test\n" + file +
                            ": ok, 2 rules, default egress deny, default ingress deny, warnings: 1\n");
    const Outcome strict = run_cli({"-j", "policy", "check", "--strict", file});
    EXPECT_EQ(strict.exit_code, 1);
    const auto findings = json::parse(strict.out).at("findings").as_array();
    ASSERT_EQ(findings.size(), 1U);
    EXPECT_EQ(findings[0].at("kind").as_string(), "hidden");
    EXPECT_EQ(findings[0].at("place").as_string(), file + ":3:3");
    EXPECT_EQ(findings[0].at("by").at(0).at("rule").to_number<int>(), 1);
    EXPECT_EQ(run_cli({"policy", "check", "--strict", dir.write("good.toml", kPolicy)}).exit_code, 0);
}

TEST(PolicyCheck, a_long_list_of_findings_is_cut_in_text) {
    const TempDir dir;
    std::string rules = "rules = [\"deny@any\"";
    for (int i = 0; i < 60; ++i)
        rules += ", \"allow@a" + std::to_string(i) + ".test\"";
    const Outcome text = run_cli({"policy", "check", dir.write("p.toml", rules + "]\n")});
    EXPECT_EQ(std::ranges::count(text.out, '\n'), 52) << text.out;
    EXPECT_NE(text.out.find("Warning: 10 more like these; --json lists all\n"), std::string::npos);
}

TEST(PolicyDiff, the_same_policy_exits_with_0_and_another_with_3) {
    const TempDir dir;
    const std::string one = dir.write("1.toml", kPolicy);
    const std::string two = dir.write("2.toml", "default_ingress = \"allow\"\nrules = [\n  \"deny@any\",\n"
                                                "  \"allow@good.test:tcp:443\",\n  \"deny@private\",\n]\n");
    const Outcome same = run_cli({"policy", "diff", one, one});
    EXPECT_EQ(same.exit_code, 0) << same.err;
    EXPECT_EQ(same.out, "0 rules removed, 0 added, 0 moved; 0 settings changed\n");
    const Outcome differs = run_cli({"policy", "diff", one, two});
    EXPECT_EQ(differs.exit_code, 3) << differs.err;
    EXPECT_EQ(differs.out,
              "+ " + two + ":5:3: deny@private\n~ " + two +
                  ":3:3: deny@any (was rule 2, is rule 1)\n"
                  "~ default_ingress: deny -> allow\n~ groups.public: 203.0.113.0/24 -> nothing\n"
                  "0 rules removed, 1 added, 1 moved; 2 settings changed\n");
    const auto reply = json::parse(run_cli({"-j", "policy", "diff", one, two}).out);
    EXPECT_FALSE(reply.at("same").as_bool());
    EXPECT_EQ(reply.at("added").at(0).at("text").as_string(), "deny@private");
    EXPECT_EQ(reply.at("moved").at(0).at("before").to_number<int>(), 2);
    EXPECT_EQ(reply.at("settings").at(0).at("key").as_string(), "default_ingress");
    EXPECT_EQ(run_cli({"policy", "diff", one, dir.write("bad.toml", "rules = 1")}).exit_code, 1);
    EXPECT_EQ(run_cli({"policy", "diff", one}).exit_code, 2);
}

TEST(PolicyDiff, cases_are_judged_under_both) {
    const TempDir dir;
    const std::string one = dir.write("1.toml", "rules = [\"allow@good.test\"]");
    const std::string two = dir.write("2.toml", "rules = [\"deny@good.test\"]");
    const std::string cases =
        dir.write("c.jsonl", "{\"id\":\"q\",\"query\":\"good.test\"}\n{\"query\":\"x.test\"}\n");
    const Outcome outcome = run_cli({"policy", "diff", one, two, "--cases", cases});
    EXPECT_EQ(outcome.exit_code, 3);
    EXPECT_NE(outcome.out.find("! q: allow (rule 1: allow@good.test) -> deny (rule 1: deny@good.test)\n"
                               "1 of 2 cases get another verdict\n"),
              std::string::npos)
        << outcome.out;
    EXPECT_EQ(json::parse(run_cli({"-j", "policy", "diff", one, two, "--cases", cases}).out)
                  .at("verdicts")
                  .at("changed")
                  .as_array()
                  .size(),
              1U);
}

TEST(PolicyCheck, a_bad_file_is_refused_with_its_place) {
    const TempDir dir;
    const std::string file = dir.write("p.toml", "rules = [\n  \"alow@good.test\",\n]\n");
    const Outcome outcome = run_cli({"policy", "check", file});
    EXPECT_EQ(outcome.exit_code, 1);
    EXPECT_EQ(outcome.err.rfind("Error: " + file + ":2:", 0), 0U) << outcome.err;
    EXPECT_NE(outcome.err.find("allow"), std::string::npos) << outcome.err;
}

TEST(PolicyTest, agreement_exits_with_0_and_a_difference_with_3) {
    const TempDir dir;
    const std::string good =
        R"({"id":"one","policy":{"default_egress":"deny","default_ingress":"deny","rules":["allow@good.test:tcp:443"]},)"
        R"("gateway":[],"bindings":{},"dst":"203.0.113.1:443","proto":"tcp",)"
        R"("first_flight":{"kind":"tls","sni":"good.test"},"expect":{"syn":"deny","verdict":"deny"}})";
    const std::string file = dir.write("good.jsonl", good + "\n");
    const Outcome agreed = run_cli({"policy", "test", file});
    EXPECT_EQ(agreed.exit_code, 0) << agreed.err;
    EXPECT_EQ(agreed.out, "1 cases passed, 0 differ\n");

    std::string bad = good;
    bad.replace(bad.find("\"verdict\":\"deny\""), 16, "\"verdict\":\"allow\"");
    const std::string bad_file = dir.write("bad.jsonl", good + "\n" + bad + "\n");
    const Outcome differs = run_cli({"-j", "policy", "test", bad_file, "--engine", "user"});
    EXPECT_EQ(differs.exit_code, 3) << differs.out;
    const auto report = json::parse(differs.out).as_object();
    EXPECT_EQ(report.at("passed").to_number<int>(), 1);
    EXPECT_EQ(report.at("failed").to_number<int>(), 1);
    EXPECT_EQ(report.at("mismatches").as_array().size(), 1U);
    EXPECT_NE(run_cli({"policy", "test", bad_file}).out.find("1 cases passed, 1 differ\n"),
              std::string::npos);
}

TEST(PolicyTest, a_case_that_cannot_be_read_exits_with_1) {
    const TempDir dir;
    EXPECT_EQ(run_cli({"policy", "test", dir.write("x.jsonl", "{\n")}).exit_code, 1);
}

TEST(PolicyExplain, a_bound_name_is_deferred_at_syn_and_decided_by_its_sni) {
    const std::vector<std::string> bound = {"--dst", "203.0.113.1:443", "--bind", "good.test=203.0.113.1"};
    EXPECT_EQ(explain(bound).at("verdict").as_string(), "defer");
    auto allowed = bound;
    allowed.insert(allowed.end(), {"--sni", "good.test"});
    const auto reply = explain(allowed);
    EXPECT_EQ(reply.at("verdict").as_string(), "allow");
    EXPECT_EQ(reply.at("rule").as_string(), "allow@good.test:tcp:443");
    EXPECT_TRUE(reply.at("place").as_string().ends_with("p.toml:2:10"));
    EXPECT_TRUE(reply.at("steps").at(0).at("place").as_string().ends_with("p.toml:2:10"));
    EXPECT_EQ(reply.at("address_group").as_string(), "public");
    EXPECT_FALSE(reply.at("steps").as_array().empty());
    auto other = bound;
    other.insert(other.end(), {"--sni", "other.test"});
    EXPECT_EQ(explain(other).at("verdict").as_string(), "deny");
}

TEST(PolicyExplain, a_binding_of_another_address_does_not_count) {
    EXPECT_EQ(explain({"--dst", "203.0.113.1:443", "--bind", "good.test=203.0.113.2", "--sni", "good.test"})
                  .at("verdict")
                  .as_string(),
              "deny");
}

TEST(PolicyExplain, a_dns_question_is_judged_by_its_name) {
    EXPECT_EQ(explain({"--query", "good.test"}).at("verdict").as_string(), "allow");
    EXPECT_EQ(explain({"--query", "bad.test", "--proto", "tcp"}).at("verdict").as_string(), "deny");
}

TEST(PolicyExplain, text_names_the_rules_walked) {
    const TempDir dir;
    const Outcome outcome =
        run_cli({"policy", "explain", dir.write("p.toml", kPolicy), "--dst", "203.0.113.1:443"});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_EQ(outcome.out.rfind("deny: ", 0), 0U) << outcome.out;
    EXPECT_NE(outcome.out.find("p.toml:2:37  yes    deny@any"), std::string::npos) << outcome.out;
    EXPECT_NE(outcome.out.find("deny@any"), std::string::npos) << outcome.out;
}

TEST(PolicyExplain, wrong_questions_are_refused) {
    const TempDir dir;
    const std::string file = dir.write("p.toml", kPolicy);
    const auto error = [&](const std::vector<std::string>& options) {
        std::vector<std::string> words = {"policy", "explain", file};
        words.insert(words.end(), options.begin(), options.end());
        const Outcome outcome = run_cli(words);
        EXPECT_EQ(outcome.exit_code, 1);
        return outcome.err;
    };
    EXPECT_EQ(error({"--dst", "203.0.113.1"}), "Error: --dst '203.0.113.1' is not ADDRESS:PORT, such as "
                                               "192.0.2.1:443 or [2001:db8::1]:443\n");
    const std::vector<std::string> dst = {"--dst", "203.0.113.1:443"};
    const auto with = [&](std::vector<std::string> more) {
        more.insert(more.begin(), dst.begin(), dst.end());
        return error(more);
    };
    EXPECT_EQ(with({"--sni", "a.test", "--host", "b.test"}),
              "Error: --sni and --host exclude each other: a first flight is TLS or HTTP\n");
    EXPECT_EQ(with({"--kind", "tls"}),
              "Error: --kind tls needs --sni NAME; a hello without a name is tls-no-sni\n");
    EXPECT_EQ(with({"--kind", "plain", "--sni", "a.test"}), "Error: --kind plain has no --sni\n");
    EXPECT_EQ(with({"--bind", "a.test"}), "Error: --bind 'a.test' is not NAME=ADDRESS\n");
    EXPECT_EQ(with({"--proto", "udp", "--sni", "a.test"}),
              "Error: only a TCP connection has a first flight: leave out --sni, --host and --kind\n");
    EXPECT_NE(with({"--proto", "sctp"}).find("valid: tcp, udp, icmpv4, icmpv6"), std::string::npos);
    EXPECT_NE(with({"--sni", "a..b"}).find("Error: --sni: "), std::string::npos);
}

TEST(PolicyExplain, a_loaded_policy_and_a_guests_bindings_come_from_the_daemon) {
    FakeDaemon daemon(
        {{"policy show", R"({"policies":[{"name":"web","policy":{"default_egress":"deny",)"
                         R"("rules":["allow@good.test:tcp:443"]}}]})"},
         {"guest show", R"({"guests":[{"name":"vm1","gateways":["192.0.2.1"]}]})"},
         {"dns show", R"({"bindings":[{"guest":"vm1","name":"good.test","address":"203.0.113.1"},)"
                      R"({"guest":"vm1","name":"other.test","address":"203.0.113.2"}]})"}});
    const auto verdict = [&](const std::string& destination) {
        const Outcome outcome = run_cli({"-j", "-s", daemon.socket(), "policy", "explain", "web", "--dst",
                                         destination, "--sni", "good.test", "--guest", "vm1"});
        EXPECT_EQ(outcome.exit_code, 0) << outcome.out;
        return std::string(json::parse(outcome.out).at("verdict").as_string());
    };
    EXPECT_EQ(verdict("203.0.113.1:443"), "allow");
    EXPECT_EQ(verdict("203.0.113.2:443"), "deny");
}

} // namespace
} // namespace tapgate::cli
