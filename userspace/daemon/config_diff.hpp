// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "daemon/config.hpp"

#include <string>
#include <vector>

namespace tapgate::daemon {

/// A setting in which two configurations differ.
struct SettingChange {
    std::string setting; ///< "timers.idle_s", "groups.corp", "policy.web", "guest.tap0" (its interface)
    std::string before;  ///< as text; empty: it was not there
    std::string after;   ///< empty: it is not there any more
    bool live = false;   ///< a running daemon can change it; else it counts after a restart
};

/// In the order of the file.
[[nodiscard]] std::vector<SettingChange> config_changes(const Config& before, const Config& after);

/// `wanted`, but for the settings that a running daemon cannot change: those are as in `running`. Policies
/// that `wanted` has no more are left out all the same: they stay in force until a restart.
[[nodiscard]] Config what_can_change(Config wanted, const Config& running);

} // namespace tapgate::daemon
