// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"
#include "policy/model.hpp"

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

// A TOML or JSON file as a tree of located values: the form from which policies and test cases are read, so
// that both file forms share one reader and every message can say where.
namespace tapgate::policy {

struct DocumentMember;

struct DocumentNull {};

/// A value of a type that no field takes: a fraction, a date.
struct DocumentOther {
    std::string_view what;
};

struct DocumentNode {
    using Array = std::vector<DocumentNode>;
    /// In file order; keys are unique.
    using Table = std::vector<DocumentMember>;

    std::variant<DocumentNull, DocumentOther, bool, std::int64_t, std::string, Array, Table> value;
    SourceLocation location;

    [[nodiscard]] const std::string* string() const { return std::get_if<std::string>(&value); }

    [[nodiscard]] const std::int64_t* integer() const { return std::get_if<std::int64_t>(&value); }

    [[nodiscard]] const bool* boolean() const { return std::get_if<bool>(&value); }

    [[nodiscard]] const Array* array() const { return std::get_if<Array>(&value); }

    [[nodiscard]] const Table* table() const { return std::get_if<Table>(&value); }

    /// "a string", "a list", ...
    [[nodiscard]] std::string_view type_name() const;
};

struct DocumentMember {
    std::string key;
    SourceLocation location;
    DocumentNode value;
};

/// An error at a place: "FILE:LINE:COLUMN: message". Columns count characters.
[[nodiscard]] Error error_at(std::string_view file, SourceLocation where, std::string_view message);

/// A list of the root table that may be too long to be kept as a tree: `take` gets its items in order, each
/// as it is read, and the document has an empty list in its place. An error of `take` ends the reading.
struct StreamedList {
    std::string_view key;
    std::function<Result<void>(const DocumentNode&)> take;
};

/// Both fail with error_at() on text that is not UTF-8, not of the form, or has a key twice in one table.
/// `first_line` is the number of the text's first line. A `streamed` list is taken before the rest of the
/// document is looked at, but only from text that is of the form as a whole.
Result<DocumentNode> read_toml_document(std::string_view text, std::string_view file,
                                        const StreamedList* streamed = nullptr);
Result<DocumentNode> read_json_document(std::string_view text, std::string_view file,
                                        std::uint32_t first_line = 1, const StreamedList* streamed = nullptr);

} // namespace tapgate::policy
