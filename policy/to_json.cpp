// SPDX-License-Identifier: Apache-2.0
#include "policy/groups.hpp"
#include "policy/parse.hpp"
#include "policy/policy_words.hpp"
#include "policy/rule_text.hpp"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <fmt/format.h>

#include <algorithm>

namespace tapgate::policy {

namespace {

namespace json = boost::json;

json::string_view word(std::string_view text) {
    return {text.data(), text.size()};
}

json::value destination_json(const Target& target) {
    struct Writer {
        json::value operator()(const AnyTarget&) const { return "any"; }

        json::value operator()(const DnsTarget&) const { return "dns"; }

        json::value operator()(const GroupTarget& group) const {
            std::string name(group_name(group));
            if (std::holds_alternative<BuiltinGroup>(group.group))
                std::ranges::replace(name, '-', '_');
            return json::object{{"group", name}};
        }

        json::value operator()(const PrefixTarget& target) const {
            return json::object{{"cidr", target.prefix.to_string()}};
        }

        json::value operator()(const DomainTarget& domain) const {
            return json::object{{domain.suffix ? "domain_suffix" : "domain", domain.name.text()}};
        }
    };

    return std::visit(Writer{}, target);
}

json::object rule_json(const Rule& rule) {
    json::object object;
    object["direction"] = word(word_for(rule.direction, kDirections));
    object["destination"] = destination_json(rule.target);
    if (!rule.protocols.empty()) {
        json::array protocols;
        for (const Protocol protocol : rule.protocols)
            protocols.push_back(word(word_for(protocol, kProtocols)));
        object["protocols"] = std::move(protocols);
    }
    if (!rule.ports.empty()) {
        json::array ports;
        for (const PortRange& range : rule.ports)
            ports.push_back(json::object{{"start", range.first}, {"end", range.last}});
        object["ports"] = std::move(ports);
    }
    object["action"] = word(word_for(rule.action, kActions));
    json::array options;
    if (rule.private_ok)
        options.push_back("private-ok");
    if (rule.cname)
        options.push_back("cname");
    if (!options.empty())
        object["options"] = std::move(options);
    return object;
}

} // namespace

std::string live_flows_text(const Policy& policy) {
    switch (policy.live_flows) {
    case LiveFlows::kCut:
        return "cut";
    case LiveFlows::kDrain:
        return fmt::format("drain {}s", policy.drain.count());
    case LiveFlows::kKeep:
        return "keep";
    }
    return "cut";
}

std::string to_json(const Policy& policy) {
    json::object object;
    object["default_egress"] = word(word_for(policy.default_egress, kActions));
    object["default_ingress"] = word(word_for(policy.default_ingress, kActions));
    json::array rules;
    rules.reserve(policy.rules.size());
    for (const Rule& rule : policy.rules)
        rules.push_back(rule_json(rule));
    object["rules"] = std::move(rules);
    if (policy.splice)
        object["splice"] = word(word_for(*policy.splice, kSpliceWords));
    if (!policy.groups.empty()) {
        json::object groups;
        for (const auto& [name, blocks] : policy.groups) {
            json::array list;
            for (const IpPrefix& block : blocks)
                list.push_back(json::string(block.to_string()));
            groups[name] = std::move(list);
        }
        object["groups"] = std::move(groups);
    }
    json::object& dns = object["dns"].emplace_object();
    dns["resolve"] = word(word_for(policy.dns.only_allowed_names, kResolveWords));
    for (const auto& [key, limit] : {std::pair("max_label", policy.dns.max_label),
                                     {"max_name", policy.dns.max_name},
                                     {"names_per_zone", policy.dns.names_per_zone}})
        if (limit != 0)
            dns[key] = limit;
    object["tls"] = json::object{{"no_sni", word(word_for(policy.no_sni, kNoSniWords))},
                                 {"ech", word(word_for(policy.ech, kEchWords))}};
    object["http"] = json::object{{"host", word(word_for(policy.http_host, kHttpHostWords))}};
    object["deny"] = json::object{{"live_flows", live_flows_text(policy)},
                                  {"style", word(word_for(policy.deny_style, kDenyStyleWords))},
                                  {"text", policy.deny_text}};
    return json::serialize(object);
}

} // namespace tapgate::policy
