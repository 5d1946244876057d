// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"

#include <string>
#include <vector>

namespace tapgate::daemon {

/// Gives up for good what the daemon does not need once its programs are loaded, so that whoever takes it
/// over through a guest's bytes can do no more than it does. README.md says what each part stops.
///
/// - Capabilities: CAP_BPF, CAP_NET_ADMIN and CAP_NET_BIND_SERVICE are kept, of those that the process has.
/// - no_new_privs.
/// - Landlock (Linux 5.13, where it is enabled): nothing is executed, and nothing is written but below
/// `writable`, which
///   are directories that exist.
/// - seccomp: a system call that is not in the list ends the process with SIGSYS, after a line on standard
/// error.
///
/// To be called while there is one thread; those that it starts are bound as well. Returns what is in force,
/// in words. On failure the process may be bound by a part of it.
Result<std::string> enter_sandbox(const std::vector<std::string>& writable);

} // namespace tapgate::daemon
