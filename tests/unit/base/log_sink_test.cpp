// SPDX-License-Identifier: Apache-2.0
#include "base/log_sink.hpp"

#include <gtest/gtest.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>

#include <cstdlib>
#include <sstream>
#include <string>

#include <sys/stat.h>
#include <unistd.h>

namespace tapgate {
namespace {

using namespace std::chrono_literals;
using spdlog::level::level_enum;

/// What a message becomes; the time of a text line or object as T.
std::string formatted(LogFormat format, bool for_journal, level_enum level, const std::string& message) {
    const auto formatter = make_log_formatter(format, for_journal);
    spdlog::memory_buf_t buffer;
    formatter->format(spdlog::details::log_msg(LogLimit::Time(1s), {}, "tapgate", level, message), buffer);
    std::string line(buffer.data(), buffer.size());
    constexpr std::string_view kTimeLike = "1970-01-01T00:00:01.000+00:00";
    if (const std::size_t at = line.find("1970-01-0"); at != std::string::npos)
        line.replace(at, kTimeLike.size(), "T");
    return line;
}

TEST(LogFormatter, text_has_time_level_and_message) {
    EXPECT_EQ(formatted(LogFormat::kText, false, level_enum::info, "guest vm0 attached"),
              "T info guest vm0 attached\n");
}

TEST(LogFormatter, the_journal_gets_the_priority_and_has_time_and_level_itself) {
    EXPECT_EQ(formatted(LogFormat::kText, true, level_enum::debug, "m"), "<7>m\n");
    EXPECT_EQ(formatted(LogFormat::kText, true, level_enum::info, "m"), "<6>m\n");
    EXPECT_EQ(formatted(LogFormat::kText, true, level_enum::warn, "m"), "<4>m\n");
    EXPECT_EQ(formatted(LogFormat::kText, true, level_enum::err, "m"), "<3>m\n");
}

TEST(LogFormatter, json_is_an_object_a_line) {
    EXPECT_EQ(formatted(LogFormat::kJson, false, level_enum::warn, R"(policy "a\b")"),
              R"({"time":"T","level":"warning","message":"policy \"a\\b\""})"
              "\n");
    EXPECT_EQ(formatted(LogFormat::kJson, true, level_enum::err, "m"),
              R"(<3>{"time":"T","level":"error","message":"m"})"
              "\n");
}

TEST(LogFormatter, no_message_can_forge_a_line_or_talk_to_a_terminal) {
    const std::string hostile("a\nb\x1b[0m\x7f\0\xc3\xa9", 11);
    EXPECT_EQ(formatted(LogFormat::kText, true, level_enum::info, hostile),
              "<6>a\\x0ab\\x1b[0m\\x7f\\x00\\xc3\\xa9\n");
    EXPECT_EQ(formatted(LogFormat::kJson, false, level_enum::info, hostile),
              "{\"time\":\"T\",\"level\":\"info\",\"message\":\"a\\\\x0ab\\\\x1b["
              "0m\\\\x7f\\\\x00\\\\xc3\\\\xa9\"}\n");
}

TEST(LogFormatter, a_message_is_cut_at_4_kib) {
    const std::string line = formatted(LogFormat::kText, true, level_enum::info, std::string(100'000, 'x'));
    EXPECT_EQ(line, "<6>" + std::string(4096, 'x') + "...\n");
}

TEST(LogLimit, a_burst_gets_through_and_then_so_many_a_second) {
    LogLimit limit;
    LogLimit::Time now(1000s);
    for (std::uint32_t i = 0; i < LogLimit::kBurst; ++i)
        ASSERT_TRUE(limit.admit(level_enum::info, now).admitted) << i;
    for (int i = 0; i < 7; ++i)
        EXPECT_FALSE(limit.admit(level_enum::info, now).admitted);
    EXPECT_TRUE(limit.admit(level_enum::err, now).admitted) << "each level has its own";
    now += 1s;
    const LogLimit::Admission first = limit.admit(level_enum::info, now);
    EXPECT_TRUE(first.admitted);
    EXPECT_EQ(first.suppressed, 7U);
    std::uint32_t admitted = 1;
    while (limit.admit(level_enum::info, now).admitted)
        ++admitted;
    EXPECT_EQ(admitted, LogLimit::kPerSecond);
    now -= 1h; // a clock that is set back
    EXPECT_FALSE(limit.admit(level_enum::info, now).admitted);
    now += 1s;
    EXPECT_TRUE(limit.admit(level_enum::info, now).admitted);
}

TEST(LimitedSink, what_was_left_out_is_told) {
    std::ostringstream out;
    auto inner = std::make_shared<spdlog::sinks::ostream_sink_mt>(out);
    const auto sink = make_limited_sink(inner);
    sink->set_formatter(make_log_formatter(LogFormat::kText, true));
    const auto log = [&](level_enum level, LogLimit::Time time, std::string_view text) {
        sink->log(spdlog::details::log_msg(time, {}, "tapgate", level, text));
    };
    for (std::uint32_t i = 0; i < LogLimit::kBurst + 3; ++i)
        log(level_enum::warn, LogLimit::Time(1s), "again");
    out.str("");
    log(level_enum::info, LogLimit::Time(1s), "other");
    log(level_enum::warn, LogLimit::Time(3s), "later");
    EXPECT_EQ(out.str(), "<6>other\n<4>3 lines of this level were left out: there were too many\n<4>later\n");
}

TEST(stderr_is_journal, only_if_the_named_stream_is_ours) {
    struct stat file{};
    ASSERT_EQ(::fstat(STDERR_FILENO, &file), 0);
    const std::string ours = std::to_string(file.st_dev) + ":" + std::to_string(file.st_ino);
    ::unsetenv("JOURNAL_STREAM");
    EXPECT_FALSE(stderr_is_journal());
    ::setenv("JOURNAL_STREAM", ours.c_str(), 1);
    EXPECT_TRUE(stderr_is_journal());
    ::setenv("JOURNAL_STREAM", (ours + "1").c_str(), 1);
    EXPECT_FALSE(stderr_is_journal()) << "inherited by a service that logs elsewhere";
    ::unsetenv("JOURNAL_STREAM");
}

} // namespace
} // namespace tapgate
