// SPDX-License-Identifier: Apache-2.0
#include "daemon/config.hpp"

#include "base/log.hpp"
#include "policy/document.hpp"
#include "policy/groups.hpp"
#include "policy/policy_words.hpp"
#include "tapgate/bpf_abi.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <expected>
#include <filesystem>
#include <functional>
#include <thread>
#include <utility>

#include <net/if.h>
#include <sys/un.h>

namespace tapgate::daemon {

using policy::DocumentMember;
using policy::DocumentNode;
using policy::SourceLocation;

namespace {

constexpr std::size_t kMaxConfigBytes = std::size_t{4} << 20U;
constexpr std::size_t kMaxString = 4096;
constexpr std::size_t kMaxSocketPath = sizeof(sockaddr_un::sun_path) - 1;
constexpr std::uint16_t kDnsPort = 53;
constexpr std::string_view kInterfaceMark = "%i";
/// Names of guests and policies stand in file names, log lines and map dumps.
constexpr std::size_t kMaxName = 63;
/// A glob may be longer than the names it matches.
constexpr std::size_t kMaxGlob = 31;

constexpr policy::Words<LogFormat, 2> kLogFormats = {{
    {"text", LogFormat::kText},
    {"json", LogFormat::kJson},
}};

constexpr std::array<std::string_view, 4> kLogLevels = {"debug", "info", "warn", "error"};

std::unexpected<Error> invalid(std::string message) {
    return fail(ErrorCode::kInvalid, std::move(message));
}

// --- what a text may be ----------------------------------------------------------------------------

Result<void> check_name(std::string_view what, std::string_view name) {
    constexpr std::string_view kLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    constexpr std::string_view kMarks = "0123456789-_.";
    const auto legal = [&](char c) {
        return kLetters.find(c) != std::string_view::npos || kMarks.find(c) != std::string_view::npos;
    };
    if (name.empty() || name.size() > kMaxName || !std::ranges::all_of(name, legal) || name.front() == '-' ||
        name.front() == '.')
        return invalid(fmt::format("'{}' cannot name a {}; use 1 to {} letters, digits, '-', '_' and '.', "
                                   "not beginning with '-' or '.'",
                                   printable(name, 80), what, kMaxName));
    return {};
}

Result<void> check_path(std::string_view path, std::size_t most) {
    if (!path.starts_with('/'))
        return invalid(fmt::format("'{}' is not an absolute path", printable(path, 80)));
    if (path.size() > most)
        return invalid(fmt::format("the path has {} bytes; at most {} are possible", path.size(), most));
    return {};
}

bool is_wild(char c) {
    return c == '*' || c == '?';
}

/// Whether `pattern`, with * and ?, matches the whole of `text`. Backtracks to the last * only, so its time
/// is at most the product of the lengths.
bool glob_matches(std::string_view pattern, std::string_view text) {
    std::size_t p = 0;
    std::size_t t = 0;
    std::size_t star = std::string_view::npos;
    std::size_t retry = 0; // where in text the last * ends
    while (t < text.size()) {
        if (p < pattern.size() && pattern[p] == '*') {
            star = p++;
            retry = t;
        } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t])) {
            ++p;
            ++t;
        } else if (star != std::string_view::npos) {
            p = star + 1;
            t = ++retry;
        } else {
            return false;
        }
    }
    return pattern.find_first_not_of('*', p) == std::string_view::npos;
}

Result<void> check_interface(std::string_view name) {
    const bool glob = std::ranges::any_of(name, is_wild);
    const std::size_t most = glob ? kMaxGlob : IFNAMSIZ - 1;
    const bool legal = !name.empty() && name.size() <= most && name != "." && name != ".." &&
                       std::ranges::all_of(name, [](char c) { return c > 0x20 && c < 0x7f && c != '/'; });
    if (!legal)
        return invalid(fmt::format("'{}' cannot name an interface; use 1 to {} printable characters without "
                                   "'/' and spaces",
                                   printable(name, 80), most));
    if (name == "lo")
        return invalid("'lo' cannot be a guest's interface; name the tap of the microVM");
    // Such a glob would take the host's own links, and with them its connectivity.
    if (std::ranges::all_of(name, is_wild))
        return invalid(fmt::format("'{}' matches every interface of the host; begin it with what the taps' "
                                   "names have in common, such as \"tap*\"",
                                   name));
    return {};
}

