// SPDX-License-Identifier: Apache-2.0
#include "policy/document.hpp"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <string_view>
#include <utility>

namespace tapgate::policy {

namespace {

SourceLocation begin_of(const toml::source_region& source) {
    return {source.begin.line, source.begin.column};
}

/// What would be right, for the mistakes that are made most, by a piece of the message of toml++.
std::string_view hint_for(std::string_view description) {
    static constexpr std::pair<std::string_view, std::string_view> kHints[] = {
        {"encountered end-of-file", "; the file is cut short"},
        {"could not determine value type", "; a string stands in double quotes"},
        {"unescaped control characters", "; close the string on its line"},
        {"expected comma or closing ']'", "; commas part the items of a list"},
        {"expected '='", "; a setting reads KEY = VALUE"},
        {"cannot redefine", "; keep one"},
        {"invalid utf-8", "; a policy is UTF-8 text"},
        {"parsing root table", "; a policy is TOML or JSON"},
    };
    for (const auto& [piece, hint] : kHints)
        if (description.find(piece) != std::string_view::npos)
            return hint;
    return {};
}

/// Moves the tree out of toml++. Its parser bounds the nesting (TOML_MAX_NESTED_VALUES), hence the recursion.
DocumentNode convert(toml::node& node) {
    DocumentNode result;
    result.location = begin_of(node.source());
    if (auto* string = node.as_string())
        result.value = std::move(string->get());
    else if (const auto* integer = node.as_integer())
        result.value = integer->get();
    else if (const auto* boolean = node.as_boolean())
        result.value = boolean->get();
    else if (auto* array = node.as_array()) {
        DocumentNode::Array items;
        items.reserve(array->size());
        for (toml::node& item : *array)
            items.push_back(convert(item));
        result.value = std::move(items);
    } else if (auto* table = node.as_table()) {
        DocumentNode::Table members;
        members.reserve(table->size());
        for (auto&& [key, value] : *table)
            members.push_back({std::string(key.str()), begin_of(key.source()), convert(value)});
        result.value = std::move(members);
    } else if (node.is_floating_point()) {
        result.value = DocumentOther{"a fraction"};
    } else {
        result.value = DocumentOther{"a date or time"};
    }
    return result;
}

/// Hands the items of the streamed list over and leaves an empty list.
Result<void> take_streamed(toml::table& root, const StreamedList& streamed) {
    auto* items = root[streamed.key].as_array();
    if (items == nullptr)
        return {};
    for (toml::node& item : *items)
        if (auto taken = streamed.take(convert(item)); !taken)
            return taken;
    items->clear();
    return {};
}

} // namespace

Result<DocumentNode> read_toml_document(std::string_view text, std::string_view file,
                                        const StreamedList* streamed) {
    try {
        toml::table root = toml::parse(text);
        if (streamed != nullptr)
            if (const auto taken = take_streamed(root, *streamed); !taken)
                return fail(taken.error());
        return convert(root);
    } catch (const toml::parse_error& error) {
        return fail(error_at(file, begin_of(error.source()),
                             fmt::format("{}{}", error.description(), hint_for(error.description()))));
    }
}

} // namespace tapgate::policy
