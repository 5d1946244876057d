// SPDX-License-Identifier: Apache-2.0
#include "control/protocol.hpp"

#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <gtest/gtest.h>

namespace tapgate::control {
namespace {

namespace json = boost::json;

TEST(Request, is_read_back_as_it_was_written) {
    json::object args;
    args["name"] = "a\nb";
    const std::string line = request_line("guest show", args);
    EXPECT_EQ(line, "{\"schema\":1,\"command\":\"guest show\",\"args\":{\"name\":\"a\\nb\"}}\n");
    const auto request = parse_request(std::string_view(line).substr(0, line.size() - 1));
    ASSERT_TRUE(request) << request.error().message();
    EXPECT_EQ(request->command, "guest show");
    EXPECT_EQ(request->args, args);
}

TEST(Request, needs_no_args) {
    const auto request = parse_request(R"({"command":"x","schema":1})");
    ASSERT_TRUE(request);
    EXPECT_TRUE(request->args.empty());
}

TEST(Request, malformed_lines_are_refused) {
    const std::string deep(1000, '[');
    for (const std::string& line : std::initializer_list<std::string>{
             "", "x", "[]", "{}", "1", "null", R"({"schema":1})", R"({"command":"x"})",
             R"({"schema":2,"command":"x"})", R"({"schema":"1","command":"x"})",
             R"({"schema":1,"command":7})", R"({"schema":1,"command":""})",
             R"({"schema":1,"command":"x","args":[]})", R"({"schema":1,"command":"x","arg":{}})",
             R"({"schema":1,"command":"x"} {})", R"({"schema":1,"command":"x")",
             "{\"schema\":1,\"command\":\"\xff\"}", deep,
             std::string("{\"schema\":1,\0\"command\":\"x\"}", 27)})
        EXPECT_FALSE(parse_request(line)) << line;
}

TEST(Reply, an_error_comes_back_as_it_was) {
    for (const ErrorCode code :
         {ErrorCode::kInvalid, ErrorCode::kNotFound, ErrorCode::kExists, ErrorCode::kPermission,
          ErrorCode::kUnsupported, ErrorCode::kLimit, ErrorCode::kUnavailable, ErrorCode::kIo}) {
        const std::string line = reply_line(error_reply(Error(code, "why")));
        const auto reply = parse_reply(std::string_view(line).substr(0, line.size() - 1));
        ASSERT_FALSE(reply);
        EXPECT_EQ(reply.error().code(), code);
        EXPECT_EQ(reply.error().message(), "why");
    }
}

TEST(Reply, an_unknown_error_code_keeps_its_message) {
    const auto reply = parse_reply(R"({"schema":1,"error":{"code":"new","message":"why"}})");
    ASSERT_FALSE(reply);
    EXPECT_EQ(reply.error().message(), "why");
}

TEST(Reply, malformed_lines_are_refused) {
    for (const auto* line : {"", "[]", R"({"a":1})", R"({"schema":2})", R"({"schema":1,"error":"x"})",
                             R"({"schema":1,"error":{"code":1,"message":"x"}})"})
        EXPECT_FALSE(parse_reply(line)) << line;
}

TEST(Reply, the_schema_comes_first_and_once) {
    json::object reply;
    reply["b"] = 1;
    reply["schema"] = 1;
    EXPECT_EQ(reply_line(reply), "{\"schema\":1,\"b\":1}\n");
}

} // namespace
} // namespace tapgate::control
