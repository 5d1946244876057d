// SPDX-License-Identifier: Apache-2.0
#include "base/unique_fd.hpp"
#include "cli/top_screen.hpp"
#include "fake_daemon.hpp"

#include <boost/json/parse.hpp>
#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <csignal>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

namespace tapgate::cli {
namespace {

namespace json = boost::json;

using std::chrono::seconds;
using std::chrono::steady_clock;

json::object object(std::string_view text) {
    return json::parse(json::string_view(text.data(), text.size())).as_object();
}

constexpr auto kStatus = R"({"version":"1","uptime_seconds":60,"guests":2,"sessions":2,"events_lost":0})";

std::string guests(unsigned drops) {
    return R"({"guests":[{"name":"idle","state":"attached","policy":"web","generation":1,"sessions":0,"bindings":0,
                          "drops":[]},
                         {"name":"busy","state":"attached","policy":"web","generation":1,"sessions":2,"bindings":3,
                          "drops":[{"reason":"udp","packets":)" +
           std::to_string(drops) + "}]}]}";
}

std::string flows(unsigned up, unsigned down) {
    return R"({"flows":[{"id":1,"guest":"busy","destination":"192.0.2.1:443","name":"slow.example","state":"relay",
                         "splice":"copy","bytes_up":0,"bytes_down":0,"age_seconds":5},
                        {"id":2,"guest":"busy","destination":"192.0.2.2:443","name":"fast.example","state":"relay",
                         "splice":"uring","bytes_up":)" +
           std::to_string(up) + R"(,"bytes_down":)" + std::to_string(down) + R"(,"age_seconds":9}]})";
}

std::string text(const std::vector<std::string>& lines) {
    std::string text = "\n";
    for (const std::string& line : lines)
        text += line + "\n";
    return text;
}

TEST(TopScreen, shows_the_busiest_first_with_rates_since_the_sample_before) {
    TopScreen top;
    const auto start = steady_clock::now();
    top.sample(object(kStatus), object(guests(10)), object(flows(0, 0)), start);
    top.sample(object(kStatus), object(guests(30)), object(flows(2048, 20480)), start + seconds(2));
    top.event(object(R"({"type":"verdict","verdict":"deny","time":"2026-01-02T03:04:05.678Z","guest":"busy",
                         "name":"evil.example","destination":"192.0.2.3:443","rule":"deny@evil.example","basis":"rule"})"));
    top.event(object(R"({"type":"verdict","verdict":"allow","guest":"busy","name":"fine.example"})"));
    EXPECT_EQ(text(top.lines(16, 120)), R"(
tapgate 1  up 1m00s  guests 2  sessions 2  sent 1.0K/s  received 10K/s  events lost 0

GUEST  STATE     POLICY  GEN  SESSIONS  BINDINGS  SENT    RECEIVED  DROPPED
busy   attached  web     1    2         3         1.0K/s  10K/s     30       10/s
idle   attached  web     1    0         0         0/s     0/s       0        0/s

GUEST  DESTINATION    NAME          STATE  SPLICE  SENT    RECEIVED  AGE
busy   192.0.2.2:443  fast.example  relay  uring   1.0K/s  10K/s     9s
busy   192.0.2.1:443  slow.example  relay  copy    0/s     0/s       5s

DENIED    GUEST  WHAT     NAME          DESTINATION    BY
03:04:05  busy   verdict  evil.example  192.0.2.3:443  deny@evil.example



q quit   p pause
)");
}

TEST(TopScreen, fits_every_size_of_screen) {
    TopScreen top;
    top.sample(object(kStatus), object(guests(1)), object(flows(1, 1)), steady_clock::now());
    for (int i = 0; i < 300; ++i)
        top.event(object(R"({"type":"dns","verdict":"deny","guest":"busy","name":"evil.example"})"));
    for (std::size_t rows = 0; rows < 60; ++rows) {
        for (const std::size_t columns : {0, 1, 20, 80, 300}) {
            const auto lines = top.lines(rows, columns);
            ASSERT_EQ(lines.size(), rows);
            for (const std::string& line : lines)
                ASSERT_LE(line.size(), columns);
        }
    }
    EXPECT_NE(text(top.lines(20, 80)).find("and 197 more"), std::string::npos);
}

/// `tapgate top` on a terminal of its own.
class Top {
  public:
    explicit Top(const std::string& socket, const char* kind = "xterm") {
        int master = -1;
        int slave = -1;
        winsize size{};
        size.ws_row = 24;
        size.ws_col = 100;
        if (::openpty(&master, &slave, nullptr, nullptr, &size) != 0)
            throw std::runtime_error("openpty");
        master_ = UniqueFd(master);
        slave_ = UniqueFd(slave);
        ::tcgetattr(slave, &before_);
        ::fcntl(master, F_SETFD, FD_CLOEXEC);
        posix_spawn_file_actions_t actions;
        ::posix_spawn_file_actions_init(&actions);
        for (const int fd : {0, 1, 2})
            ::posix_spawn_file_actions_adddup2(&actions, slave, fd);
        std::string program = TAPGATE_PROGRAM;
        std::string path = socket;
        std::array<char*, 5> argv = {program.data(), const_cast<char*>("-s"), path.data(),
                                     const_cast<char*>("top"), nullptr};
        std::string term = std::string("TERM=") + kind;
        std::array<char*, 2> environment = {term.data(), nullptr};
        const int error =
            ::posix_spawn(&pid_, program.c_str(), &actions, nullptr, argv.data(), environment.data());
        ::posix_spawn_file_actions_destroy(&actions);
        if (error != 0)
            throw std::runtime_error("posix_spawn");
    }

