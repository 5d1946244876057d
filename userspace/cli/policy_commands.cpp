// SPDX-License-Identifier: Apache-2.0
#include "base/log.hpp"
#include "cli/commands.hpp"
#include "cli/files.hpp"
#include "policy/compile.hpp"
#include "policy/conformance.hpp"
#include "policy/parse.hpp"

#include <boost/json/array.hpp>
#include <fmt/format.h>

namespace tapgate::cli {

namespace json = boost::json;

namespace {

/// What the policy library accepts.
constexpr std::size_t kMaxPolicyBytes = std::size_t{256} << 20U;

std::string_view action_word(policy::Action action) {
    return action == policy::Action::kAllow ? "allow" : "deny";
}

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
    if (const std::string engine = arguments.get("--engine"); arguments.has("--engine") && engine != "user")
        return console.usage(
            fmt::format("--engine '{}' is not available; the engine is: user", printable(engine, 80)),
            "policy test");
    const std::string file = arguments.get("CASES.jsonl");
    const auto text = read_file(file, kMaxPolicyBytes);
    if (!text)
        return console.failed(text.error());
    const auto report = policy::run_conformance(*text, file);
    if (!report)
        return console.failed(report.error());
    if (console.json()) {
        json::object object;
        object["engine"] = "user";
        object["passed"] = report->passed;
        object["failed"] = report->mismatches.size();
        object["mismatches"] = json::array(report->mismatches.begin(), report->mismatches.end());
        console.print(object);
    } else {
        for (const std::string& mismatch : report->mismatches)
            console.print(mismatch + "\n");
        console.print(fmt::format("{} cases passed, {} differ\n", report->passed, report->mismatches.size()));
    }
    return report->mismatches.empty() ? kExitOk : kExitDiffers;
}

} // namespace tapgate::cli
