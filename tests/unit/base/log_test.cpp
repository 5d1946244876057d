// SPDX-License-Identifier: Apache-2.0
#include "base/log.hpp"

#include <gtest/gtest.h>

namespace tapgate {
namespace {

TEST(printable, plain_text_is_left_alone) {
    EXPECT_EQ(printable("www.example.com:443 ~"), "www.example.com:443 ~");
}

TEST(printable, whatever_could_forge_a_log_line_is_escaped) {
    EXPECT_EQ(printable("a\nb\r\x1b[0m\x7f"), "a\\x0ab\\x0d\\x1b[0m\\x7f");
    EXPECT_EQ(printable("\"quoted\\\""), "\\x22quoted\\x5c\\x22");
    EXPECT_EQ(printable(std::string_view("a\0b", 3)), "a\\x00b");
    EXPECT_EQ(printable("\xc3\xa9"), "\\xc3\\xa9");
}

TEST(printable, long_text_is_cut_and_an_escape_is_never_cut_in_two) {
    EXPECT_EQ(printable("abcdef", 3), "abc...");
    EXPECT_EQ(printable("ab\ncd", 4), "ab...");
    EXPECT_EQ(printable("abc", 3), "abc");
}

TEST(setup_logging, an_unknown_level_is_an_error_that_lists_the_levels) {
    const auto result = setup_logging("loud");
    ASSERT_FALSE(result.has_value());
    EXPECT_EQ(result.error().message(), "'loud' is not a log level (debug, info, warn, error)");
    for (const std::string_view level : {"debug", "info", "warn", "error"})
        EXPECT_TRUE(setup_logging(level).has_value()) << level;
}

} // namespace
} // namespace tapgate
