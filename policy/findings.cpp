// SPDX-License-Identifier: Apache-2.0
#include "policy/findings.hpp"

#include "policy/groups.hpp"
#include "policy/parse.hpp"
#include "policy/public_suffix.hpp"
#include "policy/rule_cover.hpp"
#include "policy/words.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <limits>
#include <optional>
#include <set>
#include <unordered_map>

namespace tapgate::policy {

namespace {

constexpr RuleIndex kNone = std::numeric_limits<RuleIndex>::max();

/// Of earlier rules with one target, no more than this many are compared with a later one, which bounds the
/// time. A file has more of them only if it lists a target with that many different services.
constexpr std::size_t kMostCompared = 64;

constexpr Words<FindingKind, 8> kKindWords = {{{"hidden", FindingKind::kHidden},
                                               {"matches-nothing", FindingKind::kMatchesNothing},
                                               {"hidden-but-host", FindingKind::kHiddenButHost},
                                               {"denial-behind-any", FindingKind::kDenialBehindAny},
                                               {"denial-behind-name", FindingKind::kDenialBehindName},
                                               {"unresolvable", FindingKind::kUnresolvable},
                                               {"public-suffix", FindingKind::kPublicSuffix},
                                               {"alias-opens-queries", FindingKind::kAliasOpensQueries}}};

/// Which group holds a whole block, by the tables alone: the host's own addresses are not known here.
class GroupMap {
  public:
    GroupMap(const Policy& policy, const GroupTable& daemon_groups) {
        std::set<IpPrefix> taken;
        for (const GroupTable* table :
             std::initializer_list<const GroupTable*>{&policy.groups, &daemon_groups})
            for (const auto& [name, blocks] : *table) {
                for (const IpPrefix& block : blocks)
                    if (taken.insert(block).second)
                        entries_.push_back({block, name});
                std::vector<IpPrefix>& all = blocks_[name];
                all.insert(all.end(), blocks.begin(), blocks.end());
            }
        std::ranges::sort(entries_, {}, &Entry::prefix);
        for (const Entry& entry : entries_)
            lengths_.insert(entry.prefix.length());
        same_until_.resize(entries_.size());
        for (std::size_t i = entries_.size(); i-- > 0;)
            same_until_[i] = i + 1 < entries_.size() && entries_[i + 1].group == entries_[i].group
                                 ? same_until_[i + 1]
                                 : i + 1;
    }

    /// The group that holds every address of `block` unless it is the host's; empty if there may be several.
    [[nodiscard]] std::string_view group_of(const IpPrefix& block) const {
        for (const IpPrefix& translated : translated_blocks())
            if (translated.contains(block) || block.contains(translated))
                return {};
        // The entries inside an IPv6 block stand together unless those of IPv4 stand between them.
        if (!block.address().is_v4() && block.length() < 96 &&
            IpPrefix::around(IpAddress::from_v4(0), block.length()) == block)
            return {};
        std::string_view group;
        for (auto length = lengths_.rbegin(); length != lengths_.rend() && group.empty(); ++length)
            if (*length <= block.length())
                group = entry_group(IpPrefix::around(block.address(), *length), block);
        const bool from_table = !group.empty();
        if (!from_table) {
            const auto holder = std::ranges::find_if(builtin_blocks(), [&](const BuiltinBlock& candidate) {
                return candidate.prefix.contains(block);
            });
            group = word_for(holder != builtin_blocks().end() ? holder->group : BuiltinGroup::kPublic,
                             kBuiltinGroups);
        }
        // A block inside `block` may be of another group. The built-in ones give way to the table, but
        // `meta`.
        const bool uniform = std::ranges::all_of(builtin_blocks(), [&](const BuiltinBlock& inner) {
            const bool counts = !from_table || inner.group == BuiltinGroup::kMeta;
            return !counts || !block.contains(inner.prefix) || word_for(inner.group, kBuiltinGroups) == group;
        });
        return uniform && entries_inside_are(block, group) ? group : std::string_view{};
    }

