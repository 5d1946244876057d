// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/ip.hpp"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

// Tolerant access to replies of the daemon: what is missing or of another type is shown as absent.
namespace tapgate::cli {

/// The member as one line of printable text: strings escaped, numbers and booleans as they are, lists joined
/// with commas; "-" if it is missing, null or empty.
[[nodiscard]] std::string cell(const boost::json::object& object, std::string_view key);

/// The member's number; 0 if it is none.
[[nodiscard]] std::int64_t number(const boost::json::object& object, std::string_view key);

/// The member's text as it is; empty if it is none.
[[nodiscard]] std::string_view text(const boost::json::object& object, std::string_view key);

/// The member's array; an empty one if it is none.
[[nodiscard]] const boost::json::array& list(const boost::json::object& object, std::string_view key);

/// The addresses in the member's array; what is none is passed over.
[[nodiscard]] std::vector<IpAddress> addresses(const boost::json::object& object, std::string_view key);

/// The member's object, borrowed; an empty one if it is none.
[[nodiscard]] const boost::json::object& member(const boost::json::object& object, std::string_view key);

/// The value as an object, borrowed; an empty one if it is none.
[[nodiscard]] const boost::json::object& as_object(const boost::json::value& value);

} // namespace tapgate::cli
