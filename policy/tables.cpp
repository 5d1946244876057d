// SPDX-License-Identifier: Apache-2.0
#include "policy/tables.hpp"

#include "policy/groups.hpp"
#include "policy/match.hpp"

#include <algorithm>
#include <optional>
#include <unordered_map>
#include <utility>

namespace tapgate::policy {

namespace {

/// Gives equal sets one index.
class SetPool {
  public:
    explicit SetPool(std::vector<RuleGroupSet>& sets) : sets_(sets) {
        sets_.clear();
        static_cast<void>(index_of({}));
    }

    SetIndex index_of(const RuleGroupSet& set) {
        const auto [found, fresh] = known_.try_emplace(set, static_cast<SetIndex>(sets_.size()));
        if (fresh)
            sets_.push_back(set);
        return found->second;
    }

    /// The set at `base` and the groups of the rules in `chain`. Most chains are of one group, and a million
    /// of them are the same, so that is looked up without touching a whole set.
    SetIndex with(SetIndex base, const CompiledPolicy& policy, const RuleChain& chain) {
        if (chain.first == RuleChain::kEnd)
            return base;
        if (chain.first != chain.last)
            return index_of(united(base, policy, chain));
        const std::pair<SetIndex, std::size_t> step(base, policy.rule_group_of(chain.first));
        const auto found = steps_.find(step);
        if (found != steps_.end())
            return found->second;
        const SetIndex index = index_of(united(base, policy, chain));
        steps_.emplace(step, index);
        return index;
    }

  private:
    struct StepHash {
        std::size_t operator()(const std::pair<SetIndex, std::size_t>& step) const noexcept {
            return std::hash<std::uint64_t>{}((std::uint64_t{step.first} << 32U) | step.second);
        }
    };

    RuleGroupSet united(SetIndex base, const CompiledPolicy& policy, const RuleChain& chain) const {
        RuleGroupSet set = sets_[base];
        policy.for_each(chain, [&](RuleIndex rule) { set.set(policy.rule_group_of(rule)); });
        return set;
    }

    std::vector<RuleGroupSet>& sets_;
    std::unordered_map<RuleGroupSet, SetIndex> known_;
    std::unordered_map<std::pair<SetIndex, std::size_t>, SetIndex, StepHash> steps_;
};

// --- addresses -------------------------------------------------------------------------------------

/// What a block and the blocks around it say of an address.
struct AddressFacts {
    SetIndex blocks = 0;
    BuiltinGroup builtin = BuiltinGroup::kPublic;
    std::string_view declared; ///< group of the longest [groups] block
};

/// What one block says by itself.
struct BlockFacts {
    RuleChain rules;
    std::optional<BuiltinGroup> builtin;
    std::string_view declared;
};

/// The address behind the last one of `prefix`; empty if that is the end of the space.
std::optional<IpAddress> end_of(const IpPrefix& prefix) {
    IpAddress::Bytes bytes = prefix.address().bytes();
    // Adds one at the last bit of the prefix.
    for (unsigned bit = prefix.length(); bit-- > 0;) {
        const auto mask = static_cast<std::uint8_t>(0x80U >> (bit % 8));
        bytes.at(bit / 8) ^= mask;
        if ((bytes.at(bit / 8) & mask) != 0)
            return IpAddress(bytes);
    }
    return std::nullopt;
}

const IpPrefix& all_of_v4() {
    static const IpPrefix prefix = *IpPrefix::parse("0.0.0.0/0");
    return prefix;
}

class AddressTable {
  public:
    AddressTable(const CompiledPolicy& policy, SetPool& pool, Tables& tables)
        : policy_(policy), pool_(pool), tables_(tables) {}

    void build() {
        collect();
        // A sweep over the space: blocks nest, so those around an address are a stack.
        for (const auto& [prefix, facts] : blocks_) {
            close_before(prefix.address());
            AddressFacts inside =
                stack_.empty() || prefix == all_of_v4() ? AddressFacts() : stack_.back().facts;
            inside.blocks = pool_.with(inside.blocks, policy_, facts.rules);
            if (facts.builtin)
                inside.builtin = std::min(inside.builtin, *facts.builtin);
            if (!facts.declared.empty())
                inside.declared = facts.declared;
            stack_.push_back({end_of(prefix), inside});
            emit(prefix.address(), inside);
        }
        close_before(std::nullopt);
    }