    /// The blocks that [groups] tables list under `name`.
    [[nodiscard]] const std::vector<IpPrefix>* blocks_of(const std::string& name) const {
        const auto found = blocks_.find(name);
        return found == blocks_.end() ? nullptr : &found->second;
    }

    /// A translated address may be in another group than the IPv4 address inside it.
    [[nodiscard]] bool moves_translated() const {
        return std::ranges::any_of(entries_, [](const Entry& entry) {
            return std::ranges::any_of(translated_blocks(), [&](const IpPrefix& translated) {
                return translated.contains(entry.prefix) || entry.prefix.contains(translated);
            });
        });
    }

  private:
    struct Entry {
        IpPrefix prefix;
        std::string_view group;
    };

    static const std::array<IpPrefix, 2>& translated_blocks() {
        static const std::array<IpPrefix, 2> blocks = {*IpPrefix::parse("64:ff9b::/96"),
                                                       *IpPrefix::parse("2002::/16")};
        return blocks;
    }

    /// The group of the entry `prefix` if there is one and it holds `block`.
    [[nodiscard]] std::string_view entry_group(const IpPrefix& prefix, const IpPrefix& block) const {
        const auto found = std::ranges::lower_bound(entries_, prefix, {}, &Entry::prefix);
        const bool holds = found != entries_.end() && found->prefix == prefix && prefix.contains(block);
        return holds ? found->group : std::string_view{};
    }

    [[nodiscard]] bool entries_inside_are(const IpPrefix& block, std::string_view group) const {
        auto entry = std::ranges::lower_bound(entries_, block, {}, &Entry::prefix);
        while (entry != entries_.end() && block.contains(entry->prefix.address())) {
            if (entry->group != group)
                return false;
            entry = entries_.begin() + static_cast<std::ptrdiff_t>(
                                           same_until_[static_cast<std::size_t>(entry - entries_.begin())]);
        }
        return true;
    }

    std::vector<Entry> entries_;
    /// For each entry, the first one behind it that is of another group.
    std::vector<std::size_t> same_until_;
    std::set<unsigned> lengths_;
    std::map<std::string, std::vector<IpPrefix>> blocks_;
};

struct PrefixHash {
    std::size_t operator()(const IpPrefix& prefix) const noexcept {
        return std::hash<IpAddress>{}(prefix.address()) * 131U + prefix.length();
    }
};

/// The rules before the one that is looked at, by their targets. Each list is a chain, the latest rule first.
class EarlierRules {
  public:
    explicit EarlierRules(const std::vector<Rule>& rules) : rules_(rules), next_(rules.size(), kNone) {}

    void add(RuleIndex index) {
        const Rule& rule = rules_[index];
        if (const auto* domain = std::get_if<DomainTarget>(&rule.target)) {
            auto& chains = domain->suffix ? suffixes_ : names_;
            link(chains.try_emplace(domain->name.text(), kNone).first->second, index);
        } else if (const auto* block = std::get_if<PrefixTarget>(&rule.target)) {
            link(blocks_.try_emplace(block->prefix, kNone).first->second, index);
            lengths_.insert(block->prefix.length());
        } else if (const auto* group = std::get_if<GroupTarget>(&rule.target)) {
            link(groups_.try_emplace(group_name(*group), kNone).first->second, index);
        } else if (std::holds_alternative<AnyTarget>(rule.target)) {
            link(any_, index);
        }
    }