/// A unicast address that a guest or its gateway can have.
Result<IpAddress> parse_unicast(std::string_view text) {
    const auto address = IpAddress::parse(text);
    if (!address) {
        const auto prefix = IpPrefix::parse(text.substr(0, text.find('/')));
        if (prefix && text.find('/') != std::string_view::npos)
            return invalid(fmt::format("'{}' is a block; write the address alone, \"{}\"",
                                       printable(text, 80), prefix->address().to_string()));
        return invalid(fmt::format("'{}' is not an IP address", printable(text, 80)));
    }
    const policy::BuiltinGroup group = policy::builtin_group_of(*address);
    if (policy::is_always_refused(*address) || group == policy::BuiltinGroup::kLoopback ||
        group == policy::BuiltinGroup::kMulticast)
        return invalid(fmt::format("{} cannot be the address of a guest or its gateway; a unicast address is "
                                   "expected",
                                   address->to_string()));
    return *address;
}

Result<Endpoint> parse_upstream(std::string_view text) {
    std::string_view host = text;
    if (host.size() > 2 && host.front() == '[' && host.back() == ']')
        host = host.substr(1, host.size() - 2);
    std::optional<Endpoint> endpoint = Endpoint::parse(text);
    if (const auto address = IpAddress::parse(host))
        endpoint = Endpoint{*address, kDnsPort};
    if (!endpoint)
        return invalid(fmt::format("'{}' is not a resolver's address; a host name cannot be used here, write "
                                   "\"192.0.2.53\" or \"[2001:db8::53]:5353\"",
                                   printable(text, 80)));
    if (endpoint->port == 0)
        return invalid(fmt::format("'{}' has port 0", printable(text, 80)));
    if (policy::is_always_refused(endpoint->address) ||
        policy::builtin_group_of(endpoint->address) == policy::BuiltinGroup::kMulticast)
        return invalid(fmt::format("{} cannot be a resolver's address", endpoint->address.to_string()));
    return *endpoint;
}

// --- a guest's declaration, from the file or from `guest add` ---------------------------------------

Result<void> set_name(GuestConfig& guest, std::string name) {
    std::string without_mark = name;
    if (const std::size_t mark = name.find(kInterfaceMark); mark != std::string::npos)
        without_mark.replace(mark, kInterfaceMark.size(), "i");
    if (without_mark.find(kInterfaceMark) != std::string::npos)
        return invalid(fmt::format("'{}' contains %i more than once", printable(name, 80)));
    if (auto legal = check_name("guest", without_mark); !legal)
        return legal;
    guest.name = std::move(name);
    return {};
}

Result<void> set_interface(GuestConfig& guest, std::string interface) {
    if (auto legal = check_interface(interface); !legal)
        return legal;
    guest.interface = std::move(interface);
    return {};
}

Result<void> add_address(std::vector<IpAddress>& into, std::string_view text, std::size_t most) {
    const auto address = parse_unicast(text);
    if (!address)
        return fail(address.error());
    if (std::ranges::find(into, *address) != into.end())
        return invalid(fmt::format("{} is listed twice", address->to_string()));
    if (into.size() == most)
        return invalid(fmt::format("more than {} addresses", most));
    into.push_back(*address);
    return {};
}

Result<void> set_mac(GuestConfig& guest, std::string_view text) {
    const auto mac = parse_mac(text);
    if (!mac)
        return fail(mac.error());
    guest.mac = *mac;
    return {};
}

Result<void> set_policy(GuestConfig& guest, std::string policy) {
    if (auto legal = check_name("policy", policy); !legal)
        return legal;
    guest.policy = std::move(policy);
    return {};
}

