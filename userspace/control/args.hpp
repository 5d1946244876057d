// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"

#include <boost/json/object.hpp>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

// Typed access to the arguments of a request. Every error is kInvalid and names the argument.
namespace tapgate::control {

/// Fails on an argument that is not in `known`: a misspelt one must not be ignored.
Result<void> only_args(const boost::json::object& args, std::initializer_list<std::string_view> known);

/// A string that must be there and not be empty.
Result<std::string> required_string(const boost::json::object& args, std::string_view name);

/// Nothing if the argument is missing or null.
Result<std::optional<std::string>> optional_string(const boost::json::object& args, std::string_view name);

/// A number from 0; nothing if the argument is missing or null.
Result<std::optional<std::uint64_t>> optional_number(const boost::json::object& args, std::string_view name);

/// An array of strings; empty if the argument is missing or null.
Result<std::vector<std::string>> string_list(const boost::json::object& args, std::string_view name);

/// False if the argument is missing or null.
Result<bool> flag(const boost::json::object& args, std::string_view name);

/// The error of the first of `results` that failed; null if none has.
template <typename... Values>
const Error* first_error(const Result<Values>&... results) {
    const Error* found = nullptr;
    ((found = found == nullptr && !results ? &results.error() : found), ...);
    return found;
}

} // namespace tapgate::control
