// SPDX-License-Identifier: Apache-2.0
#include "policy/document.hpp"

#include <fmt/format.h>

#include <array>

namespace tapgate::policy {

std::string_view DocumentNode::type_name() const {
    if (const auto* other = std::get_if<DocumentOther>(&value))
        return other->what;
    // In the order of the variant's alternatives.
    constexpr std::array<std::string_view, std::variant_size_v<decltype(value)>> kNames = {
        "null", "", "true or false", "a number", "a string", "a list", "a table"};
    return kNames.at(value.index());
}

Error error_at(std::string_view file, SourceLocation where, std::string_view message) {
    return {ErrorCode::kInvalid, fmt::format("{}:{}:{}: {}", file, where.line, where.column, message)};
}

} // namespace tapgate::policy
