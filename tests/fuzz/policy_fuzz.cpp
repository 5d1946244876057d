// SPDX-License-Identifier: Apache-2.0
#include "policy/compile.hpp"
#include "policy/findings.hpp"
#include "policy/parse.hpp"

#include <string_view>

namespace {

using namespace tapgate;
using namespace tapgate::policy;

/// An error says where: "f:LINE:COLUMN: ...", but for files that are too large to be read.
bool has_place(const Error& error) {
    return error.message().starts_with("f:") || error.code() == ErrorCode::kLimit;
}

void check(const Result<Policy>& parsed) {
    if (!parsed) {
        TAPGATE_ASSERT(has_place(parsed.error()));
        return;
    }
    // What is written out reads back as the same policy.
    const std::string json = to_json(*parsed);
    const auto again = parse_json(json, "f");
    TAPGATE_ASSERT(again.has_value());
    TAPGATE_ASSERT(to_json(*again) == json);
    for (const Rule& rule : parsed->rules)
        if (!rule.private_ok && !rule.cname) { // options have no place in one line
            const auto one_line = parse_rule(format_rule(rule));
            TAPGATE_ASSERT(one_line.has_value() && format_rule(*one_line) == format_rule(rule));
        }
    for (const Finding& finding : review(*parsed)) {
        TAPGATE_ASSERT(finding.rule < parsed->rules.size());
        for (const RuleIndex by : finding.by)
            TAPGATE_ASSERT(by < finding.rule);
        TAPGATE_ASSERT(!finding_text(*parsed, finding).empty());
    }
    const auto compiled = CompiledPolicy::compile(*parsed);
    TAPGATE_ASSERT(compiled || has_place(compiled.error()));
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    check(parse_toml(text, "f"));
    check(parse_json(text, "f"));
    return 0;
}
