// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "policy/compile.hpp"

#include <array>
#include <bitset>
#include <cstdint>
#include <string_view>
#include <vector>

// A compiled policy as lookup tables, for an engine that cannot walk rules: the BPF programs (DESIGN 5.1).
//
// Every lookup ends in a set of rule groups. With the sets of a flow's service, address and bound names at
// hand the verdict at the SYN is a matter of which comes first:
//
//     A, D   first group on addresses that allows, that denies       B   first group that allows a bound name
//     X      first group that denies names                           f = min(A, D, B)
//
//     no f: the default, but allow waits for the name if there is an X      f is B: defer      f is D: deny
//     f is A: allow, but if X < A defer
//
// Of a DNS question the first group decides that meets every query, or counts for queries and is on its name.
namespace tapgate::policy {

/// A set of rule groups by their positions in CompiledPolicy::rule_groups().
using RuleGroupSet = std::bitset<kMaxRuleGroups>;

/// An index into Tables::sets. 0 is the empty set.
using SetIndex = std::uint32_t;

struct Tables {
    std::vector<RuleGroupSet> sets;
    /// The groups that allow, and those on names; of all others the opposite holds.
    RuleGroupSet allow;
    RuleGroupSet domain;
    /// The groups on names that also match an alias on the way to the address.
    RuleGroupSet cname;
    /// The groups that meet every query over UDP, and the groups on names that count for queries.
    RuleGroupSet query;
    RuleGroupSet query_names;
    bool default_egress_allows = false;
    bool default_ingress_allows = false;
    /// Groups that match the addresses of group `host`, by that alone.
    SetIndex host_group = 0;

    /// Addresses from `first` up to the next range; the first range begins at ::, the last one ends the
    /// space.
    struct AddressRange {
        IpAddress first;
        SetIndex blocks = 0; ///< groups that match by a block
        SetIndex group = 0;  ///< groups that match by the address group, or any address
        /// The group is `meta` by the built-in list, or from a [groups] table: which of them counts for an
        /// address that translates to another (NAT64, 6to4) depends on these.
        bool meta = false;
        bool declared = false;

        bool same_as(const AddressRange& other) const {
            return blocks == other.blocks && group == other.group && meta == other.meta &&
                   declared == other.declared;
        }
    };

    std::vector<AddressRange> addresses;

    /// Service ports from `first_port` up to the next range of the same direction and protocol, ordered by
    /// all three. ICMP has port 0.
    struct ServiceRange {
        Direction direction = Direction::kEgress; ///< never kAny
        Protocol protocol = Protocol::kTcp;
        std::uint16_t first_port = 0;
        SetIndex groups = 0;
    };

    std::vector<ServiceRange> services;

    /// Of a name that has an entry `exact` counts; of any other the `suffix` of the longest zone around it
    /// that has one. Both include what the zones around them say.
    struct NameEntry {
        std::string_view name; ///< borrowed from the policy
        SetIndex exact = 0;
        SetIndex suffix = 0;
    };

    std::vector<NameEntry> names;
    /// Labels of the longest suffix.
    unsigned suffix_labels = 0;
    /// Policy::deny_text; borrowed from the policy.
    std::string_view deny_text;
};

/// `policy` must outlive what is returned.
[[nodiscard]] Tables build_tables(const CompiledPolicy& policy);

} // namespace tapgate::policy
