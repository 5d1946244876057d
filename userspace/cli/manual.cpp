// SPDX-License-Identifier: Apache-2.0
#include "cli/manual.hpp"

#include "cli/grammar.hpp"
#include "cli/help.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

namespace tapgate::cli {

namespace {

/// Text in which no character means anything to Markdown.
std::string plain(std::string_view text) {
    std::string escaped;
    for (const char c : text) {
        if (std::string_view("\\`*_{}[]<>()#+-.!|~").find(c) != std::string_view::npos)
            escaped += '\\';
        escaped += c;
    }
    return escaped;
}

std::string upper(std::string_view text) {
    std::string result(text);
    std::ranges::transform(result, result.begin(), [](unsigned char c) { return std::toupper(c); });
    return result;
}

std::string command_section(const Command& command, const Prose& prose) {
    std::string text =
        fmt::format("## tapgate {}\n\n{}.\n\n", plain(usage_line(command)), plain(command.summary));
    if (const auto found = prose.commands.find(command.name); found != prose.commands.end())
        text += found->second;
    for (const Option& option : command.options)
        text += fmt::format("{}{}{}\n: {}\n\n", plain(option.name), option.value.empty() ? "" : " ",
                            plain(option.value), plain(option.help));
    return text;
}

std::string see_also(std::string_view self) {
    std::string text = "# SEE ALSO\n\n";
    if (!self.empty())
        text += "tapgate(8), ";
    for (const std::string_view object : object_names()) {
        if (object != self)
            text += fmt::format("tapgate-{}(8), ", object);
    }
    return text + "tapgate-policy(5), tapgated(8)\n";
}

} // namespace

Prose read_prose(std::string_view text, std::string_view object) {
    Prose prose;
    const auto names = command_names(object);
    std::string* into = &prose.description;
    while (!text.empty()) {
        const std::size_t end = std::min(text.find('\n'), text.size() - 1) + 1;
        const std::string_view line = text.substr(0, end);
        text.remove_prefix(end);
        const std::string_view heading = line.substr(0, line.find('\n'));
        if (heading.starts_with("# ") && prose.title.empty()) {
            prose.title = heading.substr(2);
        } else if (heading.starts_with("## ") && std::ranges::find(names, heading.substr(3)) != names.end()) {
            into = &prose.commands[std::string(heading.substr(3))];
        } else if (heading.starts_with("## ")) {
            into = &prose.rest;
            prose.rest += fmt::format("# {}\n", upper(heading.substr(3)));
        } else if (into->empty() && heading.empty() && into != &prose.rest) {
            continue;
        } else {
            *into += line;
        }
    }
    return prose;
}

std::string object_page(std::string_view object, const Prose& prose) {
    std::string page =
        fmt::format("# NAME\n\ntapgate\\-{} \\- {}\n\n# SYNOPSIS\n\n", plain(object), prose.title);
    for (const std::string& line : usage_lines(object))
        page += fmt::format("    tapgate {}\n", line);
    page +=
        fmt::format("\n# DESCRIPTION\n\n{}\nOptions that every command takes, the forms of output and the "
                    "exit codes are in tapgate(8).\n\n# COMMANDS\n\n",
                    prose.description);
    for (const Command& command : commands())
        if (command.object == object)
            page += command_section(command, prose);
    return page + prose.rest + see_also(object);
}

std::string overview_page(const Prose& prose) {
    std::string page =
        fmt::format("# NAME\n\ntapgate \\- {}\n\n# SYNOPSIS\n\n    tapgate [OPTIONS] OBJECT COMMAND "
                    "[ARGS]\n    tapgate help [OBJECT [COMMAND]]\n\n# DESCRIPTION\n\n{}\n"
                    "# COMMANDS\n\n",
                    prose.title, prose.description);
    for (const Command& command : commands())
        page += fmt::format("{}\n: {}; see tapgate\\-{}(8)\n\n", plain(usage_line(command)),
                            plain(command.summary), plain(command.object));
    return page + prose.rest + see_also({});
}

} // namespace tapgate::cli
