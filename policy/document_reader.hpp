// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "policy/document.hpp"
#include "policy/words.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace tapgate::policy {

/// Reads typed values out of a document; the first thing that is wrong is kept with its place. Every function
/// returns false once something was wrong, so callers only pass that on.
class DocumentReader {
  public:
    explicit DocumentReader(std::string_view file) : file_(file) {}

    /// A key that a table may have, and what reads its value into `Value`.
    template <typename Value>
    struct Field {
        std::string_view key;
        bool (*read)(DocumentReader&, const DocumentNode&, Value&);
    };

    /// Reads every member of the table `node`; keys that are not among `fields` are errors.
    template <typename Value, std::size_t Count>
    bool fields(const DocumentNode& node, std::string_view what, const Field<Value> (&fields)[Count],
                Value& value) {
        const auto* table = node.table();
        if (!table)
            return wrong_type(node, what, "a table");
        for (const DocumentMember& member : *table) {
            const auto* field = std::ranges::find(fields, member.key, &Field<Value>::key);
            if (field == std::end(fields)) {
                std::array<std::string_view, Count> valid;
                std::ranges::transform(fields, valid.begin(), &Field<Value>::key);
                return wrong(member.location,
                             unknown_word(fmt::format("key in {}:", what), member.key, valid));
            }
            if (!field->read(*this, member.value, value))
                return false;
        }
        return true;
    }

    /// A string that must be one of `words`.
    template <typename Value, std::size_t Count>
    bool word(const DocumentNode& node, std::string_view what, const Words<Value, Count>& words,
              std::type_identity_t<Value>& value) {
        const auto* text = node.string();
        if (!text)
            return wrong_type(node, what, "a string");
        return take(node, find_word(what, *text, words), value);
    }

    /// The value of `result`, or its error at the place of `node`.
    template <typename Value>
    bool take(const DocumentNode& node, Result<Value> result, Value& value) {
        if (!result)
            return wrong(node.location, result.error().message());
        value = std::move(*result);
        return true;
    }

    /// The items of a list that must not be empty; null (after noting the error) otherwise.
    const DocumentNode::Array* list(const DocumentNode& node, std::string_view what,
                                    std::string_view if_empty) {
        const auto* items = node.array();
        if (!items) {
            wrong_type(node, what, "a list");
            return nullptr;
        }
        if (items->empty()) {
            wrong(node.location, fmt::format("{} is an empty list; {}", what, if_empty));
            return nullptr;
        }
        return items;
    }

    bool wrong(SourceLocation where, std::string_view message) {
        if (!error_)
            error_ = error_at(file_, where, message);
        return false;
    }

    bool wrong_type(const DocumentNode& node, std::string_view what, std::string_view wanted) {
        return wrong(node.location, fmt::format("{} must be {}, not {}", what, wanted, node.type_name()));
    }

    [[nodiscard]] const std::string& file() const { return file_; }

    /// Only after a function returned false.
    [[nodiscard]] const Error& error() const { return *error_; }

  private:
    std::string file_;
    std::optional<Error> error_;
};

} // namespace tapgate::policy