    /// The first of the rules for `any` and of those around `target` that satisfies `wanted`.
    template <typename Wanted>
    [[nodiscard]] RuleIndex first_around(const Target& target, const Wanted& wanted) const {
        RuleIndex first = first_of(any_, wanted);
        const auto consider = [&](const auto& chains, const auto& key) {
            if (const auto found = chains.find(key); found != chains.end())
                first = std::min(first, first_of(found->second, wanted));
        };
        if (const auto* domain = std::get_if<DomainTarget>(&target)) {
            if (!domain->suffix)
                consider(names_, std::string_view(domain->name.text()));
            for (std::string_view zone = domain->name.text();;) {
                consider(suffixes_, zone);
                const std::size_t dot = zone.find('.');
                if (dot == std::string_view::npos)
                    break;
                zone.remove_prefix(dot + 1);
            }
        } else if (const auto* block = std::get_if<PrefixTarget>(&target)) {
            for (const unsigned length : lengths_) {
                if (length > block->prefix.length())
                    break;
                consider(blocks_, IpPrefix::around(block->prefix.address(), length));
            }
        } else if (const auto* group = std::get_if<GroupTarget>(&target)) {
            consider(groups_, group_name(*group));
        }
        return first;
    }

    template <typename Wanted>
    [[nodiscard]] RuleIndex first_in_group(std::string_view group, const Wanted& wanted) const {
        const auto found = groups_.find(group);
        return found == groups_.end() ? kNone : first_of(found->second, wanted);
    }

  private:
    void link(RuleIndex& head, RuleIndex index) {
        next_[index] = head;
        head = index;
    }

    template <typename Wanted>
    [[nodiscard]] RuleIndex first_of(RuleIndex head, const Wanted& wanted) const {
        RuleIndex first = kNone;
        std::size_t compared = 0;
        for (RuleIndex i = head; i != kNone && compared < kMostCompared; i = next_[i], ++compared)
            if (wanted(rules_[i]))
                first = i;
        return first;
    }

    const std::vector<Rule>& rules_;
    std::vector<RuleIndex> next_;
    RuleIndex any_ = kNone;
    // Where the chain of a target begins.
    std::unordered_map<std::string_view, RuleIndex> names_;
    std::unordered_map<std::string_view, RuleIndex> suffixes_;
    std::unordered_map<std::string_view, RuleIndex> groups_;
    std::unordered_map<IpPrefix, RuleIndex, PrefixHash> blocks_;
    std::set<unsigned> lengths_;
};

/// Adds to `by` unless it is there.
void add_once(std::vector<RuleIndex>& by, RuleIndex index) {
    if (std::ranges::find(by, index) == by.end())
        by.push_back(index);
}

bool is_deny(const Rule& rule) {
    return rule.action == Action::kDeny;
}

/// Addresses that no policy can allow (decide.cpp asks no rule about them).
bool is_refused_block(const Target& target) {
    static const std::array<IpPrefix, 3> refused = {*IpPrefix::parse("0.0.0.0"), *IpPrefix::parse("::"),
                                                    *IpPrefix::parse("240.0.0.0/4")};
    const auto* block = std::get_if<PrefixTarget>(&target);
    return block != nullptr && std::ranges::any_of(refused, [&](const IpPrefix& candidate) {
               return candidate.contains(block->prefix);
           });
}

/// Addresses among which those of any name may be.
bool is_broad(const Target& target) {
    static const std::array<IpPrefix, 2> everything = {*IpPrefix::parse("0.0.0.0/0"),
                                                       *IpPrefix::parse("::/0")};
    if (const auto* block = std::get_if<PrefixTarget>(&target))
        return std::ranges::find(everything, block->prefix) != everything.end();
    const auto* group = std::get_if<GroupTarget>(&target);
    return std::holds_alternative<AnyTarget>(target) ||
           (group != nullptr && group_name(*group) == word_for(BuiltinGroup::kPublic, kBuiltinGroups));
}

/// Goes through the rules in their order.
class Reviewer {
  public:
    Reviewer(const Policy& policy, const GroupTable& daemon_groups)
        : rules_(policy.rules), dns_(policy.dns), groups_(policy, daemon_groups),
          moves_translated_(groups_.moves_translated()), earlier_(rules_) {}

