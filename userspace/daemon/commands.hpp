// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "control/server.hpp"
#include "daemon/config.hpp"

#include <boost/json/object.hpp>

#include <optional>

#include <sys/types.h>

namespace tapgate::daemon {

class Daemon;

/// The handler of one control command.
using Reply = Result<boost::json::object>;
using Command = Reply (*)(Daemon& daemon, const boost::json::object& args);

/// The guest that is declared in the arguments of `guest add`, or in what a daemon hands over.
[[nodiscard]] Result<GuestConfig> guest_of(const boost::json::object& args);

void add_command(control::Server& server, Daemon& daemon, const char* name, Command command);

/// Registers the handler of every control command with `server`, and lets `readers` send those that change
/// nothing. `daemon` outlives the server's io_context run. userspace/control/README.md has the shape of each
/// reply.
void add_commands(control::Server& server, Daemon& daemon, std::optional<gid_t> readers);
/// Those about events and metrics among them (event_commands.cpp).
void add_event_commands(control::Server& server, Daemon& daemon);
/// Those about policies among them (policy_commands.cpp).
void add_policy_commands(control::Server& server, Daemon& daemon);
/// What a daemon that takes over asks (hand_over.cpp).
void add_hand_over_commands(control::Server& server, Daemon& daemon);
/// `daemon reload` (reload.cpp).
void add_reload_command(control::Server& server, Daemon& daemon);
/// `why` (why_command.cpp).
void add_why_command(control::Server& server, Daemon& daemon);

} // namespace tapgate::daemon
