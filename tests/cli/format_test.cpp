// SPDX-License-Identifier: Apache-2.0
#include "cli/console.hpp"
#include "cli/reply.hpp"
#include "cli/table.hpp"
#include "cli/units.hpp"

#include <boost/json/parse.hpp>
#include <gtest/gtest.h>

namespace tapgate::cli {
namespace {

TEST(Duration, has_two_units_at_most) {
    using std::chrono::seconds;
    EXPECT_EQ(format_duration(seconds(0)), "0s");
    EXPECT_EQ(format_duration(seconds(59)), "59s");
    EXPECT_EQ(format_duration(seconds(60)), "1m00s");
    EXPECT_EQ(format_duration(seconds(3599)), "59m59s");
    EXPECT_EQ(format_duration(seconds(3600)), "1h00m");
    EXPECT_EQ(format_duration(seconds(86399)), "23h59m");
    EXPECT_EQ(format_duration(seconds(86400)), "1d00h");
    EXPECT_EQ(format_duration(seconds(400 * 86400)), "400d00h");
    EXPECT_EQ(format_duration(seconds(-5)), "-5s");
}

TEST(Bytes, have_three_digits_at_most_above_1023) {
    EXPECT_EQ(format_bytes(0), "0");
    EXPECT_EQ(format_bytes(1023), "1023");
    EXPECT_EQ(format_bytes(1024), "1.0K");
    EXPECT_EQ(format_bytes(1536), "1.5K");
    EXPECT_EQ(format_bytes(10 * 1024), "10K");
    EXPECT_EQ(format_bytes((1U << 20U) - 1), "1.0M");
    EXPECT_EQ(format_bytes(UINT64_MAX), "16E");
}

TEST(Table, columns_line_up_without_trailing_spaces) {
    Table table({"A", "LONGER", "C"});
    table.add({"value", "b", ""});
    table.add({"", "x"});
    EXPECT_EQ(table.text("> "), "> A      LONGER  C\n"
                                "> value  b\n"
                                ">        x\n");
    EXPECT_EQ(Table().text(), "");
}

TEST(Cell, shows_what_a_guest_wrote_escaped_and_what_is_missing_as_a_dash) {
    const auto object =
        boost::json::parse(
            R"({"text":"\u001b[31m\n\"x","number":-7,"flag":true,"list":["a","b\u0007"],"empty":"",)"
            R"("none":[],"null":null,"object":{"k":"\u001b"}})")
            .as_object();
    EXPECT_EQ(cell(object, "text"), "\\x1b[31m\\x0a\\x22x");
    EXPECT_EQ(cell(object, "number"), "-7");
    EXPECT_EQ(cell(object, "flag"), "true");
    EXPECT_EQ(cell(object, "list"), "a,b\\x07");
    for (const auto* key : {"empty", "none", "null", "missing"})
        EXPECT_EQ(cell(object, key), "-") << key;
    EXPECT_EQ(cell(object, "object").find('\x1b'), std::string::npos);
    EXPECT_EQ(number(object, "number"), -7);
    EXPECT_EQ(number(object, "text"), 0);
    EXPECT_TRUE(list(object, "text").empty());
}

TEST(PrettyJson, is_indented_and_reads_back) {
    const auto value = boost::json::parse(R"({"a":1,"b":[],"c":{},"d":[1,{"e":"x\ny"}]})");
    const std::string text = pretty_json(value);
    EXPECT_EQ(text, "{\n"
                    "  \"a\": 1,\n"
                    "  \"b\": [],\n"
                    "  \"c\": {},\n"
                    "  \"d\": [\n"
                    "    1,\n"
                    "    {\n"
                    "      \"e\": \"x\\ny\"\n"
                    "    }\n"
                    "  ]\n"
                    "}");
    EXPECT_EQ(boost::json::parse(text), value);
}

} // namespace
} // namespace tapgate::cli
