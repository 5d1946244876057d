// SPDX-License-Identifier: Apache-2.0
#include "cli/reply.hpp"

#include "base/log.hpp"

#include <boost/json/serialize.hpp>

#include <limits>

namespace tapgate::cli {

namespace json = boost::json;

namespace {

constexpr std::size_t kMaxCell = 512;

const json::value* find(const json::object& object, std::string_view key) {
    return object.if_contains({key.data(), key.size()});
}

std::string cell_of(const json::value& value) {
    if (const auto* string = value.if_string())
        return printable({string->data(), string->size()}, kMaxCell);
    if (const auto* array = value.if_array()) {
        std::string joined;
        for (const json::value& element : *array) {
            if (!joined.empty())
                joined += ",";
            joined += cell_of(element);
        }
        return joined;
    }
    return value.is_null() ? std::string() : printable(json::serialize(value), kMaxCell);
}

} // namespace

std::string cell(const json::object& object, std::string_view key) {
    const json::value* value = find(object, key);
    std::string shown = value == nullptr ? std::string() : cell_of(*value);
    return shown.empty() ? "-" : shown;
}

std::int64_t number(const json::object& object, std::string_view key) {
    const json::value* value = find(object, key);
    if (value == nullptr || !value->is_number())
        return 0;
    boost::system::error_code error;
    const auto whole = value->to_number<std::int64_t>(error);
    return error ? std::numeric_limits<std::int64_t>::max() : whole;
}

std::string_view text(const json::object& object, std::string_view key) {
    const json::value* value = find(object, key);
    const auto* string = value == nullptr ? nullptr : value->if_string();
    return string == nullptr ? std::string_view() : std::string_view(string->data(), string->size());
}

const json::array& list(const json::object& object, std::string_view key) {
    static const json::array none;
    const json::value* value = find(object, key);
    const auto* array = value == nullptr ? nullptr : value->if_array();
    return array == nullptr ? none : *array;
}

std::vector<IpAddress> addresses(const json::object& object, std::string_view key) {
    std::vector<IpAddress> found;
    for (const json::value& value : list(object, key))
        if (const auto* string = value.if_string())
            if (const auto address = IpAddress::parse(*string))
                found.push_back(*address);
    return found;
}

const json::object& as_object(const json::value& value) {
    static const json::object none;
    const auto* object = value.if_object();
    return object == nullptr ? none : *object;
}

const json::object& member(const json::object& object, std::string_view key) {
    static const json::value none;
    const json::value* value = find(object, key);
    return as_object(value == nullptr ? none : *value);
}

} // namespace tapgate::cli
