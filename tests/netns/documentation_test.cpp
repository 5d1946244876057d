// SPDX-License-Identifier: Apache-2.0
#include "harness/daemon.hpp"
#include "harness/sandbox.hpp"
#include "harness/services.hpp"
#include "harness/wait.hpp"
#include "netns/documentation.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <fstream>
#include <iostream>
#include <iterator>
#include <optional>
#include <set>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <tuple>
#include <utility>

#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <unistd.h>

// Every command that README.md and the manual pages show is run as it stands there, in their order, on a host
// of its own with a real tap device, a guest behind it and an internet. `documented_commands` has the
// exceptions.
namespace tapgate::test {
namespace {

namespace fs = std::filesystem;

constexpr unsigned kServer = 10;

std::string content(const fs::path& path) {
    std::ifstream file(path);
    if (!file)
        throw std::runtime_error("cannot read " + path.string());
    return {std::istreambuf_iterator<char>(file), {}};
}

/// What is installed for people to read, in the order in which they would.
std::vector<fs::path> documents() {
    const fs::path root = TAPGATE_SOURCE_DIR;
    std::vector<fs::path> pages;
    for (const auto& entry : fs::directory_iterator(root / "userspace/cli/man"))
        pages.push_back(entry.path());
    std::ranges::sort(pages);
    std::vector<fs::path> all = {root / "README.md", root / "userspace/package/policies/README.md",
                                 root / "userspace/daemon/tapgated.md", root / "policy/README.md",
                                 root / "userspace/package/examples/README.md"};
    all.insert(all.begin() + 2, pages.begin(), pages.end());
    return all;
}

/// The documents show private networks; tests stay on documentation addresses.
std::string on_test_addresses(std::string text) {
    for (const auto& [shown, used] : {std::pair<std::string_view, std::string_view>{"172.30.0.", "192.0.2."},
                                      {"172.30.7.", "192.0.2.7"},
                                      {"172.30.9.", "192.0.2.9"}})
        for (std::size_t at = 0; (at = text.find(shown)) != std::string::npos;)
            text.replace(at, shown.size(), used);
    return text;
}

/// A tap device, opened as a hypervisor does.
UniqueFd open_tap(const NetNs& ns, const std::string& name) {
    return ns.run([&] {
        UniqueFd tap(::open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK));
        ifreq request{};
        request.ifr_flags = IFF_TAP | IFF_NO_PI;
        name.copy(request.ifr_name, IFNAMSIZ - 1);
        if (!tap || ::ioctl(tap.get(), TUNSETIFF, &request) != 0)
            throw std::system_error(errno, std::generic_category(), "open tap device " + name);
        return tap;
    });
}

/// What a hypervisor does for the network of a machine: carries frames between the host's tap device and the
/// guest's own interface, which is another.
class Cable {
  public:
    Cable(const NetNs& host, const std::string& tap, const NetNs& guest, const std::string& interface)
        : ends_{open_tap(host, tap), open_tap(guest, interface)}, thread_([this] { carry(); }) {}

    Cable(const Cable&) = delete;
    Cable& operator=(const Cable&) = delete;

    ~Cable() {
        is_done_ = true;
        thread_.join();
    }

  private:
    void carry() {
        std::array<char, 65536> frame{};
        while (!is_done_) {
            std::array<pollfd, 2> ready = {pollfd{ends_[0].get(), POLLIN, 0},
                                           pollfd{ends_[1].get(), POLLIN, 0}};
            if (::poll(ready.data(), ready.size(), 100) <= 0)
                continue;
            for (const std::size_t from : {0U, 1U}) {
                const ssize_t length = ::read(ends_[from].get(), frame.data(), frame.size());
                // A frame for an interface that is down is lost, as on any wire.
                if (length > 0)
                    std::ignore =
                        ::write(ends_[1 - from].get(), frame.data(), static_cast<std::size_t>(length));
            }
        }
    }

