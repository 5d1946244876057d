// SPDX-License-Identifier: Apache-2.0
#include "harness/sandbox.hpp"
#include "harness/wait.hpp"
#include "netns/world.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>

#include <unistd.h>

// The sandbox of the running daemon (daemon/sandbox.hpp; not the harness's). That the daemon can do its work
// in it is what all the other tests show, since it is on unless a configuration switches it off.
namespace tapgate::test {
namespace {

/// The lines of /proc/PID/task/TID/status, by their first word.
std::map<std::string, std::string> status_of(const std::filesystem::path& task) {
    std::ifstream file(task / "status");
    std::map<std::string, std::string> lines;
    for (std::string word, rest; file >> word && std::getline(file >> std::ws, rest);)
        lines[word.substr(0, word.find(':'))] = rest;
    return lines;
}

std::vector<std::filesystem::path> tasks_of(pid_t pid) {
    std::vector<std::filesystem::path> tasks;
    for (const auto& entry : std::filesystem::directory_iterator(fmt::format("/proc/{}/task", pid)))
        tasks.push_back(entry.path());
    return tasks;
}

TEST(Sandbox, every_thread_of_the_daemon_is_bound) {
    const Topology topology;
    const Daemon daemon(topology, DaemonConfig{});
    const auto tasks = tasks_of(daemon.pid());
    EXPECT_GE(tasks.size(), 3U); // the main thread and two workers
    for (const auto& task : tasks) {
        auto status = status_of(task);
        EXPECT_EQ(status["CapEff"], "0000008000001400") << task; // bpf, net_admin, net_bind_service
        EXPECT_EQ(status["CapPrm"], status["CapEff"]) << task;
        EXPECT_EQ(status["NoNewPrivs"], "1") << task;
        EXPECT_EQ(status["Seccomp"], "2") << task;
    }
    EXPECT_NE(daemon.log().find("sandbox: capabilities, seccomp, Landlock"), std::string::npos)
        << daemon.log();
}

TEST(Sandbox, it_can_be_switched_off) {
    const Topology topology;
    DaemonConfig config;
    config.daemon = "sandbox = false";
    const Daemon daemon(topology, config);
    EXPECT_EQ(status_of(tasks_of(daemon.pid()).front())["Seccomp"], "0");
    EXPECT_NE(daemon.log().find("sandbox: off"), std::string::npos) << daemon.log();
}

TEST(Sandbox, the_capabilities_that_the_unit_leaves_are_enough) {
    std::ifstream unit(TAPGATE_UNIT);
    std::string bounding = "-all";
    for (std::string line; std::getline(unit, line);) {
        if (!line.starts_with("CapabilityBoundingSet="))
            continue;
        const std::regex word("CAP_([A-Z_]+)");
        for (std::sregex_iterator at(line.begin(), line.end(), word); at != std::sregex_iterator(); ++at)
            bounding += ",+" + (*at)[1].str();
    }
    ASSERT_NE(bounding, "-all");

    const Topology topology;
    const auto policy = write_scratch("unit/main.toml", policy_text({}));
    const std::string socket = scratch_dir() / "unit" / "control.sock";
    const auto config = write_scratch(
        "unit/tapgate.toml",
        fmt::format(
            "[daemon]\ncontrol_socket = \"{}\"\npin_dir = \"/sys/fs/bpf/unit\"\nsplice = "
            "\"kernel\"\n[[guest]]\nname = \"vm0\"\n"
            "interface = \"tap0\"\naddresses = [\"192.0.2.2\"]\npolicy = \"main\"\n[policy.main]\nfile = "
            "\"{}\"\n",
            socket, policy.string()));
    std::ranges::transform(bounding, bounding.begin(), [](unsigned char c) { return std::tolower(c); });
    Process daemon({"setpriv", "--bounding-set=" + bounding, "--inh-caps=-all", "--no-new-privs",
                    daemon_program(), "--config", config},
                   &topology.host());
    EXPECT_TRUE(wait_until([&] { return !daemon.running() || ::access(socket.c_str(), F_OK) == 0; },
                           std::chrono::minutes(1)));
    const Completed shown = run_program({cli_program(), "-j", "-s", socket, "guest", "show", "vm0"});
    EXPECT_NE(shown.out.find("\"attached\""), std::string::npos) << shown.out << daemon.err();
    EXPECT_EQ(daemon.stop(), 0) << daemon.err();
}

} // namespace
} // namespace tapgate::test