/// What can only be said once all fields are there.
Result<void> check_guest(const GuestConfig& guest) {
    const auto missing = [](std::string_view field, std::string_view example) {
        return invalid(fmt::format("'{}' is missing; write for example {} = {}", field, field, example));
    };
    if (guest.name.empty())
        return missing("name", "\"vm1\"");
    if (guest.interface.empty())
        return missing("interface", "\"tap0\"");
    if (guest.addresses.empty())
        return missing("addresses", "[\"192.0.2.2\", \"2001:db8::2\"]");
    if (guest.policy.empty())
        return missing("policy", "\"default\" (with a section [policy.default])");
    const bool marked = guest.name.find(kInterfaceMark) != std::string::npos;
    if (guest.is_glob() && !marked)
        return invalid(fmt::format("the name of a guest on interfaces '{}' must contain %i, which stands for "
                                   "the interface; write for example \"{}-%i\"",
                                   guest.interface, guest.name));
    if (!guest.is_glob() && marked)
        return invalid(fmt::format("the name '{}' contains %i, but its interface '{}' is not a glob",
                                   guest.name, guest.interface));
    for (const IpAddress& gateway : guest.gateways)
        if (std::ranges::find(guest.addresses, gateway) != guest.addresses.end())
            return invalid(fmt::format("{} is both an address and a gateway of guest '{}'",
                                       gateway.to_string(), guest.name));
    return {};
}

// --- values of the file, with their places ---------------------------------------------------------

/// What is wrong, and where.
struct Problem {
    SourceLocation where;
    std::string what;
};

template <typename T>
using Read = std::expected<T, Problem>;

std::unexpected<Problem> problem(SourceLocation where, std::string what) {
    return std::unexpected(Problem{where, std::move(what)});
}

std::unexpected<Problem> wrong_type(const DocumentNode& node, std::string_view expected) {
    return problem(node.location, fmt::format("{} where {} is expected", node.type_name(), expected));
}

/// The outcome of a check of `node`'s text, with the place.
Read<void> placed(const DocumentNode& node, Result<void> outcome) {
    if (!outcome)
        return problem(node.location, outcome.error().message());
    return {};
}

Read<std::string> read_string(const DocumentNode& node) {
    const std::string* text = node.string();
    if (text == nullptr)
        return wrong_type(node, "a string");
    if (text->empty())
        return problem(node.location, "the string is empty");
    const auto is_control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; };
    if (text->size() > kMaxString || std::ranges::any_of(*text, is_control))
        return problem(node.location,
                       fmt::format("the string has control characters or more than {} bytes", kMaxString));
    return *text;
}

Read<std::int64_t> read_number(const DocumentNode& node, std::int64_t least, std::int64_t most) {
    const std::int64_t* number = node.integer();
    if (number == nullptr)
        return wrong_type(node, fmt::format("a whole number from {} to {}", least, most));
    if (*number < least || *number > most)
        return problem(node.location, fmt::format("{} is out of range ({} to {})", *number, least, most));
    return *number;
}

/// Hands each string of a list to `accept`.
Read<void> read_strings(const DocumentNode& node,
                        const std::function<Result<void>(const std::string&)>& accept) {
    const DocumentNode::Array* list = node.array();
    if (list == nullptr)
        return wrong_type(node, "a list of strings");
    for (const DocumentNode& element : *list) {
        const auto text = read_string(element);
        if (!text)
            return std::unexpected(text.error());
        if (auto done = placed(element, accept(*text)); !done)
            return done;
    }
    return {};
}

/// A key that a table may have, and what is done with its value.
struct Field {
    std::string_view key;
    std::function<Read<void>(const DocumentNode&)> read;
};

/// Hands each member of a table to its field. Messages begin with the key, and so with the path to it.
Read<void> read_table(const DocumentNode& node, const std::vector<Field>& fields) {
    const DocumentNode::Table* table = node.table();
    if (table == nullptr)
        return wrong_type(node, "a table");
    for (const DocumentMember& member : *table) {
        const auto field = std::ranges::find(fields, member.key, &Field::key);
        if (field == fields.end()) {
            std::vector<std::string_view> valid;
            for (const Field& known : fields)
                valid.push_back(known.key);
            return problem(member.location, policy::unknown_word("key", member.key, valid));
        }
        if (const auto done = field->read(member.value); !done)
            return problem(done.error().where, fmt::format("{}: {}", member.key, done.error().what));
    }
    return {};
}

/// A number in the type of `into`, or of the unit of a chrono type, which the key names.
template <typename Number>
Field number_field(std::string_view key, Number& into, std::int64_t least, std::int64_t most) {
    const auto read = [&into, least, most](const DocumentNode& node) -> Read<void> {
        const auto number = read_number(node, least, most);
        if (!number)
            return std::unexpected(number.error());
        into = static_cast<Number>(*number);
        return {};
    };
    return {key, read};
}

