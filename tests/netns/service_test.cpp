// SPDX-License-Identifier: Apache-2.0
#include "harness/sandbox.hpp"
#include "harness/wait.hpp"
#include "netns/world.hpp"

#include <fmt/format.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <filesystem>

#include <poll.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

// The daemon as a service: readiness, watchdog, and a host that is as it was before.
namespace tapgate::test {
namespace {

/// The socket on which a service manager listens.
class Manager {
  public:
    Manager() : socket_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        path().copy(address.sun_path, sizeof address.sun_path - 1);
        ::unlink(path().c_str());
        if (::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
            throw std::system_error(errno, std::generic_category(), "bind the manager's socket");
    }

    static std::string path() { return scratch_dir() / "notify"; }

    /// The next message, or nothing after `time`.
    [[nodiscard]] std::string next(std::chrono::milliseconds time = kPatience) const {
        pollfd waiting{socket_.get(), POLLIN, 0};
        if (::poll(&waiting, 1, static_cast<int>(time.count())) != 1)
            return {};
        std::array<char, 256> message{};
        const ssize_t length = ::recv(socket_.get(), message.data(), message.size(), 0);
        return {message.data(), static_cast<std::size_t>(std::max<ssize_t>(length, 0))};
    }

    /// Takes messages until `wanted` comes; false if it does not.
    [[nodiscard]] bool hears(std::string_view wanted) const {
        return wait_until([&] { return next(std::chrono::seconds(2)) == wanted; }, std::chrono::minutes(1));
    }

  private:
    UniqueFd socket_;
};

/// Holds one thread of another process still while in scope.
class Stopped {
  public:
    explicit Stopped(pid_t thread) : thread_(thread) {
        EXPECT_EQ(::ptrace(PTRACE_SEIZE, thread_, nullptr, nullptr), 0);
        EXPECT_EQ(::ptrace(PTRACE_INTERRUPT, thread_, nullptr, nullptr), 0);
        int status = 0;
        EXPECT_EQ(::waitpid(thread_, &status, __WALL), thread_);
    }

    Stopped(const Stopped&) = delete;
    Stopped& operator=(const Stopped&) = delete;

    ~Stopped() { ::ptrace(PTRACE_DETACH, thread_, nullptr, nullptr); }

  private:
    pid_t thread_;
};

/// The threads of a process but its first, which are the workers.
std::vector<pid_t> workers_of(pid_t process) {
    std::vector<pid_t> threads;
    for (const auto& entry : std::filesystem::directory_iterator(fmt::format("/proc/{}/task", process))) {
        if (const pid_t thread = std::stoi(entry.path().filename()); thread != process)
            threads.push_back(thread);
    }
    return threads;
}

class Service : public testing::Test {
  protected:
    /// The next test has another host, to which the pins do not belong.
    void TearDown() override {
        must_run({daemon_program(), "--cleanup", "--config", config_file()}, &topology_.host());
    }

    static std::string socket() { return scratch_dir() / "service" / "control.sock"; }

    /// `more` is further lines of [daemon].
    static std::string config_file(const std::string& more = {}) {
        const auto policy = write_scratch("service/main.toml", policy_text({}));
        return write_scratch(
            "service/tapgate.toml",
            fmt::format(
                "[daemon]\nworkers = 2\ncontrol_socket = \"{}\"\npin_dir = \"/sys/fs/bpf/service\"\n{}\n"
                "[[guest]]\nname = \"vm0\"\ninterface = \"tap0\"\naddresses = [\"192.0.2.2\"]\n"
                "policy = \"main\"\n[policy.main]\nfile = \"{}\"\n",
                socket(), more, policy.string()));
    }

