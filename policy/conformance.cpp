// SPDX-License-Identifier: Apache-2.0
#include "policy/conformance.hpp"

#include "policy/cases.hpp"
#include "policy/document.hpp"

#include <fmt/format.h>

#include <utility>

namespace tapgate::policy {

namespace {

/// Collects what differs from what a case expects.
class Comparison {
  public:
    void compare(std::string_view what, std::optional<Verdict> expected, Verdict got,
                 std::string_view got_text) {
        if (expected && *expected != got)
            text_ += fmt::format("{}{}expected {}, got {}", text_.empty() ? "" : "; ", what,
                                 verdict_name(*expected), got_text);
    }

    [[nodiscard]] const std::string& text() const { return text_; }

  private:
    std::string text_;
};

void compare_decisions(const Case& c, const CompiledPolicy& policy, Comparison& comparison) {
    const auto compare = [&](std::string_view what, std::optional<Verdict> expected, const Decision& got) {
        comparison.compare(what, expected, got.verdict, decision_text(policy.policy(), got));
    };
    const CaseOutcome outcome = judge_case(policy, c);
    if (outcome.syn)
        compare("syn ", c.expected_syn, *outcome.syn);
    compare("", c.expected_verdict, outcome.verdict);
}

Result<bool> compare_other_query(const Case& c, const CompiledPolicy& policy,
                                 const ConformanceEngines& engines, Comparison& comparison) {
    const auto name = Name::from_wire(*c.query);
    if (!engines.other_query || !name || c.transport != Protocol::kUdp)
        return false;
    const auto verdict = engines.other_query(policy, *name);
    if (!verdict)
        return fail(verdict.error());
    const Verdict got = *verdict == Verdict::kDefer ? judge_case(policy, c).verdict.verdict : *verdict;
    comparison.compare(fmt::format("{}: ", engines.other_name), c.expected_verdict, got, verdict_name(got));
    return true;
}

/// False if the other engine does not judge such cases.
Result<bool> compare_other(const Case& c, const CompiledPolicy& policy, const ConformanceEngines& engines,
                           Comparison& comparison) {
    if (c.query)
        return compare_other_query(c, policy, engines, comparison);
    const std::vector<BoundName> bound = bound_names(c);
    const FlowFacts facts = flow_facts(c, bound);
    const auto syn = engines.other(policy, facts);
    if (!syn)
        return fail(syn.error());
    if (!*syn)
        return false;
    const auto compare = [&](std::string_view what, std::optional<Verdict> expected, Verdict got) {
        comparison.compare(fmt::format("{}: {}", engines.other_name, what), expected, got, verdict_name(got));
    };
    compare("syn ", c.expected_syn, **syn);
    const bool peeked = **syn == Verdict::kDefer && c.flight;
    compare("", c.expected_verdict, peeked ? decide_first_flight(policy, facts, *c.flight).verdict : **syn);
    return true;
}

} // namespace

Result<ConformanceReport> run_conformance(std::string_view text, std::string_view file,
                                          const ConformanceEngines& engines) {
    ConformanceReport report;
    const auto run = for_each_case(text, file, [&](Case&& c) -> Result<void> {
        if (!c.expected_syn && !c.expected_verdict)
            return fail(error_at(file, c.location, "the case has no expect"));
        const auto compiled = CompiledPolicy::compile(std::move(c.policy));
        if (!compiled)
            return fail(compiled.error());
        Comparison comparison;
        bool judged = engines.user;
        if (engines.user)
            compare_decisions(c, **compiled, comparison);
        if (engines.other) {
            const auto judged_too = compare_other(c, **compiled, engines, comparison);
            if (!judged_too)
                return fail(judged_too.error());
            report.not_judged += *judged_too ? 0 : 1;
            judged = judged || *judged_too;
        }
        if (!comparison.text().empty())
            report.mismatches.push_back(fmt::format("{}: {}", c.id, comparison.text()));
        else if (judged)
            ++report.passed;
        return {};
    });
    if (!run)
        return fail(run.error());
    return report;
}

} // namespace tapgate::policy
