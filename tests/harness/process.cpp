// SPDX-License-Identifier: Apache-2.0
#include "harness/process.hpp"

#include "harness/sandbox.hpp"
#include "harness/wait.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <system_error>

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace tapgate::test {

namespace {

std::string read_file(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
}

UniqueFd create_file(const std::filesystem::path& path) {
    return UniqueFd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600));
}

/// The child's side of fork: only async-signal-safe calls, since the parent may have had threads.
[[noreturn]] void become(const char* const* argv, int ns, int out, int err, pid_t parent) {
    const int null = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
    const bool ready = ::prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && ::getppid() == parent &&
                       (ns < 0 || ::setns(ns, CLONE_NEWNET) == 0) && ::dup2(null, STDIN_FILENO) >= 0 &&
                       ::dup2(out, STDOUT_FILENO) >= 0 && ::dup2(err, STDERR_FILENO) >= 0;
    if (ready)
        ::execvp(argv[0], const_cast<char* const*>(argv));
    ::_exit(127);
}

} // namespace

Process::Process(const std::vector<std::string>& argv, const NetNs* ns) {
    static std::atomic<unsigned> number{0};
    const std::string name = fmt::format("process-{}", ++number);
    out_file_ = scratch_dir() / (name + ".out");
    err_file_ = scratch_dir() / (name + ".err");
    const UniqueFd out = create_file(out_file_);
    const UniqueFd err = create_file(err_file_);
    std::vector<const char*> arguments;
    for (const std::string& argument : argv)
        arguments.push_back(argument.c_str());
    arguments.push_back(nullptr);

    const pid_t parent = ::getpid();
    pid_ = ::fork();
    if (pid_ == 0)
        become(arguments.data(), ns != nullptr ? ns->fd() : -1, out.get(), err.get(), parent);
    if (pid_ > 0)
        // glibc 2.36 declares pidfd_open() without C linkage.
        pidfd_.reset(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
    if (!pidfd_)
        throw std::system_error(errno, std::generic_category(), "start " + argv.at(0));
}

Process::Process(Process&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), pidfd_(std::move(other.pidfd_)), exit_code_(other.exit_code_),
      out_file_(std::move(other.out_file_)), err_file_(std::move(other.err_file_)) {}

Process::~Process() {
    if (pid_ < 0)
        return;
    if (running()) {
        signal(SIGKILL);
        wait(kPatience);
    }
}

std::optional<ExitCode> Process::wait(std::chrono::milliseconds time) {
    if (exit_code_)
        return exit_code_;
    pollfd ended{pidfd_.get(), POLLIN, 0};
    const Deadline deadline = in(time);
    while (::poll(&ended, 1, poll_timeout(deadline)) < 0 && errno == EINTR)
        continue;
    // A killed program's pidfd may be readable a moment before there is something to reap.
    int status = 0;
    if (::waitpid(pid_, &status, ended.revents != 0 ? 0 : WNOHANG) == pid_)
        exit_code_ = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    return exit_code_;
}

void Process::signal(int number) const {
    if (!exit_code_)
        ::kill(pid_, number); // not reaped yet, so the id is still this program's
}

ExitCode Process::stop() {
    signal(SIGTERM);
    if (const auto code = wait(kPatience))
        return *code;
    signal(SIGKILL);
    return wait(kPatience).value_or(-1);
}

std::string Process::out() const {
    return read_file(out_file_);
}

std::string Process::err() const {
    return read_file(err_file_);
}

Completed run_program(const std::vector<std::string>& argv, const NetNs* ns, std::chrono::milliseconds time) {
    Process process(argv, ns);
    const auto code = process.wait(time);
    if (!code)
        throw std::runtime_error(fmt::format("{} did not end in time", fmt::join(argv, " ")));
    return {*code, process.out(), process.err()};
}

std::string must_run(const std::vector<std::string>& argv, const NetNs* ns) {
    Completed completed = run_program(argv, ns);
    if (completed.exit_code != 0)
        throw std::runtime_error(
            fmt::format("{}: exit code {}: {}", fmt::join(argv, " "), completed.exit_code, completed.err));
    return std::move(completed.out);
}

} // namespace tapgate::test
