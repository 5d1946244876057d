// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "control/server.hpp"

namespace tapgate::daemon {

class Daemon;

/// Registers the handler of every control command with `server`. `daemon` outlives the server's io_context
/// run. userspace/control/README.md has the shape of each reply.
void add_commands(control::Server& server, Daemon& daemon);

} // namespace tapgate::daemon
