// SPDX-License-Identifier: Apache-2.0
#include "daemon/config_diff.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <regex>
#include <set>

namespace tapgate::daemon {
namespace {

constexpr auto kGuest = "[[guest]]\nname = \"vm0\"\ninterface = \"tap0\"\naddresses = [\"192.0.2.2\"]\n"
                        "policy = \"web\"\n";
constexpr auto kPolicy = "[policy.web]\nfile = \"web.toml\"\n";

Config config(const std::string& text) {
    auto parsed = parse_config(text, "/etc/tapgate/tapgate.toml");
    EXPECT_TRUE(parsed) << parsed.error().message();
    return parsed ? std::move(*parsed) : Config();
}

/// "SETTING: BEFORE -> AFTER", with a "!" for what needs a restart.
std::vector<std::string> told(const std::string& before, const std::string& after) {
    std::vector<std::string> lines;
    for (const SettingChange& change : config_changes(config(before), config(after)))
        lines.push_back(fmt::format("{}{}: {} -> {}", change.live ? "" : "!", change.setting, change.before,
                                    change.after));
    return lines;
}

using Lines = std::vector<std::string>;

/// Another value for each setting of the example, which has them all.
struct Line {
    std::string section;
    std::string key;
    std::string value;
};

std::vector<Line> example_with_other_values() {
    std::ifstream file(TAPGATE_EXAMPLE_CONFIG);
    const std::regex section_line(R"(\[(\w+)\])");
    const std::regex setting_line(R"(#\s*(\w+) = ("[^"]*"|\[\]|\w+).*)");
    std::vector<Line> lines;
    std::string section;
    for (std::string line; std::getline(file, line);) {
        std::smatch match;
        if (std::regex_match(line, match, section_line)) {
            section = match[1];
        } else if (!line.starts_with("#    ") && std::regex_match(line, match, setting_line)) {
            const std::string key = match[1];
            const std::string value = match[2];
            std::string other = value == "true" ? "false" : value;
            if (value == "[]")
                other = "[\"192.0.2.53\"]";
            else if (key == "level")
                other = "\"debug\"";
            else if (key == "format")
                other = "\"json\"";
            else if (key == "splice")
                other = "\"copy\"";
            else if (key == "metrics_listen")
                other = "\"\"";
            else if (value.starts_with('"'))
                other = value.substr(0, value.size() - 1) + "x\"";
            else if (value != "true")
                other = std::to_string(std::stoul(value, nullptr, 0) + 1);
            lines.push_back({section, key, other});
        }
    }
    return lines;
}

TEST(ConfigDiff, names_every_setting_that_there_is) {
    const std::vector<Line> lines = example_with_other_values();
    EXPECT_GT(lines.size(), 30U);
    for (const Line& line : lines) {
        const auto changes = config_changes(
            config(""), config(fmt::format("[{}]\n{} = {}\n", line.section, line.key, line.value)));
        ASSERT_EQ(changes.size(), 1U) << line.section << " " << line.key;
        EXPECT_EQ(changes.front().setting, line.section + "." + line.key);
        EXPECT_NE(changes.front().before, changes.front().after);
    }
}

TEST(ConfigDiff, what_needs_a_restart_is_what_stays) {
    std::string text;
    std::string section;
    for (const Line& line : example_with_other_values()) {
        if (line.section != section)
            text += fmt::format("[{}]\n", line.section);
        section = line.section;
        text += fmt::format("{} = {}\n", line.key, line.value);
    }
    const Config running = config("");
    const Config wanted = config(text);
    std::set<std::string> live;
    for (const SettingChange& change : config_changes(running, wanted)) {
        if (change.live)
            live.insert(change.setting);
    }
    std::set<std::string> changed;
    for (const SettingChange& change : config_changes(running, what_can_change(wanted, running)))
        changed.insert(change.setting);
    EXPECT_EQ(changed, live);
    EXPECT_TRUE(live.contains("timers.idle_s"));
    EXPECT_FALSE(live.contains("daemon.workers"));
}

TEST(ConfigDiff, values_are_told_as_text) {
    EXPECT_EQ(told("", ""), Lines{});
    EXPECT_EQ(told("[timers]\nidle_s = 60\n", "[timers]\nidle_s = 90\n"), Lines{"timers.idle_s: 60 -> 90"});
    EXPECT_EQ(told("[daemon]\nmark = 5\n", ""), Lines{"!daemon.mark: 0x5 -> 0x7461"});
    EXPECT_EQ(told("", "[dns]\nupstreams = [\"192.0.2.53\", \"2001:db8::53\"]\n"),
              Lines{"dns.upstreams: [] -> [192.0.2.53:53, [2001:db8::53]:53]"});
    EXPECT_EQ(
        told("[groups]\ncorp = [\"10.0.0.0/8\"]\n", "[groups]\ncorp = [\"10.0.0.0/8\", \"192.0.2.1\"]\n"),
        Lines{"groups.corp: [10.0.0.0/8] -> [10.0.0.0/8, 192.0.2.1]"});
}

TEST(ConfigDiff, guests_are_told_by_interface) {
    const std::string policy = kPolicy;
    const std::string before = kGuest + policy;
    EXPECT_EQ(told(policy, before), Lines{"guest.tap0:  -> vm0 [192.0.2.2] policy web"});
    EXPECT_EQ(told(before, policy), Lines{"guest.tap0: vm0 [192.0.2.2] policy web -> "});
    EXPECT_EQ(told(before, std::string(kGuest) + "mac = \"02:00:5e:00:53:01\"\ngateways = [\"192.0.2.1\"]\n" +
                               policy),
              Lines{"guest.tap0: vm0 [192.0.2.2] policy web -> vm0 [192.0.2.2] gateways [192.0.2.1] mac "
                    "02:00:5e:00:53:01 policy web"});
}

TEST(ConfigDiff, a_policy_that_is_named_no_more_stays_until_a_restart) {
    EXPECT_EQ(told("", kPolicy), Lines{"policy.web:  -> /etc/tapgate/web.toml"});
    EXPECT_EQ(told(kPolicy, std::string(kPolicy) + "watch = true\n"),
              Lines{"policy.web: /etc/tapgate/web.toml -> /etc/tapgate/web.toml, watched"});
    EXPECT_EQ(told(kPolicy, ""), Lines{"!policy.web: /etc/tapgate/web.toml -> "});
}

} // namespace
} // namespace tapgate::daemon
