// SPDX-License-Identifier: Apache-2.0
#include "daemon/reply_json.hpp"

#include "policy/decide.hpp"

#include <chrono>
#include <utility>

namespace tapgate::daemon {

namespace {

std::string_view fate_word(proxy::SwapFate fate) {
    switch (fate) {
    case proxy::SwapFate::kNone:
    case proxy::SwapFate::kAllowed:
        return "allowed";
    case proxy::SwapFate::kCut:
        return "cut";
    case proxy::SwapFate::kDraining:
        return "drain";
    case proxy::SwapFate::kKept:
        return "keep";
    }
    return "";
}

std::string_view order_word(policy::LiveFlows order) {
    switch (order) {
    case policy::LiveFlows::kCut:
        return "cut";
    case policy::LiveFlows::kDrain:
        return "drain";
    case policy::LiveFlows::kKeep:
        return "keep";
    }
    return "";
}

json::object denial_json(const proxy::Judgement& judgement) {
    json::object object;
    object["generation"] = judgement.generation;
    put_rule(object, judgement.rule);
    object["basis"] = judgement.basis;
    return object;
}

} // namespace

void put_rule(json::object& object, const proxy::DecidingRule& rule) {
    object["rule"] = rule.text;
    object["rule_number"] = rule.number;
    object["rule_line"] = rule.line;
}

json::array addresses_json(std::span<const IpAddress> addresses) {
    json::array array;
    for (const IpAddress& address : addresses)
        array.emplace_back(address.to_string());
    return array;
}

json::object flow_json(const proxy::FlowInfo& flow) {
    json::object object;
    object["id"] = flow.id;
    object["guest"] = flow.guest;
    object["source"] = flow.source.to_string();
    object["destination"] = flow.destination.to_string();
    object["state"] = flow.state;
    object["name"] = flow.name;
    object["name_source"] = flow.name_source;
    object["verdict"] = flow.verdict;
    object["generation"] = flow.generation;
    put_rule(object, flow.rule);
    object["splice"] = flow.splice;
    object["bytes_up"] = flow.bytes_up;
    object["bytes_down"] = flow.bytes_down;
    object["age_seconds"] = std::chrono::duration_cast<std::chrono::seconds>(flow.age).count();
    object["denied_by"] = flow.denied_by ? json::value(denial_json(*flow.denied_by)) : json::value();
    object["drain_ms"] =
        flow.drain_left
            ? json::value(std::chrono::duration_cast<std::chrono::milliseconds>(*flow.drain_left).count())
            : json::value();
    return object;
}

json::object facts_json(const proxy::SessionFacts& facts) {
    json::array bound;
    for (const policy::BoundName& name : facts.bound)
        bound.emplace_back(name.name.text());
    const policy::HostAddresses host = facts.host_addresses();
    json::array host_addresses = addresses_json(host.host);
    for (json::value& gateway : addresses_json(host.gateways))
        host_addresses.push_back(std::move(gateway));
    json::object object;
    object["destination"] = facts.destination.to_string();
    object["bound"] = std::move(bound);
    object["host_addresses"] = std::move(host_addresses);
    if (facts.flight) {
        json::object flight;
        flight["kind"] = policy::first_flight_kind_name(facts.flight->kind);
        flight["name"] = facts.flight->name ? facts.flight->name->text() : std::string();
        flight["literal"] = facts.flight->literal ? facts.flight->literal->to_string() : std::string();
        flight["connect_port"] = facts.flight->connect_port.value_or(0);
        flight["ech"] = facts.flight->ech;
        object["first_flight"] = std::move(flight);
    } else {
        object["first_flight"] = nullptr;
    }
    return object;
}

json::object live_flows_counts(const PolicySwap& swap) {
    json::object object;
    object["order"] = order_word(swap.order.what);
    object["drain_seconds"] = swap.order.what == policy::LiveFlows::kDrain ? swap.order.drain.count() : 0;
    object["allowed"] = swap.flows.allowed;
    object["cut"] = swap.flows.cut;
    object["draining"] = swap.flows.draining;
    object["kept"] = swap.flows.kept;
    return object;
}

json::object live_flows_json(const PolicySwap& swap) {
    json::array flows;
    for (const proxy::DeniedFlow& denied : swap.flows.denied) {
        json::object object;
        object["fate"] = fate_word(denied.fate);
        object["id"] = denied.flow.id;
        object["guest"] = denied.flow.guest;
        object["source"] = denied.flow.source.to_string();
        object["destination"] = denied.flow.destination.to_string();
        object["name"] = denied.flow.name;
        object["state"] = denied.flow.state;
        put_rule(object, denied.judgement.rule);
        object["basis"] = denied.judgement.basis;
        flows.push_back(std::move(object));
    }
    json::object object = live_flows_counts(swap);
    object["denied"] = swap.flows.denied_total();
    object["flows"] = std::move(flows);
    return object;
}

} // namespace tapgate::daemon
