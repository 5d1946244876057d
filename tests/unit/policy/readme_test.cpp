// SPDX-License-Identifier: Apache-2.0
#include "policy/findings.hpp"
#include "policy/groups.hpp"
#include "support.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <set>

// The language reference is policy/README.md: its examples are policies, and its lists are complete.

namespace tapgate::policy {
namespace {

std::string readme() {
    std::ifstream file(TAPGATE_POLICY_README);
    return {std::istreambuf_iterator<char>(file), {}};
}

/// The fenced blocks of TOML and JSON.
std::vector<std::string> examples() {
    std::vector<std::string> blocks;
    const std::string text = readme();
    for (const std::string_view fence : {"```toml\n", "```json\n"})
        for (std::size_t at = text.find(fence); at != std::string::npos; at = text.find(fence, at)) {
            at += fence.size();
            blocks.push_back(text.substr(at, text.find("```", at) - at));
        }
    return blocks;
}

TEST(Readme, every_example_is_a_policy_with_the_findings_that_it_says) {
    std::size_t with_findings = 0;
    for (const std::string& example : examples()) {
        constexpr std::string_view kMark = "# warns: ";
        std::string expected;
        if (example.starts_with(kMark))
            expected = example.substr(kMark.size(), example.find('\n') - kMark.size());
        with_findings += expected.empty() ? 0U : 1U;
        const auto policy = parse(example, "README");
        ASSERT_TRUE(policy) << policy.error().message() << "\n" << example;
        EXPECT_TRUE(CompiledPolicy::compile(*policy)) << example;
        std::string found;
        for (const Finding& finding : review(*policy))
            found += finding_name(finding.kind);
        EXPECT_EQ(found, expected) << example;
    }
    EXPECT_EQ(with_findings, 7U);
    EXPECT_GE(examples().size(), 12U);
}

TEST(Readme, every_block_of_the_built_in_groups_is_listed) {
    const std::string text = readme();
    for (const auto& block : builtin_blocks())
        EXPECT_NE(text.find(block.prefix.to_string()), std::string::npos) << block.prefix.to_string();
    for (const auto& word : kBuiltinGroups)
        EXPECT_NE(text.find("`" + std::string(word.text) + "`"), std::string::npos) << word.text;
}

} // namespace
} // namespace tapgate::policy
