// SPDX-License-Identifier: Apache-2.0
#include "policy/learn.hpp"

#include "policy/decide.hpp"
#include "policy/match.hpp"
#include "policy/parse.hpp"
#include "policy/policy_words.hpp"
#include "policy/rule_text.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

namespace tapgate::policy {

namespace {

/// As a string of TOML; `text` is printable.
std::string quoted(std::string_view text) {
    std::string escaped;
    for (const char c : text) {
        if (c == '"' || c == '\\')
            escaped += '\\';
        escaped += c;
    }
    return fmt::format("\"{}\"", escaped);
}

std::string counts_text(const LearnedRule& learned) {
    std::vector<std::string> counts;
    if (learned.connections != 0)
        counts.push_back(fmt::format("{} connections", learned.connections));
    if (learned.questions != 0)
        counts.push_back(fmt::format("{} questions", learned.questions));
    if (learned.connections == 0)
        counts.emplace_back("no connection");
    if (learned.is_guessed)
        counts.emplace_back("known by its address alone");
    return fmt::format("{}", fmt::join(counts, ", "));
}

/// `[TABLE]` and its lines, if there are any.
std::string table_text(std::string_view table, const std::vector<std::string>& lines) {
    return lines.empty() ? std::string() : fmt::format("\n[{}]\n{}\n", table, fmt::join(lines, "\n"));
}

} // namespace

template <typename Target>
Learner::Use* Learner::use_of(std::map<Target, Use>& uses, const Target& target) {
    if (const auto known = uses.find(target); known != uses.end())
        return &known->second;
    if (names_.size() + addresses_.size() >= kMostTargets) {
        is_overfull_ = true;
        return nullptr;
    }
    return &uses[target];
}

void Learner::note_connection(const Endpoint& destination, std::span<const Name> names, bool is_guessed) {
    for (const Name& name : names) {
        if (Use* use = use_of(names_, name)) {
            ++use->ports[destination.port];
            use->addresses.insert(destination.address);
            use->is_guessed = use->is_guessed || is_guessed;
        }
    }
    if (names.empty())
        if (Use* use = use_of(addresses_, destination.address))
            ++use->ports[destination.port];
}

void Learner::note_question(const Name& name) {
    if (Use* use = use_of(names_, name))
        ++use->questions;
}

void Learner::note_address(const Name& name, const IpAddress& address) {
    if (const auto known = names_.find(name); known != names_.end())
        known->second.addresses.insert(address);
}

std::vector<LearnedRule> Learner::rules(const CompiledPolicy& observed,
                                        const HostAddresses& host_addresses) const {
    // What answers may carry is asked of a policy that has the groups and no rules.
    Policy bare;
    bare.groups = observed.policy().groups;
    const auto compiled = CompiledPolicy::compile(std::move(bare));
    const CompiledPolicy* const groups = compiled ? compiled->get() : nullptr;
    std::vector<LearnedRule> rules;
    const auto add = [&rules](Target target, const Use& use) -> LearnedRule& {
        LearnedRule& learned = rules.emplace_back();
        learned.rule.action = Action::kAllow;
        learned.rule.target = std::move(target);
        learned.rule.protocols.insert(use.ports.empty() ? Protocol::kUdp : Protocol::kTcp);
        for (const auto& [port, connections] : use.ports) {
            learned.rule.ports.push_back({port, port});
            learned.connections += connections;
        }
        // A rule on a name for these allows its questions and no connection: port 53 is the resolver's,
        // wherever it is dialled.
        if (use.ports.empty())
            learned.rule.ports.push_back({kDnsPort, kDnsPort});
        learned.questions = use.questions;
        learned.is_guessed = use.is_guessed;
        return learned;
    };
    for (const auto& [name, use] : names_) {
        Rule& rule = add(DomainTarget{name, false}, use).rule;
        rule.private_ok = std::ranges::any_of(use.addresses, [&](const IpAddress& address) {
            return groups == nullptr || !answer_address_permitted(*groups, name, address, host_addresses);
        });
    }
    for (const auto& [address, use] : addresses_)
        add(PrefixTarget{IpPrefix(address)}, use);
    return rules;
}

Policy learned_policy(const Policy& observed, const std::vector<LearnedRule>& rules) {
    Policy policy = observed;
    policy.source.clear();
    policy.default_egress = Action::kDeny;
    policy.default_ingress = Action::kDeny;
    policy.rules.clear();
    for (const LearnedRule& learned : rules)
        policy.rules.push_back(learned.rule);
    return policy;
}

std::string learned_text(const Policy& observed, const std::vector<LearnedRule>& rules) {
    std::string text = "rules = [\n";
    std::size_t width = 0;
    for (const LearnedRule& learned : rules)
        width = std::max(width, format_for_file(learned.rule).size());
    for (const LearnedRule& learned : rules)
        text += fmt::format("  {:<{}}  # {}\n", format_for_file(learned.rule) + ",", width + 1,
                            counts_text(learned));
    text += "]\n";
    if (observed.splice)
        text += fmt::format("splice = {}\n", quoted(word_for(*observed.splice, kSpliceWords)));

    std::vector<std::string> lines;
    for (const auto& [name, blocks] : observed.groups) {
        std::vector<std::string> quoted_blocks;
        for (const IpPrefix& block : blocks)
            quoted_blocks.push_back(quoted(block.to_string()));
        lines.push_back(fmt::format("{} = [{}]", name, fmt::join(quoted_blocks, ", ")));
    }
    text += table_text("groups", lines);

    const Policy usual;
    lines.clear();
    if (observed.dns.only_allowed_names)
        lines.push_back("resolve = " + quoted(word_for(true, kResolveWords)));
    for (const auto& [key, limit] : {std::pair("max_label", observed.dns.max_label),
                                     {"max_name", observed.dns.max_name},
                                     {"names_per_zone", observed.dns.names_per_zone}})
        if (limit != 0)
            lines.push_back(fmt::format("{} = {}", key, limit));
    text += table_text("dns", lines);
    lines.clear();
    if (observed.no_sni != usual.no_sni)
        lines.push_back("no_sni = " + quoted(word_for(observed.no_sni, kNoSniWords)));
    if (observed.ech != usual.ech)
        lines.push_back("ech = " + quoted(word_for(observed.ech, kEchWords)));
    text += table_text("tls", lines);
    lines.clear();
    if (observed.http_host != usual.http_host)
        lines.push_back("host = " + quoted(word_for(observed.http_host, kHttpHostWords)));
    text += table_text("http", lines);
    lines.clear();
    if (observed.live_flows != usual.live_flows)
        lines.push_back("live_flows = " + quoted(live_flows_text(observed)));
    if (observed.deny_style != usual.deny_style)
        lines.push_back("style = " + quoted(word_for(observed.deny_style, kDenyStyleWords)));
    if (!observed.deny_text.empty())
        lines.push_back("text = " + quoted(observed.deny_text));
    return text + table_text("deny", lines);
}

} // namespace tapgate::policy
