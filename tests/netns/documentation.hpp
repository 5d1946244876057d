// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

// The documentation as a list of what a reader would type, for documentation_test.
namespace tapgate::test {

/// A block of code, or a command within a sentence.
struct CodeBlock {
    std::string where;    ///< "FILE:LINE"
    std::string language; ///< behind the fence; empty if indented or not said
    std::string text;     ///< without indentation and fences, with the last newline
};

/// The blocks of a document in Markdown, in order: fenced, indented by four spaces behind an empty line, and
/// `sudo ...` within sentences. `name` is the document's, for CodeBlock::where.
[[nodiscard]] std::vector<CodeBlock> code_blocks(std::string_view name, std::string_view document);

/// The commands of a block, each on one line and without a comment behind it: a line that ends in `\` goes on
/// in the next.
[[nodiscard]] std::vector<std::string> commands_of(const std::string& block);

/// Commands of `tapgate` that its sentences speak of, as far as they are words: "policy check" of
/// `tapgate policy check FILE`.
[[nodiscard]] std::set<std::string> mentioned_commands(const std::string& document);

/// What is done with the commands and blocks that are not simply run: the line, or the first line of the
/// block, and HOW. Throws std::runtime_error on a line that makes no sense, is there twice or lacks a reason.
[[nodiscard]] std::map<std::string, std::string> read_treatments(const std::string& text);

} // namespace tapgate::test
