// SPDX-License-Identifier: Apache-2.0
#include "policy/rule_cover.hpp"

#include "policy/match.hpp"

#include <algorithm>
#include <array>

namespace tapgate::policy {

namespace {

/// Whether a flow of `protocol` can match; a rule with ports never matches ICMP.
bool takes(const Rule& rule, Protocol protocol) {
    if (is_icmp(protocol) && !rule.ports.empty())
        return false;
    return rule.protocols.includes(protocol);
}

constexpr std::array kAllProtocols = {Protocol::kTcp, Protocol::kUdp, Protocol::kIcmpV4, Protocol::kIcmpV6};

/// Port ranges of a rule are sorted and disjoint, so a range of `later` lies in one of `earlier` or in none.
bool covers_ports(const Rule& earlier, const Rule& later) {
    if (earlier.ports.empty())
        return true;
    if (later.ports.empty()) // no ports is more than 1 to 65535: a flow may have port 0
        return false;
    return std::ranges::all_of(later.ports, [&](const PortRange& range) {
        return std::ranges::any_of(earlier.ports, [&](const PortRange& wide) {
            return wide.first <= range.first && range.last <= wide.last;
        });
    });
}

bool covers_direction(const Rule& earlier, const Rule& later) {
    return earlier.direction == Direction::kAny || earlier.direction == later.direction;
}

bool covers_name(const Rule& earlier, const DomainTarget& wide, const Rule& later,
                 const DomainTarget& narrow) {
    // An alias that ties an address to the later rule ties it to the earlier one only if that looks at
    // aliases.
    if (later.cname && !earlier.cname)
        return false;
    return wide.suffix ? narrow.name.is_in(wide.name) : !narrow.suffix && narrow.name == wide.name;
}

} // namespace

bool covers_service(const Rule& earlier, const Rule& later) {
    if (!covers_direction(earlier, later))
        return false;
    for (const Protocol protocol : kAllProtocols) {
        if (!takes(later, protocol))
            continue;
        if (!takes(earlier, protocol) || (!is_icmp(protocol) && !covers_ports(earlier, later)))
            return false;
    }
    return true;
}

bool services_overlap(const Rule& a, const Rule& b) {
    if (!covers_direction(a, b) && !covers_direction(b, a))
        return false;
    const bool ports =
        a.ports.empty() || b.ports.empty() || std::ranges::any_of(a.ports, [&](const PortRange& range) {
            return std::ranges::any_of(b.ports, [&](const PortRange& other) {
                return range.first <= other.last && other.first <= range.last;
            });
        });
    return std::ranges::any_of(kAllProtocols, [&](Protocol protocol) {
        return takes(a, protocol) && takes(b, protocol) && (ports || is_icmp(protocol));
    });
}

bool has_service(const Rule& rule) {
    return std::ranges::any_of(kAllProtocols, [&](Protocol protocol) { return takes(rule, protocol); });
}

bool covers_block(const Rule& earlier, const Rule& later, const IpPrefix& block) {
    if (std::holds_alternative<AnyTarget>(earlier.target))
        return true;
    const auto* wide = std::get_if<PrefixTarget>(&earlier.target);
    if (wide == nullptr || !wide->prefix.contains(block))
        return false;
    // A denied IPv4 block is denied in its NAT64 and 6to4 spellings too, an allowed one is not allowed in
    // them.
    return earlier.action == Action::kDeny || later.action == Action::kAllow || !block.address().is_v4();
}

bool covers_target(const Rule& earlier, const Rule& later) {
    if (std::holds_alternative<AnyTarget>(earlier.target))
        return true;
    if (const auto* block = std::get_if<PrefixTarget>(&later.target))
        return covers_block(earlier, later, block->prefix);
    if (const auto* group = std::get_if<GroupTarget>(&later.target)) {
        const auto* same = std::get_if<GroupTarget>(&earlier.target);
        return same != nullptr && same->group == group->group;
    }
    const auto* narrow = std::get_if<DomainTarget>(&later.target);
    const auto* wide = std::get_if<DomainTarget>(&earlier.target);
    return narrow != nullptr && wide != nullptr && covers_name(earlier, *wide, later, *narrow);
}

bool settles_flows(const Rule& earlier, const Rule& later) {
    if (!covers_service(earlier, later))
        return false;
    // Rules on addresses end the walk at SYN and at the first flight alike. Of rules on names:
    // - allow before allow: an address that is bound to the later rule is bound to the earlier one, and so is
    // a
    //   name on the wire that satisfies it.
    // - deny before deny: at SYN the earlier one waits first; afterwards it matches whatever the later one
    // does.
    // - deny before allow: likewise; at SYN the later rule can still make a flow wait that the rules behind
    // it
    //   would deny at once, and then no name can bring about anything but that denial.
    // - allow before deny: the allow rule needs a binding, the deny rule does not. It hides nothing.
    return !std::holds_alternative<DomainTarget>(earlier.target) || earlier.action == Action::kDeny ||
           later.action == Action::kAllow;
}

QueryTransports query_transports(const Rule& rule, const DnsSettings& settings) {
    if (rule.direction == Direction::kIngress)
        return {};
    if (std::holds_alternative<DomainTarget>(rule.target)) // whatever its protocols and ports
        return {true, true};
    if (settings.only_allowed_names && rule.action == Action::kAllow)
        return {};
    const auto* group = std::get_if<GroupTarget>(&rule.target);
    const bool host = group != nullptr && group->group == decltype(group->group)(BuiltinGroup::kHost);
    const bool dns_port = rule.ports.empty() || std::ranges::any_of(rule.ports, [](const PortRange& range) {
                              return range.first <= kDnsPort && kDnsPort <= range.last;
                          });
    if (!dns_port || (!host && !std::holds_alternative<AnyTarget>(rule.target) &&
                      !std::holds_alternative<DnsTarget>(rule.target)))
        return {};
    return {takes(rule, Protocol::kUdp), takes(rule, Protocol::kTcp)};
}

bool judges_answer_addresses(const Rule& rule) {
    const bool on_addresses =
        !std::holds_alternative<DomainTarget>(rule.target) && !std::holds_alternative<DnsTarget>(rule.target);
    const bool partial = rule.action == Action::kDeny && !rule.protocols.empty();
    return on_addresses && rule.direction != Direction::kIngress && rule.ports.empty() && !partial;
}

bool permits_answer_names(const Rule& rule) {
    return rule.private_ok && rule.action == Action::kAllow && rule.direction != Direction::kIngress;
}

} // namespace tapgate::policy
