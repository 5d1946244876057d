// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string_view>

namespace tapgate::test {

/// Moves the process into a mount and a network namespace of its own, so that whatever a test leaves behind
/// (links, BPF pins, files) goes away with it, crash or not. Call first in main(), with one thread running.
///
/// Afterwards: scratch_dir() is an empty tmpfs, /sys/fs/bpf an empty bpffs, and programs started by the tests
/// find the name servers `resolvers` ("nameserver ..." lines) in /etc/resolv.conf. Throws std::system_error,
/// EPERM without root.
void enter_sandbox(std::string_view resolvers);

/// Where tests write files: private to the process, in memory.
[[nodiscard]] std::filesystem::path scratch_dir();

/// Writes `text` to a file in scratch_dir(), making parent folders; returns its path.
std::filesystem::path write_scratch(const std::filesystem::path& name, std::string_view text);

} // namespace tapgate::test
