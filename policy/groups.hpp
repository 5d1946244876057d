// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/ip.hpp"
#include "policy/model.hpp"
#include "policy/words.hpp"

#include <optional>
#include <span>
#include <string_view>
#include <vector>

// The built-in address groups (DESIGN 6.2) and what does not depend on a policy.
namespace tapgate::policy {

/// In the order in which the first hit wins.
inline constexpr Words<BuiltinGroup, 8> kBuiltinGroups = {{
    {"host", BuiltinGroup::kHost},
    {"meta", BuiltinGroup::kMeta},
    {"loopback", BuiltinGroup::kLoopback},
    {"private", BuiltinGroup::kPrivate},
    {"link-local", BuiltinGroup::kLinkLocal},
    {"multicast", BuiltinGroup::kMulticast},
    {"reserved", BuiltinGroup::kReserved},
    {"public", BuiltinGroup::kPublic},
}};

[[nodiscard]] std::optional<BuiltinGroup> find_builtin_group(std::string_view name);
[[nodiscard]] std::string_view group_name(const GroupTarget& target);

/// Fails unless `name` can name a group: a lower-case letter, then letters, digits, '-' and '_', at most 63
/// in all, and none of the words of the rule grammar.
[[nodiscard]] Result<void> check_group_name(std::string_view name);

/// The group of `address` by the built-in list alone, without `host` and [groups]. A NAT64 or 6to4 address
/// takes the group of the IPv4 address inside it.
[[nodiscard]] BuiltinGroup builtin_group_of(const IpAddress& address);

/// The blocks of the built-in list; an address in several is of the first group in the order of BuiltinGroup.
struct BuiltinBlock {
    BuiltinGroup group = BuiltinGroup::kPublic;
    IpPrefix prefix;
};

[[nodiscard]] const std::vector<BuiltinBlock>& builtin_blocks();

/// The IPv4 address that NAT64 (64:ff9b::/96, RFC 6052) or 6to4 (2002::/16, RFC 3056) translates `address`
/// to.
[[nodiscard]] std::optional<IpAddress> embedded_v4(const IpAddress& address);

/// 0.0.0.0, ::, the IPv4 broadcast address and class E, translated forms included: no policy can allow them.
[[nodiscard]] bool is_always_refused(const IpAddress& address);

} // namespace tapgate::policy
