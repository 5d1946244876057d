// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <spdlog/formatter.h>
#include <spdlog/sinks/sink.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>

// What becomes of a log line on its way to standard error.
namespace tapgate {

enum class LogFormat : std::uint8_t {
    kText, ///< time, level, message
    kJson, ///< an object a line: "time" (RFC 3339), "level", "message"
};

/// True if standard error is the journal's socket (systemd.exec(5), JOURNAL_STREAM).
[[nodiscard]] bool stderr_is_journal();

/// Lines in that format. For the journal each begins with its priority, `<6>` (sd-daemon(3)), and text lines
/// leave time and level to it. Whatever a message contains, it is one line of printable ASCII of 4 KiB at
/// most: other bytes become \xNN.
[[nodiscard]] std::unique_ptr<spdlog::formatter> make_log_formatter(LogFormat format, bool for_journal);

/// Bounds how many lines of a level get through, so that what a guest can cause does not fill a disk, and so
/// that lines of one level do not cost those of another. Any thread, under a lock of the caller's.
class LogLimit {
  public:
    static constexpr std::uint32_t kBurst = 500;
    static constexpr std::uint32_t kPerSecond = 50;

    using Time = std::chrono::system_clock::time_point;

    struct Admission {
        bool admitted = false;
        std::uint64_t suppressed = 0; ///< lines of the level since the last that was admitted
    };

    [[nodiscard]] Admission admit(spdlog::level::level_enum level, Time now);

  private:
    struct Bucket {
        double tokens = kBurst;
        Time filled;
        std::uint64_t suppressed = 0;
    };

    std::array<Bucket, spdlog::level::n_levels> buckets_;
};

/// Hands lines on to `inner` as far as LogLimit lets them through; what was left out is told before the next
/// line of its level. The lines that debugging asks for are not counted.
[[nodiscard]] std::shared_ptr<spdlog::sinks::sink>
make_limited_sink(std::shared_ptr<spdlog::sinks::sink> inner);

} // namespace tapgate
