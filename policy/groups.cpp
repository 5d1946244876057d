// SPDX-License-Identifier: Apache-2.0
#include "policy/groups.hpp"

#include "base/log.hpp"
#include "policy/doh_names.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace tapgate::policy {

namespace {

constexpr std::size_t kMaxGroupName = 63;

std::uint32_t four_bytes(const IpAddress& address, std::size_t offset) {
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < 4; ++i)
        value = (value << 8U) | address.bytes().at(offset + i);
    return value;
}

} // namespace

std::optional<BuiltinGroup> find_builtin_group(std::string_view name) {
    for (const auto& word : kBuiltinGroups)
        if (word.text == name)
            return word.value;
    return std::nullopt;
}

std::string_view group_name(const GroupTarget& target) {
    if (const auto* builtin = std::get_if<BuiltinGroup>(&target.group))
        return word_for(*builtin, kBuiltinGroups);
    return std::get<std::string>(target.group);
}

Result<void> check_group_name(std::string_view name) {
    const bool legal =
        !name.empty() && name.size() <= kMaxGroupName && name.front() >= 'a' && name.front() <= 'z' &&
        name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-_") == std::string_view::npos;
    if (!legal)
        return fail(ErrorCode::kInvalid,
                    fmt::format("'{}' cannot name a group; a group name is a lower-case letter, then "
                                "letters, digits, '-' and '_', at most 63 in all",
                                printable(name, 80)));
    if (name == "any" || name == "dns" || name == kDohWord)
        return fail(ErrorCode::kInvalid, fmt::format("'{}' cannot name a group; the word has a meaning of "
                                                     "its own in rules",
                                                     name));
    std::string dashed(name);
    std::ranges::replace(dashed, '_', '-');
    if (dashed != name && find_builtin_group(dashed))
        return fail(ErrorCode::kInvalid,
                    fmt::format("unknown group '{}'; did you mean the built-in '{}'?", name, dashed));
    return {};
}

/// The list of DESIGN 6.2, first hit wins. Sources: the IANA special-purpose registries (RFC 6890 and its
/// updates), the metadata services of AWS, Azure, Alibaba, Oracle and Google.
const std::vector<BuiltinBlock>& builtin_blocks() {
    static const std::vector<BuiltinBlock> blocks = [] {
        constexpr std::array<std::pair<BuiltinGroup, std::string_view>, 34> kList = {{
            {BuiltinGroup::kMeta, "169.254.169.254"},     {BuiltinGroup::kMeta, "169.254.170.2"},
            {BuiltinGroup::kMeta, "169.254.170.23"},      {BuiltinGroup::kMeta, "168.63.129.16"},
            {BuiltinGroup::kMeta, "100.100.100.200"},     {BuiltinGroup::kMeta, "192.0.0.192"},
            {BuiltinGroup::kMeta, "fd00:ec2::254"},       {BuiltinGroup::kMeta, "fd20:ce::254"},
            {BuiltinGroup::kLoopback, "127.0.0.0/8"},     {BuiltinGroup::kLoopback, "::1"},
            {BuiltinGroup::kPrivate, "10.0.0.0/8"},       {BuiltinGroup::kPrivate, "172.16.0.0/12"},
            {BuiltinGroup::kPrivate, "192.168.0.0/16"},   {BuiltinGroup::kPrivate, "100.64.0.0/10"},
            {BuiltinGroup::kPrivate, "fc00::/7"},         {BuiltinGroup::kLinkLocal, "169.254.0.0/16"},
            {BuiltinGroup::kLinkLocal, "fe80::/10"},      {BuiltinGroup::kMulticast, "224.0.0.0/4"},
            {BuiltinGroup::kMulticast, "ff00::/8"},       {BuiltinGroup::kReserved, "0.0.0.0/8"},
            {BuiltinGroup::kReserved, "192.0.0.0/24"},    {BuiltinGroup::kReserved, "192.0.2.0/24"},
            {BuiltinGroup::kReserved, "192.88.99.0/24"},  {BuiltinGroup::kReserved, "198.18.0.0/15"},
            {BuiltinGroup::kReserved, "198.51.100.0/24"}, {BuiltinGroup::kReserved, "203.0.113.0/24"},
            {BuiltinGroup::kReserved, "240.0.0.0/4"},     {BuiltinGroup::kReserved, "100::/64"},
            {BuiltinGroup::kReserved, "2001:db8::/32"},   {BuiltinGroup::kReserved, "3fff::/20"},
            {BuiltinGroup::kReserved, "fec0::/10"},       {BuiltinGroup::kReserved, "64:ff9b:1::/48"},
            {BuiltinGroup::kReserved, "2001::/32"},       {BuiltinGroup::kReserved, "::/96"},
        }};
        std::vector<BuiltinBlock> parsed;
        for (const auto& [group, text] : kList) {
            const auto prefix = IpPrefix::parse(text);
            TAPGATE_ASSERT(prefix.has_value());
            parsed.push_back({group, *prefix});
        }
        return parsed;
    }();
    return blocks;
}

BuiltinGroup builtin_group_of(const IpAddress& address) {
    if (const auto inner = embedded_v4(address))
        return builtin_group_of(*inner);
    for (const BuiltinBlock& block : builtin_blocks())
        if (block.prefix.contains(address))
            return block.group;
    return BuiltinGroup::kPublic;
}

std::optional<IpAddress> embedded_v4(const IpAddress& address) {
    static const IpPrefix nat64 = *IpPrefix::parse("64:ff9b::/96");
    static const IpPrefix six_to_four = *IpPrefix::parse("2002::/16");
    if (nat64.contains(address))
        return IpAddress::from_v4(four_bytes(address, 12));
    if (six_to_four.contains(address))
        return IpAddress::from_v4(four_bytes(address, 2));
    return std::nullopt;
}

bool is_always_refused(const IpAddress& address) {
    if (const auto inner = embedded_v4(address))
        return is_always_refused(*inner);
    if (!address.is_v4())
        return address == IpAddress{};
    constexpr std::uint32_t kClassE = 0xf0000000U; // 240.0.0.0/4, the broadcast address included
    return address.v4() == 0 || (address.v4() & kClassE) == kClassE;
}

} // namespace tapgate::policy