    /// The groups that match any address, or those of address group `name`.
    SetIndex groups_of(std::string_view name) {
        const auto [found, fresh] = group_sets_.try_emplace(name, 0);
        if (fresh)
            found->second =
                pool_.with(pool_.with(0, policy_, policy_.any_rules()), policy_, policy_.group_rules(name));
        return found->second;
    }

  private:
    struct Open {
        std::optional<IpAddress> end;
        AddressFacts facts;
    };

    /// All blocks that anything is said of. IPv4 lies inside of IPv6's numbers and is none of it, so it has a
    /// root of its own, which takes nothing from the blocks around it.
    void collect() {
        blocks_[*IpPrefix::parse("::/0")];
        blocks_[all_of_v4()];
        for (const BuiltinBlock& block : builtin_blocks())
            blocks_[block.prefix].builtin = block.group;
        for (const CompiledPolicy::GroupEntry& entry : policy_.group_entries())
            blocks_[entry.prefix].declared = entry.group;
        for (const bool v4 : {true, false})
            for (const CompiledPolicy::Block& block : policy_.blocks(v4))
                blocks_[block.prefix].rules = block.rules;
    }

    /// Leaves the blocks that end at or before `next`.
    void close_before(const std::optional<IpAddress>& next) {
        while (!stack_.empty() && stack_.back().end && (!next || *stack_.back().end <= *next)) {
            const IpAddress end = *stack_.back().end;
            stack_.pop_back();
            emit(end, stack_.back().facts);
        }
    }

    void emit(const IpAddress& first, const AddressFacts& facts) {
        Tables::AddressRange range;
        range.first = first;
        range.blocks = facts.blocks;
        range.meta = facts.builtin == BuiltinGroup::kMeta;
        range.declared = !range.meta && !facts.declared.empty();
        range.group = groups_of(range.declared ? facts.declared : word_for(facts.builtin, kBuiltinGroups));
        std::vector<Tables::AddressRange>& ranges = tables_.addresses;
        if (!ranges.empty() && ranges.back().first == first)
            ranges.pop_back();
        if (ranges.empty() || !ranges.back().same_as(range))
            ranges.push_back(range);
    }