    Top(const Top&) = delete;
    Top& operator=(const Top&) = delete;

    ~Top() {
        if (pid_ > 0) {
            ::kill(pid_, SIGKILL);
            ::waitpid(pid_, nullptr, 0);
        }
    }

    /// Reads the screen until `wanted` was drawn; false if it is not by the deadline.
    bool shows(const std::string& wanted) {
        const auto deadline = steady_clock::now() + seconds(30);
        while (drawn_.find(wanted) == std::string::npos) {
            pollfd ready{master_.get(), POLLIN, 0};
            if (steady_clock::now() >= deadline || ::poll(&ready, 1, 30'000) <= 0)
                return false;
            std::array<char, 4096> bytes{};
            const ssize_t length = ::read(master_.get(), bytes.data(), bytes.size());
            if (length <= 0)
                return false;
            drawn_.append(bytes.data(), static_cast<std::size_t>(length));
        }
        return true;
    }

    void press(char key) const { ASSERT_EQ(::write(master_.get(), &key, 1), 1); }

    int exit_code() {
        int status = 0;
        ::waitpid(std::exchange(pid_, -1), &status, 0);
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }

    [[nodiscard]] bool terminal_is_as_before() const {
        termios now{};
        ::tcgetattr(slave_.get(), &now);
        return now.c_lflag == before_.c_lflag && now.c_iflag == before_.c_iflag &&
               now.c_oflag == before_.c_oflag;
    }

    [[nodiscard]] const std::string& drawn() const { return drawn_; }

  private:
    UniqueFd master_;
    UniqueFd slave_;
    termios before_{};
    pid_t pid_ = -1;
    std::string drawn_;
};

TEST(Top, draws_on_a_terminal_shows_denials_as_they_come_and_quits_on_q) {
    FakeDaemon daemon({{"status show", kStatus}, {"guest show", guests(10)}, {"flow show", flows(1, 1)}});
    Top top(daemon.socket());
    ASSERT_TRUE(top.shows("fast.example")) << top.drawn();
    daemon.publish_to_monitor({object(
        R"({"type":"dns","verdict":"deny","time":"2026-01-02T03:04:05.678Z","guest":"busy","name":"evil.example"})")});
    ASSERT_TRUE(top.shows("evil.example")) << top.drawn();
    top.press('q');
    EXPECT_EQ(top.exit_code(), 0);
    EXPECT_TRUE(top.terminal_is_as_before());
}

TEST(Top, gives_the_terminal_back_when_the_daemon_goes) {
    FakeDaemon daemon({{"status show", kStatus}, {"guest show", guests(10)}, {"flow show", flows(1, 1)}});
    Top top(daemon.socket());
    ASSERT_TRUE(top.shows("fast.example")) << top.drawn();
    daemon.stop();
    ASSERT_TRUE(top.shows("Error: the daemon closed the connection")) << top.drawn();
    EXPECT_EQ(top.exit_code(), 1);
    EXPECT_TRUE(top.terminal_is_as_before());
}

TEST(Top, says_what_it_needs) {
    FakeDaemon daemon({{"status show", kStatus}, {"guest show", guests(10)}, {"flow show", flows(1, 1)}});
    EXPECT_EQ(run_cli({"-s", daemon.socket(), "-j", "top"}).exit_code, 2);
    Top top(daemon.socket(), "no-such-terminal");
    ASSERT_TRUE(top.shows("set TERM")) << top.drawn();
    EXPECT_EQ(top.exit_code(), 1);
}

} // namespace
} // namespace tapgate::cli