Field string_field(std::string_view key, std::function<Result<void>(const std::string&)> accept) {
    const auto read = [accept = std::move(accept)](const DocumentNode& node) -> Read<void> {
        const auto text = read_string(node);
        if (!text)
            return std::unexpected(text.error());
        return placed(node, accept(*text));
    };
    return {key, read};
}

Field flag_field(std::string_view key, bool& into) {
    const auto read = [&into](const DocumentNode& node) -> Read<void> {
        const bool* flag = node.boolean();
        if (flag == nullptr)
            return wrong_type(node, "true or false");
        into = *flag;
        return {};
    };
    return {key, read};
}

Field strings_field(std::string_view key, std::function<Result<void>(const std::string&)> accept) {
    const auto read = [accept = std::move(accept)](const DocumentNode& node) {
        return read_strings(node, accept);
    };
    return {key, read};
}

Field path_field(std::string_view key, std::string& into, std::size_t most = kMaxString) {
    return string_field(key, [&into, most](const std::string& text) -> Result<void> {
        if (auto legal = check_path(text, most); !legal)
            return legal;
        into = text;
        return {};
    });
}

// --- sections --------------------------------------------------------------------------------------

Read<void> read_daemon(const DocumentNode& node, DaemonSettings& daemon) {
    const auto route_table = [&daemon](const DocumentNode& value) -> Read<void> {
        const auto table = read_number(value, 1, UINT32_MAX);
        if (!table)
            return std::unexpected(table.error());
        if (*table >= 253 && *table <= 255)
            return problem(value.location, fmt::format("{} is one of the kernel's own tables (default, main, "
                                                       "local); choose another, such as 29793",
                                                       *table));
        daemon.route_table = static_cast<std::uint32_t>(*table);
        return {};
    };
    const auto metrics_listen = [&daemon](const DocumentNode& value) -> Read<void> {
        daemon.metrics_listen.reset();
        if (value.string() != nullptr && value.string()->empty())
            return {};
        const auto text = read_string(value);
        if (!text)
            return std::unexpected(text.error());
        daemon.metrics_listen = Endpoint::parse(*text);
        if (!daemon.metrics_listen || daemon.metrics_listen->port == 0)
            return problem(
                value.location,
                fmt::format("'{}' is not an address with a port; write \"127.0.0.1:9664\", or \"\" "
                            "to serve no metrics",
                            printable(*text, 80)));
        return {};
    };
    const auto splice = [&daemon](const std::string& word) -> Result<void> {
        const auto mode = policy::find_word("way to splice", word, policy::kSpliceWords);
        if (!mode)
            return fail(mode.error());
        daemon.splice = *mode;
        return {};
    };
    return read_table(node, {number_field("workers", daemon.workers, 1, TG_WORKERS_MAX),
                             path_field("control_socket", daemon.control_socket, kMaxSocketPath),
                             string_field("control_group",
                                          [&daemon](const std::string& group) -> Result<void> {
                                              daemon.control_group = group;
                                              return {};
                                          }),
                             path_field("pin_dir", daemon.pin_dir),
                             number_field("mark", daemon.mark, 1, UINT32_MAX),
                             {"route_table", route_table},
                             {"metrics_listen", metrics_listen},
                             string_field("splice", splice),
                             flag_field("sandbox", daemon.sandbox)});
}

Read<void> read_log(const DocumentNode& node, LogSettings& log) {
    const auto level = [&log](const std::string& word) -> Result<void> {
        if (std::ranges::find(kLogLevels, word) == kLogLevels.end())
            return invalid(policy::unknown_word("level", word, kLogLevels));
        log.level = word;
        return {};
    };
    const auto format = [&log](const std::string& word) -> Result<void> {
        const auto known = policy::find_word("format", word, kLogFormats);
        if (!known)
            return fail(known.error());
        log.format = *known;
        return {};
    };
    std::size_t mib = log.flows.bytes >> 20U;
    auto done = read_table(node, {string_field("level", level), string_field("format", format),
                                  path_field("flow_file", log.flows.file),
                                  number_field("flow_file_mib", mib, 1, 4096),
                                  number_field("flow_files", log.flows.files, 1, 1000),
                                  path_field("flow_syslog", log.flows.syslog, kMaxSocketPath)});
    log.flows.bytes = mib << 20U;
    return done;
}

