// SPDX-License-Identifier: Apache-2.0
#include "cli/grammar.hpp"
#include "fake_daemon.hpp"

#include <boost/json/parse.hpp>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>

namespace tapgate::cli {
namespace {

constexpr auto kNoSocket = "/nonexistent/tapgate.sock";

TEST(Run, help_is_found_wherever_it_stands) {
    for (const Command& command : commands()) {
        if (command.name.empty())
            continue; // below
        const std::string object(command.object);
        const std::string name(command.name);
        const Outcome outcome = run_cli({object, name, "help"});
        EXPECT_EQ(outcome.exit_code, 0);
        EXPECT_EQ(outcome.out.rfind(fmt::format("Usage: tapgate {} {}", object, name), 0), 0U) << outcome.out;
        for (const auto& words :
             {std::vector<std::string>{"help", object, name}, {object, name, "--help"}, {object, name, "-h"}})
            EXPECT_EQ(run_cli(words).out, outcome.out);
    }
    const std::string why = run_cli({"help", "why"}).out;
    EXPECT_EQ(why.rfind("Usage: tapgate why GUEST", 0), 0U) << why;
    for (const auto& words :
         {std::vector<std::string>{"why", "help"}, {"why", "-h"}, {"why", "vm1", "--help"}})
        EXPECT_EQ(run_cli(words).out, why);
    const std::string guest = run_cli({"help", "guest"}).out;
    EXPECT_NE(guest.find("guest del NAME"), std::string::npos);
    EXPECT_EQ(run_cli({"guest", "help"}).out, guest);
    EXPECT_EQ(run_cli({"g", "--help"}).out, guest);
    EXPECT_EQ(run_cli({"help"}).out, run_cli({"--help"}).out);
    EXPECT_EQ(run_cli({"help", "nonsense"}).exit_code, 2);
}

TEST(Run, help_in_json_is_one_object) {
    const Outcome outcome = run_cli({"-j", "help", "guest", "del"});
    EXPECT_EQ(outcome.out, "{\"schema\":1,\"usage\":[\"guest del NAME\"]}\n");
}

TEST(Run, prints_its_version) {
    const std::string version = run_cli({"version"}).out;
    EXPECT_EQ(run_cli({"-V"}).out, version);
    EXPECT_EQ(run_cli({"--version"}).out, version);
    const auto json = boost::json::parse(run_cli({"version", "-j"}).out).as_object();
    std::string built_with;
    for (const auto& feature : json.at("built_with").as_array())
        built_with += (built_with.empty() ? "" : ", ") + std::string(feature.as_string());
    EXPECT_TRUE(version.starts_with(fmt::format(
        "tapgate {}\nbuilt with: {}", std::string_view(json.at("version").as_string()), built_with)))
        << version;
}

TEST(Run, mistakes_in_usage_exit_with_2_and_say_so_on_standard_error) {
    const auto check = [](const std::vector<std::string>& words, std::string_view message) {
        const Outcome outcome = run_cli(words);
        EXPECT_EQ(outcome.exit_code, 2) << message;
        EXPECT_EQ(outcome.out, "");
        EXPECT_EQ(outcome.err.substr(0, outcome.err.find('\n')), "Error: " + std::string(message));
    };
    check({}, "an object and a command are missing");
    check({"guest"}, "a command of 'guest' is missing: show, add, del");
    check({"--frob"}, "unknown option '--frob'");
    check({"-s"}, "-s needs a path");
    check({"guest", "del"}, "'guest del' needs NAME");
    check({"why"}, "'why' needs GUEST");
    check({"why", "vm1", "a.example", "b.example"}, "'b.example' is one argument too many for 'why'");
    check({"policy", "test", "cases.jsonl", "--engine", "turbo"},
          "--engine 'turbo': the engines are user, kernel and both");
    check({"policy", "explain", "p.toml"},
          "say what to explain: a connection with --dst ADDRESS:PORT, a live one with --flow ID, or a DNS "
          "question with --query NAME");
    check({"flow", "kill"}, "say which flows to end: ID, --guest, --name or --address");
    check({"flow", "kill", "x"}, "ID 'x' is not a number");
    EXPECT_EQ(run_cli({"nonsense", "show"}).exit_code, 2);
}

TEST(Run, in_json_mode_errors_are_one_object_on_standard_output) {
    const Outcome usage = run_cli({"-j", "guest", "del"});
    EXPECT_EQ(usage.exit_code, 2);
    EXPECT_EQ(usage.err, "");
    EXPECT_EQ(usage.out,
              "{\"schema\":1,\"error\":{\"code\":\"usage\",\"message\":\"'guest del' needs NAME\"}}\n");
    const Outcome failed = run_cli({"-j", "-s", kNoSocket, "guest", "show"});
    EXPECT_EQ(failed.exit_code, 1);
    EXPECT_EQ(boost::json::parse(failed.out).at("error").at("code").as_string(), "unavailable");
}

TEST(Run, without_a_daemon_every_command_of_the_daemon_fails_with_one_line) {
    const TempDir dir;
    const std::string policy = dir.write("p.toml", "");
    for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{
             {"status", "show"},
             {"guest", "show"},
             {"guest", "add", "a", "--interface", "tap0", "--address", "192.0.2.2", "--policy", "p"},
             {"guest", "del", "a"},
             {"policy", "show"},
             {"policy", "load", "p", policy},
             {"policy", "explain", "p", "--query", "a.test"},
             {"flow", "show"},
             {"dns", "show"},
             {"dns", "show", "--stats"},
             {"dns", "flush"},
             {"event", "show"},
             {"metric", "show"},
             {"event", "monitor"}}) {
        std::vector<std::string> line = {"-s", kNoSocket};
        line.insert(line.end(), words.begin(), words.end());
        const Outcome outcome = run_cli(line);
        EXPECT_EQ(outcome.exit_code, 1) << words[0] << " " << words[1];
        EXPECT_EQ(outcome.out, "");
        EXPECT_NE(outcome.err.find("is tapgated running?"), std::string::npos) << outcome.err;
        EXPECT_EQ(outcome.err.find('\n'), outcome.err.size() - 1) << outcome.err;
    }
}

TEST(Run, a_refusal_of_the_daemon_exits_with_1) {
    FakeDaemon daemon({{"guest del", R"({"error":"there is no guest 'x'"})"}});
    const Outcome text = run_cli({"-s", daemon.socket(), "guest", "del", "x"});
    EXPECT_EQ(text.exit_code, 1);
    EXPECT_EQ(text.err, "Error: there is no guest 'x'\n");
    const Outcome json = run_cli({"-j", "-s", daemon.socket(), "guest", "del", "x"});
    EXPECT_EQ(json.exit_code, 1);
    EXPECT_EQ(json.out,
              "{\"schema\":1,\"error\":{\"code\":\"not-found\",\"message\":\"there is no guest 'x'\"}}\n");
}

TEST(Run, json_passes_the_reply_through_with_members_it_does_not_know) {
    FakeDaemon daemon({{"status show", R"({"pid":1,"new":{"a":[1]}})"}});
    EXPECT_EQ(run_cli({"-j", "-s", daemon.socket(), "status", "show"}).out,
              "{\"schema\":1,\"pid\":1,\"new\":{\"a\":[1]}}\n");
    // Global options may also follow the command, and words may be short.
    EXPECT_EQ(run_cli({"st", "s", "-j", "--socket=" + daemon.socket()}).out,
              "{\"schema\":1,\"pid\":1,\"new\":{\"a\":[1]}}\n");
    EXPECT_EQ(run_cli({"-p", "-s", daemon.socket(), "status", "show"}).out,
              "{\n  \"schema\": 1,\n  \"pid\": 1,\n  \"new\": {\n    \"a\": [\n      1\n    ]\n  }\n}\n");
}

TEST(Run, arguments_reach_the_daemon_under_their_names) {
    FakeDaemon daemon({{"guest show", R"({"guests":[]})"},
                       {"guest add", R"({"guest":{}})"},
                       {"guest del", R"({"removed":"a"})"},
                       {"policy show", R"({"policies":[]})"},
                       {"policy load", R"({"policy":{},"dry_run":false})"},
                       {"policy rollback", R"({"policy":{},"dry_run":false})"},
                       {"flow show", R"({"flows":[]})"},
                       {"flow kill", R"({"killed":0,"dry_run":false,"flows":[]})"},
                       {"dns show", R"({"bindings":[]})"},
                       {"dns stats", R"({"guests":[]})"},
                       {"dns flush", R"({"removed":0})"}});
    const auto args_of = [&](std::vector<std::string> words) {
        words.insert(words.begin(), {"-s", daemon.socket()});
        const Outcome outcome = run_cli(words);
        EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
        return daemon.last_args();
    };
    EXPECT_EQ(args_of({"guest", "show"}), "{}");
    EXPECT_EQ(args_of({"guest", "show", "a"}), R"({"name":"a"})");
    EXPECT_EQ(
        args_of({"guest", "add", "a", "--interface", "tap0", "--address", "192.0.2.2", "2001:db8::2",
                 "--gateway", "192.0.2.1", "--mac", "02:00:5e:00:53:01", "--policy", "web"}),
        R"({"name":"a","interface":"tap0","addresses":["192.0.2.2","2001:db8::2"],"gateways":["192.0.2.1"],)"
        R"("mac":"02:00:5e:00:53:01","policy":"web"})");
    EXPECT_EQ(args_of({"guest", "del", "a"}), R"({"name":"a"})");
    EXPECT_EQ(args_of({"policy", "show", "web"}), R"({"name":"web"})");
    EXPECT_EQ(args_of({"flow", "show", "--guest", "a"}), R"({"guest":"a"})");
    EXPECT_EQ(args_of({"flow", "show", "--name", "b.test", "--address", "192.0.2.9", "--verdict", "allow"}),
              R"({"name":"b.test","address":"192.0.2.9","verdict":"allow"})");
    EXPECT_EQ(args_of({"flow", "kill", "7", "--dry-run"}), R"({"id":7,"dry_run":true})");
    EXPECT_EQ(args_of({"flow", "kill", "--guest", "a"}), R"({"guest":"a","dry_run":false})");
    EXPECT_EQ(args_of({"dns", "show", "a", "--name", "b.test", "--address", "192.0.2.9"}),
              R"({"guest":"a","name":"b.test","address":"192.0.2.9"})");
    EXPECT_EQ(args_of({"dns", "show", "a", "--stats"}), R"({"guest":"a"})");
    EXPECT_EQ(args_of({"dns", "flush", "b.test", "--guest", "a"}), R"({"guest":"a","name":"b.test"})");
    const TempDir dir;
    const std::string file = dir.write("p.toml", "rules = []\n");
    ::setenv("SUDO_USER", "ann", 1);
    EXPECT_EQ(args_of({"policy", "load", "web", file, "--dry-run"}),
              R"({"name":"web","dry_run":true,"by":"ann","file":")" + file + R"(","text":"rules = []\n"})");
    ::unsetenv("SUDO_USER");
    EXPECT_EQ(args_of({"policy", "rollback", "web", "--to", "7", "--live", "drain=5s"}),
              R"({"name":"web","dry_run":false,"live":"drain=5s","by":"root","to":7})");
}

TEST(Run, a_file_that_is_missing_is_named) {
    const Outcome outcome = run_cli({"policy", "load", "web", "/nonexistent/p.toml"});
    EXPECT_EQ(outcome.exit_code, 1);
    EXPECT_EQ(outcome.err, "Error: open /nonexistent/p.toml: No such file or directory\n");
}

} // namespace
} // namespace tapgate::cli
