// SPDX-License-Identifier: Apache-2.0
#include "cli/run.hpp"

#include "base/log.hpp"
#include "base/version.hpp"
#include "cli/completion.hpp"
#include "cli/console.hpp"
#include "cli/grammar.hpp"
#include "cli/help.hpp"
#include "datapath/requirements.hpp"
#include "net/features.hpp"

#include <boost/json/array.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <optional>
#include <vector>

namespace tapgate::cli {

namespace json = boost::json;

namespace {

bool is_help(std::string_view word) {
    return word == "help" || word == "-h" || word == "--help";
}

bool is_option_with_value(const Command& command, std::string_view word) {
    for (const Option& option : command.options)
        if (option.name == word)
            return !option.value.empty();
    return false;
}

/// What the command line says apart from the command itself.
struct Globals {
    bool help = false;
    bool version = false;
    std::vector<std::string> words; ///< the rest, in order
};

/// Takes the global options out, wherever they stand; those before the command and behind its words. The
/// value of a command's own option is never taken for a global one.
Result<Globals> take_globals(std::span<const std::string> words, Console& console) {
    Globals globals;
    const Command* command = nullptr;
    for (std::size_t i = 0; i < words.size(); ++i) {
        const std::string& word = words[i];
        if (word == "--") {
            globals.words.insert(globals.words.end(), words.begin() + static_cast<std::ptrdiff_t>(i),
                                 words.end());
            break;
        }
        if (word == "-j" || word == "--json") {
            if (console.format == Format::kText)
                console.format = Format::kJson;
        } else if (word == "-p" || word == "--pretty") {
            console.format = Format::kPretty;
        } else if (word == "-V" || word == "--version") {
            globals.version = true;
        } else if (word == "-h" || word == "--help") {
            globals.help = true;
        } else if (word.starts_with("--socket=")) {
            console.socket = word.substr(word.find('=') + 1);
        } else if (word == "-s" || word == "--socket") {
            if (i + 1 == words.size())
                return fail(ErrorCode::kInvalid, fmt::format("{} needs a path", word));
            console.socket = words[++i];
        } else {
            globals.words.push_back(word);
            if (globals.words.size() == 1)
                command = find_whole_command(word);
            if (globals.words.size() == 2 && command == nullptr)
                if (const auto found = find_command(globals.words[0], globals.words[1]))
                    command = *found;
            if (command != nullptr && is_option_with_value(*command, word) && i + 1 < words.size())
                globals.words.push_back(words[++i]);
        }
    }
    return globals;
}

void print_help(Console& console, const std::string& text, const std::vector<std::string>& usage) {
    if (!console.json()) {
        console.print(text);
        return;
    }
    json::object object;
    object["usage"] = json::array(usage.begin(), usage.end());
    console.print(object);
}

/// Help on up to two words: an object and a command.
int help(Console& console, std::span<const std::string> words) {
    if (words.empty()) {
        print_help(console, help_text(), usage_lines({}));
        return kExitOk;
    }
    if (words.size() == 1 && find_whole_command(words[0]) == nullptr) {
        const auto object = complete("object", words[0], object_names());
        if (!object)
            return console.usage(object.error().message());
        print_help(console, help_text(*object), usage_lines(*object));
        return kExitOk;
    }
    const auto command = find_command(words[0], words.back());
    if (!command)
        return console.usage(command.error().message());
    print_help(console, help_text(**command), {usage_line(**command)});
    return kExitOk;
}

int version(Console& console) {
    std::vector<std::string> features = datapath::built_with();
    std::ranges::move(net::built_with(), std::back_inserter(features));
    if (console.json()) {
        json::object object;
        object["version"] = tapgate::version();
        object["built_with"] = json::array(features.begin(), features.end());
        console.print(object);
    } else {
        console.print(version_text("tapgate", features));
    }
    return kExitOk;
}

} // namespace

int run(std::span<const std::string> arguments, std::ostream& out, std::ostream& err) {
    if (!arguments.empty() && arguments[0] == "--complete")
        return print_completion(arguments.subspan(1), out);
    Console console(out, err);
    auto globals = take_globals(arguments, console);
    if (!globals)
        return console.usage(globals.error().message());
    const std::span<const std::string> words = globals->words;

    if (globals->version || (words.size() == 1 && words[0] == "version"))
        return version(console);
    // "help" may stand before, between or behind the words: `help guest`, `guest help`, `guest add help`.
    if (!words.empty() && is_help(words[0]))
        return help(console, words.subspan(1, std::min<std::size_t>(words.size() - 1, 2)));
    if (words.size() >= 2 && is_help(words[1]))
        return help(console, words.first(1));
    if (globals->help || (words.size() == 3 && words[2] == "help" && find_whole_command(words[0]) == nullptr))
        return help(console, words.first(std::min<std::size_t>(words.size(), 2)));

    if (words.empty())
        return console.usage("an object and a command are missing");
    if (words[0].starts_with('-'))
        return console.usage(fmt::format("unknown option '{}'", printable(words[0], 80)));
    const bool is_whole = find_whole_command(words[0]) != nullptr;
    if (words.size() == 1 && !is_whole) {
        const auto object = complete("object", words[0], object_names());
        if (!object)
            return console.usage(object.error().message());
        std::string names;
        for (const std::string_view name : command_names(*object))
            names += fmt::format("{}{}", names.empty() ? "" : ", ", name);
        return console.usage(fmt::format("a command of '{}' is missing: {}", *object, names), *object);
    }
    const auto command = find_command(words[0], is_whole ? std::string_view() : words[1]);
    if (!command)
        return console.usage(command.error().message());
    const auto parsed = parse_arguments(**command, words.subspan(is_whole ? 1 : 2));
    if (!parsed)
        return console.usage(parsed.error().message(), full_name(**command));
    return (*command)->run(console, *parsed);
}

} // namespace tapgate::cli
