// SPDX-License-Identifier: Apache-2.0
#include "policy/compile.hpp"

#include "policy/document.hpp"
#include "policy/groups.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <set>
#include <tuple>

namespace tapgate::policy {

namespace {

constexpr RuleIndex kEndOfChain = std::numeric_limits<RuleIndex>::max();

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
                                            rule.text, unknown_word("group", *name, valid), *name);
        return fail(error_at(policy.source.empty() ? "policy" : policy.source, rule.location, why));
    }
    return {};
}

} // namespace

Result<std::shared_ptr<const CompiledPolicy>> CompiledPolicy::compile(Policy policy,
                                                                      const GroupTable& daemon_groups) {
    if (policy.rules.size() >= kEndOfChain)
        return fail(ErrorCode::kLimit, "the policy has more rules than can be counted in 32 bits");
    if (const auto checked = check_group_references(policy, daemon_groups); !checked)
        return fail(checked.error());
    std::shared_ptr<CompiledPolicy> compiled(new CompiledPolicy);
    compiled->policy_ = std::move(policy);
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

void CompiledPolicy::build_rule_indexes() {
    const auto count = static_cast<RuleIndex>(policy_.rules.size());
    next_with_same_name_.assign(count, kEndOfChain);
    using Service = std::tuple<Direction, ProtocolSet, std::vector<PortRange>>;
    std::set<Service> denied_services;
    for (RuleIndex i = 0; i < count; ++i) {
        const Rule& rule = policy_.rules[i];
        const auto* domain = std::get_if<DomainTarget>(&rule.target);
        if (domain == nullptr) {
            address_rules_.push_back(i);
            continue;
        }
        NameIndex& index = domain->suffix ? suffixes_ : exact_names_;
        const auto [chain, fresh] = index.try_emplace(domain->name.text(), NameChain{i, i});
        if (!fresh) {
            next_with_same_name_[chain->second.last] = i;
            chain->second.last = i;
        }
        if (rule.action == Action::kDeny &&
            denied_services.emplace(rule.direction, rule.protocols, rule.ports).second)
            first_domain_denials_.push_back(i);
    }
}

void CompiledPolicy::append_chain(const NameIndex& index, std::string_view name,
                                  std::vector<RuleIndex>& rules) const {
    const auto found = index.find(name);
    if (found == index.end())
        return;
    for (RuleIndex i = found->second.first; i != kEndOfChain; i = next_with_same_name_[i])
        rules.push_back(i);
}

void CompiledPolicy::append_domain_rules(const Name& name, std::vector<RuleIndex>& rules) const {
    append_chain(exact_names_, name.text(), rules);
    for (std::string_view zone = name.text();;) {
        append_chain(suffixes_, zone, rules);
        const std::size_t dot = zone.find('.');
        if (dot == std::string_view::npos)
            return;
        zone.remove_prefix(dot + 1);
    }
}

} // namespace tapgate::policy
