// SPDX-License-Identifier: Apache-2.0
#include "cli/grammar.hpp"
#include "cli/help.hpp"

#include <gtest/gtest.h>

#include <set>

namespace tapgate::cli {
namespace {

const Command& command(std::string_view object, std::string_view name) {
    return *find_command(object, name).value();
}

Result<Arguments> parse(const Command& target, const std::vector<std::string>& words) {
    return parse_arguments(target, words);
}

TEST(Commands, each_has_a_unique_name_a_summary_and_something_to_run) {
    std::set<std::pair<std::string_view, std::string_view>> seen;
    for (const Command& entry : commands()) {
        EXPECT_TRUE(seen.insert({entry.object, entry.name}).second) << entry.object << " " << entry.name;
        EXPECT_FALSE(entry.summary.empty()) << entry.name;
        EXPECT_FALSE(entry.summary.ends_with('.')) << entry.name;
        EXPECT_NE(entry.run, nullptr);
    }
    EXPECT_EQ(seen.size(), 25U);
}

TEST(Commands, those_of_one_object_stand_together) {
    const auto names = object_names();
    EXPECT_EQ(names.size(), std::set<std::string_view>(names.begin(), names.end()).size());
}

TEST(Commands, required_positionals_stand_first_and_options_have_dashes_and_help) {
    for (const Command& entry : commands()) {
        bool optional = false;
        for (const Positional& positional : entry.positionals) {
            EXPECT_FALSE(optional && positional.required) << entry.name;
            optional = !positional.required;
        }
        for (const Option& option : entry.options) {
            EXPECT_TRUE(option.name.starts_with("--")) << option.name;
            EXPECT_FALSE(option.help.empty()) << option.name;
            EXPECT_FALSE(option.repeated && option.value.empty()) << option.name;
        }
    }
}

TEST(Commands, help_mentions_every_command_option_and_argument) {
    const std::string overview = help_text();
    for (const Command& entry : commands()) {
        const std::string name = full_name(entry);
        EXPECT_NE(overview.find(name), std::string::npos) << name;
        EXPECT_NE(help_text(entry.object).find(name), std::string::npos) << name;
        const std::string text = help_text(entry);
        EXPECT_NE(text.find(name), std::string::npos) << name;
        EXPECT_NE(text.find(entry.summary), std::string::npos) << name;
        for (const Positional& positional : entry.positionals)
            EXPECT_NE(text.find(positional.name), std::string::npos) << positional.name;
        for (const Option& option : entry.options) {
            EXPECT_NE(text.find(option.name), std::string::npos) << option.name;
            EXPECT_NE(text.find(option.help), std::string::npos) << option.name;
        }
    }
}

TEST(Commands, a_usage_line_shows_what_may_be_left_out) {
    EXPECT_EQ(usage_line(command("guest", "add")), "guest add NAME --interface IF --address ADDRESS... "
                                                   "[--gateway ADDRESS...] [--mac MAC] --policy POLICY");
    EXPECT_EQ(usage_line(command("policy", "load")), "policy load NAME FILE [--dry-run] [--live WHAT]");
    EXPECT_EQ(usage_line(command("guest", "show")), "guest show [NAME]");
}

TEST(Prefixes, every_unique_prefix_names_its_command) {
    for (const Command& entry : commands())
        for (std::size_t length = 1; length <= entry.name.size(); ++length) {
            const std::string_view prefix = entry.name.substr(0, length);
            std::size_t sharing = 0;
            for (const std::string_view name : command_names(entry.object))
                sharing += name.starts_with(prefix) ? 1 : 0;
            const auto found = find_command(entry.object, prefix);
            if (sharing == 1 || prefix == entry.name)
                EXPECT_EQ(found.value(), &entry) << prefix;
            else
                EXPECT_FALSE(found) << prefix;
        }
}

TEST(Prefixes, an_ambiguous_one_names_the_candidates) {
    const std::vector<std::string_view> valid = {"show", "shut", "add"};
    EXPECT_EQ(complete("command", "sh", valid).error().message(), "command 'sh' is ambiguous: show, shut");
    EXPECT_EQ(complete("command", "sho", valid).value(), "show");
    EXPECT_EQ(complete("command", "a", valid).value(), "add");
}

TEST(Prefixes, a_whole_word_wins_over_a_longer_one) {
    const std::vector<std::string_view> valid = {"flow", "flows"};
    EXPECT_EQ(complete("object", "flow", valid).value(), "flow");
}

TEST(Prefixes, an_unknown_word_names_the_nearest_and_an_empty_one_is_no_prefix) {
    EXPECT_EQ(
        find_command("geust", "show").error().message(),
        "unknown object 'geust'; did you mean 'guest'? valid: status, daemon, guest, why, policy, flow, dns, "
        "event, metric, top, feature");
    EXPECT_EQ(
        find_command("guest", "remove").error().message().rfind("unknown command of 'guest' 'remove';", 0),
        0U);
    EXPECT_FALSE(find_command("", "show"));
}

TEST(ArgumentsOf, options_may_stand_anywhere_and_take_their_values_in_both_forms) {
    const auto arguments =
        parse(command("guest", "add"), {"vm1", "--interface", "tap0", "--address", "192.0.2.2", "192.0.2.3",
                                        "--policy=web", "--address=192.0.2.4"});
    ASSERT_TRUE(arguments) << arguments.error().message();
    EXPECT_EQ(arguments->get("NAME"), "vm1");
    EXPECT_EQ(arguments->get("--interface"), "tap0");
    EXPECT_EQ(arguments->all("--address"), (std::vector<std::string>{"192.0.2.2", "192.0.2.3", "192.0.2.4"}));
    EXPECT_EQ(arguments->get("--policy"), "web");
    EXPECT_FALSE(arguments->has("--mac"));
    EXPECT_EQ(arguments->get("--mac"), "");
}

TEST(Prefixes, an_object_that_is_the_whole_command_takes_no_second_word) {
    const Command* why = find_whole_command("w");
    ASSERT_NE(why, nullptr);
    EXPECT_EQ(full_name(*why), "why");
    EXPECT_EQ(find_command("why", "anything").value(), why);
    EXPECT_EQ(usage_line(*why), "why GUEST NAME|ADDRESS[:PORT]");
    EXPECT_EQ(find_whole_command("guest"), nullptr);
    EXPECT_EQ(find_whole_command("nothing"), nullptr);
    EXPECT_EQ(parse(*why, {"vm1"}).error().message(), "'why' needs NAME|ADDRESS[:PORT]");
}

TEST(ArgumentsOf, two_dashes_end_the_options) {
    const auto arguments = parse(command("policy", "load"), {"--dry-run", "--", "--name", "-"});
    ASSERT_TRUE(arguments) << arguments.error().message();
    EXPECT_EQ(arguments->get("NAME"), "--name");
    EXPECT_EQ(arguments->get("FILE"), "-");
    EXPECT_TRUE(arguments->has("--dry-run"));
}

TEST(ArgumentsOf, mistakes_say_what_would_be_right) {
    const Command& add = command("guest", "add");
    const Command& load = command("policy", "load");
    const auto message = [](const Command& target, const std::vector<std::string>& words) {
        const auto arguments = parse(target, words);
        return arguments ? "accepted" : arguments.error().message();
    };
    EXPECT_EQ(message(add, {}), "'guest add' needs NAME");
    EXPECT_EQ(message(add, {"vm1"}), "'guest add' needs --interface IF");
    EXPECT_EQ(message(add, {"vm1", "--interface"}), "--interface needs a value: --interface IF");
    EXPECT_EQ(message(add, {"vm1", "--interfaces", "x"}),
              "unknown option '--interfaces'; did you mean '--interface'? valid: --interface, --address, "
              "--gateway, --mac, --policy");
    EXPECT_EQ(message(add, {"vm1", "--mac", "x", "--mac", "y"}), "--mac is given twice");
    EXPECT_EQ(message(load, {"web", "f", "g"}), "'g' is one argument too many for 'policy load'");
    EXPECT_EQ(message(load, {"web", "f", "--dry-run=yes"}), "--dry-run takes no value");
    EXPECT_EQ(message(command("guest", "del"), {"--force", "x"}), "'guest del' takes no option '--force'");
}

} // namespace
} // namespace tapgate::cli
