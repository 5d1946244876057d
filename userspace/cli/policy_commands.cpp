// SPDX-License-Identifier: Apache-2.0
#include "base/log.hpp"
#include "cli/commands.hpp"
#include "cli/files.hpp"
#include "datapath/verdict_engine.hpp"
#include "policy/compile.hpp"
#include "policy/conformance.hpp"
#include "policy/parse.hpp"

#include <boost/json/array.hpp>
#include <fmt/format.h>

#include <functional>
#include <memory>
#include <optional>

namespace tapgate::cli {

namespace json = boost::json;

namespace {

/// What the policy library accepts.
constexpr std::size_t kMaxPolicyBytes = std::size_t{256} << 20U;

std::string_view action_word(policy::Action action) {
    return action == policy::Action::kAllow ? "allow" : "deny";
}

/// The BPF program as an engine for cases, each with a policy of its own.
class KernelSynEngine {
  public:
    explicit KernelSynEngine(std::unique_ptr<datapath::VerdictEngine> engine) : engine_(std::move(engine)) {}

    Result<std::optional<policy::Verdict>> operator()(const policy::CompiledPolicy& policy,
                                                      const policy::FlowFacts& facts) {
        if (auto used = engine_->use(policy); !used)
            return fail(used.error());
        const auto judgement = engine_->judge(facts);
        if (!judgement)
            return fail(judgement.error());
        return *judgement ? std::optional((*judgement)->policy_verdict()) : std::nullopt;
    }

  private:
    std::unique_ptr<datapath::VerdictEngine> engine_;
};

} // namespace

int policy_check(Console& console, const Arguments& arguments) {
    const std::string file = arguments.get("FILE");
    const auto text = read_file(file, kMaxPolicyBytes);
    if (!text)
        return console.failed(text.error());
    auto parsed = policy::parse(*text, file);
    if (!parsed)
        return console.failed(parsed.error());
    const auto compiled = policy::CompiledPolicy::compile(std::move(*parsed));
    if (!compiled)
        return console.failed(compiled.error());
    const policy::Policy& checked = (*compiled)->policy();
    if (console.json()) {
        const std::string_view egress = action_word(checked.default_egress);
        const std::string_view ingress = action_word(checked.default_ingress);
        json::object object;
        object["file"] = file;
        object["rules"] = checked.rules.size();
        object["default_egress"] = json::string_view(egress.data(), egress.size());
        object["default_ingress"] = json::string_view(ingress.data(), ingress.size());
        console.print(object);
    } else {
        console.print(fmt::format("{}: ok, {} rules, default egress {}, default ingress {}\n", file,
                                  checked.rules.size(), action_word(checked.default_egress),
                                  action_word(checked.default_ingress)));
    }
    return kExitOk;
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
    std::optional<KernelSynEngine> kernel;
    if (engine != "user") {
        auto opened = datapath::VerdictEngine::open();
        if (!opened)
            return console.failed(opened.error());
        kernel.emplace(std::move(*opened));
        engines.other_name = "kernel";
        engines.other = std::ref(*kernel);
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
