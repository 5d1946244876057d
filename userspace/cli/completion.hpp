// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <ostream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tapgate::cli {

/// What can stand in the place of the word that is being typed.
struct Completion {
    std::vector<std::string> words;
    bool files = false; ///< the names of files as well, which the shell knows better
};

/// Names that only the daemon knows: of "guest", "policy", "name" (that have bindings) or "flow" (their ids).
/// Empty if it does not answer.
using LiveNames = std::function<std::vector<std::string>(std::string_view kind)>;

/// Completes the last of `words`, which may be empty; `words` is the command line without the program's name.
[[nodiscard]] Completion complete_line(std::span<const std::string> words, const LiveNames& live);

/// `tapgate --complete WORD...`, which the shells' scripts call: prints the completions of the last word, one
/// a line, and a line ":" if files are wanted too. Live names are asked of the daemon, for a moment at most.
int print_completion(std::span<const std::string> words, std::ostream& out);

} // namespace tapgate::cli
