// SPDX-License-Identifier: Apache-2.0
#include "policy/compile.hpp"

#include "policy/document.hpp"
#include "policy/groups.hpp"
#include "policy/parse.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <tuple>

namespace tapgate::policy {

namespace {

std::string_view source_name(const Policy& policy) {
    return policy.source.empty() ? std::string_view("policy") : policy.source;
}

Result<void> check_group_references(const Policy& policy, const GroupTable& daemon_groups) {
    for (const auto& [name, blocks] : daemon_groups)
        if (const auto legal = check_group_name(name); !legal)
            return fail(legal.error().with_context("[groups]"));
    for (const Rule& rule : policy.rules) {
        const auto* target = std::get_if<GroupTarget>(&rule.target);
        const auto* name = target != nullptr ? std::get_if<std::string>(&target->group) : nullptr;
        if (name == nullptr || policy.groups.contains(*name) || daemon_groups.contains(*name))
            continue;
        std::vector<std::string_view> valid = {"any", "dns"};
        for (const auto& word : kBuiltinGroups)
            valid.push_back(word.text);
        for (const GroupTable* table :
             std::initializer_list<const GroupTable*>{&policy.groups, &daemon_groups})
            for (const auto& [known, blocks] : *table)
                valid.push_back(known);
        const std::string why = fmt::format("{}: {} (a host name of one label is written domain={})",
                                            format_rule(rule), unknown_word("group", *name, valid), *name);
        return fail(error_at(source_name(policy), rule.location, why));
    }
    return {};
}

} // namespace

Result<std::shared_ptr<const CompiledPolicy>> CompiledPolicy::compile(Policy policy,
                                                                      const GroupTable& daemon_groups) {
    if (policy.rules.size() >= RuleChain::kEnd)
        return fail(ErrorCode::kLimit, "the policy has more rules than can be counted in 32 bits");
    if (const auto checked = check_group_references(policy, daemon_groups); !checked)
        return fail(checked.error());
    std::shared_ptr<CompiledPolicy> compiled(new CompiledPolicy);
    compiled->policy_ = std::move(policy);
    if (const auto grouped = compiled->build_rule_groups(); !grouped)
        return fail(grouped.error());
    compiled->build_group_entries(daemon_groups);
    compiled->build_rule_indexes();
    return compiled;
}

void CompiledPolicy::build_group_entries(const GroupTable& daemon_groups) {
    std::set<IpPrefix> taken;
    for (const GroupTable* table : std::initializer_list<const GroupTable*>{&policy_.groups, &daemon_groups})
        for (const auto& [name, blocks] : *table)
            for (const IpPrefix& block : blocks)
                if (taken.insert(block).second)
                    group_entries_.push_back({block, name});
    std::ranges::sort(group_entries_, [](const GroupEntry& a, const GroupEntry& b) {
        const unsigned a_length = a.prefix.length();
        const unsigned b_length = b.prefix.length();
        return std::tie(b_length, a.prefix.address()) < std::tie(a_length, b.prefix.address());
    });
}

std::string_view CompiledPolicy::table_group_of(const IpAddress& address) const {
    // Entries of one length are disjoint and sorted, so within them only the last one that does not begin
    // behind the address can hold it.
    for (auto begin = group_entries_.begin(); begin != group_entries_.end();) {
        const unsigned length = begin->prefix.length();
        const auto end = std::partition_point(begin, group_entries_.end(), [&](const GroupEntry& entry) {
            return entry.prefix.length() == length;
        });
        const auto behind =
            std::upper_bound(begin, end, address, [](const IpAddress& wanted, const GroupEntry& entry) {
                return wanted < entry.prefix.address();
            });
        if (behind != begin && std::prev(behind)->prefix.contains(address))
            return std::prev(behind)->group;
        begin = end;
    }
    return {};
}

namespace {

enum class TargetKind : std::uint8_t { kAddress, kName, kQuery };

TargetKind kind_of(const Rule& rule) {
    if (std::holds_alternative<DomainTarget>(rule.target))
        return TargetKind::kName;
    return std::holds_alternative<DnsTarget>(rule.target) ? TargetKind::kQuery : TargetKind::kAddress;
}

/// Whether a group of rules that begins with `a` goes on with `b`.
bool in_one_group(const Rule& a, const Rule& b) {
    return a.direction == b.direction && a.action == b.action && a.protocols == b.protocols &&
           a.ports == b.ports && a.cname == b.cname && kind_of(a) == kind_of(b);
}

} // namespace

Result<void> CompiledPolicy::build_rule_groups() {
    const auto count = static_cast<RuleIndex>(policy_.rules.size());
    for (RuleIndex i = 0; i < count; ++i) {
        const Rule& rule = policy_.rules[i];
        if (!rule_groups_.empty() && in_one_group(policy_.rules[rule_groups_.back().first], rule)) {
            rule_groups_.back().last = i;
            continue;
        }
        if (rule_groups_.size() == kMaxRuleGroups)
            return fail(
                error_at(source_name(policy_), rule.location,
                         fmt::format("the rules change their direction, action, protocols, ports or kind "
                                     "of target more than {} times, which the kernel cannot hold; put "
                                     "rules that agree in these next to each other",
                                     kMaxRuleGroups - 1)));
        rule_groups_.push_back({i, i});
    }
    return {};
}

std::size_t CompiledPolicy::rule_group_of(RuleIndex rule) const {
    const auto behind = std::ranges::upper_bound(rule_groups_, rule, {}, &RuleGroup::first);
    TAPGATE_ASSERT(behind != rule_groups_.begin());
    return static_cast<std::size_t>(behind - rule_groups_.begin()) - 1;
}

void CompiledPolicy::add_to(RuleChain& chain, RuleIndex rule) {
    if (chain.first == RuleChain::kEnd) {
        chain = {rule, rule};
        return;
    }
    if (rule_group_of(chain.last) == rule_group_of(rule))
        return;
    next_in_chain_[chain.last] = rule;
    chain.last = rule;
}

void CompiledPolicy::build_rule_indexes() {
    const auto count = static_cast<RuleIndex>(policy_.rules.size());
    next_in_chain_.assign(count, RuleChain::kEnd);
    using Service = std::tuple<Direction, ProtocolSet, std::vector<PortRange>>;
    std::set<Service> denied_services;
    std::map<IpPrefix, RuleChain> block_chains;
    for (const RuleGroup& group : rule_groups_) {
        const Rule& rule = policy_.rules[group.first];
        if (rule.action == Action::kDeny && std::holds_alternative<DomainTarget>(rule.target) &&
            denied_services.emplace(rule.direction, rule.protocols, rule.ports).second)
            first_domain_denials_.push_back(group.first);
        if (rule.action == Action::kAllow && rule.cname && rule.direction != Direction::kIngress &&
            !first_alias_allowance_)
            first_alias_allowance_ = group.first;
    }

    struct Visitor {
        CompiledPolicy& self;
        std::map<IpPrefix, RuleChain>& block_chains;

        RuleChain& operator()(const AnyTarget&) const { return self.any_rules_; }

        RuleChain& operator()(const DnsTarget&) const { return self.query_rules_; }

        RuleChain& operator()(const GroupTarget& target) const {
            return self.group_rules_[std::string(group_name(target))];
        }

        RuleChain& operator()(const PrefixTarget& target) const { return block_chains[target.prefix]; }

        RuleChain& operator()(const DomainTarget& target) const {
            NameRules& rules = self.names_[target.name.text()];
            return target.suffix ? rules.suffix : rules.exact;
        }
    };

    for (RuleIndex i = 0; i < count; ++i)
        add_to(std::visit(Visitor{*this, block_chains}, policy_.rules[i].target), i);
    build_blocks(block_chains);
}

void CompiledPolicy::build_blocks(const std::map<IpPrefix, RuleChain>& chains) {
    for (const auto& [prefix, rules] : chains) {
        std::vector<Block>& blocks = prefix.address().is_v4() ? blocks4_ : blocks6_;
        std::uint32_t outer = static_cast<std::uint32_t>(blocks.size());
        while (outer != 0 && !blocks[outer - 1].prefix.contains(prefix))
            outer = blocks[outer - 1].outer;
        blocks.push_back({prefix, outer, rules});
    }
}

RuleChain CompiledPolicy::group_rules(std::string_view group) const {
    const auto found = group_rules_.find(group);
    return found == group_rules_.end() ? RuleChain() : found->second;
}

void CompiledPolicy::append_chain(const RuleChain& chain, std::vector<RuleIndex>& rules) const {
    for_each(chain, [&rules](RuleIndex rule) { rules.push_back(rule); });
}

void CompiledPolicy::append_address_rules(const IpAddress& address, std::string_view group,
                                          std::vector<RuleIndex>& rules) const {
    append_chain(any_rules_, rules);
    append_chain(group_rules(group), rules);
    const std::vector<Block>& blocks = this->blocks(address.is_v4());
    // The last block that begins at or before the address either holds it, or is inside of all that do.
    const auto behind = std::ranges::upper_bound(blocks, address, {},
                                                 [](const Block& block) { return block.prefix.address(); });
    for (auto index = static_cast<std::uint32_t>(behind - blocks.begin()); index != 0;) {
        const Block& block = blocks[index - 1];
        if (block.prefix.contains(address))
            append_chain(block.rules, rules);
        index = block.outer;
    }
}

void CompiledPolicy::append_domain_rules(const Name& name, std::vector<RuleIndex>& rules) const {
    bool exact = true;
    for (std::string_view zone = name.text();;) {
        if (const auto found = names_.find(zone); found != names_.end()) {
            if (exact)
                append_chain(found->second.exact, rules);
            append_chain(found->second.suffix, rules);
        }
        exact = false;
        const std::size_t dot = zone.find('.');
        if (dot == std::string_view::npos)
            return;
        zone.remove_prefix(dot + 1);
    }
}

void CompiledPolicy::append_query_rules(std::vector<RuleIndex>& rules) const {
    append_chain(any_rules_, rules);
    append_chain(query_rules_, rules);
    append_chain(group_rules(word_for(BuiltinGroup::kHost, kBuiltinGroups)), rules);
}

} // namespace tapgate::policy
