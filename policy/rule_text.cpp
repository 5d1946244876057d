// SPDX-License-Identifier: Apache-2.0
#include "policy/rule_text.hpp"

#include "base/log.hpp"
#include "policy/doh_names.hpp"
#include "policy/groups.hpp"
#include "policy/parse.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>

namespace tapgate::policy {

namespace {

constexpr std::string_view kShape = "a rule reads ACTION[:DIRECTION]@TARGET[:PROTOCOLS[:PORTS]], such as "
                                    "allow@pypi.org:tcp:443";
/// Longer than any sensible rule: a name of 253 octets in UTF-8 and every port range a person would list.
constexpr std::size_t kMaxRuleBytes = 8192;
constexpr std::int64_t kMaxPort = 65535;

template <typename... Arguments>
std::unexpected<Error> invalid(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
    return fail(ErrorCode::kInvalid, fmt::format(format, std::forward<Arguments>(arguments)...));
}

/// Splits at the first `separator`; the second part is empty-handed if there is none.
struct Split {
    std::string_view head;
    std::optional<std::string_view> tail;

    Split(std::string_view text, char separator) : head(text.substr(0, text.find(separator))) {
        if (head.size() < text.size())
            tail = text.substr(head.size() + 1);
    }
};

bool is_short_hex(std::string_view text) {
    return text.size() <= 4 && text.find_first_not_of("0123456789abcdefABCDEF") == std::string_view::npos;
}

/// True for an IPv6 address that stands without brackets: its first two groups are hexadecimal or empty.
bool looks_like_bare_v6(std::string_view target_and_rest) {
    const Split first(target_and_rest, ':');
    return first.tail && is_short_hex(first.head) && is_short_hex(Split(*first.tail, ':').head);
}

Result<Target> parse_bracketed(std::string_view inside) {
    if (inside.find(':') == std::string_view::npos)
        return invalid("'[{0}]': brackets are for IPv6; write {0}", printable(inside, 80));
    auto prefix = IpPrefix::parse(inside);
    if (!prefix)
        return fail(prefix.error());
    return PrefixTarget{*prefix};
}

Result<void> parse_protocols(std::string_view text, ProtocolSet& protocols) {
    if (text == "any")
        return {};
    for (std::optional<std::string_view> rest = text; rest;) {
        const Split item(*rest, ',');
        rest = item.tail;
        if (item.head.empty())
            return invalid("an empty protocol in '{}'; write any, or a list such as tcp,udp",
                           printable(text, 80));
        if (item.head == "any")
            return invalid("'any' stands alone, not in the list '{}'", printable(text, 80));
        if (parse_port_range(item.head))
            return invalid("{0} stands where the protocols do; write tcp:{0}", item.head);
        const auto protocol = find_word("protocol", item.head, kProtocols);
        if (!protocol)
            return fail(protocol.error());
        protocols.insert(*protocol);
    }
    return {};
}

Result<void> parse_ports(std::string_view text, std::vector<PortRange>& ports) {
    if (text == "any")
        return {};
    for (std::optional<std::string_view> rest = text; rest;) {
        const Split item(*rest, ',');
        rest = item.tail;
        if (item.head == "any")
            return invalid("'any' stands alone, not in the list '{}'", printable(text, 80));
        const auto range = parse_port_range(item.head);
        if (!range)
            return fail(range.error());
        ports.push_back(*range);
    }
    return {};
}

std::string format_port_range(const PortRange& range) {
    return range.first == range.last ? fmt::format("{}", range.first)
                                     : fmt::format("{}-{}", range.first, range.last);
}

/// Sorted, without repetition, overlapping and adjoining ranges joined.
void normalise(std::vector<PortRange>& ports) {
    if (ports.size() < 2)
        return;
    std::ranges::sort(ports);
    std::vector<PortRange> joined;
    for (const PortRange& range : ports) {
        if (!joined.empty() && range.first <= joined.back().last + 1)
            joined.back().last = std::max(joined.back().last, range.last);
        else
            joined.push_back(range);
    }
    ports = std::move(joined);
}

} // namespace

Result<Target> parse_domain(std::string_view text) {
    auto name = Name::from_user(text);
    if (!name)
        return fail(name.error());
    return DomainTarget{std::move(*name), false};
}

Result<Target> parse_suffix(std::string_view text) {
    auto name = Name::from_user(text);
    if (!name)
        return fail(name.error());
    if (name->text().find('.') == std::string::npos)
        return invalid("the suffix '{0}' has a single label and would match all of it; name at least two, "
                       "such as *.example.{0}",
                       name->text());
    return DomainTarget{std::move(*name), true};
}

Result<Target> parse_group(std::string_view text) {
    if (const auto builtin = find_builtin_group(text))
        return GroupTarget{*builtin};
    if (const auto named = check_group_name(text); !named)
        return fail(named.error());
    return GroupTarget{std::string(text)};
}

Result<IpPrefix> parse_block(std::string_view text) {
    if (text.starts_with('[') && text.ends_with(']'))
        return invalid("'{}' stands in brackets, which only one-line rules have; write {}",
                       printable(text, 80), printable(text.substr(1, text.size() - 2), 80));
    auto block = IpPrefix::parse(text);
    if (!block && text.find('/') == std::string_view::npos)
        return invalid("{}; write an address or a block, such as 10.0.0.0/8 or 2001:db8::/32",
                       block.error().message());
    return block;
}

Result<Target> parse_target(std::string_view text) {
    if (text.empty())
        return invalid("the target is empty; {}", kShape);
    if (text == "any")
        return AnyTarget{};
    if (text == "dns")
        return DnsTarget{};
    // Whoever reads a policy puts the names in its place.
    if (text == kDohWord)
        return GroupTarget{std::string(text)};
    if (text.starts_with('[')) {
        if (!text.ends_with(']'))
            return invalid("'{}' has no closing bracket", printable(text, 80));
        return parse_bracketed(text.substr(1, text.size() - 2));
    }
    if (looks_like_bare_v6(text))
        return invalid("an IPv6 address stands in brackets, such as [2001:db8::1] or [2001:db8::/32]");
    if (const Split assignment(text, '='); assignment.tail) {
        if (assignment.head == "domain")
            return parse_domain(*assignment.tail);
        if (assignment.head == "suffix")
            return parse_suffix(*assignment.tail);
        constexpr std::array<std::string_view, 2> kForms = {"domain", "suffix"};
        return fail(ErrorCode::kInvalid, unknown_word("target form", assignment.head, kForms));
    }
    if (text.starts_with("*.") && text.find('*', 1) == std::string_view::npos)
        return parse_suffix(text.substr(2));
    if (text.find('*') != std::string_view::npos)
        return invalid("'{}': '*' stands only as the whole first label, as in *.example.com",
                       printable(text, 80));
    if (text.find('/') != std::string_view::npos || IpAddress::parse(text)) {
        const auto prefix = IpPrefix::parse(text);
        if (!prefix)
            return fail(prefix.error());
        return PrefixTarget{*prefix};
    }
    if (text.find('.') != std::string_view::npos)
        return parse_domain(text);
    if (const auto group = parse_group(text))
        return group;
    if (const auto name = Name::from_user(text))
        return invalid("'{0}' is neither a group nor a name with a dot; for a host name of one label write "
                       "domain={0}",
                       printable(text, 80));
    return parse_domain(text);
}

Result<PortRange> make_port_range(std::int64_t first, std::int64_t last) {
    for (const std::int64_t port : {first, last})
        if (port < 1 || port > kMaxPort)
            return invalid("{} is not a port; ports are 1 to 65535", port);
    if (first > last)
        return invalid("the port range {0}-{1} runs backwards; write {1}-{0}", first, last);
    return PortRange{static_cast<std::uint16_t>(first), static_cast<std::uint16_t>(last)};
}

Result<PortRange> parse_port_range(std::string_view text) {
    const auto number = [](std::string_view digits) -> std::optional<std::int64_t> {
        std::int64_t value = 0;
        const char* end = digits.data() + digits.size();
        const auto [stop, error] = std::from_chars(digits.data(), end, value);
        if (error != std::errc{} || stop != end || digits.empty() || digits.front() == '-')
            return std::nullopt;
        return value;
    };
    const Split range(text, '-');
    const auto first = number(range.head);
    const auto last = range.tail ? number(*range.tail) : first;
    if (!first || !last)
        return invalid("'{}' is not a port; ports are written any, 443, 8000-8080 or 80,443",
                       printable(text, 80));
    return make_port_range(*first, *last);
}

Result<void> finish_rule(Rule& rule) {
    normalise(rule.ports);
    if (!rule.ports.empty())
        for (const Protocol protocol : {Protocol::kIcmpV4, Protocol::kIcmpV6})
            if (std::ranges::count(rule.protocols, protocol) != 0)
                return invalid("{} has no ports; write a rule of its own for it, without ports",
                               word_for(protocol, kProtocols));
    const bool domain = std::holds_alternative<DomainTarget>(rule.target);
    if ((rule.private_ok || rule.cname) && !domain)
        return invalid("the option {} is for rules on names; {} is none", rule.cname ? "cname" : "private-ok",
                       format_target(rule.target));
    if (rule.private_ok && rule.action == Action::kDeny)
        return invalid("the option private-ok is for allow rules");
    return {};
}

std::string format_target(const Target& target) {
    struct Formatter {
        std::string operator()(const AnyTarget&) const { return "any"; }

        std::string operator()(const DnsTarget&) const { return "dns"; }

        std::string operator()(const GroupTarget& group) const { return std::string(group_name(group)); }

        std::string operator()(const PrefixTarget& target) const {
            const bool v6 = !target.prefix.address().is_v4();
            return fmt::format("{}{}{}", v6 ? "[" : "", target.prefix.to_string(), v6 ? "]" : "");
        }

        std::string operator()(const DomainTarget& domain) const {
            if (domain.suffix)
                return "*." + domain.name.text();
            const bool one_label = domain.name.text().find('.') == std::string::npos;
            return (one_label ? "domain=" : "") + domain.name.text();
        }
    };

    return std::visit(Formatter{}, target);
}

Result<Rule> parse_rule(std::string_view text) {
    if (text.size() > kMaxRuleBytes)
        return invalid("the rule is longer than {} bytes", kMaxRuleBytes);
    if (std::ranges::any_of(text, [](char c) { return static_cast<unsigned char>(c) <= ' ' || c == 0x7f; }))
        return invalid("'{}' has a space or control character; {}", printable(text, 80), kShape);
    if (text.find("://") != std::string_view::npos)
        return invalid("'{}' has a URL; write the host name alone, such as allow@pypi.org:tcp:443",
                       printable(text, 80));
    const Split halves(text, '@');
    if (!halves.tail)
        return invalid("'{}' has no '@'; {}", printable(text, 80), kShape);
    const Split head(halves.head, ':');
    Rule rule;
    const auto action = find_word("action", head.head, kActions);
    if (!action)
        return fail(action.error());
    rule.action = *action;
    if (head.tail) {
        const auto direction = find_word("direction", *head.tail, kDirections);
        if (!direction)
            return fail(direction.error());
        rule.direction = *direction;
    }

    std::string_view target = *halves.tail;
    std::optional<std::string_view> service;
    if (target.starts_with('[')) {
        const std::size_t end = target.find(']');
        if (end == std::string_view::npos)
            return invalid("'{}' has no closing bracket", printable(target, 80));
        const std::string_view after = target.substr(end + 1);
        if (!after.empty() && after.front() != ':')
            return invalid("':' must follow ']' in '{}'", printable(target, 80));
        if (!after.empty())
            service = after.substr(1);
        target = target.substr(0, end + 1);
    } else if (!looks_like_bare_v6(target)) {
        const Split parts(target, ':');
        target = parts.head;
        service = parts.tail;
    }
    auto parsed_target = parse_target(target);
    if (!parsed_target)
        return fail(parsed_target.error());
    rule.target = std::move(*parsed_target);

    if (service) {
        const Split parts(*service, ':');
        if (auto protocols = parse_protocols(parts.head, rule.protocols); !protocols)
            return fail(protocols.error());
        if (parts.tail)
            if (auto ports = parse_ports(*parts.tail, rule.ports); !ports)
                return fail(ports.error());
    }
    if (auto finished = finish_rule(rule); !finished)
        return fail(finished.error());
    return rule;
}

std::string place_of(const Policy& policy, std::size_t index) {
    const SourceLocation where = policy.rules.at(index).location;
    if (policy.source.empty() || where.line == 0)
        return {};
    return fmt::format("{}:{}:{}", policy.source, where.line, where.column);
}

std::string format_rule(const Rule& rule) {
    std::string text(word_for(rule.action, kActions));
    if (rule.direction != Direction::kEgress)
        text += fmt::format(":{}", word_for(rule.direction, kDirections));
    text += '@' + format_target(rule.target);
    if (!rule.protocols.empty() || !rule.ports.empty()) {
        std::vector<std::string_view> protocols;
        for (const Protocol protocol : rule.protocols)
            protocols.push_back(word_for(protocol, kProtocols));
        text += fmt::format(":{}", protocols.empty() ? "any" : fmt::format("{}", fmt::join(protocols, ",")));
    }
    if (!rule.ports.empty()) {
        std::vector<std::string> ports;
        for (const PortRange& range : rule.ports)
            ports.push_back(format_port_range(range));
        text += fmt::format(":{}", fmt::join(ports, ","));
    }
    std::vector<std::string_view> options;
    if (rule.private_ok)
        options.push_back("private-ok");
    if (rule.cname)
        options.push_back("cname");
    if (!options.empty())
        text += fmt::format(" ({})", fmt::join(options, ", "));
    return text;
}

std::string format_for_file(const Rule& rule) {
    if (!rule.private_ok && !rule.cname)
        return fmt::format("'{}'", format_rule(rule));
    const auto quoted = [](std::string_view text) { return fmt::format("'{}'", text); };
    std::vector<std::string> fields = {"action = " + quoted(word_for(rule.action, kActions)),
                                       "destination = " + quoted(format_target(rule.target))};
    std::vector<std::string> items;
    if (rule.direction != Direction::kEgress)
        fields.push_back("direction = " + quoted(word_for(rule.direction, kDirections)));
    for (const Protocol protocol : rule.protocols)
        items.push_back(quoted(word_for(protocol, kProtocols)));
    if (!items.empty())
        fields.push_back(fmt::format("protocols = [{}]", fmt::join(items, ", ")));
    items.clear();
    for (const PortRange& range : rule.ports)
        items.push_back(range.first == range.last ? format_port_range(range)
                                                  : quoted(format_port_range(range)));
    if (!items.empty())
        fields.push_back(fmt::format("ports = [{}]", fmt::join(items, ", ")));
    items.clear();
    if (rule.private_ok)
        items.push_back(quoted("private-ok"));
    if (rule.cname)
        items.push_back(quoted("cname"));
    fields.push_back(fmt::format("options = [{}]", fmt::join(items, ", ")));
    return fmt::format("{{ {} }}", fmt::join(fields, ", "));
}

} // namespace tapgate::policy
