// SPDX-License-Identifier: Apache-2.0
#include "control/protocol.hpp"

#include "base/log.hpp"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <fmt/format.h>

#include <array>
#include <optional>

namespace tapgate::control {

namespace json = boost::json;

namespace {

constexpr std::array kErrorCodes{
    ErrorCode::kInvalid,     ErrorCode::kNotFound, ErrorCode::kExists,      ErrorCode::kPermission,
    ErrorCode::kUnsupported, ErrorCode::kLimit,    ErrorCode::kUnavailable, ErrorCode::kIo,
};

std::string line_of(const json::object& object) {
    std::string line = json::serialize(object);
    line += '\n';
    return line;
}

Result<json::object> parse_object(std::string_view line) {
    boost::system::error_code error;
    json::value value = json::parse({line.data(), line.size()}, error);
    if (error)
        return fail(ErrorCode::kInvalid, fmt::format("not a line of JSON: {}", error.message()));
    if (!value.is_object())
        return fail(ErrorCode::kInvalid, "a line of JSON, but not an object");
    json::object object = std::move(value.as_object());
    const json::value* schema = object.if_contains("schema");
    if (schema == nullptr || !schema->is_int64() || schema->as_int64() != kSchema)
        return fail(ErrorCode::kUnsupported, fmt::format("\"schema\" is missing or not {}", kSchema));
    return object;
}

const json::string* string_member(const json::object& object, std::string_view name) {
    const json::value* value = object.if_contains({name.data(), name.size()});
    return value == nullptr ? nullptr : value->if_string();
}

} // namespace

Result<Request> parse_request(std::string_view line) {
    auto object = parse_object(line);
    if (!object)
        return fail(object.error().with_context("request"));
    Request request;
    for (auto& [key, value] : *object) {
        if (key == "command" && value.is_string()) {
            request.command = std::string(value.as_string());
        } else if (key == "args" && value.is_object()) {
            request.args = std::move(value.as_object());
        } else if (key != "schema") {
            return fail(ErrorCode::kInvalid,
                        fmt::format("request: \"{}\" is unknown or of the wrong type (\"command\" is a "
                                    "string, \"args\" an object)",
                                    printable({key.data(), key.size()}, 64)));
        }
    }
    if (request.command.empty())
        return fail(ErrorCode::kInvalid, "request: \"command\" is missing");
    return request;
}

std::string request_line(std::string_view command, const json::object& args) {
    json::object request;
    request["schema"] = kSchema;
    request["command"] = json::string_view(command.data(), command.size());
    request["args"] = args;
    return line_of(request);
}

std::string reply_line(const json::object& reply) {
    return line_of(with_schema(reply));
}

json::object error_reply(const Error& error) {
    const std::string_view code = error_code_name(error.code());
    json::object body;
    body["code"] = json::string_view(code.data(), code.size());
    body["message"] = error.message();
    json::object reply;
    reply["schema"] = kSchema;
    reply["error"] = std::move(body);
    return reply;
}

Result<json::object> parse_reply(std::string_view line) {
    auto object = parse_object(line);
    if (!object)
        return fail(object.error().with_context("reply of the daemon"));
    const json::value* error = object->if_contains("error");
    if (error == nullptr)
        return object;
    const json::object* body = error->if_object();
    const json::string* code = body == nullptr ? nullptr : string_member(*body, "code");
    const json::string* message = body == nullptr ? nullptr : string_member(*body, "message");
    if (code == nullptr || message == nullptr)
        return fail(ErrorCode::kInvalid, "reply of the daemon: an error without code and message");
    for (const ErrorCode known : kErrorCodes)
        if (error_code_name(known) == std::string_view(code->data(), code->size()))
            return fail(known, std::string(*message));
    // A newer daemon's code: the message is what counts.
    return fail(ErrorCode::kIo, std::string(*message));
}

json::object with_schema(const json::object& object) {
    json::object result;
    result.reserve(object.size() + 1);
    result["schema"] = kSchema;
    for (const auto& [key, value] : object)
        result[key] = value;
    return result;
}

} // namespace tapgate::control
