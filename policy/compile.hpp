// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"
#include "policy/model.hpp"

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace tapgate::policy {

/// Address groups from the daemon's configuration; they apply to every policy, before the built-in list.
using GroupTable = std::map<std::string, std::vector<IpPrefix>>;

/// A position in Policy::rules.
using RuleIndex = std::uint32_t;

/// A policy made ready for decisions: group references resolved, indexes built. Immutable, so one instance
/// is shared by all guests and threads that use it.
class CompiledPolicy {
  public:
    /// Takes ownership of `policy`. Fails, with the place of the rule, on a group that neither the policy nor
    /// `daemon_groups` nor the built-in list knows, and on names of `daemon_groups` that no group can have.
    static Result<std::shared_ptr<const CompiledPolicy>> compile(Policy policy,
                                                                 const GroupTable& daemon_groups = {});

    [[nodiscard]] const Policy& policy() const { return policy_; }

    /// A block of a [groups] table and the group its addresses take. Longest prefix first; a block that both
    /// the policy and the daemon name is the policy's.
    struct GroupEntry {
        IpPrefix prefix;
        std::string group;
    };

    [[nodiscard]] const std::vector<GroupEntry>& group_entries() const { return group_entries_; }

    /// The group of the longest [groups] block that holds `address`; empty if none does.
    [[nodiscard]] std::string_view table_group_of(const IpAddress& address) const;

    // Indexes over Policy::rules. They only narrow down which rules can match; all give ascending positions.

    /// Rules whose target is not a domain.
    [[nodiscard]] const std::vector<RuleIndex>& address_rules() const { return address_rules_; }

    /// Appends the domain rules whose name or suffix covers `name`, in no particular order.
    void append_domain_rules(const Name& name, std::vector<RuleIndex>& rules) const;

    /// Deny rules on domains, one for each distinct (direction, protocols, ports): the first. These are the
    /// rules for which a flow may have to wait for its name.
    [[nodiscard]] const std::vector<RuleIndex>& first_domain_denials() const { return first_domain_denials_; }

  private:
    /// The rules that share a name, as a list threaded through next_with_same_name_.
    struct NameChain {
        RuleIndex first = 0;
        RuleIndex last = 0;
    };

    /// Keys are borrowed from policy_, which never changes once the index stands.
    using NameIndex = std::unordered_map<std::string_view, NameChain>;

    CompiledPolicy() = default;
    void build_group_entries(const GroupTable& daemon_groups);
    void build_rule_indexes();
    void append_chain(const NameIndex& index, std::string_view name, std::vector<RuleIndex>& rules) const;

    Policy policy_;
    std::vector<GroupEntry> group_entries_;
    std::vector<RuleIndex> address_rules_;
    std::vector<RuleIndex> first_domain_denials_;
    NameIndex exact_names_;
    NameIndex suffixes_;
    std::vector<RuleIndex> next_with_same_name_;
};

} // namespace tapgate::policy
