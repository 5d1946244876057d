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
        const auto lines = std::ranges::count(before, '\n');
        const auto characters = // continuation bytes of UTF-8 are no characters
            std::ranges::count_if(before.substr(before.rfind('\n') + 1),
                                  [](char c) { return (static_cast<unsigned char>(c) & 0xc0U) != 0x80U; });
        return fail(error_at(
            file, {static_cast<std::uint32_t>(lines + 1), static_cast<std::uint32_t>(characters + 1)},
            "a NUL byte; a policy is UTF-8 text"));
    }
    return {};
}

/// `read` is read_toml_document() or read_json_document(), given the list to be streamed.
template <typename Read>
Result<Policy> read_with(std::string_view text, std::string_view file, const Read& read) {
    if (const auto checked = check_text(text, file); !checked)
        return fail(checked.error());
    DocumentReader reader(file);
    Policy policy;
    const StreamedList rules{"rules", [&](const DocumentNode& item) -> Result<void> {
                                 if (read_rule(reader, item, policy.rules))
                                     return {};
                                 return fail(reader.error());
                             }};
    const auto document = read(&rules);
    if (!document)
        return fail(document.error());
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
    return read_with(text, file,
                     [&](const StreamedList* rules) { return read_toml_document(text, file, rules); });
}

Result<Policy> parse_json(std::string_view text, std::string_view file) {
    return read_with(text, file,
                     [&](const StreamedList* rules) { return read_json_document(text, file, 1, rules); });
}

} // namespace tapgate::policy
