// SPDX-License-Identifier: Apache-2.0
#include "netns/documentation.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <regex>
#include <sstream>
#include <stdexcept>

namespace tapgate::test {

namespace {

constexpr std::string_view kFence = "```";
constexpr std::string_view kIndent = "    ";

std::vector<std::string> lines_of(std::string_view text) {
    std::vector<std::string> lines;
    std::istringstream stream{std::string(text)};
    for (std::string line; std::getline(stream, line);)
        lines.push_back(line);
    return lines;
}

bool is_blank(std::string_view line) {
    return line.find_first_not_of(' ') == std::string_view::npos;
}

std::string without_comment(const std::string& line) {
    static const std::regex comment(R"(\s+#\s.*$)");
    return std::regex_replace(line, comment, "");
}

/// Commands within a paragraph, which may go on in its next line.
void take_from_prose(std::vector<CodeBlock>& blocks, const std::string& where, std::string& paragraph) {
    static const std::regex span("`(sudo [^`]+)`");
    for (std::sregex_iterator match(paragraph.begin(), paragraph.end(), span), end; match != end; ++match)
        blocks.push_back({where, "", (*match)[1].str() + "\n"});
    paragraph.clear();
}

} // namespace

std::vector<CodeBlock> code_blocks(std::string_view name, std::string_view document) {
    std::vector<CodeBlock> blocks;
    const std::vector<std::string> lines = lines_of(document);
    std::string paragraph;
    const auto where = [&](std::size_t index) { return fmt::format("{}:{}", name, index + 1); };
    for (std::size_t i = 0; i < lines.size(); ++i) {
        const bool is_fence = lines[i].starts_with(kFence);
        const bool is_indented = paragraph.empty() && lines[i].starts_with(kIndent) && !is_blank(lines[i]);
        if (!is_fence && !is_indented) {
            if (is_blank(lines[i]))
                take_from_prose(blocks, where(i), paragraph);
            else
                paragraph += (paragraph.empty() ? "" : " ") + lines[i];
            continue;
        }
        take_from_prose(blocks, where(i), paragraph);
        CodeBlock block{where(i), "", ""};
        if (is_fence) {
            block.language = lines[i].substr(kFence.size());
            for (++i; i < lines.size() && !lines[i].starts_with(kFence); ++i)
                block.text += lines[i] + "\n";
        } else {
            // Empty lines within the block belong to it.
            std::size_t end = i;
            for (std::size_t at = i;
                 at < lines.size() && (is_blank(lines[at]) || lines[at].starts_with(kIndent)); ++at) {
                if (!is_blank(lines[at]))
                    end = at + 1;
            }
            for (; i < end; ++i)
                block.text += (is_blank(lines[i]) ? "" : lines[i].substr(kIndent.size())) + "\n";
            --i;
        }
        blocks.push_back(std::move(block));
    }
    take_from_prose(blocks, where(lines.size()), paragraph);
    return blocks;
}

std::vector<std::string> commands_of(const std::string& block) {
    std::vector<std::string> commands;
    std::string command;
    for (const std::string& line : lines_of(block)) {
        const bool goes_on = line.ends_with("\\");
        const std::string part = without_comment(goes_on ? line.substr(0, line.size() - 1) : line);
        command += command.empty() ? part : part.substr(std::min(part.find_first_not_of(' '), part.size()));
        if (goes_on)
            continue;
        if (!is_blank(command))
            commands.push_back(command);
        command.clear();
    }
    return commands;
}

std::set<std::string> mentioned_commands(const std::string& document) {
    static const std::regex span(R"(`tapgate\s+(?:-j\s+)?([a-z]+(?:\s+[a-z]+)?)[^`]*`)");
    static const std::regex space(R"(\s+)");
    std::set<std::string> commands;
    for (std::sregex_iterator match(document.begin(), document.end(), span), end; match != end; ++match)
        commands.insert(std::regex_replace((*match)[1].str(), space, " "));
    return commands;
}

std::map<std::string, std::string> read_treatments(const std::string& text) {
    std::map<std::string, std::string> treatments;
    std::string without_reason;
    for (const std::string& line : lines_of(text)) {
        if (is_blank(line) || line.starts_with("#"))
            continue;
        if (line.starts_with(kIndent)) {
            without_reason.clear();
            continue;
        }
        const std::size_t colon = line.find(": ");
        if (!without_reason.empty() || colon == std::string::npos)
            throw std::runtime_error(
                fmt::format("no reason, or no ': ' in front of a command: {}{}", without_reason, line));
        const std::string how = line.substr(0, colon);
        const std::string what = line.substr(colon + 2);
        if (!treatments.emplace(what, how).second)
            throw std::runtime_error("listed twice: " + what);
        if (how == "not run" || how == "text")
            without_reason = what + "; ";
    }
    if (!without_reason.empty())
        throw std::runtime_error("no reason: " + without_reason);
    return treatments;
}

} // namespace tapgate::test
