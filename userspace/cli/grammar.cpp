// SPDX-License-Identifier: Apache-2.0
#include "cli/grammar.hpp"

#include "base/log.hpp"
#include "policy/words.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <optional>

namespace tapgate::cli {

namespace {

std::unexpected<Error> usage(std::string message) {
    return fail(ErrorCode::kInvalid, std::move(message));
}

bool is_option(std::string_view word) {
    return word.size() > 1 && word.front() == '-';
}

Result<const Option*> find_option(const Command& command, std::string_view name) {
    const auto found = std::ranges::find(command.options, name, &Option::name);
    if (found != command.options.end())
        return &*found;
    if (command.options.empty())
        return usage(fmt::format("'{}' takes no option '{}'", full_name(command), printable(name, 80)));
    std::vector<std::string_view> valid;
    for (const Option& option : command.options)
        valid.push_back(option.name);
    return usage(policy::unknown_word("option", name, valid));
}

/// Reads the option at the front of `words` with its values; returns how many words that were.
Result<std::size_t> take_option(const Command& command, std::span<const std::string> words,
                                Arguments& arguments) {
    const std::string_view word = words.front();
    const std::size_t equals = word.find('=');
    const auto option = find_option(command, word.substr(0, equals));
    if (!option)
        return fail(option.error());
    const Option& known = **option;
    if (arguments.has(known.name) && !known.repeated)
        return usage(fmt::format("{} is given twice", known.name));
    if (known.value.empty()) {
        if (equals != std::string_view::npos)
            return usage(fmt::format("{} takes no value", known.name));
        arguments.add(known.name, "");
        return std::size_t{1};
    }
    if (equals != std::string_view::npos) {
        arguments.add(known.name, std::string(word.substr(equals + 1)));
        return std::size_t{1};
    }
    if (words.size() < 2)
        return usage(fmt::format("{} needs a value: {} {}", known.name, known.name, known.value));
    arguments.add(known.name, words[1]);
    std::size_t taken = 2;
    while (known.repeated && taken < words.size() && !is_option(words[taken]))
        arguments.add(known.name, words[taken++]);
    return taken;
}

} // namespace

std::string Arguments::get(std::string_view name) const {
    const auto& values = all(name);
    return values.empty() ? std::string() : values.front();
}

const std::vector<std::string>& Arguments::all(std::string_view name) const {
    static const std::vector<std::string> none;
    const auto found = values_.find(name);
    return found == values_.end() ? none : found->second;
}

Result<std::string_view> complete(std::string_view what, std::string_view word,
                                  std::span<const std::string_view> valid) {
    std::vector<std::string_view> candidates;
    for (const std::string_view candidate : valid) {
        if (candidate == word)
            return candidate;
        if (!word.empty() && candidate.starts_with(word))
            candidates.push_back(candidate);
    }
    if (candidates.size() == 1)
        return candidates.front();
    if (candidates.empty())
        return usage(policy::unknown_word(what, word, valid));
    return usage(fmt::format("{} '{}' is ambiguous: {}", what, word, fmt::join(candidates, ", ")));
}

std::vector<std::string_view> object_names() {
    std::vector<std::string_view> names;
    for (const Command& command : commands())
        if (names.empty() || names.back() != command.object)
            names.push_back(command.object);
    return names;
}

std::vector<std::string_view> command_names(std::string_view object) {
    std::vector<std::string_view> names;
    for (const Command& command : commands())
        if (command.object == object)
            names.push_back(command.name);
    return names;
}

std::string full_name(const Command& command) {
    return command.name.empty() ? std::string(command.object)
                                : fmt::format("{} {}", command.object, command.name);
}

const Command* find_whole_command(std::string_view object) {
    const auto whole_object = complete("object", object, object_names());
    if (!whole_object)
        return nullptr;
    const auto found = std::ranges::find_if(commands(), [&](const Command& command) {
        return command.object == *whole_object && command.name.empty();
    });
    return found == commands().end() ? nullptr : &*found;
}

Result<const Command*> find_command(std::string_view object, std::string_view name) {
    const auto whole_object = complete("object", object, object_names());
    if (!whole_object)
        return fail(whole_object.error());
    if (const Command* whole = find_whole_command(*whole_object))
        return whole;
    const auto whole_name =
        complete(fmt::format("command of '{}'", *whole_object), name, command_names(*whole_object));
    if (!whole_name)
        return fail(whole_name.error());
    for (const Command& command : commands())
        if (command.object == *whole_object && command.name == *whole_name)
            return &command;
    TAPGATE_ASSERT(!"the names come from the table");
    return nullptr;
}

Result<Arguments> parse_arguments(const Command& command, std::span<const std::string> words) {
    Arguments arguments;
    std::size_t place = 0;
    bool only_positionals = false; // after "--"
    for (std::size_t i = 0; i < words.size();) {
        const std::string& word = words[i];
        if (!only_positionals && word == "--") {
            only_positionals = true;
            ++i;
        } else if (!only_positionals && is_option(word)) {
            const auto taken = take_option(command, words.subspan(i), arguments);
            if (!taken)
                return fail(taken.error());
            i += *taken;
        } else if (place < command.positionals.size()) {
            arguments.add(command.positionals[place++].name, word);
            ++i;
        } else {
            return usage(fmt::format("'{}' is one argument too many for '{}'", printable(word, 80),
                                     full_name(command)));
        }
    }
    for (const Positional& positional : command.positionals)
        if (positional.required && !arguments.has(positional.name))
            return usage(fmt::format("'{}' needs {}", full_name(command), positional.name));
    for (const Option& option : command.options)
        if (option.required && !arguments.has(option.name))
            return usage(fmt::format("'{}' needs {} {}", full_name(command), option.name, option.value));
    return arguments;
}

} // namespace tapgate::cli
