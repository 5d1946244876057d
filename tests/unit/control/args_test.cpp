// SPDX-License-Identifier: Apache-2.0
#include "control/args.hpp"

#include <boost/json/parse.hpp>
#include <gtest/gtest.h>

namespace tapgate::control {
namespace {

const boost::json::object kArgs =
    boost::json::parse(
        R"({"name":"a","empty":"","null":null,"number":1,"list":["x","y"],"mixed":["x",1],"yes":true})")
        .as_object();

TEST(Args, an_unknown_argument_is_named) {
    EXPECT_TRUE(only_args({}, {"name"}));
    const auto known = only_args(kArgs, {"name", "empty"});
    ASSERT_FALSE(known);
    EXPECT_EQ(known.error().message(), "unknown argument \"null\"");
}

TEST(Args, a_required_string_must_be_there_and_not_empty) {
    EXPECT_EQ(required_string(kArgs, "name").value(), "a");
    for (const auto* name : {"missing", "empty", "null"})
        EXPECT_EQ(required_string(kArgs, name).error().message(),
                  "argument \"" + std::string(name) + "\" is missing or empty");
    EXPECT_EQ(required_string(kArgs, "number").error().message(), "argument \"number\" is not a string");
}

TEST(Args, an_optional_string_may_be_missing_or_null) {
    EXPECT_EQ(optional_string(kArgs, "name").value(), "a");
    EXPECT_EQ(optional_string(kArgs, "missing").value(), std::nullopt);
    EXPECT_EQ(optional_string(kArgs, "null").value(), std::nullopt);
    EXPECT_FALSE(optional_string(kArgs, "list"));
}

TEST(Args, a_list_has_only_strings) {
    EXPECT_EQ(string_list(kArgs, "list").value(), (std::vector<std::string>{"x", "y"}));
    EXPECT_TRUE(string_list(kArgs, "missing").value().empty());
    EXPECT_FALSE(string_list(kArgs, "mixed"));
    EXPECT_FALSE(string_list(kArgs, "name"));
}

TEST(Args, a_flag_is_a_boolean) {
    EXPECT_TRUE(flag(kArgs, "yes").value());
    EXPECT_FALSE(flag(kArgs, "missing").value());
    EXPECT_FALSE(flag(kArgs, "number"));
}

TEST(Args, an_optional_number_is_whole_and_not_negative) {
    const boost::json::object args = {
        {"n", 7}, {"null", nullptr}, {"minus", -1}, {"half", 0.5}, {"text", "7"}};
    EXPECT_EQ(optional_number(args, "n").value(), 7U);
    EXPECT_EQ(optional_number(args, "missing").value(), std::nullopt);
    EXPECT_EQ(optional_number(args, "null").value(), std::nullopt);
    for (const char* wrong : {"minus", "half", "text"})
        EXPECT_FALSE(optional_number(args, wrong)) << wrong;
}

TEST(Args, the_first_error_is_that_of_the_first_result_that_failed) {
    const Result<int> good = 1;
    const Result<bool> bad = fail(ErrorCode::kInvalid, "first");
    const Result<int> worse = fail(ErrorCode::kInvalid, "second");
    EXPECT_EQ(first_error(good), nullptr);
    ASSERT_NE(first_error(good, bad, worse), nullptr);
    EXPECT_EQ(first_error(good, bad, worse)->message(), "first");
}

} // namespace
} // namespace tapgate::control
