// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <thread>

namespace tapgate::test {

using Deadline = std::chrono::steady_clock::time_point;

/// How long a test waits for what should happen at once. Long, since it is only reached by a failure.
inline constexpr std::chrono::seconds kPatience{20};

[[nodiscard]] inline Deadline in(std::chrono::nanoseconds time) {
    return std::chrono::steady_clock::now() + std::chrono::duration_cast<Deadline::duration>(time);
}

/// Milliseconds until `deadline` for poll(2), at least 0.
[[nodiscard]] inline int poll_timeout(Deadline deadline) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    return left.count() > 0 ? static_cast<int>(left.count()) : 0;
}

/// Evaluates `condition` until it is true or `time` is over; its last value.
template <typename Condition>
[[nodiscard]] bool wait_until(Condition condition, std::chrono::nanoseconds time = kPatience) {
    const Deadline deadline = in(time);
    while (!condition()) {
        if (std::chrono::steady_clock::now() >= deadline)
            return condition();
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return true;
}

} // namespace tapgate::test
