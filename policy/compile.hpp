// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"
#include "policy/model.hpp"

#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace tapgate::policy {

/// Address groups from the daemon's configuration; they apply to every policy, before the built-in list.
using GroupTable = std::map<std::string, std::vector<IpPrefix>>;

/// A position in Policy::rules.
using RuleIndex = std::uint32_t;

/// A maximal run of consecutive rules that agree on direction, action, protocols, ports, kind of target
/// (address, name or `dns`) and the option `cname` (DESIGN 5.1). Such rules differ only in where they match,
/// so verdicts need to tell groups apart and not rules. Groups on `dns` match queries and no flow.
struct RuleGroup {
    RuleIndex first = 0;
    RuleIndex last = 0;
};

/// A policy with more is refused: the kernel keeps a bit for each group in every mask.
inline constexpr std::size_t kMaxRuleGroups = 1024;

/// The rules that share a target, as a list threaded through CompiledPolicy. Of the rules of one group only
/// the first is in it: the others can decide nothing.
struct RuleChain {
    static constexpr RuleIndex kEnd = std::numeric_limits<RuleIndex>::max();
    RuleIndex first = kEnd;
    RuleIndex last = kEnd;
};

/// A policy made ready for decisions: group references resolved, indexes built. Immutable, so one instance
/// is shared by all guests and threads that use it.
class CompiledPolicy {
  public:
    /// Takes ownership of `policy`. Fails, with the place of the rule, on a group that neither the policy nor
    /// `daemon_groups` nor the built-in list knows, on names of `daemon_groups` that no group can have, and
    /// on the rule that begins one rule group too many (kLimit).
    static Result<std::shared_ptr<const CompiledPolicy>> compile(Policy policy,
                                                                 const GroupTable& daemon_groups = {});

    [[nodiscard]] const Policy& policy() const { return policy_; }

    [[nodiscard]] const std::vector<RuleGroup>& rule_groups() const { return rule_groups_; }

    /// The group of a rule.
    [[nodiscard]] std::size_t rule_group_of(RuleIndex rule) const;

    /// A block of a [groups] table and the group its addresses take. Longest prefix first; a block that both
    /// the policy and the daemon name is the policy's.
    struct GroupEntry {
        IpPrefix prefix;
        std::string group;
    };

    [[nodiscard]] const std::vector<GroupEntry>& group_entries() const { return group_entries_; }

    /// The group of the longest [groups] block that holds `address`; empty if none does.
    [[nodiscard]] std::string_view table_group_of(const IpAddress& address) const;

    // Indexes over Policy::rules. They only narrow down which rules can match.

    /// Appends the rules on addresses that can match `address` of group `group`: on `any`, on the group, and
    /// on blocks that hold it. In no particular order.
    void append_address_rules(const IpAddress& address, std::string_view group,
                              std::vector<RuleIndex>& rules) const;

    /// Appends the domain rules whose name or suffix covers `name`, in no particular order.
    void append_domain_rules(const Name& name, std::vector<RuleIndex>& rules) const;

    /// Appends the rules on `any`, `dns` and group `host`: all that match queries and are not on names.
    void append_query_rules(std::vector<RuleIndex>& rules) const;

    /// Deny rules on domains, one for each distinct (direction, protocols, ports): the first. These are the
    /// rules for which a flow may have to wait for its name.
    [[nodiscard]] const std::vector<RuleIndex>& first_domain_denials() const { return first_domain_denials_; }

    /// The first rule with the option `cname` that allows egress.
    [[nodiscard]] std::optional<RuleIndex> first_alias_allowance() const { return first_alias_allowance_; }

    // The same indexes whole, for building tables out of them.

    /// A block that rules name.
    struct Block {
        IpPrefix prefix;
        std::uint32_t outer = 0; ///< the smallest block around it: its index plus one, 0 for none
        RuleChain rules;
    };

    struct NameRules {
        RuleChain exact;
        RuleChain suffix;
    };

    /// Keys are borrowed from the policy.
    using NameIndex = std::unordered_map<std::string_view, NameRules>;

    [[nodiscard]] const RuleChain& any_rules() const { return any_rules_; }

    [[nodiscard]] RuleChain group_rules(std::string_view group) const;

    /// Sorted by address, outer blocks first.
    [[nodiscard]] const std::vector<Block>& blocks(bool v4) const { return v4 ? blocks4_ : blocks6_; }

    [[nodiscard]] const NameIndex& names() const { return names_; }

    /// Calls visit(rule) for each rule of the chain, in order.
    template <typename Visit>
    void for_each(const RuleChain& chain, Visit&& visit) const {
        for (RuleIndex rule = chain.first; rule != RuleChain::kEnd; rule = next_in_chain_[rule])
            visit(rule);
    }

  private:
    CompiledPolicy() = default;
    Result<void> build_rule_groups();
    void build_group_entries(const GroupTable& daemon_groups);
    void build_rule_indexes();
    void build_blocks(const std::map<IpPrefix, RuleChain>& chains);
    void add_to(RuleChain& chain, RuleIndex rule);
    void append_chain(const RuleChain& chain, std::vector<RuleIndex>& rules) const;

    Policy policy_;
    std::vector<RuleGroup> rule_groups_;
    std::vector<GroupEntry> group_entries_;
    std::vector<RuleIndex> first_domain_denials_;
    std::optional<RuleIndex> first_alias_allowance_;
    std::vector<RuleIndex> next_in_chain_;
    RuleChain any_rules_;
    RuleChain query_rules_; // on `dns`
    std::map<std::string, RuleChain, std::less<>> group_rules_;
    std::vector<Block> blocks4_;
    std::vector<Block> blocks6_;
    NameIndex names_;
};

} // namespace tapgate::policy
