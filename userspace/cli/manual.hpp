// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <string_view>

// Manual pages as Markdown: what the table of commands says, with the prose of man/*.md. A file of prose is
//
//     # TITLE                                 for the line under NAME
//     what the object is ...                  the description
//     ## COMMAND                              what is to be said about a command beyond its help
//     ## Examples                             any other heading begins a section behind the commands
namespace tapgate::cli {

struct Prose {
    std::string title;
    std::string description;
    std::map<std::string, std::string, std::less<>> commands; ///< by name
    std::string rest;                                         ///< sections with their headings
};

/// Reads the prose of `object`; for the overview the object is empty.
[[nodiscard]] Prose read_prose(std::string_view text, std::string_view object);

/// The page tapgate-OBJECT(8).
[[nodiscard]] std::string object_page(std::string_view object, const Prose& prose);
/// The page tapgate(8).
[[nodiscard]] std::string overview_page(const Prose& prose);

} // namespace tapgate::cli
