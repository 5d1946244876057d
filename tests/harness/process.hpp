// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/unique_fd.hpp"
#include "harness/netns.hpp"

#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

namespace tapgate::test {

/// How a program ended: its exit code, or 128 + signal as a shell says.
using ExitCode = int;

/// A program started by a test. It is killed when this object, or the thread that made it, ends; start
/// programs from the main thread.
class Process {
  public:
    /// Starts `argv` (found in PATH) in `ns`, or where the test runs if null, with stdout and stderr going to
    /// files of their own in scratch_dir(). Throws std::system_error.
    explicit Process(const std::vector<std::string>& argv, const NetNs* ns = nullptr);
    Process(Process&& other) noexcept;
    Process& operator=(Process&&) = delete;
    Process(const Process&) = delete;
    Process& operator=(const Process&) = delete;
    ~Process();

    [[nodiscard]] pid_t pid() const { return pid_; }

    /// Waits until the program ended, at most `time`; nothing if it still runs. May be called again.
    std::optional<ExitCode> wait(std::chrono::milliseconds time);

    [[nodiscard]] bool running() { return !wait(std::chrono::milliseconds(0)).has_value(); }

    void signal(int number) const;
    /// SIGTERM; SIGKILL if that does not end it in time. The exit code of either.
    ExitCode stop();

    /// What it wrote so far.
    [[nodiscard]] std::string out() const;
    [[nodiscard]] std::string err() const;

  private:
    pid_t pid_ = -1;
    UniqueFd pidfd_;
    std::optional<ExitCode> exit_code_;
    std::filesystem::path out_file_;
    std::filesystem::path err_file_;
};

struct Completed {
    ExitCode exit_code = -1;
    std::string out;
    std::string err;
};

/// Runs a program to its end. Throws std::runtime_error if it takes longer than `time`.
Completed run_program(const std::vector<std::string>& argv, const NetNs* ns = nullptr,
                      std::chrono::milliseconds time = std::chrono::seconds(60));

/// As run_program(), for steps that must succeed: throws std::runtime_error with stderr otherwise.
std::string must_run(const std::vector<std::string>& argv, const NetNs* ns = nullptr);

} // namespace tapgate::test
