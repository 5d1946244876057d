// SPDX-License-Identifier: Apache-2.0
#include "policy/parse.hpp"

#include "policy/policy_reader.hpp"

#include <fmt/format.h>

namespace tapgate::policy {

namespace {

constexpr std::size_t kMaxFileBytes = std::size_t{256} << 20U;

/// What both forms have in common: refuses what no parser should see.
Result<void> check_text(std::string_view text, std::string_view file) {
    if (text.size() > kMaxFileBytes)
        return fail(ErrorCode::kLimit, fmt::format("{}: larger than 256 MiB", file));
    if (const std::size_t nul = text.find('\0'); nul != std::string_view::npos) {
        const std::string_view before = text.substr(0, nul);
        const std::size_t line = static_cast<std::size_t>(std::ranges::count(before, '\n')) + 1;
        const std::size_t column = nul - (before.rfind('\n') + 1) + 1;
        return fail(error_at(file, {static_cast<std::uint32_t>(line), static_cast<std::uint32_t>(column)},
                             "a NUL byte; a policy is UTF-8 text"));
    }
    return {};
}

Result<Policy> read_document(const Result<DocumentNode>& document, std::string_view file) {
    if (!document)
        return fail(document.error());
    DocumentReader reader(file);
    Policy policy;
    if (!read_policy(reader, *document, policy))
        return fail(reader.error());
    policy.source = file;
    return policy;
}

} // namespace

Result<Policy> parse(std::string_view text, std::string_view file) {
    const std::size_t first = text.find_first_not_of(" \t\r\n");
    const bool json = first != std::string_view::npos && text[first] == '{';
    return json ? parse_json(text, file) : parse_toml(text, file);
}

Result<Policy> parse_toml(std::string_view text, std::string_view file) {
    if (const auto checked = check_text(text, file); !checked)
        return fail(checked.error());
    return read_document(read_toml_document(text, file), file);
}

Result<Policy> parse_json(std::string_view text, std::string_view file) {
    if (const auto checked = check_text(text, file); !checked)
        return fail(checked.error());
    return read_document(read_json_document(text, file), file);
}

} // namespace tapgate::policy