    std::vector<Finding> review() {
        for (RuleIndex index = 0; index < rules_.size(); ++index)
            review_rule(index);
        return std::move(findings_);
    }

  private:
    void review_rule(RuleIndex index) {
        const Rule& rule = rules_[index];
        const bool on_name = std::holds_alternative<DomainTarget>(rule.target);
        auto finding = without_effect(rule);
        const bool hidden = finding.has_value();
        if (!hidden)
            finding = on_name ? name_pitfall(rule) : hidden_but_host(rule);
        if (finding)
            report(index, std::move(*finding));
        if (const auto* domain = std::get_if<DomainTarget>(&rule.target); domain != nullptr && !hidden &&
                                                                          domain->suffix && !is_deny(rule) &&
                                                                          is_public_suffix(domain->name))
            report(index, {FindingKind::kPublicSuffix, index, {}});
        // Unless earlier rules decide every query as it is.
        if (!hidden && rule.cname && !is_deny(rule) && query_transports(rule, dns_).any() &&
            (first_udp_ == kNone || first_tcp_ == kNone))
            report(index, {FindingKind::kAliasOpensQueries, index, {}});
        // What a hidden rule covers is covered by the rule that hides it.
        if (!hidden)
            earlier_.add(index);
        const QueryTransports transports = query_transports(rule, dns_);
        if (!on_name && transports.udp)
            first_udp_ = std::min(first_udp_, index);
        if (!on_name && transports.tcp)
            first_tcp_ = std::min(first_tcp_, index);
        if (!is_deny(rule) && is_broad(rule.target) && broad_allows_.size() < kMostCompared)
            broad_allows_.push_back(index);
    }

    void report(RuleIndex index, Finding finding) {
        finding.rule = index;
        std::ranges::sort(finding.by);
        findings_.push_back(std::move(finding));
    }

    /// Finds for everything that the rule could decide an earlier rule that decides it.
    std::optional<Finding> without_effect(const Rule& rule) const {
        const bool flows = !std::holds_alternative<DnsTarget>(rule.target) && has_service(rule) &&
                           !is_refused_block(rule.target);
        const bool answer_addresses = judges_answer_addresses(rule) && !is_refused_block(rule.target);
        const bool answer_names = permits_answer_names(rule);
        const QueryTransports queries = query_transports(rule, dns_);
        if (!flows && !answer_addresses && !answer_names && !queries.any())
            return Finding{FindingKind::kMatchesNothing, 0, {}};

        Finding finding;
        if (flows) {
            const RuleIndex by =
                first_covering(rule, [&](const Rule& earlier) { return settles_flows(earlier, rule); });
            if (by == kNone)
                return std::nullopt;
            finding.by.push_back(by);
        }
        if (queries.any() && !add_query_covers(rule, queries, finding.by))
            return std::nullopt;
        if (answer_addresses) {
            const RuleIndex by = first_covering(rule, judges_answer_addresses);
            if (by == kNone)
                return std::nullopt;
            add_once(finding.by, by);
        }
        if (answer_names) {
            const RuleIndex by = first_covering(rule, permits_answer_names);
            if (by == kNone)
                return std::nullopt;
            add_once(finding.by, by);
        }
        return finding;
    }

    /// The first rule that covers the target of `rule` and satisfies `wanted`.
    template <typename Wanted>
    RuleIndex first_covering(const Rule& rule, const Wanted& wanted) const {
        const RuleIndex first = earlier_.first_around(rule.target, [&](const Rule& earlier) {
            return covers_target(earlier, rule) && wanted(earlier);
        });
        const auto* group = std::get_if<GroupTarget>(&rule.target);
        const auto* name = group != nullptr ? std::get_if<std::string>(&group->group) : nullptr;
        const auto* blocks = name != nullptr ? groups_.blocks_of(*name) : nullptr;
        if (blocks == nullptr || blocks->empty())
            return first;
        // A group of a [groups] table is covered by a block that holds all of its blocks.
        return std::min(first, earlier_.first_around(PrefixTarget{blocks->front()}, [&](const Rule& earlier) {
            return wanted(earlier) && std::ranges::all_of(*blocks, [&](const IpPrefix& block) {
                       return covers_block(earlier, rule, block);
                   });
        }));
    }

