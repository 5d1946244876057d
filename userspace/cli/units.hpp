// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

// Quantities as people read and write them.
namespace tapgate::cli {

/// "42s", "5m10s", "3h02m", "4d03h"; two units at most.
[[nodiscard]] std::string format_duration(std::chrono::seconds duration);

/// "512", "1.5K", "12M": powers of 1024, three digits at most.
[[nodiscard]] std::string format_bytes(std::uint64_t bytes);

/// The whole number from 0 that `text` is; the message of an error names `option`.
Result<std::uint64_t> read_number(std::string_view option, std::string_view text);

/// The time that `text` is, "30s", "5m" or "2h", from a second to a day; the message of an error names
/// `option`.
Result<std::chrono::seconds> read_duration(std::string_view option, std::string_view text);

} // namespace tapgate::cli
