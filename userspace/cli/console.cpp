// SPDX-License-Identifier: Apache-2.0
#include "cli/console.hpp"

#include "control/protocol.hpp"

#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>
#include <fmt/format.h>

namespace tapgate::cli {

namespace json = boost::json;

namespace {

void append_pretty(const json::value& value, std::size_t depth, std::string& text) {
    const std::string indent(2 * (depth + 1), ' ');
    const auto close = [&](char bracket) {
        text += '\n';
        text.append(2 * depth, ' ');
        text += bracket;
    };
    if (const auto* object = value.if_object(); object != nullptr && !object->empty()) {
        std::string_view separator = "{\n";
        for (const auto& [key, member] : *object) {
            text += separator;
            text += indent;
            text += json::serialize(key);
            text += ": ";
            append_pretty(member, depth + 1, text);
            separator = ",\n";
        }
        close('}');
    } else if (const auto* array = value.if_array(); array != nullptr && !array->empty()) {
        std::string_view separator = "[\n";
        for (const json::value& element : *array) {
            text += separator;
            text += indent;
            append_pretty(element, depth + 1, text);
            separator = ",\n";
        }
        close(']');
    } else {
        text += json::serialize(value);
    }
}

} // namespace

std::string pretty_json(const json::value& value) {
    std::string text;
    append_pretty(value, 0, text);
    return text;
}

void Console::print(std::string_view text) {
    out_ << text << std::flush;
}

void Console::print(const json::object& object) {
    // A reply has its schema already; with_schema() keeps it in front.
    const json::object whole = control::with_schema(object);
    print((format == Format::kPretty ? pretty_json(whole) : json::serialize(whole)) + "\n");
}

void Console::note(std::string_view line) {
    err_ << line << std::endl;
}

int Console::failed(const Error& error) {
    if (json())
        print(control::error_reply(error));
    else
        err_ << "Error: " << error.message() << std::endl;
    return kExitFailed;
}

int Console::usage(std::string_view message, std::string_view help_words) {
    if (json()) {
        json::object body;
        body["code"] = "usage";
        body["message"] = json::string_view(message.data(), message.size());
        json::object object;
        object["error"] = std::move(body);
        print(object);
    } else {
        const std::string_view gap = help_words.empty() ? "" : " ";
        err_ << fmt::format("Error: {}\nTry 'tapgate help{}{}'.", message, gap, help_words) << std::endl;
    }
    return kExitUsage;
}

} // namespace tapgate::cli
