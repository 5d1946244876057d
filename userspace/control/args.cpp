// SPDX-License-Identifier: Apache-2.0
#include "control/args.hpp"

#include "base/log.hpp"

#include <boost/json/array.hpp>
#include <boost/json/value.hpp>
#include <fmt/format.h>

#include <algorithm>

namespace tapgate::control {

namespace json = boost::json;

namespace {

/// The argument's value, or nullptr if it is missing or null.
const json::value* find(const json::object& args, std::string_view name) {
    const json::value* value = args.if_contains({name.data(), name.size()});
    return value == nullptr || value->is_null() ? nullptr : value;
}

std::unexpected<Error> wrong_type(std::string_view name, std::string_view expected) {
    return fail(ErrorCode::kInvalid, fmt::format("argument \"{}\" is not {}", name, expected));
}

} // namespace

Result<void> only_args(const json::object& args, std::initializer_list<std::string_view> known) {
    for (const auto& [key, value] : args) {
        const std::string_view name(key.data(), key.size());
        if (std::ranges::find(known, name) == known.end())
            return fail(ErrorCode::kInvalid, fmt::format("unknown argument \"{}\"", printable(name, 64)));
    }
    return {};
}

Result<std::string> required_string(const json::object& args, std::string_view name) {
    auto text = optional_string(args, name);
    if (!text)
        return fail(text.error());
    if (!*text || (*text)->empty())
        return fail(ErrorCode::kInvalid, fmt::format("argument \"{}\" is missing or empty", name));
    return std::move(**text);
}

Result<std::optional<std::string>> optional_string(const json::object& args, std::string_view name) {
    const json::value* value = find(args, name);
    if (value == nullptr)
        return std::optional<std::string>();
    if (!value->is_string())
        return wrong_type(name, "a string");
    return std::optional<std::string>(value->as_string());
}

Result<std::optional<std::uint64_t>> optional_number(const json::object& args, std::string_view name) {
    const json::value* value = find(args, name);
    if (value == nullptr)
        return std::optional<std::uint64_t>();
    boost::system::error_code error;
    const auto number = value->to_number<std::uint64_t>(error);
    if (error)
        return wrong_type(name, "a number from 0");
    return std::optional<std::uint64_t>(number);
}

Result<std::vector<std::string>> string_list(const json::object& args, std::string_view name) {
    std::vector<std::string> list;
    const json::value* value = find(args, name);
    if (value == nullptr)
        return list;
    if (!value->is_array())
        return wrong_type(name, "an array of strings");
    for (const json::value& element : value->as_array()) {
        if (!element.is_string())
            return wrong_type(name, "an array of strings");
        list.emplace_back(element.as_string());
    }
    return list;
}

Result<bool> flag(const json::object& args, std::string_view name) {
    const json::value* value = find(args, name);
    if (value == nullptr)
        return false;
    if (!value->is_bool())
        return wrong_type(name, "true or false");
    return value->as_bool();
}

} // namespace tapgate::control
