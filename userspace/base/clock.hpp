// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>

namespace tapgate {

/// CLOCK_BOOTTIME, the clock that bpf_ktime_get_boot_ns() reads: expiries written by BPF and by userspace
/// compare directly, and time asleep counts.
struct BootClock {
    using duration = std::chrono::nanoseconds;
    using rep = duration::rep;
    using period = duration::period;
    using time_point = std::chrono::time_point<BootClock>;
    static constexpr bool is_steady = true;

    [[nodiscard]] static time_point now() noexcept;
};

} // namespace tapgate
