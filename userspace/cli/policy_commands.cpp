// SPDX-License-Identifier: Apache-2.0
#include "base/log.hpp"
#include "cli/commands.hpp"
#include "cli/files.hpp"
#include "datapath/policy_image.hpp"
#include "datapath/verdict_engine.hpp"
#include "policy/compile.hpp"
#include "policy/conformance.hpp"
#include "policy/diff.hpp"
#include "policy/findings.hpp"
#include "policy/parse.hpp"
#include "policy/tables.hpp"

#include <boost/json/array.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

namespace tapgate::cli {

namespace json = boost::json;

namespace {

/// More lines of findings than anyone reads; JSON has them all.
constexpr std::size_t kMostFindingsShown = 50;

std::string_view action_word(policy::Action action) {
    return action == policy::Action::kAllow ? "allow" : "deny";
}

json::string_view json_text(std::string_view text) {
    return {text.data(), text.size()};
}

/// Reads and compiles a policy file; its text is gone when this returns.
Result<std::shared_ptr<const policy::CompiledPolicy>> compile_file(const std::string& file) {
    auto parsed = [&]() -> Result<policy::Policy> {
        const auto text = read_file(file, kMaxPolicyBytes);
        if (!text)
            return fail(text.error());
        return policy::parse(*text, file);
    }();
    if (!parsed)
        return fail(parsed.error());
    return policy::CompiledPolicy::compile(std::move(*parsed));
}

json::object rule_json(const policy::Policy& policy, policy::RuleIndex index) {
    json::object object;
    object["rule"] = index + 1;
    object["place"] = policy::place_of(policy, index);
    object["text"] = policy::format_rule(policy.rules.at(index));
    return object;
}

json::array rules_json(const policy::Policy& policy, const std::vector<policy::RuleIndex>& rules) {
    json::array array;
    for (const policy::RuleIndex index : rules)
        array.push_back(rule_json(policy, index));
    return array;
}

json::array findings_json(const policy::Policy& policy, const std::vector<policy::Finding>& findings) {
    json::array array;
    for (const policy::Finding& finding : findings) {
        json::object object = rule_json(policy, finding.rule);
        object["kind"] = json_text(policy::finding_name(finding.kind));
        object["without_effect"] = policy::is_without_effect(finding.kind);
        object["by"] = rules_json(policy, finding.by);
        object["message"] = policy::finding_text(policy, finding);
        array.push_back(std::move(object));
    }
    return array;
}

std::string findings_text(const policy::Policy& policy, const std::vector<policy::Finding>& findings) {
    std::string text;
    const std::size_t shown = std::min(findings.size(), kMostFindingsShown);
    for (std::size_t i = 0; i < shown; ++i)
        text += fmt::format("Warning: {}\n", printable(policy::finding_text(policy, findings[i]), 2048));
    if (shown < findings.size())
        text += fmt::format("Warning: {} more like these; --json lists all\n", findings.size() - shown);
    return text;
}

json::object diff_json(const policy::Policy& before, const policy::Policy& after,
                       const policy::PolicyDiff& diff) {
    json::object object;
    object["removed"] = rules_json(before, diff.removed);
    object["added"] = rules_json(after, diff.added);
    json::array moved;
    for (const policy::MovedRule& move : diff.moved) {
        json::object rule = rule_json(after, move.after);
        rule["before"] = move.before + 1;
        moved.push_back(std::move(rule));
    }
    object["moved"] = std::move(moved);
    json::array settings;
    for (const policy::ChangedSetting& setting : diff.settings)
        settings.push_back({{"key", setting.key}, {"before", setting.before}, {"after", setting.after}});
    object["settings"] = std::move(settings);
    return object;
}

std::string diff_text(const policy::Policy& before, const policy::Policy& after,
                      const policy::PolicyDiff& diff) {
    std::string text;
    const auto line = [&](char sign, const policy::Policy& policy, policy::RuleIndex index) {
        text += fmt::format("{} {}: {}", sign, printable(policy::place_of(policy, index), 512),
                            printable(policy::format_rule(policy.rules.at(index)), 512));
    };
    for (const policy::RuleIndex index : diff.removed) {
        line('-', before, index);
        text += '\n';
    }
    for (const policy::RuleIndex index : diff.added) {
        line('+', after, index);
        text += '\n';
    }
    for (const policy::MovedRule& move : diff.moved) {
        line('~', after, move.after);
        text += fmt::format(" (was rule {}, is rule {})\n", move.before + 1, move.after + 1);
    }
    const auto shown = [](const std::string& value) {
        return value.empty() ? std::string("nothing") : printable(value, 512);
    };
    for (const policy::ChangedSetting& setting : diff.settings)
        text += fmt::format("~ {}: {} -> {}\n", setting.key, shown(setting.before), shown(setting.after));
    return text + fmt::format("{} rules removed, {} added, {} moved; {} settings changed\n",
                              diff.removed.size(), diff.added.size(), diff.moved.size(),
                              diff.settings.size());
}

json::object verdicts_json(const policy::VerdictDiff& verdicts) {
    json::array changed;
    for (const policy::ChangedVerdict& verdict : verdicts.changed)
        changed.push_back({{"id", verdict.id}, {"before", verdict.before}, {"after", verdict.after}});
    json::object object;
    object["same"] = verdicts.same;
    object["changed"] = std::move(changed);
    return object;
}

std::string verdicts_text(const policy::VerdictDiff& verdicts) {
    std::string text;
    for (const policy::ChangedVerdict& verdict : verdicts.changed)
        text += fmt::format("! {}: {} -> {}\n", printable(verdict.id), verdict.before, verdict.after);
    return text + fmt::format("{} of {} cases get another verdict\n", verdicts.changed.size(),
                              verdicts.same + verdicts.changed.size());
}

/// The BPF program as an engine for cases, each with a policy of its own.
class KernelEngine {
  public:
    explicit KernelEngine(std::unique_ptr<datapath::VerdictEngine> engine) : engine_(std::move(engine)) {}

