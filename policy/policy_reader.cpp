// SPDX-License-Identifier: Apache-2.0
#include "policy/policy_reader.hpp"

#include "policy/doh_names.hpp"
#include "policy/groups.hpp"
#include "policy/parse.hpp"
#include "policy/policy_words.hpp"
#include "policy/rule_text.hpp"

#include <fmt/format.h>

#include <charconv>

namespace tapgate::policy {

namespace {

using Reader = DocumentReader;
using Node = DocumentNode;

/// A drain that outlasts this is no drain; `keep` says what is meant.
constexpr std::chrono::seconds kMaxDrain = std::chrono::hours(24);
constexpr std::size_t kMaxDenyText = 200;
/// The daemon remembers as many names of a zone for each guest.
constexpr unsigned kMaxNamesPerZone = 10'000;

bool read_string(Reader& reader, const Node& node, std::string_view what, std::string_view& text) {
    const auto* string = node.string();
    if (!string)
        return reader.wrong_type(node, what, "a string");
    text = *string;
    return true;
}

// --- rules -----------------------------------------------------------------------------------------

/// `{ cidr = "10.0.0.0/8" }` and its siblings.
bool read_destination_table(Reader& reader, const Node& node, Target& target) {
    static constexpr Reader::Field<Target> kFields[] = {
        {"cidr",
         [](Reader& r, const Node& n, Target& t) {
             std::string_view text;
             if (!read_string(r, n, "cidr", text))
                 return false;
             IpPrefix prefix;
             if (!r.take(n, parse_block(text), prefix))
                 return false;
             t = PrefixTarget{prefix};
             return true;
         }},
        {"domain",
         [](Reader& r, const Node& n, Target& t) {
             std::string_view text;
             return read_string(r, n, "domain", text) && r.take(n, parse_domain(text), t);
         }},
        {"domain_suffix",
         [](Reader& r, const Node& n, Target& t) {
             std::string_view text;
             if (!read_string(r, n, "domain_suffix", text))
                 return false;
             if (text.starts_with('.'))
                 text.remove_prefix(1);
             return r.take(n, parse_suffix(text), t);
         }},
        {"group",
         [](Reader& r, const Node& n, Target& t) {
             std::string_view text;
             if (!read_string(r, n, "group", text))
                 return false;
             // Machines write the built-in groups in snake_case.
             std::string name(text == "metadata" ? "meta" : text);
             std::ranges::replace(name, '_', '-');
             return r.take(n, parse_group(find_builtin_group(name) ? name : text), t);
         }},
    };
    if (node.table()->size() != 1)
        return reader.wrong(node.location,
                            "a destination has exactly one of cidr, domain, domain_suffix and group");
    return reader.fields(node, "destination", kFields, target);
}

bool read_destination(Reader& reader, const Node& node, Target& target) {
    if (const auto* text = node.string())
        return reader.take(node, parse_target(*text), target);
    if (!node.table())
        return reader.wrong_type(node, "destination", "a string or a table");
    return read_destination_table(reader, node, target);
}

bool is_any(const Node& node) {
    return node.string() && *node.string() == "any";
}

bool read_protocols(Reader& reader, const Node& node, Rule& rule) {
    if (is_any(node))
        return true;
    const auto* items = reader.list(node, "protocols", "leave the key out for any protocol");
    if (!items)
        return false;
    for (const Node& item : *items) {
        Protocol protocol{};
        if (!reader.word(item, "protocol", kProtocols, protocol))
            return false;
        rule.protocols.insert(protocol);
    }
    return true;
}

struct Bounds {
    std::optional<std::int64_t> start;
    std::optional<std::int64_t> end;
};

bool read_bound(Reader& reader, const Node& node, std::optional<std::int64_t>& bound) {
    if (!node.integer())
        return reader.wrong_type(node, "a port", "a number");
    bound = *node.integer();
    return true;
}

/// 443, "8000-8080" or { start = 8000, end = 8080 }.
bool read_port(Reader& reader, const Node& node, PortRange& range) {
    if (const auto* port = node.integer())
        return reader.take(node, make_port_range(*port, *port), range);
    if (const auto* text = node.string())
        return reader.take(node, parse_port_range(*text), range);
    if (!node.table())
        return reader.wrong_type(node, "a port", "a number, a string or a table of start and end");
    static constexpr Reader::Field<Bounds> kFields[] = {
        {"start", [](Reader& r, const Node& n, Bounds& b) { return read_bound(r, n, b.start); }},
        {"end", [](Reader& r, const Node& n, Bounds& b) { return read_bound(r, n, b.end); }},
    };
    Bounds bounds;
    if (!reader.fields(node, "ports", kFields, bounds))
        return false;
    if (!bounds.start || !bounds.end)
        return reader.wrong(node.location, "a port range needs both start and end");
    return reader.take(node, make_port_range(*bounds.start, *bounds.end), range);
}

bool read_ports(Reader& reader, const Node& node, Rule& rule) {
    if (is_any(node))
        return true;
    const auto* items = reader.list(node, "ports", "leave the key out for any port");
    if (!items)
        return false;
    for (const Node& item : *items) {
        PortRange range;
        if (!read_port(reader, item, range))
            return false;
        rule.ports.push_back(range);
    }
    return true;
}

bool read_options(Reader& reader, const Node& node, Rule& rule) {
    static constexpr Words<bool Rule::*, 2> kOptions = {
        {{"private-ok", &Rule::private_ok}, {"cname", &Rule::cname}}};
    const auto* items = reader.list(node, "options", "leave the key out");
    if (!items)
        return false;
    for (const Node& item : *items) {
        bool Rule::* option = nullptr;
        if (!reader.word(item, "option", kOptions, option))
            return false;
        rule.*option = true;
    }
    return true;
}

struct RuleDraft {
    Rule rule;
    bool has_action = false;
    bool has_destination = false;
};

bool read_rule_table(Reader& reader, const Node& node, Rule& rule) {
    static constexpr Reader::Field<RuleDraft> kFields[] = {
        {"action",
         [](Reader& r, const Node& n, RuleDraft& d) {
             d.has_action = true;
             return r.word(n, "action", kActions, d.rule.action);
         }},
        {"direction", [](Reader& r, const Node& n,
                         RuleDraft& d) { return r.word(n, "direction", kDirections, d.rule.direction); }},
        {"destination",
         [](Reader& r, const Node& n, RuleDraft& d) {
             d.has_destination = true;
             return read_destination(r, n, d.rule.target);
         }},
        {"protocols", [](Reader& r, const Node& n, RuleDraft& d) { return read_protocols(r, n, d.rule); }},
        {"ports", [](Reader& r, const Node& n, RuleDraft& d) { return read_ports(r, n, d.rule); }},
        {"options", [](Reader& r, const Node& n, RuleDraft& d) { return read_options(r, n, d.rule); }},
    };
    RuleDraft draft;
    if (!reader.fields(node, "a rule", kFields, draft))
        return false;
    if (!draft.has_action)
        return reader.wrong(node.location, "the rule has no action; write action = \"allow\" or \"deny\"");
    if (!draft.has_destination)
        return reader.wrong(node.location, "the rule has no destination; write \"any\" if that is meant");
    if (const auto finished = finish_rule(draft.rule); !finished)
        return reader.wrong(node.location, finished.error().message());
    rule = std::move(draft.rule);
    return true;
}

bool read_rules(Reader& reader, const Node& node, std::vector<Rule>& rules) {
    const auto* items = node.array();
    if (!items)
        return reader.wrong_type(node, "rules", "a list");
    return std::ranges::all_of(*items, [&](const Node& item) { return read_rule(reader, item, rules); });
}

/// As parse_target() leaves it.
bool is_doh(const Target& target) {
    const auto* group = std::get_if<GroupTarget>(&target);
    return group != nullptr && group_name(*group) == kDohWord;
}

/// A rule for each name of the list, all in one place of the file.
bool read_doh_rules(Reader& reader, const Node& node, const Rule& shape, std::vector<Rule>& rules) {
    for (const std::string_view text : kDohTargets) {
        Rule& rule = rules.emplace_back(shape);
        if (!reader.take(node, parse_target(text), rule.target))
            return false;
    }
    return true;
}

// --- [groups] --------------------------------------------------------------------------------------

bool read_groups(Reader& reader, const Node& node, Policy& policy) {
    const auto* table = node.table();
    if (!table)
        return reader.wrong_type(node, "groups", "a table");
    std::map<IpPrefix, std::string_view> owners;
    for (const DocumentMember& member : *table) {
        if (const auto legal = check_group_name(member.key); !legal)
            return reader.wrong(member.location, legal.error().message());
        const auto* items =
            reader.list(member.value, "group " + member.key, "a group has at least one address or block");
        if (!items)
            return false;
        std::vector<IpPrefix>& blocks = policy.groups[member.key];
        for (const Node& item : *items) {
            std::string_view text;
            IpPrefix block;
            if (!read_string(reader, item, "an address block", text) ||
                !reader.take(item, parse_block(text), block))
                return false;
            const auto [owner, fresh] = owners.emplace(block, member.key);
            if (!fresh && owner->second != member.key)
                return reader.wrong(item.location, fmt::format("{} is in group {} already; groups are "
                                                               "disjoint",
                                                               block.to_string(), owner->second));
            blocks.push_back(block);
        }
    }
    return true;
}

// --- [dns], [tls], [http], [deny] ------------------------------------------------------------------

bool read_limit(Reader& reader, const Node& node, std::string_view what, unsigned most, unsigned& limit) {
    const auto* number = node.integer();
    if (!number)
        return reader.wrong_type(node, what, "a number");
    if (*number < 1 || *number > std::int64_t{most})
        return reader.wrong(node.location,
                            fmt::format("{} is from 1 to {}; leave it out for no limit", what, most));
    limit = static_cast<unsigned>(*number);
    return true;
}

bool read_dns(Reader& reader, const Node& node, Policy& policy) {
    // The lengths are those of RFC 1035 2.3.4.
    static constexpr Reader::Field<DnsSettings> kFields[] = {
        {"resolve",
         [](Reader& r, const Node& n, DnsSettings& d) {
             return r.word(n, "value of resolve", kResolveWords, d.only_allowed_names);
         }},
        {"max_label", [](Reader& r, const Node& n,
                         DnsSettings& d) { return read_limit(r, n, "max_label", 63, d.max_label); }},
        {"max_name", [](Reader& r, const Node& n,
                        DnsSettings& d) { return read_limit(r, n, "max_name", 253, d.max_name); }},
        {"names_per_zone",
         [](Reader& r, const Node& n, DnsSettings& d) {
             return read_limit(r, n, "names_per_zone", kMaxNamesPerZone, d.names_per_zone);
         }},
    };
    return reader.fields(node, "[dns]", kFields, policy.dns);
}

/// Nothing that could disturb the terminal or the header in which the text ends up: control characters,
/// line separators, and the bidirectional controls that reorder what is read. `text` is valid UTF-8.
bool is_printable(std::string_view text) {
    for (std::size_t i = 0; i < text.size(); ++i) {
        const auto at = [&](std::size_t offset) {
            return i + offset < text.size() ? static_cast<unsigned char>(text[i + offset]) : 0U;
        };
        if (at(0) < 0x20 || at(0) == 0x7f)
            return false;
        if (at(0) == 0xc2 && at(1) < 0xa0) // U+0080 to U+009F
            return false;
        // U+2028 to U+202E and U+2066 to U+2069
        if (at(0) == 0xe2 && at(1) == 0x80 && at(2) >= 0xa8 && at(2) <= 0xae)
            return false;
        if (at(0) == 0xe2 && at(1) == 0x81 && at(2) >= 0xa6 && at(2) <= 0xa9)
            return false;
    }
    return true;
}

/// "30s", "5m", "1h".
std::optional<std::chrono::seconds> parse_duration(std::string_view text) {
    if (text.size() < 2)
        return std::nullopt;
    const char* end = text.data() + text.size() - 1;
    std::uint32_t count = 0;
    const auto [stop, error] = std::from_chars(text.data(), end, count);
    if (error != std::errc{} || stop != end)
        return std::nullopt;
    switch (text.back()) {
    case 's':
        return std::chrono::seconds(count);
    case 'm':
        return std::chrono::minutes(count);
    case 'h':
        return std::chrono::hours(count);
    default:
        return std::nullopt;
    }
}

bool read_live_flows(Reader& reader, const Node& node, Policy& policy) {
    static constexpr Words<LiveFlows, 3> kWords = {
        {{"cut", LiveFlows::kCut}, {"drain", LiveFlows::kDrain}, {"keep", LiveFlows::kKeep}}};
    std::string_view text;
    if (!read_string(reader, node, "live_flows", text))
        return false;
    const std::string_view word = text.substr(0, text.find(' '));
    if (!reader.take(node, find_word("value of live_flows", word, kWords), policy.live_flows))
        return false;
    if (word.size() == text.size())
        return true;
    const auto drain = parse_drain(text.substr(word.size() + 1));
    if (policy.live_flows != LiveFlows::kDrain || !drain)
        return reader.wrong(node.location, "live_flows is \"cut\", \"keep\" or \"drain 30s\" (1s to 24h)");
    policy.drain = *drain;
    return true;
}

bool read_deny_text(Reader& reader, const Node& node, Policy& policy) {
    std::string_view text;
    if (!read_string(reader, node, "text", text))
        return false;
    if (text.size() > kMaxDenyText)
        return reader.wrong(node.location, fmt::format("text has {} bytes; at most {} fit a denial",
                                                       text.size(), kMaxDenyText));
    if (!is_printable(text))
        return reader.wrong(node.location,
                            "text has a character that does not print; write one line of text");
    policy.deny_text = text;
    return true;
}

bool read_tls(Reader& reader, const Node& node, Policy& policy) {
    static constexpr Reader::Field<Policy> kFields[] = {
        {"no_sni", [](Reader& r, const Node& n,
                      Policy& p) { return r.word(n, "value of no_sni", kNoSniWords, p.no_sni); }},
        {"ech",
         [](Reader& r, const Node& n, Policy& p) { return r.word(n, "value of ech", kEchWords, p.ech); }},
    };
    return reader.fields(node, "[tls]", kFields, policy);
}

bool read_http(Reader& reader, const Node& node, Policy& policy) {
    static constexpr Reader::Field<Policy> kFields[] = {
        {"host", [](Reader& r, const Node& n,
                    Policy& p) { return r.word(n, "value of host", kHttpHostWords, p.http_host); }},
    };
    return reader.fields(node, "[http]", kFields, policy);
}

bool read_deny(Reader& reader, const Node& node, Policy& policy) {
    static constexpr Reader::Field<Policy> kFields[] = {
        {"live_flows", read_live_flows},
        {"style", [](Reader& r, const Node& n,
                     Policy& p) { return r.word(n, "value of style", kDenyStyleWords, p.deny_style); }},
        {"text", read_deny_text},
    };
    return reader.fields(node, "[deny]", kFields, policy);
}

} // namespace

bool read_rule(DocumentReader& reader, const DocumentNode& node, std::vector<Rule>& rules) {
    Rule rule;
    if (const auto* text = node.string()) {
        if (!reader.take(node, parse_rule(*text), rule))
            return false;
    } else if (!node.table()) {
        return reader.wrong_type(node, "a rule", "a string or a table");
    } else if (!read_rule_table(reader, node, rule)) {
        return false;
    }
    rule.location = node.location;
    if (is_doh(rule.target))
        return read_doh_rules(reader, node, rule, rules);
    rules.push_back(std::move(rule));
    return true;
}

std::optional<std::chrono::seconds> parse_drain(std::string_view text) {
    const auto drain = parse_duration(text);
    return drain && drain->count() != 0 && *drain <= kMaxDrain ? drain : std::nullopt;
}

bool read_policy(DocumentReader& reader, const DocumentNode& node, Policy& policy) {
    static constexpr Reader::Field<Policy> kFields[] = {
        {"default_egress",
         [](Reader& r, const Node& n, Policy& p) { return r.word(n, "action", kActions, p.default_egress); }},
        {"default_ingress", [](Reader& r, const Node& n,
                               Policy& p) { return r.word(n, "action", kActions, p.default_ingress); }},
        {"rules", [](Reader& r, const Node& n, Policy& p) { return read_rules(r, n, p.rules); }},
        {"splice", [](Reader& r, const Node& n,
                      Policy& p) { return r.word(n, "way to splice", kSpliceWords, p.splice.emplace()); }},
        {"groups", read_groups},
        {"dns", read_dns},
        {"tls", read_tls},
        {"http", read_http},
        {"deny", read_deny},
    };
    return reader.fields(node, "the policy", kFields, policy);
}

} // namespace tapgate::policy
