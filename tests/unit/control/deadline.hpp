// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>

namespace tapgate::control {

/// How long a test waits for what must happen.
inline constexpr std::chrono::milliseconds kDeadline{20'000};

} // namespace tapgate::control
