// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"
#include "policy/model.hpp"

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace tapgate::policy {

/// Parses a policy file (DESIGN 6.1). `file` is only used in messages, which read
/// "FILE:LINE:COLUMN: what is wrong; what would be right". Text that begins with '{' is JSON, otherwise TOML.
/// Files over 256 MiB are refused unread.
Result<Policy> parse(std::string_view text, std::string_view file);

/// Parses the TOML form.
Result<Policy> parse_toml(std::string_view text, std::string_view file);

/// Parses the JSON form; also the shape of policies inside `policy test` cases.
Result<Policy> parse_json(std::string_view text, std::string_view file);

/// Parses one rule in its one-line form, such as "allow@*.example.com:tcp:443".
Result<Rule> parse_rule(std::string_view text);

/// The canonical one-line form of `rule` (options are appended in parentheses for display).
std::string format_rule(const Rule& rule);

/// Where the rule at `index` stands: "FILE:LINE:COLUMN"; empty if that is not known.
std::string place_of(const Policy& policy, std::size_t index);

/// The time that live flows have to end, "30s", "5m" or "1h"; empty unless it is between a second and a day.
std::optional<std::chrono::seconds> parse_drain(std::string_view text);

/// "cut", "drain 30s" or "keep", as `[deny] live_flows` has it.
std::string live_flows_text(const Policy& policy);

/// The policy as JSON text that parse_json() reads back to an equal policy.
std::string to_json(const Policy& policy);

} // namespace tapgate::policy