    std::array<UniqueFd, 2> ends_;
    std::atomic<bool> is_done_{false};
    std::thread thread_;
};

/// The host of a reader who has installed the package: the programs in PATH, an /etc of its own, and an
/// internet that serves the names of the examples.
class Host {
  public:
    Host()
        : topology_(0), resolver_(topology_.internet(), {dual_stack("example.com", kServer),
                                                         dual_stack("www.example.net", kServer)}),
          web_(topology_.internet(), {kServer}, {"example.com", "www.example.net"}) {
        const std::string programs = fs::path(daemon_program()).parent_path();
        must_run({"cp", "-a", "/etc", scratch_dir() / "etc"});
        if (::mount((scratch_dir() / "etc").c_str(), "/etc", nullptr, MS_BIND, nullptr) != 0 ||
            ::mount("tmpfs", "/run", "tmpfs", 0, "mode=0755") != 0)
            throw std::system_error(errno, std::generic_category(), "mount /etc and /run");
        fs::remove("/etc/resolv.conf"); // it may be a link
        write("/etc/resolv.conf", "nameserver 203.0.113.53\n");
        guest_resolv_conf_ = write_scratch("guest-resolv.conf", "");
        write(bin_ / "sudo", "#!/bin/sh\nexec \"$@\"\n");
        write(bin_ / "systemctl",
              "#!/bin/sh\n# Stays in the foreground: there is no systemd.\nexec tapgated\n");
        for (const char* program : {"sudo", "systemctl"})
            fs::permissions(bin_ / program, fs::perms::owner_all);
        environment_ = fmt::format("export PATH={}:{}:$PATH TERM=xterm CURL_CA_BUNDLE={}; ", bin_.string(),
                                   programs, web_.ca_file().string());
    }

    /// A file of the host. To the daemon's configuration it adds that this internet is public.
    static void write(const fs::path& path, const std::string& text) {
        fs::create_directories(path.parent_path());
        std::ofstream file(path);
        file << text;
        if (path == "/etc/tapgate/tapgate.toml")
            file << "[groups]\npublic = [\"198.51.100.0/24\", \"203.0.113.0/24\", \"2001:db8:3::/48\"]\n";
        if (!file.flush())
            throw std::runtime_error("cannot write " + path.string());
    }

    [[nodiscard]] Process start(const std::string& command) const {
        return Process({"sh", "-c", environment_ + "exec " + command}, &topology_.host());
    }

    [[nodiscard]] Completed run(const std::string& command) const {
        return run_program({"sh", "-c", environment_ + command}, &topology_.host());
    }

    /// Runs a command in the guest, which is plugged in when it is needed first.
    Completed run_in_guest(const std::string& command) {
        if (!cable_) {
            cable_.emplace(topology_.host(), "tap0", guest_, "eth0");
            must_run({"ip", "link", "set", "eth0", "address", "02:00:00:00:00:02"}, &guest_);
        }
        return run_program({"unshare", "--mount", "sh", "-c",
                            fmt::format("mount --bind {} /etc/resolv.conf; {}{}", guest_resolv_conf_.string(),
                                        environment_, command)},
                           &guest_);
    }

    /// Something allowed, a question that is denied, and a connection that is denied by what it says.
    void let_guest_try() {
        run_in_guest("curl -s --max-time 5 https://example.com/");
        run_in_guest("curl -s --max-time 5 https://www.denied.example/");
        run_in_guest("curl -s --max-time 5 --connect-to ::203.0.113.10:443 https://www.denied.example/");
    }

  private:
    const fs::path bin_ = scratch_dir() / "bin";
    fs::path guest_resolv_conf_;
    std::string environment_;
    Topology topology_;
    NetNs guest_;
    Resolver resolver_;
    WebServer web_;
    std::optional<Cable> cable_;
};

/// A reader who does what the documents say.
class Reader {
  public:
    void follow(const std::string& how, const std::string& command) {
        SCOPED_TRACE(how.empty() ? command : how + ": " + command);
        std::cout << "$ " << command << std::endl;
        if (how.empty())
            succeeds(host_.run(command));
        else if (how == "guest")
            succeeds(host_.run_in_guest(command));
        else if (how == "guest is denied")
            EXPECT_NE(host_.run_in_guest(command).exit_code, 0);
        else if (how == "daemon")
            start_daemon(command);
        else if (how == "interrupted")
            interrupt(command);
        else if (how == "terminal")
            succeeds(host_.run(in_terminal(command)));
        else if (how == "afterwards")
            afterwards_.push_back(command);
        else
            ADD_FAILURE() << "nobody knows how";
    }

    void finish() {
        ASSERT_TRUE(daemon_) << "no document starts the daemon";
        EXPECT_EQ(daemon_->stop(), 0) << daemon_->err();
        for (const std::string& command : afterwards_) {
            SCOPED_TRACE(command);
            succeeds(host_.run(command));
        }
        EXPECT_FALSE(fs::exists("/sys/fs/bpf/tapgate")) << "--cleanup leaves pins";
    }

  private:
    void succeeds(const Completed& completed) {
        std::cout << completed.out << completed.err;
        EXPECT_EQ(completed.exit_code, 0) << completed.out << completed.err << log();
    }

    void start_daemon(const std::string& command) {
        daemon_.emplace(host_.start(command));
        const bool is_attached = wait_until(
            [&] {
                return !daemon_->running() ||
                       host_.run("tapgate guest show vm0").out.find("attached") != std::string::npos;
            },
            std::chrono::minutes(1));
        EXPECT_TRUE(is_attached && daemon_->running()) << log();
    }