    /// Adds the rules that decide the queries which `rule` could; false if there are some that none decides.
    bool add_query_covers(const Rule& rule, const QueryTransports& transports,
                          std::vector<RuleIndex>& by) const {
        // Preferably a rule that is listed already.
        for (const RuleIndex listed : by) {
            const QueryTransports covered = query_transports(rules_[listed], dns_);
            if ((covered.udp || !transports.udp) && (covered.tcp || !transports.tcp))
                return true;
        }
        const RuleIndex by_name = name_query_cover(rule);
        if (by_name != kNone) {
            add_once(by, by_name);
            return true;
        }
        for (const auto& [asked, first] :
             {std::pair(transports.udp, first_udp_), {transports.tcp, first_tcp_}}) {
            if (!asked)
                continue;
            if (first == kNone)
                return false;
            add_once(by, first);
        }
        return true;
    }

    /// The first rule on names that decides every query which `rule`, a rule on names, could.
    RuleIndex name_query_cover(const Rule& rule) const {
        const auto* narrow = std::get_if<DomainTarget>(&rule.target);
        if (narrow == nullptr)
            return kNone;
        return earlier_.first_around(rule.target, [&](const Rule& earlier) {
            return std::holds_alternative<DomainTarget>(earlier.target) && covers_target(earlier, rule) &&
                   query_transports(earlier, dns_).any();
        });
    }

    /// A rule on a block behind one on the group that holds the block.
    std::optional<Finding> hidden_but_host(const Rule& rule) const {
        const auto* block = std::get_if<PrefixTarget>(&rule.target);
        if (block == nullptr || (is_deny(rule) && moves_translated_ && block->prefix.address().is_v4()))
            return std::nullopt;
        const std::string_view group = groups_.group_of(block->prefix);
        if (group.empty())
            return std::nullopt;
        const auto hiding = [&](std::string_view name) {
            Finding finding{FindingKind::kHiddenButHost, 0, {}};
            const RuleIndex flows = earlier_.first_in_group(
                name, [&](const Rule& earlier) { return covers_service(earlier, rule); });
            if (flows == kNone)
                return std::optional<Finding>();
            finding.by.push_back(flows);
            if (judges_answer_addresses(rule)) {
                const RuleIndex answers = earlier_.first_in_group(name, judges_answer_addresses);
                if (answers == kNone)
                    return std::optional<Finding>();
                add_once(finding.by, answers);
            }
            return std::optional(finding);
        };
        auto finding = hiding(group);
        if (!finding)
            return std::nullopt;
        if (const auto host = hiding(word_for(BuiltinGroup::kHost, kBuiltinGroups))) {
            finding->kind = FindingKind::kHidden;
            for (const RuleIndex by : host->by)
                add_once(finding->by, by);
        }
        return finding;
    }

    /// What rules on names are written for in vain though they have some effect.
    std::optional<Finding> name_pitfall(const Rule& rule) const {
        if (is_deny(rule)) {
            const RuleIndex allow = earlier_.first_around(rule.target, [&](const Rule& earlier) {
                return std::holds_alternative<DomainTarget>(earlier.target) && !is_deny(earlier) &&
                       services_overlap(earlier, rule);
            });
            if (allow != kNone)
                return Finding{FindingKind::kDenialBehindName, 0, {allow}};
            const auto broad = std::ranges::find_if(
                broad_allows_, [&](RuleIndex earlier) { return services_overlap(rules_[earlier], rule); });
            if (broad != broad_allows_.end())
                return Finding{FindingKind::kDenialBehindAny, 0, {*broad}};
            return std::nullopt;
        }
        // The rule that decides the queries for the name, over either transport.
        if (!query_transports(rule, dns_).any())
            return std::nullopt;
        const RuleIndex by_name = name_query_cover(rule);
        Finding finding{FindingKind::kUnresolvable, 0, {}};
        for (const RuleIndex first : {first_udp_, first_tcp_}) {
            const RuleIndex decides = std::min(first, by_name);
            if (decides == kNone || !is_deny(rules_[decides]))
                return std::nullopt;
            add_once(finding.by, decides);
        }
        return finding;
    }

