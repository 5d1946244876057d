// SPDX-License-Identifier: Apache-2.0
#include "policy/conformance.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

namespace tapgate::policy {
namespace {

/// Empty if the file cannot be read.
std::string contents(const std::string& path) {
    std::ifstream file(path);
    std::ostringstream text;
    text << file.rdbuf();
    return std::move(text).str();
}

void expect_all_pass(const std::string& path) {
    const auto report = run_conformance(contents(path), path);
    ASSERT_TRUE(report) << report.error().message();
    EXPECT_GT(report->passed, 0U);
    for (const std::string& mismatch : report->mismatches)
        ADD_FAILURE() << mismatch;
}

std::string run_error(std::string_view cases) {
    const auto report = run_conformance(cases, "c.jsonl");
    return report ? "no error" : report.error().message();
}

TEST(Conformance, every_case_of_the_tables_passes) {
    expect_all_pass(TAPGATE_POLICY_CASES);
}

TEST(Conformance, the_shared_sample_of_verdicts_passes) {
    const char* path = std::getenv("TAPGATE_CONFORMANCE");
    if (path == nullptr)
        path = TAPGATE_SHARED_CASES;
    if (!std::ifstream(path))
        GTEST_SKIP() << "no " << path << "; set TAPGATE_CONFORMANCE";
    expect_all_pass(path);
}

TEST(Conformance, a_differing_verdict_is_one_line_that_names_case_verdicts_and_rule) {
    const auto report =
        run_conformance(R"({"id":"x-1","policy":{"rules":["allow@private","deny@any"]},"dst":"8.8.8.8:53",)"
                        R"("expect":{"syn":"allow","verdict":"allow"}})"
                        "\n",
                        "c.jsonl");
    ASSERT_TRUE(report) << report.error().message();
    EXPECT_EQ(report->passed, 0U);
    ASSERT_EQ(report->mismatches.size(), 1U);
    EXPECT_EQ(report->mismatches.front(), "x-1: syn expected allow, got deny (rule 2: deny@any); "
                                          "expected allow, got deny (rule 2: deny@any)");
}

TEST(Conformance, a_second_engine_judges_questions_over_udp_and_leaves_what_it_defers_to_the_first) {
    const std::string allowed = R"("policy":{"rules":["allow@good.com"]},"query":"good.com",)";
    const std::string cases = R"({"id":"udp",)" + allowed + R"("expect":{"verdict":"allow"}})" + "\n" +
                              R"({"id":"tcp",)" + allowed +
                              R"("transport":"tcp","expect":{"verdict":"allow"}})" + "\n";
    ConformanceEngines engines;
    engines.user = false;
    engines.other_name = "kernel";
    engines.other = [](const auto&, const auto&) -> Result<std::optional<Verdict>> { return std::nullopt; };
    const auto run_with = [&](Verdict verdict) {
        engines.other_query = [verdict](const CompiledPolicy&, const Name&) -> Result<Verdict> {
            return verdict;
        };
        return run_conformance(cases, "c.jsonl", engines);
    };
    for (const Verdict verdict : {Verdict::kAllow, Verdict::kDefer}) {
        const auto report = run_with(verdict);
        ASSERT_TRUE(report) << report.error().message();
        EXPECT_EQ(report->mismatches, std::vector<std::string>{});
        EXPECT_EQ(report->passed, 1U);
        EXPECT_EQ(report->not_judged, 1U);
    }
    const auto report = run_with(Verdict::kDeny);
    ASSERT_TRUE(report) << report.error().message();
    EXPECT_EQ(report->mismatches, std::vector<std::string>{"udp: kernel: expected allow, got deny"});
}

TEST(Conformance, a_case_that_cannot_be_read_is_an_error_with_its_line) {
    EXPECT_EQ(run_error("\n\n{\"id\":\"a\",}"), "c.jsonl:3:11: this is not JSON: syntax error; JSON has no "
                                                "comments, no trailing commas, and double quotes alone");
    EXPECT_EQ(run_error(R"({"id":"a","polcy":{}})"),
              "c.jsonl:1:11: unknown key in a case: 'polcy'; did you mean 'policy'? valid: id, note, policy, "
              "gateway, bindings, aliases, dst, proto, direction, first_flight, query, transport, expect");
    EXPECT_EQ(run_error(R"({"id":"a","policy":{},"dst":"1.2.3.4:1"})"),
              "c.jsonl:1:1: the case has no expect");
    EXPECT_EQ(run_error(R"({"id":"a","policy":{},"expect":{"syn":"deny"}})"),
              "c.jsonl:1:1: a case has either dst or query");
    EXPECT_EQ(run_error(R"({"id":"a","dst":"1.2.3.4","expect":{"syn":"deny"}})"),
              "c.jsonl:1:1: dst has no port");
    EXPECT_EQ(run_error(R"({"dst":"2001:db8::1:443x","expect":{"syn":"deny"}})"),
              "c.jsonl:1:8: '2001:db8::1:443x' is not ADDRESS:PORT; IPv6 stands in brackets");
    EXPECT_EQ(
        run_error(R"({"policy":{"rules":["allow@publik"]},"dst":"1.2.3.4:1","expect":{"syn":"deny"}})"),
        "c.jsonl:1:21: allow@publik: unknown group 'publik'; did you mean 'public'? valid: any, dns, host, "
        "meta, loopback, private, link-local, multicast, reserved, public (a host name of one label is "
        "written domain=publik)");
}

} // namespace
} // namespace tapgate::policy