    void interrupt(const std::string& command) {
        Process process = host_.start(command);
        const bool has_printed = wait_until([&] {
            host_.let_guest_try();
            return !process.out().empty() || !process.err().empty() || !process.running();
        });
        EXPECT_TRUE(has_printed && process.running()) << process.out() << process.err() << log();
        process.signal(SIGINT);
        const auto code = process.wait(kPatience);
        EXPECT_TRUE(code == 0 || code == 128 + SIGINT) << code.value_or(-1) << process.err() << log();
        EXPECT_NE(process.out(), "") << process.err();
        std::cout << process.out() << process.err();
    }

    static std::string in_terminal(const std::string& command) {
        const std::string screen = scratch_dir() / "screen";
        return fmt::format("rm -f {0}; (until grep -qs vm0 {0}; do sleep 0.05; done; printf q) | "
                           "script --quiet --return --flush --command '{1}' {0}",
                           screen, command);
    }

    [[nodiscard]] std::string log() const { return daemon_ ? "\nthe daemon's log:\n" + daemon_->err() : ""; }

    Host host_;
    std::optional<Process> daemon_;
    std::vector<std::string> afterwards_;
};

TEST(Documentation, every_command_in_it_does_what_it_is_there_for) {
    const auto treatments = read_treatments(content(TAPGATE_TREATMENTS));
    std::set<std::string> met;
    const auto treatment = [&](const std::string& line) -> std::string {
        const auto found = treatments.find(line);
        if (found == treatments.end())
            return "";
        met.insert(line);
        return found->second;
    };
    Reader reader;
    unsigned run = 0;
    for (const fs::path& document : documents()) {
        for (const CodeBlock& block : code_blocks(document.filename().string(), content(document))) {
            SCOPED_TRACE(block.where);
            // The other languages are policies: tests/unit/policy has them.
            if (!block.language.empty() && block.language != "sh")
                continue;
            const std::string first = block.text.substr(0, block.text.find('\n'));
            const std::string how = treatment(first);
            if (how.starts_with("file ")) {
                Host::write(how.substr(5), on_test_addresses(block.text));
                continue;
            }
            if (how == "text")
                continue;
            for (const std::string& command : commands_of(block.text)) {
                const std::string how_to_run = treatment(command);
                if (how_to_run == "not run")
                    continue;
                ++run;
                reader.follow(how_to_run, on_test_addresses(command));
            }
        }
    }
    reader.finish();
    EXPECT_GT(run, 50U);
    for (const auto& [line, how] : treatments)
        EXPECT_TRUE(met.contains(line)) << "no document has (any more): " << how << ": " << line;
}

TEST(Documentation, every_command_that_its_sentences_speak_of_exists) {
    std::set<std::string> commands;
    for (const fs::path& document : documents())
        commands.merge(mentioned_commands(content(document)));
    EXPECT_GT(commands.size(), 5U);
    for (const std::string& command : commands) {
        const Completed help = run_program({"sh", "-c", cli_program() + " " + command + " --help"});
        EXPECT_EQ(help.exit_code, 0) << command << ": " << help.err;
    }
}

TEST(Documentation, blocks_are_found_by_fence_indentation_and_sudo) {
    const auto blocks =
        code_blocks("x", "text `sudo a\nb` and `tapgate c`:\n\n    d e   # why\n\n    f \\\n      g\n\nmore\n"
                         "    of it\n```toml\nh = 1\n```\n");
    ASSERT_EQ(blocks.size(), 3U);
    EXPECT_EQ(blocks[0].text, "sudo a b\n");
    EXPECT_EQ(commands_of(blocks[1].text), (std::vector<std::string>{"d e", "f g"}));
    EXPECT_EQ(blocks[1].where, "x:4");
    EXPECT_EQ(blocks[2].language, "toml");
    EXPECT_EQ(blocks[2].text, "h = 1\n");
}

TEST(Documentation, mentions_are_cut_where_placeholders_begin) {
    EXPECT_EQ(mentioned_commands("a `tapgate policy\nload NAME` b `tapgate -j top` `tapgated --check` `x`"),
              (std::set<std::string>{"policy load", "top"}));
}

TEST(Documentation, a_command_that_is_left_out_needs_a_reason) {
    EXPECT_EQ(read_treatments("# x\nnot run: a: b\n    too long\nguest: c\n"),
              (std::map<std::string, std::string>{{"a: b", "not run"}, {"c", "guest"}}));
    for (const char* wrong :
         {"not run: a\nguest: b\n    c\n", "text: a\n", "guest a\n", "guest: a\nguest: a\n"})
        EXPECT_THROW(std::ignore = read_treatments(wrong), std::runtime_error) << wrong;
}

} // namespace
} // namespace tapgate::test
