// SPDX-License-Identifier: Apache-2.0
#include "harness/syscalls.hpp"

#include "harness/sandbox.hpp"
#include "harness/wait.hpp"

#include <fmt/format.h>

#include <atomic>
#include <fstream>
#include <regex>
#include <stdexcept>

namespace tapgate::test {

namespace {

std::filesystem::path new_trace_file() {
    static std::atomic<unsigned> number{0};
    return scratch_dir() / fmt::format("strace-{}", ++number);
}

std::vector<std::string> command(const std::filesystem::path& file, pid_t thread,
                                 const std::optional<CallFault>& fault) {
    std::vector<std::string> argv = {"strace", "-o", file, "-p", std::to_string(thread)};
    if (fault) {
        argv.emplace_back("-e");
        argv.push_back(fmt::format("inject={}:error={}:when={}{}", fault->name, fault->error,
                                   fault->occurrence, fault->and_later ? "+" : ""));
    }
    return argv;
}

} // namespace

SyscallTrace::SyscallTrace(pid_t thread, const std::optional<CallFault>& fault)
    : file_(new_trace_file()), strace_(command(file_, thread, fault)) {
    const auto is_attached = [this] { return strace_.err().find("attached") != std::string::npos; };
    if (!wait_until([&] { return is_attached() || !strace_.running(); }) || !is_attached())
        throw std::runtime_error("strace does not trace: " + strace_.err());
}

std::vector<Syscall> SyscallTrace::stop() {
    strace_.stop();
    std::vector<Syscall> calls;
    std::ifstream lines(file_);
    static const std::regex call(R"(^([a-z_0-9]+)\()");
    for (std::string line; std::getline(lines, line);) {
        std::smatch match;
        if (!std::regex_search(line, match, call))
            continue; // a signal, or the end of strace
        const bool is_injected = line.ends_with("(INJECTED)");
        calls.push_back({.name = match[1], .text = std::move(line), .is_injected = is_injected});
    }
    return calls;
}

pid_t thread_named(pid_t pid, std::string_view name) {
    std::vector<pid_t> found;
    for (const auto& task : std::filesystem::directory_iterator(fmt::format("/proc/{}/task", pid))) {
        std::string comm;
        std::getline(std::ifstream(task.path() / "comm"), comm);
        if (comm == name)
            found.push_back(std::stoi(task.path().filename()));
    }
    if (found.size() != 1)
        throw std::runtime_error(fmt::format("{} threads are called {}", found.size(), name));
    return found.front();
}

} // namespace tapgate::test
