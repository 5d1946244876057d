// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/unique_fd.hpp"
#include "harness/netns.hpp"

#include <string>

namespace tapgate::assumptions {

enum class Direction { kIngress, kEgress };

/// The index of an interface of `ns`. Throws std::system_error.
unsigned interface_index(const test::NetNs& ns, const std::string& interface);

/// Attaches a program as a clsact filter, as the daemon does before Linux 6.6. Throws std::system_error.
void attach_clsact(const test::NetNs& ns, const std::string& interface, Direction direction, int program);

/// True if the kernel has tcx.
bool has_tcx();

/// Attaches a program with a tcx link, which ends with its last descriptor unless pinned. Throws
/// std::system_error.
UniqueFd attach_tcx(const test::NetNs& ns, const std::string& interface, Direction direction, int program);

} // namespace tapgate::assumptions
