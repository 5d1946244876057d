// SPDX-License-Identifier: Apache-2.0
#include "cli/completion.hpp"
#include "cli/grammar.hpp"
#include "fake_daemon.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace tapgate::cli {
namespace {

using Words = std::vector<std::string>;

/// Each kind of live name has one, which says its kind.
Completion complete_words(const Words& words) {
    return complete_line(words, [](std::string_view kind) { return Words{fmt::format("a-{}", kind)}; });
}

bool offers(const Words& words, std::string_view wanted) {
    const Completion found = complete_words(words);
    return std::ranges::find(found.words, wanted) != found.words.end();
}

/// The words that name a command: its object, and its name if it has one.
Words words_of(const Command& command) {
    Words words = {std::string(command.object)};
    if (!command.name.empty())
        words.emplace_back(command.name);
    return words;
}

TEST(Complete, every_word_of_the_table_is_offered_in_its_place) {
    for (const Command& command : commands()) {
        EXPECT_TRUE(offers({""}, command.object)) << command.object;
        Words words = words_of(command);
        if (!command.name.empty()) {
            EXPECT_TRUE(offers({words[0], ""}, command.name)) << words[0] << " " << command.name;
        }
        words.insert(words.end(), command.positionals.size(), "x");
        words.emplace_back("--");
        for (const Option& option : command.options)
            EXPECT_TRUE(offers(words, option.name)) << command.name << " " << option.name;
    }
}

TEST(Complete, only_what_begins_with_the_typed_word_is_offered) {
    EXPECT_EQ(complete_words({"po"}).words, Words{"policy"});
    EXPECT_EQ(complete_words({"policy", "di"}).words, Words{"diff"});
    EXPECT_EQ(complete_words({"nonsense", ""}).words, Words{});
    EXPECT_EQ(complete_words({}).words, Words{});
}

TEST(Complete, shortened_words_and_global_options_stand_before) {
    EXPECT_EQ(complete_words({"-j", "-s", "/run/x.sock", "p", "di"}).words, Words{"diff"});
    EXPECT_TRUE(complete_words({"-s", ""}).files);
    EXPECT_TRUE(offers({"--"}, "--json"));
    EXPECT_EQ(complete_words({"help", "policy", "di"}).words, Words{"diff"});
    EXPECT_EQ(complete_words({"help", "policy", "diff", ""}).words, Words{});
}

TEST(Complete, names_are_those_that_the_argument_can_be) {
    EXPECT_EQ(complete_words({"guest", "show", "a"}).words, Words{"a-guest"});
    EXPECT_EQ(complete_words({"guest", "add", "a"}).words, Words{});
    EXPECT_EQ(complete_words({"guest", "add", "vm0", "--policy", ""}).words, Words{"a-policy"});
    EXPECT_EQ(complete_words({"policy", "load", ""}).words, Words{"a-policy"});
    EXPECT_EQ(complete_words({"policy", "explain", "web", "--flow", ""}).words, Words{"a-flow"});
    EXPECT_EQ(complete_words({"policy", "explain", "web", "--sni", ""}).words, Words{"a-name"});
    EXPECT_EQ(complete_words({"dns", "show", "a"}).words, Words{"a-guest"});
    EXPECT_EQ(complete_words({"dns", "flush", "a"}).words, Words{"a-name"});
    EXPECT_EQ(complete_words({"flow", "show", "--guest", ""}).words, Words{"a-guest"});
    EXPECT_EQ(complete_words({"why", "a"}).words, Words{"a-guest"});
    EXPECT_EQ(complete_words({"why", "vm0", ""}).words, Words{"a-name"});
}

TEST(Complete, files_are_left_to_the_shell) {
    EXPECT_TRUE(complete_words({"policy", "check", ""}).files);
    EXPECT_TRUE(complete_words({"policy", "load", "web", ""}).files);
    EXPECT_FALSE(complete_words({"policy", "load", ""}).files);
    const Completion either = complete_words({"policy", "explain", ""});
    EXPECT_TRUE(either.files);
    EXPECT_EQ(either.words, Words{"a-policy"});
}

TEST(Complete, an_option_is_offered_once_unless_it_may_be_repeated) {
    EXPECT_FALSE(offers({"policy", "load", "web", "x.toml", "--dry-run", ""}, "--dry-run"));
    EXPECT_TRUE(offers({"policy", "load", "web", "x.toml", "--dry-run", ""}, "--live"));
    EXPECT_TRUE(offers({"guest", "add", "vm0", "--address", "192.0.2.2", ""}, "--address"));
}

TEST(Complete, the_daemon_is_asked_for_names_and_none_that_a_shell_could_trip_over_are_taken) {
    const FakeDaemon daemon(
        {{"guest show", R"({"guests":[{"name":"vm0"},{"name":"vm-1"}]})"},
         {"dns show", R"({"bindings":[{"name":"www.example.com"},{"name":"www.example.com"},
                              {"name":"$(reboot).example.com"},{"name":"a b"}]})"}});
    EXPECT_EQ(run_cli({"--complete", "-s", daemon.socket(), "guest", "show", ""}).out, "vm-1\nvm0\n");
    EXPECT_EQ(run_cli({"--complete", "-s", daemon.socket(), "dns", "flush", "w"}).out, "www.example.com\n");
    EXPECT_EQ(run_cli({"--complete", "-s", daemon.socket(), "dns", "flush", "$"}).out, "");
}

TEST(Complete, without_a_daemon_it_is_silent) {
    const Outcome outcome = run_cli({"--complete", "-s", "/nonexistent/control.sock", "guest", "show", ""});
    EXPECT_EQ(outcome.exit_code, 0);
    EXPECT_EQ(outcome.out + outcome.err, "");
    EXPECT_EQ(run_cli({"--complete", "policy", "check", ""}).out, ":\n");
}

} // namespace
} // namespace tapgate::cli
