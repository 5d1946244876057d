// SPDX-License-Identifier: Apache-2.0
#include "cli/units.hpp"

#include "base/log.hpp"
#include "policy/parse.hpp"

#include <fmt/format.h>

#include <charconv>

namespace tapgate::cli {

std::string format_duration(std::chrono::seconds duration) {
    constexpr std::int64_t kMinute = 60;
    constexpr std::int64_t kHour = 60 * kMinute;
    constexpr std::int64_t kDay = 24 * kHour;
    const std::int64_t seconds = duration.count();
    if (seconds < kMinute)
        return fmt::format("{}s", seconds);
    if (seconds < kHour)
        return fmt::format("{}m{:02}s", seconds / kMinute, seconds % kMinute);
    if (seconds < kDay)
        return fmt::format("{}h{:02}m", seconds / kHour, seconds % kHour / kMinute);
    return fmt::format("{}d{:02}h", seconds / kDay, seconds % kDay / kHour);
}

std::string format_bytes(std::uint64_t bytes) {
    constexpr std::string_view kUnits = "KMGTPE";
    if (bytes < 1024)
        return fmt::format("{}", bytes);
    auto value = static_cast<double>(bytes) / 1024;
    std::size_t unit = 0;
    // 1023.5 would print as 1024.
    while (value >= 1023.5 && unit + 1 < kUnits.size()) {
        value /= 1024;
        ++unit;
    }
    // 9.95 would print as 10.0.
    return value < 9.95 ? fmt::format("{:.1f}{}", value, kUnits[unit])
                        : fmt::format("{:.0f}{}", value, kUnits[unit]);
}

Result<std::uint64_t> read_number(std::string_view option, std::string_view text) {
    std::uint64_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc{} || end != text.data() + text.size())
        return fail(ErrorCode::kInvalid, fmt::format("{} '{}' is not a number", option, printable(text, 80)));
    return number;
}

Result<std::chrono::seconds> read_duration(std::string_view option, std::string_view text) {
    const auto duration = policy::parse_drain(text);
    if (!duration)
        return fail(ErrorCode::kInvalid,
                    fmt::format("{} '{}' is not a time between 1s and 24h, such as 30s, 5m or 2h", option,
                                printable(text, 80)));
    return *duration;
}

} // namespace tapgate::cli
