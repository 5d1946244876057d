// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "harness/daemon.hpp"
#include "harness/netns.hpp"

#include <vector>

// Guests by the hundred, for what depends on their number: taps without anybody behind them.
namespace tapgate::test {

/// Guest "many<number>" on tap "many<number>", 0 to 65535.
[[nodiscard]] GuestEntry many_guest(unsigned number);

/// The first `count` of them.
[[nodiscard]] std::vector<GuestEntry> many_guests(unsigned count);

/// Makes their taps in `host`, with a gateway address each.
void add_taps(const NetNs& host, unsigned count);

/// The words that add such a guest.
[[nodiscard]] std::vector<std::string> guest_add_words(const GuestEntry& guest);

} // namespace tapgate::test
