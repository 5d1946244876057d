// SPDX-License-Identifier: Apache-2.0
#include "cli/grammar.hpp"
#include "cli/help.hpp"
#include "cli/manual.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>

// Help and pages are made from one table; these tests are about what people add to it.

namespace tapgate::cli {
namespace {

std::string read(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
}

Prose prose_of(std::string_view object) {
    return read_prose(read(fmt::format("{}/{}.md", TAPGATE_MANUAL_PROSE, object)),
                      object == "tapgate" ? std::string_view() : object);
}

/// A page as a reader sees it, more or less.
std::string without_escapes(std::string text) {
    std::erase(text, '\\');
    return text;
}

std::vector<std::string> lines_of(const std::string& text) {
    std::vector<std::string> lines;
    std::istringstream stream(text);
    for (std::string line; std::getline(stream, line);)
        lines.push_back(line);
    return lines;
}

std::vector<std::string> split(const std::string& line) {
    std::istringstream stream(line);
    return {std::istream_iterator<std::string>(stream), {}};
}

TEST(Manual, there_is_a_page_for_each_object_and_no_other) {
    std::set<std::string> wanted = {"tapgate"};
    for (const std::string_view object : object_names())
        wanted.emplace(object);
    std::set<std::string> found;
    for (const auto& entry : std::filesystem::directory_iterator(TAPGATE_MANUAL_PROSE))
        found.insert(entry.path().stem());
    EXPECT_EQ(found, wanted);
}

TEST(Manual, each_command_has_its_section_with_all_that_help_says) {
    for (const Command& command : commands()) {
        const Prose prose = prose_of(command.object);
        EXPECT_NE(prose.title, "") << command.object;
        EXPECT_NE(prose.description, "") << command.object;
        if (!command.name.empty()) {
            EXPECT_TRUE(prose.commands.contains(command.name))
                << "man/" << command.object << ".md needs '## " << command.name << "'";
        }
        const std::string page = without_escapes(object_page(command.object, prose));
        EXPECT_NE(page.find(fmt::format("\n    tapgate {}\n", usage_line(command))), std::string::npos)
            << page;
        const std::size_t section = page.find(fmt::format("\n## tapgate {}\n", usage_line(command)));
        ASSERT_NE(section, std::string::npos) << page;
        EXPECT_NE(page.find(command.summary, section), std::string::npos) << command.summary;
        for (const Option& option : command.options) {
            EXPECT_NE(page.find(fmt::format("\n{}", option.name), section), std::string::npos) << option.name;
            EXPECT_NE(page.find(fmt::format(": {}", option.help), section), std::string::npos) << option.help;
        }
        EXPECT_NE(without_escapes(overview_page(prose_of("tapgate"))).find(usage_line(command)),
                  std::string::npos)
            << command.name;
    }
}

// A section of a command that is not there (any more) would become one of these.
TEST(Manual, other_sections_are_the_usual_ones) {
    const std::set<std::string> usual = {"# OPTIONS", "# EXIT STATUS", "# FILES", "# EXAMPLES", "# JSON"};
    for (const auto& entry : std::filesystem::directory_iterator(TAPGATE_MANUAL_PROSE))
        for (const std::string& line : lines_of(prose_of(entry.path().stem().string()).rest))
            EXPECT_TRUE(!line.starts_with("#") || usual.contains(line)) << entry.path() << ": " << line;
}

TEST(Manual, every_example_is_a_command_that_is_understood) {
    unsigned examples = 0;
    for (const auto& entry : std::filesystem::directory_iterator(TAPGATE_MANUAL_PROSE))
        for (const std::string& line : lines_of(read(entry.path()))) {
            if (!line.starts_with("    tapgate "))
                continue;
            ++examples;
            std::vector<std::string> words = split(line);
            words.erase(words.begin());
            std::erase_if(words, [](const std::string& word) { return word == "-j" || word == "-p"; });
            const auto names = command_names(words.at(0));
            ASSERT_FALSE(names.empty()) << line;
            const std::size_t begin = names.front().empty() ? 1 : 2;
            ASSERT_GE(words.size(), begin) << line;
            const auto command = find_command(words[0], begin == 1 ? names.front() : words[1]);
            ASSERT_TRUE(command.has_value()) << line;
            const auto parsed = parse_arguments(**command, std::span(words).subspan(begin));
            EXPECT_TRUE(parsed.has_value()) << line << ": " << parsed.error().message();
        }
    EXPECT_GT(examples, 10U);
}

TEST(Manual, the_daemons_page_has_every_setting_of_the_example) {
    const std::string page = read(TAPGATE_DAEMON_DIR "/tapgated.md");
    unsigned settings = 0;
    for (const std::string& line : lines_of(read(TAPGATE_DAEMON_DIR "/tapgate.toml"))) {
        if (!line.starts_with("#") || line.starts_with("# ") || line.find(" = ") == std::string::npos)
            continue;
        ++settings;
        const std::string key = line.substr(1, line.find(' ') - 1);
        EXPECT_NE(page.find(fmt::format("`{}`", key)), std::string::npos) << key;
    }
    EXPECT_GT(settings, 20U);
}

} // namespace
} // namespace tapgate::cli