    const CompiledPolicy& policy_;
    SetPool& pool_;
    Tables& tables_;
    std::map<IpPrefix, BlockFacts> blocks_;
    std::vector<Open> stack_;
    std::unordered_map<std::string_view, SetIndex> group_sets_;
};

// --- services --------------------------------------------------------------------------------------

void build_services_of(const CompiledPolicy& policy, Direction direction, Protocol protocol, SetPool& pool,
                       Tables& tables) {
    // (port, group): from there on the group's ports begin, or have ended. Ranges of one group may overlap,
    // so each is counted.
    std::vector<std::tuple<std::uint32_t, std::size_t, int>> changes;
    for (std::size_t group = 0; group < policy.rule_groups().size(); ++group) {
        const Rule& rule = policy.policy().rules[policy.rule_groups()[group].first];
        const bool directed = rule.direction == Direction::kAny || rule.direction == direction;
        // A group on `dns` matches no flow.
        if (!directed || std::holds_alternative<DnsTarget>(rule.target) ||
            !rule.protocols.includes(protocol) || (is_icmp(protocol) && !rule.ports.empty()))
            continue;
        if (rule.ports.empty())
            changes.emplace_back(0, group, 1);
        for (const PortRange& range : rule.ports) {
            changes.emplace_back(range.first, group, 1);
            changes.emplace_back(range.last + 1U, group, -1);
        }
    }
    std::ranges::sort(changes);
    std::vector<int> open(policy.rule_groups().size());
    RuleGroupSet now;
    auto change = changes.begin();
    for (std::uint32_t port = 0; port <= 0xffff;) {
        for (; change != changes.end() && std::get<0>(*change) == port; ++change) {
            const auto& [at, group, step] = *change;
            open[group] += step;
            now.set(group, open[group] != 0);
        }
        const SetIndex groups = pool.index_of(now);
        if (port == 0 || tables.services.back().groups != groups)
            tables.services.push_back({direction, protocol, static_cast<std::uint16_t>(port), groups});
        if (change == changes.end())
            return;
        port = std::get<0>(*change);
    }
}

// --- names -----------------------------------------------------------------------------------------

std::size_t labels_of(std::string_view name) {
    return static_cast<std::size_t>(std::ranges::count(name, '.')) + 1;
}

void build_names(const CompiledPolicy& policy, SetPool& pool, Tables& tables) {
    // Shorter names first, so that the zones around a name are known when it comes.
    std::vector<std::pair<std::size_t, CompiledPolicy::NameIndex::const_pointer>> ordered;
    ordered.reserve(policy.names().size());
    for (const auto& entry : policy.names())
        ordered.emplace_back(labels_of(entry.first), &entry);
    std::ranges::sort(ordered, {}, [](const auto& item) { return item.first; });

    std::unordered_map<std::string_view, SetIndex> zones;
    const auto zone_around = [&zones](std::string_view name) -> SetIndex {
        for (std::size_t dot = name.find('.'); dot != std::string_view::npos; dot = name.find('.')) {
            name.remove_prefix(dot + 1);
            if (const auto found = zones.find(name); found != zones.end())
                return found->second;
        }
        return 0;
    };
    tables.names.reserve(ordered.size());
    for (const auto& [labels, entry] : ordered) {
        const auto& [name, rules] = *entry;
        const SetIndex around = zone_around(name);
        Tables::NameEntry out;
        out.name = name;
        const bool is_suffix = rules.suffix.first != RuleChain::kEnd;
        const SetIndex suffix = pool.with(around, policy, rules.suffix);
        if (is_suffix) {
            out.suffix = suffix;
            zones.emplace(name, suffix);
            tables.suffix_labels = std::max(tables.suffix_labels, static_cast<unsigned>(labels));
        }
        out.exact = pool.with(suffix, policy, rules.exact);
        tables.names.push_back(out);
    }
}

// --- queries ---------------------------------------------------------------------------------------

/// The groups of those rules on `any`, `dns` and `host` that a query over UDP meets. Two rules of one group
/// may differ in that, as `any` and a block do.
RuleGroupSet groups_of_queries(const CompiledPolicy& policy) {
    std::vector<RuleIndex> rules;
    policy.append_query_rules(rules);
    RuleGroupSet groups;
    const Name any_name;
    const QueryView query{policy.policy().dns, any_name, Protocol::kUdp, {}};
    for (const RuleIndex rule : rules)
        if (match_query(policy.policy().rules[rule], query).effect == Effect::kDecides)
            groups.set(policy.rule_group_of(rule));
    return groups;
}

} // namespace

Tables build_tables(const CompiledPolicy& policy) {
    Tables tables;
    SetPool pool(tables.sets);
    for (std::size_t group = 0; group < policy.rule_groups().size(); ++group) {
        const Rule& rule = policy.policy().rules[policy.rule_groups()[group].first];
        tables.allow.set(group, rule.action == Action::kAllow);
        const bool on_names = std::holds_alternative<DomainTarget>(rule.target);
        tables.domain.set(group, on_names);
        tables.cname.set(group, on_names && rule.cname);
        tables.query_names.set(group, on_names && rule.direction != Direction::kIngress);
    }
    tables.query = groups_of_queries(policy);
    tables.deny_text = policy.policy().deny_text;
    tables.default_egress_allows = policy.policy().default_egress == Action::kAllow;
    tables.default_ingress_allows = policy.policy().default_ingress == Action::kAllow;
    AddressTable addresses(policy, pool, tables);
    addresses.build();
    tables.host_group = addresses.groups_of(word_for(BuiltinGroup::kHost, kBuiltinGroups));
    for (const Direction direction : {Direction::kEgress, Direction::kIngress})
        for (const Protocol protocol : {Protocol::kTcp, Protocol::kUdp, Protocol::kIcmpV4, Protocol::kIcmpV6})
            build_services_of(policy, direction, protocol, pool, tables);
    build_names(policy, pool, tables);
    return tables;
}

} // namespace tapgate::policy