    const std::vector<Rule>& rules_;
    const DnsSettings& dns_;
    GroupMap groups_;
    bool moves_translated_;
    EarlierRules earlier_;
    /// The first rules on `any`, `host` and `dns` that decide every query over a transport.
    RuleIndex first_udp_ = kNone;
    RuleIndex first_tcp_ = kNone;
    std::vector<RuleIndex> broad_allows_;
    std::vector<Finding> findings_;
};

/// "FILE:LINE:COLUMN: RULE", or "rule NUMBER: RULE" if its place is not known.
std::string placed_rule(const Policy& policy, RuleIndex index) {
    const std::string place = place_of(policy, index);
    return fmt::format("{}: {}", place.empty() ? fmt::format("rule {}", index + 1) : place,
                       format_rule(policy.rules.at(index)));
}

std::string_view why_it_matches_nothing(const Policy& policy, const Rule& rule) {
    if (is_refused_block(rule.target))
        return "these addresses are refused whatever the policy says";
    if (std::holds_alternative<DnsTarget>(rule.target) && !is_deny(rule) && policy.dns.only_allowed_names)
        return "only rules on names allow queries ([dns] resolve is \"allowed\")";
    return "no flow and no query has these protocols and ports";
}

} // namespace

bool is_without_effect(FindingKind kind) {
    return kind == FindingKind::kHidden || kind == FindingKind::kMatchesNothing;
}

std::string_view finding_name(FindingKind kind) {
    return word_for(kind, kKindWords);
}

std::vector<Finding> review(const Policy& policy, const GroupTable& daemon_groups) {
    return Reviewer(policy, daemon_groups).review();
}

std::string finding_text(const Policy& policy, const Finding& finding) {
    std::vector<std::string> rules;
    for (const RuleIndex index : finding.by)
        rules.push_back(placed_rule(policy, index));
    const std::string by = fmt::format("{}", fmt::join(rules, ", and "));
    std::string rule = placed_rule(policy, finding.rule);
    switch (finding.kind) {
    case FindingKind::kHidden:
        return fmt::format("{} never takes effect; an earlier rule decides first: {}", rule, by);
    case FindingKind::kMatchesNothing:
        return fmt::format("{} never takes effect; {}", rule,
                           why_it_matches_nothing(policy, policy.rules.at(finding.rule)));
    case FindingKind::kHiddenButHost:
        return fmt::format("{} decides for the host's own addresses at most; for the rest of the block an "
                           "earlier rule on its group does: {}",
                           rule, by);
    case FindingKind::kDenialBehindAny:
        return fmt::format("{} comes too late for what an earlier rule allows by address, where no name is "
                           "looked at; put it first: {}",
                           rule, by);
    case FindingKind::kDenialBehindName:
        return fmt::format("{} comes behind a rule that allows such names; put it first: {}", rule, by);
    case FindingKind::kUnresolvable:
        return fmt::format(
            "{} allows names that cannot be resolved; an earlier rule denies their queries: {}", rule, by);
    case FindingKind::kPublicSuffix:
        return fmt::format("{} allows a suffix under which anyone can have a name; name the sites that are "
                           "meant",
                           rule);
    case FindingKind::kAliasOpensQueries:
        return fmt::format(
            "{} has every name asked that no earlier rule decides, since any might be an alias; "
            "a name can carry data out",
            rule);
    }
    return rule;
}

} // namespace tapgate::policy
