// SPDX-License-Identifier: Apache-2.0
#include "fake_daemon.hpp"

#include <boost/json/parse.hpp>
#include <gtest/gtest.h>

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
                  "\",\"rules\":2,\"default_egress\":\"deny\",\"default_ingress\":\"deny\"}\n");
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
    EXPECT_NE(outcome.out.find("RULE  MATCH  TEXT"), std::string::npos) << outcome.out;
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
