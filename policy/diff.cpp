// SPDX-License-Identifier: Apache-2.0
#include "policy/diff.hpp"

#include "policy/cases.hpp"
#include "policy/decide.hpp"
#include "policy/parse.hpp"
#include "policy/policy_words.hpp"
#include "policy/rule_text.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <limits>
#include <set>
#include <unordered_map>
#include <utility>

namespace tapgate::policy {

namespace {

constexpr RuleIndex kNoPair = std::numeric_limits<RuleIndex>::max();

/// For each rule of `after` its counterpart in `before`, kNoPair if there is none. Rules of one form are
/// paired in their order.
std::vector<RuleIndex> pair_rules(const Policy& before, const Policy& after) {
    std::unordered_map<std::string, RuleIndex> first_of_form;
    std::vector<RuleIndex> next_of_form(before.rules.size(), kNoPair);
    for (auto i = static_cast<RuleIndex>(before.rules.size()); i-- > 0;) {
        const auto [first, fresh] = first_of_form.try_emplace(format_rule(before.rules[i]), i);
        if (!fresh)
            next_of_form[i] = std::exchange(first->second, i);
    }
    std::vector<RuleIndex> pairs;
    pairs.reserve(after.rules.size());
    for (const Rule& rule : after.rules) {
        const auto first = first_of_form.find(format_rule(rule));
        if (first == first_of_form.end()) {
            pairs.push_back(kNoPair);
            continue;
        }
        pairs.push_back(first->second);
        first->second = next_of_form[first->second];
        if (first->second == kNoPair)
            first_of_form.erase(first);
    }
    return pairs;
}

/// The members of a longest ascending subsequence of `pairs`, kNoPair left out: the rules that need not move.
std::vector<bool> staying(const std::vector<RuleIndex>& pairs) {
    // The usual patience sorting: ends[n] is where the best subsequence of n + 1 members ends.
    std::vector<std::size_t> ends;
    std::vector<std::size_t> previous(pairs.size(), pairs.size());
    for (std::size_t i = 0; i < pairs.size(); ++i) {
        if (pairs[i] == kNoPair)
            continue;
        const auto end =
            std::ranges::lower_bound(ends, pairs[i], {}, [&](std::size_t member) { return pairs[member]; });
        if (end != ends.begin())
            previous[i] = *std::prev(end);
        if (end == ends.end())
            ends.push_back(i);
        else
            *end = i;
    }
    std::vector<bool> stays(pairs.size());
    for (std::size_t i = ends.empty() ? pairs.size() : ends.back(); i != pairs.size(); i = previous[i])
        stays[i] = true;
    return stays;
}

std::string group_text(const Policy& policy, const std::string& name) {
    const auto found = policy.groups.find(name);
    if (found == policy.groups.end())
        return {};
    std::vector<IpPrefix> blocks = found->second;
    std::ranges::sort(blocks);
    std::vector<std::string> texts;
    for (const IpPrefix& block : blocks)
        texts.push_back(block.to_string());
    return fmt::format("{}", fmt::join(texts, ", "));
}

std::vector<ChangedSetting> changed_settings(const Policy& before, const Policy& after) {
    std::vector<ChangedSetting> changed;
    const auto compare = [&](std::string key, std::string old_text, std::string new_text) {
        if (old_text != new_text)
            changed.push_back({std::move(key), std::move(old_text), std::move(new_text)});
    };
    const auto compare_word = [&](std::string_view key, auto Policy::* member, const auto& words) {
        compare(std::string(key), std::string(word_for(before.*member, words)),
                std::string(word_for(after.*member, words)));
    };
    compare_word("default_egress", &Policy::default_egress, kActions);
    compare_word("default_ingress", &Policy::default_ingress, kActions);
    const auto splice_word = [](const Policy& policy) {
        return policy.splice ? std::string(word_for(*policy.splice, kSpliceWords)) : std::string();
    };
    compare("splice", splice_word(before), splice_word(after));
    std::set<std::string> groups;
    for (const Policy* policy : {&before, &after})
        for (const auto& [name, blocks] : policy->groups)
            groups.insert(name);
    for (const std::string& name : groups)
        compare("groups." + name, group_text(before, name), group_text(after, name));
    compare("dns.resolve", std::string(word_for(before.dns.only_allowed_names, kResolveWords)),
            std::string(word_for(after.dns.only_allowed_names, kResolveWords)));
    for (const auto& [key, limit] : {std::pair("dns.max_label", &DnsSettings::max_label),
                                     {"dns.max_name", &DnsSettings::max_name},
                                     {"dns.names_per_zone", &DnsSettings::names_per_zone}})
        compare(key, std::to_string(before.dns.*limit), std::to_string(after.dns.*limit));
    compare_word("tls.no_sni", &Policy::no_sni, kNoSniWords);
    compare_word("tls.ech", &Policy::ech, kEchWords);
    compare_word("http.host", &Policy::http_host, kHttpHostWords);
    compare("deny.live_flows", live_flows_text(before), live_flows_text(after));
    compare_word("deny.style", &Policy::deny_style, kDenyStyleWords);
    compare("deny.text", before.deny_text, after.deny_text);
    return changed;
}

/// The verdicts on a case in one line.
std::string outcome_text(const Policy& policy, const CaseOutcome& outcome) {
    std::string verdict = decision_text(policy, outcome.verdict);
    if (!outcome.syn)
        return verdict;
    return fmt::format("syn {}, {}", verdict_name(outcome.syn->verdict), verdict);
}

} // namespace

PolicyDiff diff(const Policy& before, const Policy& after) {
    PolicyDiff result;
    const std::vector<RuleIndex> pairs = pair_rules(before, after);
    const std::vector<bool> stays = staying(pairs);
    std::vector<bool> kept(before.rules.size());
    for (RuleIndex i = 0; i < pairs.size(); ++i) {
        if (pairs[i] == kNoPair) {
            result.added.push_back(i);
            continue;
        }
        kept[pairs[i]] = true;
        if (!stays[i])
            result.moved.push_back({pairs[i], i});
    }
    for (RuleIndex i = 0; i < kept.size(); ++i)
        if (!kept[i])
            result.removed.push_back(i);
    result.settings = changed_settings(before, after);
    return result;
}

Result<VerdictDiff> diff_verdicts(const CompiledPolicy& before, const CompiledPolicy& after,
                                  std::string_view text, std::string_view file) {
    VerdictDiff result;
    const auto read = for_each_case(text, file, [&](Case&& c) -> Result<void> {
        const CaseOutcome first = judge_case(before, c);
        const CaseOutcome second = judge_case(after, c);
        const auto syn_of = [](const CaseOutcome& outcome) {
            return outcome.syn ? std::optional(outcome.syn->verdict) : std::nullopt;
        };
        if (first.verdict.verdict == second.verdict.verdict && syn_of(first) == syn_of(second))
            ++result.same;
        else
            result.changed.push_back({std::move(c.id), outcome_text(before.policy(), first),
                                      outcome_text(after.policy(), second)});
        return {};
    });
    if (!read)
        return fail(read.error());
    return result;
}

} // namespace tapgate::policy
