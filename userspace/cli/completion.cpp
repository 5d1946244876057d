// SPDX-License-Identifier: Apache-2.0
#include "cli/completion.hpp"

#include "cli/console.hpp"
#include "cli/grammar.hpp"
#include "cli/reply.hpp"
#include "control/client.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <chrono>
#include <iterator>
#include <memory>
#include <ostream>
#include <set>

#include <net/if.h>

namespace tapgate::cli {

namespace json = boost::json;

namespace {

constexpr std::array<std::string_view, 9> kGlobals = {"-j",       "--json",    "-p", "--pretty", "-s",
                                                      "--socket", "--version", "-h", "--help"};
/// Somebody waits for the cursor to move.
constexpr std::chrono::milliseconds kPatience{1000};

/// What an argument can be, by the word that help shows for it.
struct Values {
    std::string_view shown;
    std::vector<std::string_view> words;
    std::string_view live; ///< a kind of LiveNames
    bool files = false;
};

const std::vector<Values>& values() {
    static const std::vector<Values> table = {
        {"GUEST", {}, "guest"},
        {"POLICY", {}, "policy"},
        {"ID", {}, "flow"},
        {"FILE", {}, {}, true},
        {"CASES.jsonl", {}, {}, true},
        {"BEFORE", {}, {}, true},
        {"AFTER", {}, {}, true},
        {"FILE|NAME", {}, "policy", true},
        {"ENGINE", {"user", "kernel", "both"}, {}},
        {"PROTOCOL", {"tcp", "udp", "icmpv4", "icmpv6"}, {}},
        {"KIND", {"tls", "tls-no-sni", "tls-bad", "http", "http-bad", "plain"}, {}},
        {"WHAT", {"cut", "drain=30s", "keep"}, {}},
    };
    return table;
}

std::vector<std::string> interfaces() {
    std::vector<std::string> names;
    const std::unique_ptr<struct if_nameindex, void (*)(struct if_nameindex*)> links(::if_nameindex(),
                                                                                     ::if_freenameindex);
    for (const struct if_nameindex* link = links.get(); link != nullptr && link->if_index != 0; ++link)
        names.emplace_back(link->if_name);
    return names;
}

/// The kind of name that a positional NAME is. The NAME of an option is a domain name.
std::string_view kind_of_name(const Command& command) {
    if (command.object == "guest")
        return command.name == "add" ? "" : "guest";
    return command.object == "policy" ? "policy" : "name";
}

/// `name_kind` is what a NAME would be.
void add_values(std::string_view shown, std::string_view name_kind, const LiveNames& live,
                Completion& result) {
    std::string_view kind;
    if (shown == "IF") {
        std::ranges::move(interfaces(), std::back_inserter(result.words));
    } else if (shown.starts_with("NAME")) {
        kind = name_kind;
    } else if (const auto known = std::ranges::find(values(), shown, &Values::shown);
               known != values().end()) {
        result.words.insert(result.words.end(), known->words.begin(), known->words.end());
        result.files = known->files;
        kind = known->live;
    }
    if (!kind.empty())
        std::ranges::move(live(kind), std::back_inserter(result.words));
}

/// The arguments of a command: `words` is what stands behind its name, the last one being typed.
void add_arguments(const Command& command, std::span<const std::string> words, const LiveNames& live,
                   Completion& result) {
    std::set<std::string_view> given;
    const Option* open = nullptr; // an option whose value comes next, or may come next
    bool needs_value = false;
    std::size_t place = 0;
    for (const std::string& word : words.first(words.size() - 1)) {
        if (open != nullptr && (needs_value || !word.starts_with('-'))) {
            needs_value = false;
            if (!open->repeated)
                open = nullptr;
            continue;
        }
        open = nullptr;
        if (!word.starts_with('-')) {
            ++place;
            continue;
        }
        const auto option = std::ranges::find(command.options, word, &Option::name);
        if (option == command.options.end())
            continue;
        given.insert(option->name);
        if (!option->value.empty()) {
            open = &*option;
            needs_value = true;
        }
    }
    const bool dash = words.back().starts_with('-');
    if (open != nullptr && !dash)
        add_values(open->value, "name", live, result);
    if (needs_value)
        return;
    if (!dash && open == nullptr && place < command.positionals.size()) {
        add_values(command.positionals[place].name, kind_of_name(command), live, result);
        if (command.positionals[place].required)
            return;
    }
    for (const Option& option : command.options)
        if (option.repeated || !given.contains(option.name))
            result.words.emplace_back(option.name);
}

/// A name as a shell can take it. Bound names are the guest's choice.
bool is_harmless(std::string_view name) {
    return !name.empty() && std::ranges::all_of(name, [](unsigned char c) {
        return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.';
    });
}

std::vector<std::string> ask_names(const std::string& socket, std::string_view kind) {
    struct Source {
        std::string_view kind;
        const char* command;
        const char* list;
        const char* member;
    };

    static constexpr std::array<Source, 4> kSources = {{{"guest", "guest show", "guests", "name"},
                                                        {"policy", "policy show", "policies", "name"},
                                                        {"name", "dns show", "bindings", "name"},
                                                        {"flow", "flow show", "flows", "id"}}};
    const auto source = std::ranges::find(kSources, kind, &Source::kind);
    auto client = control::Client::connect(socket);
    if (source == kSources.end() || !client)
        return {};
    const auto reply = client->call(source->command, {}, kPatience);
    if (!reply)
        return {};
    std::set<std::string> names;
    for (const json::value& entry : list(*reply, source->list)) {
        std::string name = cell(as_object(entry), source->member);
        if (is_harmless(name) && name != "-")
            names.insert(std::move(name));
    }
    return {names.begin(), names.end()};
}

} // namespace

Completion complete_line(std::span<const std::string> words, const LiveNames& live) {
    Completion result;
    if (words.empty())
        return result;
    const std::string& typed = words.back();
    std::vector<std::string> rest; // without the global options
    for (std::size_t i = 0; i < words.size(); ++i) {
        const bool last = i + 1 == words.size();
        if (last || std::ranges::find(kGlobals, words[i]) == kGlobals.end()) {
            rest.push_back(words[i]);
        } else if (words[i] == "-s" || words[i] == "--socket") {
            if (++i + 1 == words.size()) {
                result.files = true;
                return result;
            }
        }
    }
    const bool help = rest.size() > 1 && rest.front() == "help";
    const std::span<const std::string> behind = std::span(rest).subspan(help ? 1 : 0);
    if (behind.size() == 1) {
        const auto objects = object_names();
        result.words.assign(objects.begin(), objects.end());
        if (!help)
            result.words.insert(result.words.end(), {"help", "version"});
    } else if (const auto object = complete("object", behind[0], object_names())) {
        const auto names = command_names(*object);
        // An object whose word is the whole command has one command without a name.
        const std::size_t begin = names.front().empty() ? 1 : 2;
        if (behind.size() == begin)
            result.words.assign(names.begin(), names.end());
        else if (const auto command = find_command(*object, begin == 1 ? names.front() : behind[1]);
                 command && !help)
            add_arguments(**command, behind.subspan(begin), live, result);
    }
    if (typed.starts_with('-'))
        result.words.insert(result.words.end(), kGlobals.begin(), kGlobals.end());
    std::erase_if(result.words, [&](const std::string& word) { return !word.starts_with(typed); });
    return result;
}

int print_completion(std::span<const std::string> words, std::ostream& out) {
    std::string socket = Console(out, out).socket;
    for (std::size_t i = 0; i + 1 < words.size(); ++i)
        if (words[i] == "-s" || words[i] == "--socket")
            socket = words[i + 1];
    const Completion completion =
        complete_line(words, [&](std::string_view kind) { return ask_names(socket, kind); });
    for (const std::string& word : completion.words)
        out << word << '\n';
    if (completion.files)
        out << ":\n";
    out.flush();
    return kExitOk;
}

} // namespace tapgate::cli
