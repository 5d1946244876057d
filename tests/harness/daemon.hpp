// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "harness/process.hpp"
#include "harness/topology.hpp"

#include <boost/json.hpp>

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace tapgate::test {

/// The text of a policy file with these rules, under which the test addresses of the internet are `public`.
/// `more` is further TOML behind the [groups] table.
[[nodiscard]] std::string policy_text(const std::vector<std::string>& rules, std::string_view more = {});

struct GuestEntry {
    std::string name = "vm0";
    std::string interface = "tap0";
    std::vector<std::string> addresses = Topology::guest_addresses(0);
};

/// What a test wants of the configuration file. Strings named after tables are lines of TOML.
struct DaemonConfig {
    std::string policy = policy_text({}); ///< of the one policy, "main"
    std::string policy_options;           ///< of [policy.main], beside its file
    std::string daemon = "workers = 2";
    std::string dns = "upstreams = [\"203.0.113.53\", \"[2001:db8:3::53]:53\"]";
    std::string limits;
    std::string timers;
    unsigned drain_seconds = 0;
    std::string log;
    std::vector<GuestEntry> guests = {GuestEntry{}};
    std::vector<std::string> launcher; ///< a program with its arguments that executes the daemon
};

/// A tapgated in the host namespace, with pins, socket and files of its own, driven through the tapgate CLI.
class Daemon {
  public:
    /// Writes the files, starts the daemon, and waits until it answers and every guest whose interface exists
    /// is attached. Throws std::runtime_error with the daemon's log if that does not happen.
    Daemon(const Topology& topology, const DaemonConfig& config);
    Daemon(const Daemon&) = delete;
    Daemon& operator=(const Daemon&) = delete;
    /// Stops it as stop() does, unless it is stopped already.
    ~Daemon();

    /// SIGTERM. A test failure if it does not end with code 0, or if a sanitizer found something.
    void stop();

    /// Sends it a signal, and no more.
    void signal(int number) const { process_->signal(number); }

    /// Waits for its end, which something else has brought about; the rest is as with stop().
    void finish();
    /// Starts another one that takes over from it, and is the one that all functions are about once this
    /// returns. Throws as the constructor does.
    void take_over();
    /// Waits for the end of the one before; the rest is as with stop().
    void finish_predecessor();
    /// SIGKILL: nothing is cleaned up.
    void kill();
    /// Starts it again after stop() or kill() with the same files, as the constructor does.
    void start();
    /// As start(), but waits for nothing: for a kill() before it is ready.
    void launch();

    /// Runs `tapgate -j ...`. A reply that is not one JSON object is a test failure.
    struct Reply {
        ExitCode exit_code = -1;
        boost::json::object json;
    };

    [[nodiscard]] Reply cli(const std::vector<std::string>& words) const;
    /// As cli() for commands that must succeed: a test failure and an empty object otherwise.
    boost::json::object ask(const std::vector<std::string>& words) const;
    /// `policy load main` with further `options`: `text` is in force when this returns. Its reply.
    boost::json::object load_policy(const std::string& text, const std::vector<std::string>& options = {});

    /// Packets that `guest` had dropped for `reason`, a word of drop_reason.h.
    [[nodiscard]] std::uint64_t drops(std::string_view reason, std::string_view guest = "vm0") const;
    /// The guest's entry of `guest show`; empty if there is none.
    [[nodiscard]] boost::json::object guest(std::string_view name = "vm0") const;
    /// Rows of `flow show`.
    [[nodiscard]] boost::json::array flows() const;
    /// The addresses that the guest was told for `name`.
    [[nodiscard]] std::vector<std::string> bindings(const std::string& name) const;

    [[nodiscard]] pid_t pid() const { return process_->pid(); }

    [[nodiscard]] std::string log() const { return process_->err(); }

    /// How many entries its BPF map of that name has.
    [[nodiscard]] std::size_t map_entries(const std::string& map) const;

    /// Open descriptors and resident memory of the process.
    [[nodiscard]] std::size_t descriptors() const;
    [[nodiscard]] std::size_t resident_bytes() const;
    /// CPU time of the process so far.
    [[nodiscard]] double cpu_milliseconds() const;

    [[nodiscard]] const std::filesystem::path& config_file() const { return config_file_; }

    /// The file of policy "main" that the configuration names.
    [[nodiscard]] const std::filesystem::path& policy_file() const { return policy_file_; }

    [[nodiscard]] std::string pin_dir() const { return pin_dir_; }

    [[nodiscard]] std::string control_socket() const { return socket_; }

  private:
    [[nodiscard]] bool ready() const;
    static void expect_good_end(Process& process);

    const NetNs& host_;
    std::vector<std::string> launcher_;
    std::filesystem::path dir_;
    std::string pin_dir_;
    std::string socket_;
    std::filesystem::path config_file_;
    std::filesystem::path policy_file_;
    std::set<std::string> expected_guests_;
    std::optional<Process> process_;
    std::optional<Process> predecessor_;
};

/// Paths of the programs under test: those of this build, or of the directory $TAPGATE_PROGRAM_DIR.
[[nodiscard]] std::string daemon_program();
[[nodiscard]] std::string cli_program();

/// True in builds under a sanitizer or with TAPGATE_TEST_QUICK=1, where bulk tests move less.
[[nodiscard]] bool quick();

} // namespace tapgate::test
