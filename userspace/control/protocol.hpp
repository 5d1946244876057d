// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"

#include <boost/json/object.hpp>

#include <cstddef>
#include <string>
#include <string_view>

// What is said on the control socket: lines of JSON, UTF-8, one object each. README.md in this folder has the
// list of commands.
//
//   request   {"schema":1,"command":"guest show","args":{...}}         args may be left out
//   reply     {"schema":1,...}                                         one line per request, in order
//   refusal   {"schema":1,"error":{"code":"not-found","message":".."}} code: error_code_name()
//   stream    a reply {"schema":1,"monitoring":true}, then lines until either side closes
namespace tapgate::control {

inline constexpr int kSchema = 1;

/// The longest request, newline included. A policy of a million rules is loaded through it.
inline constexpr std::size_t kMaxRequestBytes = std::size_t{64} << 20U;

struct Request {
    std::string command;
    boost::json::object args;
};

/// Reads a request line, without its newline. kInvalid says what is wrong with it.
Result<Request> parse_request(std::string_view line);

/// The lines, newline included.
[[nodiscard]] std::string request_line(std::string_view command, const boost::json::object& args);
[[nodiscard]] std::string reply_line(const boost::json::object& reply);

/// {"schema":1,"error":{"code","message"}}
[[nodiscard]] boost::json::object error_reply(const Error& error);

/// Reads a reply or stream line on the client's side: an object of our schema. The error that a refusal
/// carries is returned as the Error it was made from.
Result<boost::json::object> parse_reply(std::string_view line);

/// `object` with "schema" as its first member.
[[nodiscard]] boost::json::object with_schema(const boost::json::object& object);

} // namespace tapgate::control
