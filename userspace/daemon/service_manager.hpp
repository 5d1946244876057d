// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/unique_fd.hpp"

#include <chrono>
#include <string_view>

namespace tapgate::daemon {

/// Tells systemd, or whoever has set NOTIFY_SOCKET, how the daemon is (sd_notify(3)). Does nothing if nobody
/// has; what cannot be told is not told: a manager that is away is no reason to stop.
class ServiceManager {
  public:
    /// Reads NOTIFY_SOCKET and, for this process, WATCHDOG_USEC and WATCHDOG_PID (sd_watchdog_enabled(3)).
    static ServiceManager from_environment();

    /// The daemon serves.
    void ready() const { tell("READY=1"); }

    /// It is about to end, within `time`.
    void stopping(std::chrono::seconds time) const;

    /// It is not hung. To be called about once a second while that is so.
    void alive() const {
        if (watched_)
            tell("WATCHDOG=1");
    }

  private:
    void tell(std::string_view state) const;

    UniqueFd socket_; // connected, or none
    bool watched_ = false;
};

} // namespace tapgate::daemon
