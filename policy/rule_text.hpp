// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"
#include "policy/model.hpp"
#include "policy/words.hpp"

#include <string_view>

// The words and fields of a rule, shared by its one-line form and its table form.
namespace tapgate::policy {

inline constexpr Words<Action, 2> kActions = {{{"allow", Action::kAllow}, {"deny", Action::kDeny}}};
inline constexpr Words<Direction, 3> kDirections = {
    {{"egress", Direction::kEgress}, {"ingress", Direction::kIngress}, {"any", Direction::kAny}}};
inline constexpr Words<Protocol, 4> kProtocols = {{{"tcp", Protocol::kTcp},
                                                   {"udp", Protocol::kUdp},
                                                   {"icmpv4", Protocol::kIcmpV4},
                                                   {"icmpv6", Protocol::kIcmpV6}}};

/// any, dns, a group, an address or block (IPv6 in brackets), a name, "domain=NAME", "*.NAME", "suffix=NAME".
/// A group that is not built in is taken at its word; CompiledPolicy::compile() knows which exist.
Result<Target> parse_target(std::string_view text);

/// The target `text` of a `domain_suffix` or `suffix=`: a name of at least two labels, a leading dot or "*."
/// already removed.
Result<Target> parse_suffix(std::string_view text);
Result<Target> parse_domain(std::string_view text);
Result<Target> parse_group(std::string_view text);

/// An address or block where nothing else can stand, and so without brackets.
Result<IpPrefix> parse_block(std::string_view text);

/// "N" or "LO-HI", 1 to 65535.
Result<PortRange> parse_port_range(std::string_view text);
Result<PortRange> make_port_range(std::int64_t first, std::int64_t last);

/// Checks the fields of `rule` against each other and puts its lists in canonical order.
Result<void> finish_rule(Rule& rule);

/// The rule as an element of the list `rules` in a TOML file: its one-line form, or a table if it has
/// options. In literal strings, so that shells and logs leave it as it is.
[[nodiscard]] std::string format_for_file(const Rule& rule);

/// The target as it stands in a one-line rule.
[[nodiscard]] std::string format_target(const Target& target);

} // namespace tapgate::policy
