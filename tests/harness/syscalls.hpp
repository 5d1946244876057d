// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "harness/process.hpp"

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

namespace tapgate::test {

/// A system call as strace tells it.
struct Syscall {
    std::string name;
    std::string text; ///< with arguments and result
    bool is_injected = false;
};

/// The `occurrence`th call of `name` (from 1), and if wanted all after it, is not made but fails with
/// `error`, as "ENOMEM".
struct CallFault {
    std::string name;
    std::string error;
    unsigned occurrence = 1;
    bool and_later = false;
};

/// strace on one thread: tells its system calls, and can make one of them fail. Every way into the kernel is
/// seen, whichever library makes the call.
class SyscallTrace {
  public:
    /// Returns once the thread is traced. Throws std::runtime_error if it cannot be.
    explicit SyscallTrace(pid_t thread, const std::optional<CallFault>& fault = std::nullopt);

    /// Lets go of the thread; its calls since, oldest first.
    std::vector<Syscall> stop();

  private:
    std::filesystem::path file_;
    Process strace_;
};

/// The thread of process `pid` that is called `name`. Throws std::runtime_error unless there is exactly one.
[[nodiscard]] pid_t thread_named(pid_t pid, std::string_view name);

} // namespace tapgate::test
