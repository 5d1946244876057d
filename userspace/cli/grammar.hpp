// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

// The command line's grammar as data: OBJECT COMMAND [ARGS]. Parsing, help and prefix matching all read the
// same table, which is the only place where a command is described.
namespace tapgate::cli {

/// An argument known by its place.
struct Positional {
    std::string_view name; ///< as help shows it: "FILE"
    bool required = true;
};

/// An argument known by its name.
struct Option {
    std::string_view name;  ///< with its dashes: "--interface"
    std::string_view value; ///< as help shows it: "IF"; empty for a flag
    std::string_view help;
    bool required = false;
    /// May be given several times, and takes several values at a time: everything up to the next option.
    bool repeated = false;
};

/// What was given for a command's arguments.
class Arguments {
  public:
    /// The value of a positional or of an option (with its dashes); empty if it was not given.
    [[nodiscard]] std::string get(std::string_view name) const;
    [[nodiscard]] const std::vector<std::string>& all(std::string_view name) const;

    [[nodiscard]] bool has(std::string_view name) const { return values_.contains(name); }

    void add(std::string_view name, std::string value) {
        values_[std::string(name)].push_back(std::move(value));
    }

  private:
    std::map<std::string, std::vector<std::string>, std::less<>> values_;
};

class Console;

struct Command {
    std::string_view object;
    std::string_view name;    ///< empty if the object's word is the whole command, as for `why`
    std::string_view summary; ///< one sentence, without a full stop
    std::vector<Positional> positionals;
    std::vector<Option> options;
    /// Runs the command; returns the exit code.
    int (*run)(Console& console, const Arguments& arguments);
};

/// The words that name it: "guest show", "why".
[[nodiscard]] std::string full_name(const Command& command);

/// All commands, those of one object together.
[[nodiscard]] const std::vector<Command>& commands();

/// The entry of `valid` that `word` is, or of which alone it is the beginning. The message of an error names
/// the candidates (ambiguous) or the valid words (unknown).
Result<std::string_view> complete(std::string_view what, std::string_view word,
                                  std::span<const std::string_view> valid);

/// The command that two words, possibly shortened, name; `name` is not looked at for an object whose word is
/// the whole command.
Result<const Command*> find_command(std::string_view object, std::string_view name);

/// The command that `object`, possibly shortened, names on its own; null if it takes a second word.
[[nodiscard]] const Command* find_whole_command(std::string_view object);

/// Reads what follows the command's words. The message of an error says what would be right.
Result<Arguments> parse_arguments(const Command& command, std::span<const std::string> words);

[[nodiscard]] std::vector<std::string_view> object_names();
[[nodiscard]] std::vector<std::string_view> command_names(std::string_view object);

} // namespace tapgate::cli
