// SPDX-License-Identifier: Apache-2.0
#include "cli/help.hpp"

#include "cli/table.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace tapgate::cli {

namespace {

constexpr std::string_view kGlobalHelp = R"(
OBJECT and COMMAND may be shortened as long as they stay unique.

Options:
  -j, --json         print JSON
  -p, --pretty       print JSON, indented
  -s, --socket PATH  the daemon's control socket (default: /run/tapgate/control.sock)
  -V, --version      print the version
  -h, --help         print help, also after OBJECT and COMMAND

Exit codes: 0 ok, 1 refused or failed, 2 usage, 3 a verdict differs.
)";

/// Commands and their summaries in columns.
std::string summaries(std::string_view object) {
    Table table;
    for (const Command& command : commands())
        if (object.empty() || command.object == object)
            table.add({full_name(command), std::string(command.summary)});
    return table.text("  ");
}

} // namespace

std::string usage_line(const Command& command) {
    std::string line = full_name(command);
    for (const Positional& positional : command.positionals)
        line += fmt::format(fmt::runtime(positional.required ? " {}" : " [{}]"), positional.name);
    for (const Option& option : command.options) {
        std::string text(option.name);
        if (!option.value.empty())
            text += fmt::format(" {}", option.value);
        if (option.repeated)
            text += "...";
        line += option.required ? fmt::format(" {}", text) : fmt::format(" [{}]", text);
    }
    return line;
}

std::vector<std::string> usage_lines(std::string_view object) {
    std::vector<std::string> lines;
    for (const Command& command : commands())
        if (object.empty() || command.object == object)
            lines.push_back(usage_line(command));
    return lines;
}

std::string help_text() {
    return fmt::format("Usage: tapgate [OPTIONS] OBJECT COMMAND [ARGS]\n"
                       "       tapgate help [OBJECT [COMMAND]]\n\n{}{}",
                       summaries({}), kGlobalHelp);
}

std::string help_text(std::string_view object) {
    return fmt::format("Usage: tapgate {}\n\n{}", fmt::join(usage_lines(object), "\n       tapgate "),
                       summaries(object));
}

std::string help_text(const Command& command) {
    std::string text = fmt::format("Usage: tapgate {}\n\n{}.\n", usage_line(command), command.summary);
    if (command.options.empty())
        return text;
    Table table;
    for (const Option& option : command.options)
        table.add({fmt::format("{} {}", option.name, option.value), std::string(option.help)});
    return text + "\n" + table.text("  ");
}

} // namespace tapgate::cli
