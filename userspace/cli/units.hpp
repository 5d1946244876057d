// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

// Quantities as people read them.
namespace tapgate::cli {

/// "42s", "5m10s", "3h02m", "4d03h"; two units at most.
[[nodiscard]] std::string format_duration(std::chrono::seconds duration);

/// "512", "1.5K", "12M": powers of 1024, three digits at most.
[[nodiscard]] std::string format_bytes(std::uint64_t bytes);

} // namespace tapgate::cli