    Topology topology_;
};

TEST_F(Service, the_manager_is_told_when_the_daemon_serves_lives_and_ends) {
    const Manager manager;
    Process daemon({"env", "NOTIFY_SOCKET=" + Manager::path(), "WATCHDOG_USEC=30000000", daemon_program(),
                    "--config", config_file()},
                   &topology_.host());
    ASSERT_EQ(manager.next(std::chrono::minutes(1)), "READY=1") << daemon.err();
    const Completed shown = run_program({cli_program(), "-j", "-s", socket(), "guest", "show", "vm0"});
    EXPECT_NE(shown.out.find("\"attached\""), std::string::npos) << shown.out;
    EXPECT_TRUE(manager.hears("WATCHDOG=1"));

    const auto workers = workers_of(daemon.pid());
    ASSERT_EQ(workers.size(), 2U);
    {
        const Stopped hung(workers.back());
        // One pulse may have been answered before.
        while (manager.next(std::chrono::milliseconds(0)) == "WATCHDOG=1") {
        }
        static_cast<void>(manager.next(std::chrono::milliseconds(1500)));
        EXPECT_EQ(manager.next(std::chrono::seconds(3)), "");
    }
    EXPECT_TRUE(manager.hears("WATCHDOG=1"));
    daemon.signal(SIGTERM);
    EXPECT_TRUE(manager.hears("STOPPING=1"));
    EXPECT_EQ(manager.next(),
              "EXTEND_TIMEOUT_USEC=25000000"); // the default drain time, and what the end takes
    EXPECT_EQ(daemon.wait(kPatience), 0) << daemon.err();
}

TEST_F(Service, a_manager_that_is_not_there_is_no_reason_not_to_serve) {
    Process daemon({"env", "NOTIFY_SOCKET=/nonexistent/notify", "WATCHDOG_USEC=30000000", daemon_program(),
                    "--config", config_file()},
                   &topology_.host());
    EXPECT_TRUE(wait_until([&] { return !daemon.running() || ::access(socket().c_str(), F_OK) == 0; },
                           std::chrono::minutes(1)));
    EXPECT_EQ(daemon.stop(), 0) << daemon.err();
}

TEST_F(Service, a_group_reads_over_the_control_socket_and_changes_nothing) {
    Process daemon({daemon_program(), "--config", config_file("control_group = \"nogroup\"")},
                   &topology_.host());
    EXPECT_TRUE(wait_until([&] { return !daemon.running() || ::access(socket().c_str(), F_OK) == 0; },
                           std::chrono::minutes(1)));
    const auto as_somebody = [&](const std::string& group, const std::vector<std::string>& words) {
        std::vector<std::string> argv = {
            "setpriv", "--reuid=65534", "--regid=" + group, "--clear-groups", cli_program(), "-j",
            "-s",      socket()};
        argv.insert(argv.end(), words.begin(), words.end());
        return run_program(argv);
    };
    for (const char* object : {"status", "guest", "policy", "flow", "dns", "event"})
        EXPECT_EQ(as_somebody("nogroup", {object, "show"}).exit_code, 0) << object;
    for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{
             {"guest", "del", "vm0"}, {"dns", "flush"}, {"policy", "load", "main", "/etc/hostname"}}) {
        const Completed refused = as_somebody("nogroup", words);
        EXPECT_EQ(refused.exit_code, 1);
        EXPECT_NE(refused.out.find("\"permission\""), std::string::npos) << refused.out;
    }
    EXPECT_EQ(as_somebody("daemon", {"guest", "show"}).exit_code, 1);
    EXPECT_EQ(daemon.stop(), 0) << daemon.err();
}

TEST_F(Service, a_group_that_is_not_there_is_named) {
    const Completed ended = run_program(
        {daemon_program(), "--config", config_file("control_group = \"no-such-group\"")}, &topology_.host());
    EXPECT_EQ(ended.exit_code, 1);
    EXPECT_NE(ended.err.find("no group 'no-such-group'"), std::string::npos) << ended.err;
}

/// Everything that the daemon could change of its host, as text.
std::string host_state(const NetNs& host) {
    std::string state;
    for (const std::vector<std::string>& command :
         std::vector<std::vector<std::string>>{{"ip", "-details", "link", "show"},
                                               {"ip", "address", "show"},
                                               {"ip", "-4", "rule", "show"},
                                               {"ip", "-6", "rule", "show"},
                                               {"ip", "-4", "route", "show", "table", "all"},
                                               {"ip", "-6", "route", "show", "table", "all"},
                                               {"tc", "qdisc", "show"},
                                               {"tc", "filter", "show", "dev", "tap0", "ingress"},
                                               {"bpftool", "net", "show"},
                                               {"find", "/sys/fs/bpf"}})
        state += must_run(command, &host);
    return state;
}

TEST_F(Service, cleanup_leaves_the_host_as_it_was_before_the_daemon) {
    const NetNs& host = topology_.host();
    // Lifetimes of addresses and counters are not shown by these commands, so that the text can be compared.
    const std::string before = host_state(host);
    const auto daemon_ends = [&](int signal) {
        Process daemon({daemon_program(), "--config", config_file()}, &host);
        ASSERT_TRUE(wait_until(
            [&] {
                return run_program({cli_program(), "-s", socket(), "guest", "show", "vm0"}).exit_code == 0;
            },
            std::chrono::minutes(1)))
            << daemon.err();
        const Completed refused =
            run_program({daemon_program(), "--cleanup", "--config", config_file()}, &host);
        EXPECT_EQ(refused.exit_code, 1);
        EXPECT_NE(refused.err.find("another tapgated"), std::string::npos) << refused.err;
        daemon.signal(signal);
        EXPECT_TRUE(daemon.wait(kPatience).has_value());
        EXPECT_NE(host_state(host), before);
        must_run({daemon_program(), "--cleanup", "--config", config_file()}, &host);
        EXPECT_EQ(host_state(host), before);
    };
    daemon_ends(SIGTERM);
    daemon_ends(SIGKILL);
    // Once more is no error.
    must_run({daemon_program(), "--cleanup", "--config", config_file()}, &host);
    EXPECT_EQ(host_state(host), before);
}

} // namespace
} // namespace tapgate::test
