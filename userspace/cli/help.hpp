// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cli/grammar.hpp"

#include <string>
#include <string_view>
#include <vector>

// Help, made from the table of commands.
namespace tapgate::cli {

/// "guest add NAME --interface IF --address ADDRESS... [--mac MAC] --policy POLICY"
[[nodiscard]] std::string usage_line(const Command& command);

/// The usage lines of an object's commands, or of all commands if `object` is empty.
[[nodiscard]] std::vector<std::string> usage_lines(std::string_view object);

/// What `tapgate help` prints, for everything, for one object or for one command.
[[nodiscard]] std::string help_text();
[[nodiscard]] std::string help_text(std::string_view object);
[[nodiscard]] std::string help_text(const Command& command);

} // namespace tapgate::cli