Read<void> read_dns(const DocumentNode& node, DnsSettings& dns) {
    const auto upstream = [&dns](const std::string& text) -> Result<void> {
        const auto endpoint = parse_upstream(text);
        if (!endpoint)
            return fail(endpoint.error());
        if (std::ranges::find(dns.upstreams, *endpoint) != dns.upstreams.end())
            return invalid(fmt::format("{} is listed twice", endpoint->to_string()));
        dns.upstreams.push_back(*endpoint);
        return {};
    };
    constexpr std::int64_t kWeek = std::int64_t{7} * 86400;
    const auto done = read_table(
        node, {strings_field("upstreams", upstream), path_field("resolv_conf", dns.resolv_conf),
               number_field("min_ttl", dns.min_ttl, 0, kWeek), number_field("max_ttl", dns.max_ttl, 1, kWeek),
               number_field("timeout_ms", dns.timeout, 50, 30'000)});
    if (done && dns.min_ttl > dns.max_ttl)
        return problem(node.location, fmt::format("min_ttl ({} s) is longer than max_ttl ({} s)",
                                                  dns.min_ttl.count(), dns.max_ttl.count()));
    return done;
}

Read<void> read_limits(const DocumentNode& node, LimitSettings& limits) {
    return read_table(node, {number_field("sessions", limits.sessions, 1, 65536),
                             number_field("half_open", limits.half_open, 1, TG_PENDING_MAX),
                             number_field("bindings", limits.bindings, 1, TG_BINDINGS_MAX),
                             number_field("dns_qps", limits.dns_qps, 1, 100'000),
                             number_field("dns_in_flight", limits.dns_in_flight, 1, TG_DNS_PENDING_MAX),
                             number_field("dns_connections", limits.dns_connections, 1, 1024)});
}

Read<void> read_timers(const DocumentNode& node, TimerSettings& timers) {
    constexpr std::int64_t kMonth = std::int64_t{30} * 86400;
    return read_table(node, {number_field("peek_ms", timers.peek, 1, 60'000),
                             number_field("server_first_ms", timers.server_first, 1, 60'000),
                             number_field("connect_ms", timers.connect, 1, 300'000),
                             number_field("idle_s", timers.idle, 1, kMonth),
                             number_field("half_closed_s", timers.half_closed, 1, kMonth),
                             number_field("dns_idle_ms", timers.dns_idle, 100, 600'000),
                             number_field("drain_s", timers.drain, 0, 3600),
                             number_field("peek_bytes", timers.peek_bytes, 1024, 262'144)});
}

Read<void> read_groups(const DocumentNode& node, policy::GroupTable& groups) {
    const DocumentNode::Table* table = node.table();
    if (table == nullptr)
        return wrong_type(node, "a table of group names and their blocks");
    for (const DocumentMember& member : *table) {
        if (const auto legal = policy::check_group_name(member.key); !legal)
            return problem(member.location, legal.error().message());
        std::vector<IpPrefix>& blocks = groups[member.key];
        const auto block = [&blocks](const std::string& text) -> Result<void> {
            const auto prefix = IpPrefix::parse(text);
            if (!prefix)
                return fail(prefix.error());
            blocks.push_back(*prefix);
            return {};
        };
        if (const auto done = read_strings(member.value, block); !done)
            return problem(done.error().where, fmt::format("{}: {}", member.key, done.error().what));
    }
    return {};
}

Read<void> read_policies(const DocumentNode& node, const std::filesystem::path& directory,
                         std::vector<PolicyConfig>& policies) {
    const DocumentNode::Table* table = node.table();
    if (table == nullptr)
        return wrong_type(node, "[policy.NAME] with file = \"NAME.toml\"");
    for (const DocumentMember& member : *table) {
        if (const auto legal = check_name("policy", member.key); !legal)
            return problem(member.location, legal.error().message());
        PolicyConfig policy;
        policy.name = member.key;
        const auto file = [&](const std::string& path) -> Result<void> {
            policy.file = (directory / path).lexically_normal().string();
            return {};
        };
        if (const auto done =
                read_table(member.value, {string_field("file", file), flag_field("watch", policy.watch)});
            !done)
            return problem(done.error().where, fmt::format("{}: {}", member.key, done.error().what));
        if (policy.file.empty())
            return problem(member.location, fmt::format("{0}: 'file' is missing; write for example file = "
                                                        "\"{0}.toml\"",
                                                        member.key));
        policies.push_back(std::move(policy));
    }
    return {};
}

/// A guest and the places to which messages about it point.
struct PlacedGuest {
    GuestConfig guest;
    SourceLocation table;
    SourceLocation policy;
};

Read<PlacedGuest> read_guest(const DocumentNode& node) {
    PlacedGuest result{.guest = {}, .table = node.location, .policy = node.location};
    GuestConfig& guest = result.guest;
    const auto policy = [&](const DocumentNode& value) -> Read<void> {
        const auto text = read_string(value);
        if (!text)
            return std::unexpected(text.error());
        result.policy = value.location;
        return placed(value, set_policy(guest, *text));
    };
    const std::vector<Field> fields = {
        string_field("name", [&](const std::string& text) { return set_name(guest, text); }),
        string_field("interface", [&](const std::string& text) { return set_interface(guest, text); }),
        strings_field(
            "addresses",
            [&](const std::string& text) { return add_address(guest.addresses, text, TG_GUEST_ADDRESSES); }),
        strings_field(
            "gateways",
            [&](const std::string& text) { return add_address(guest.gateways, text, TG_GUEST_GATEWAYS); }),
        string_field("mac", [&](const std::string& text) { return set_mac(guest, text); }),
        {"policy", policy},
    };
    if (const auto done = read_table(node, fields); !done)
        return std::unexpected(done.error());
    if (const auto done = placed(node, check_guest(guest)); !done)
        return std::unexpected(done.error());
    return result;
}

Read<void> read_guests(const DocumentNode& node, std::vector<PlacedGuest>& guests) {
    const DocumentNode::Array* list = node.array();
    if (list == nullptr)
        return wrong_type(node, "[[guest]], in double brackets,");
    if (list->size() > TG_GUESTS_MAX)
        return problem(node.location, fmt::format("more than {} guests", int{TG_GUESTS_MAX}));
    for (const DocumentNode& element : *list) {
        auto guest = read_guest(element);
        if (!guest)
            return std::unexpected(guest.error());
        guests.push_back(std::move(*guest));
    }
    return {};
}

/// What one part of the file says about another.
Read<void> check_references(const std::vector<PlacedGuest>& guests,
                            const std::vector<PolicyConfig>& policies) {
    std::vector<std::string_view> names;
    for (const PolicyConfig& policy : policies)
        names.push_back(policy.name);
    // Quadratic in at most TG_GUESTS_MAX guests, and only at start.
    for (std::size_t i = 0; i < guests.size(); ++i) {
        const PlacedGuest& placed_guest = guests[i];
        for (std::size_t j = 0; j < i; ++j)
            if (const auto distinct = check_distinct(placed_guest.guest, guests[j].guest); !distinct)
                return problem(placed_guest.table,
                               fmt::format("guest: {} (the other is at line {})", distinct.error().message(),
                                           guests[j].table.line));
        if (names.empty())
            return problem(placed_guest.policy,
                           fmt::format("guest: policy: there is no policy '{0}'; add [policy.{0}] with file "
                                       "= \"{0}.toml\"",
                                       placed_guest.guest.policy));
        if (std::ranges::find(names, placed_guest.guest.policy) == names.end())
            return problem(placed_guest.policy,
                           fmt::format("guest: policy: {}",
                                       policy::unknown_word("policy", placed_guest.guest.policy, names)));
    }
    return {};
}

Read<Config> read_config(const DocumentNode& root, const std::filesystem::path& directory) {
    Config config;
    config.daemon.workers = std::clamp(std::thread::hardware_concurrency(), 1U, unsigned{TG_WORKERS_MAX});
    std::vector<PlacedGuest> guests;
    const std::vector<Field> sections = {
        {"daemon", [&](const DocumentNode& node) { return read_daemon(node, config.daemon); }},
        {"log", [&](const DocumentNode& node) { return read_log(node, config.log); }},
        {"dns", [&](const DocumentNode& node) { return read_dns(node, config.dns); }},
        {"limits", [&](const DocumentNode& node) { return read_limits(node, config.limits); }},
        {"timers", [&](const DocumentNode& node) { return read_timers(node, config.timers); }},
        {"groups", [&](const DocumentNode& node) { return read_groups(node, config.groups); }},
        {"guest", [&](const DocumentNode& node) { return read_guests(node, guests); }},
        {"policy", [&](const DocumentNode& node) { return read_policies(node, directory, config.policies); }},
    };
    if (const auto done = read_table(root, sections); !done)
        return std::unexpected(done.error());
    if (const auto done = check_references(guests, config.policies); !done)
        return std::unexpected(done.error());
    for (PlacedGuest& placed_guest : guests)
        config.guests.push_back(std::move(placed_guest.guest));
    return config;
}

} // namespace

bool GuestConfig::is_glob() const {
    return std::ranges::any_of(interface, is_wild);
}

bool GuestConfig::matches(std::string_view interface_name) const {
    return glob_matches(interface, interface_name);
}

std::string GuestConfig::name_on(std::string_view interface_name) const {
    std::string result = name;
    if (const std::size_t mark = result.find(kInterfaceMark); mark != std::string::npos)
        result.replace(mark, kInterfaceMark.size(), interface_name);
    return result;
}

Result<Config> parse_config(std::string_view text, std::string_view file) {
    if (text.size() > kMaxConfigBytes)
        return invalid(fmt::format("{}: {} bytes are too many for a configuration (at most {})", file,
                                   text.size(), kMaxConfigBytes));
    const auto root = policy::read_toml_document(text, file);
    if (!root)
        return fail(root.error());
    auto config = read_config(*root, std::filesystem::path(file).parent_path());
    if (!config)
        return fail(policy::error_at(file, config.error().where, config.error().what));
    return std::move(*config);
}

Result<GuestConfig> make_guest(const GuestFields& fields) {
    GuestConfig guest;
    const auto in_field = [](std::string_view field, const Result<void>& done) {
        return fail(done.error().with_context(field));
    };
    if (const auto done = set_name(guest, fields.name); !done)
        return in_field("name", done);
    if (const auto done = set_interface(guest, fields.interface); !done)
        return in_field("interface", done);
    for (const std::string& address : fields.addresses)
        if (const auto done = add_address(guest.addresses, address, TG_GUEST_ADDRESSES); !done)
            return in_field("address", done);
    for (const std::string& gateway : fields.gateways)
        if (const auto done = add_address(guest.gateways, gateway, TG_GUEST_GATEWAYS); !done)
            return in_field("gateway", done);
    if (!fields.mac.empty())
        if (const auto done = set_mac(guest, fields.mac); !done)
            return in_field("mac", done);
    if (const auto done = set_policy(guest, fields.policy); !done)
        return in_field("policy", done);
    if (const auto done = check_guest(guest); !done)
        return fail(done.error());
    return guest;
}

Result<void> check_distinct(const GuestConfig& guest, const GuestConfig& other) {
    const auto taken = [&](std::string_view what, std::string_view value) {
        return fail(ErrorCode::kExists, fmt::format("guest '{}': {} {} belongs to guest '{}' already",
                                                    guest.name, what, value, other.name));
    };
    if (guest.name == other.name)
        return fail(ErrorCode::kExists, fmt::format("there is a guest '{}' already", guest.name));
    if (guest.interface == other.interface)
        return taken("interface", guest.interface);
    for (const IpAddress& address : guest.addresses)
        if (std::ranges::find(other.addresses, address) != other.addresses.end())
            return taken("address", address.to_string());
    return {};
}

Result<MacAddress> parse_mac(std::string_view text) {
    MacAddress mac{};
    constexpr std::size_t kTextLength = 17; // six pairs of digits and five colons
    bool legal = text.size() == kTextLength;
    for (std::size_t i = 0; legal && i < mac.size(); ++i) {
        const char* pair = text.data() + i * 3;
        const auto parsed = std::from_chars(pair, pair + 2, mac.at(i), 16);
        legal = parsed.ec == std::errc() && parsed.ptr == pair + 2 && (i == 5 || pair[2] == ':');
    }
    if (!legal)
        return invalid(fmt::format("'{}' is not a MAC address; write it like \"02:00:5e:00:53:01\"",
                                   printable(text, 80)));
    if ((mac[0] & 1U) != 0 || mac == MacAddress{})
        return invalid(fmt::format("{} is not the address of one machine; its first byte must be even and "
                                   "not all may be zero",
                                   format_mac(mac)));
    return mac;
}

std::string format_mac(const MacAddress& mac) {
    return fmt::format("{:02x}", fmt::join(mac, ":"));
}

} // namespace tapgate::daemon