    Result<std::optional<policy::Verdict>> judge(const policy::CompiledPolicy& policy,
                                                 const policy::FlowFacts& facts) {
        if (auto used = engine_->use(policy); !used)
            return fail(used.error());
        const auto judgement = engine_->judge(facts);
        if (!judgement)
            return fail(judgement.error());
        return *judgement ? std::optional((*judgement)->policy_verdict()) : std::nullopt;
    }

    Result<policy::Verdict> judge(const policy::CompiledPolicy& policy, const policy::Name& question) {
        if (auto used = engine_->use(policy); !used)
            return fail(used.error());
        const auto judgement = engine_->judge_question(question);
        return judgement ? Result<policy::Verdict>(judgement->policy_verdict()) : fail(judgement.error());
    }

  private:
    std::unique_ptr<datapath::VerdictEngine> engine_;
};

} // namespace

int policy_check(Console& console, const Arguments& arguments) {
    const std::string file = arguments.get("FILE");
    const auto compiled = compile_file(file);
    if (!compiled)
        return console.failed(compiled.error());
    // What the kernel cannot hold must not come up only when it is loaded.
    const auto image = datapath::build_policy_image(policy::build_tables(**compiled), 0, {});
    if (!image)
        return console.failed(image.error().with_context(file));
    const policy::Policy& checked = (*compiled)->policy();
    const std::vector<policy::Finding> findings = policy::review(checked);
    if (console.json()) {
        json::object object;
        object["file"] = file;
        object["rules"] = checked.rules.size();
        object["default_egress"] = json_text(action_word(checked.default_egress));
        object["default_ingress"] = json_text(action_word(checked.default_ingress));
        object["kernel_bytes"] = image->size() * sizeof(image->front());
        object["findings"] = findings_json(checked, findings);
        console.print(object);
    } else {
        console.print(findings_text(checked, findings));
        console.print(fmt::format("{}: ok, {} rules, default egress {}, default ingress {}{}\n", file,
                                  checked.rules.size(), action_word(checked.default_egress),
                                  action_word(checked.default_ingress),
                                  findings.empty() ? "" : fmt::format(", warnings: {}", findings.size())));
    }
    return arguments.has("--strict") && !findings.empty() ? kExitFailed : kExitOk;
}

int policy_diff(Console& console, const Arguments& arguments) {
    const auto before = compile_file(arguments.get("BEFORE"));
    if (!before)
        return console.failed(before.error());
    const auto after = compile_file(arguments.get("AFTER"));
    if (!after)
        return console.failed(after.error());
    std::optional<policy::VerdictDiff> verdicts;
    if (arguments.has("--cases")) {
        const std::string file = arguments.get("--cases");
        const auto text = read_file(file, kMaxPolicyBytes);
        if (!text)
            return console.failed(text.error());
        auto judged = policy::diff_verdicts(**before, **after, *text, file);
        if (!judged)
            return console.failed(judged.error());
        verdicts = std::move(*judged);
    }
    const policy::Policy& old_policy = (*before)->policy();
    const policy::Policy& new_policy = (*after)->policy();
    const policy::PolicyDiff diff = policy::diff(old_policy, new_policy);
    const bool same = diff.empty() && (!verdicts || verdicts->changed.empty());
    if (console.json()) {
        json::object object = diff_json(old_policy, new_policy, diff);
        object["same"] = same;
        if (verdicts)
            object["verdicts"] = verdicts_json(*verdicts);
        console.print(object);
    } else {
        console.print(diff_text(old_policy, new_policy, diff));
        if (verdicts)
            console.print(verdicts_text(*verdicts));
    }
    return same ? kExitOk : kExitDiffers;
}

int policy_test(Console& console, const Arguments& arguments) {
    const std::string engine = arguments.has("--engine") ? arguments.get("--engine") : "user";
    if (engine != "user" && engine != "kernel" && engine != "both")
        return console.usage(
            fmt::format("--engine '{}': the engines are user, kernel and both", printable(engine, 80)),
            "policy test");
    const std::string file = arguments.get("CASES.jsonl");
    const auto text = read_file(file, kMaxPolicyBytes);
    if (!text)
        return console.failed(text.error());
    policy::ConformanceEngines engines;
    engines.user = engine != "kernel";
    std::optional<KernelEngine> kernel;
    if (engine != "user") {
        auto opened = datapath::VerdictEngine::open();
        if (!opened)
            return console.failed(opened.error());
        kernel.emplace(std::move(*opened));
        engines.other_name = "kernel";
        engines.other = [&kernel](const policy::CompiledPolicy& policy, const policy::FlowFacts& facts) {
            return kernel->judge(policy, facts);
        };
        engines.other_query = [&kernel](const policy::CompiledPolicy& policy, const policy::Name& question) {
            return kernel->judge(policy, question);
        };
    }
    const auto report = policy::run_conformance(*text, file, engines);
    if (!report)
        return console.failed(report.error());
    if (console.json()) {
        json::object object;
        object["engine"] = engine;
        object["passed"] = report->passed;
        object["failed"] = report->mismatches.size();
        object["not_judged"] = report->not_judged;
        object["mismatches"] = json::array(report->mismatches.begin(), report->mismatches.end());
        console.print(object);
    } else {
        for (const std::string& mismatch : report->mismatches)
            console.print(mismatch + "\n");
        console.print(fmt::format("{} cases passed, {} differ", report->passed, report->mismatches.size()));
        if (kernel)
            console.print(fmt::format(", {} are not for the kernel to judge", report->not_judged));
        console.print("\n");
    }
    return report->mismatches.empty() ? kExitOk : kExitDiffers;
}

} // namespace tapgate::cli
