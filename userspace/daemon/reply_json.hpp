// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/ip.hpp"
#include "daemon/policy_loader.hpp"
#include "proxy/events.hpp"
#include "proxy/session_info.hpp"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

#include <span>

// The parts that replies and events have in common.
namespace tapgate::daemon {

namespace json = boost::json;

/// Adds "rule", "rule_number" and "rule_line".
void put_rule(json::object& object, const proxy::DecidingRule& rule);

[[nodiscard]] json::array addresses_json(std::span<const IpAddress> addresses);

/// A line of `flow show`.
[[nodiscard]] json::object flow_json(const proxy::FlowInfo& flow);
/// What it is judged on: "facts" of one flow.
[[nodiscard]] json::object facts_json(const proxy::SessionFacts& facts);

/// "allowed", "cut", "draining", "kept", and what was ordered: "order", "drain_seconds".
[[nodiscard]] json::object live_flows_counts(const PolicySwap& swap);
/// The same with "flows", the denied ones, and "listed".
[[nodiscard]] json::object live_flows_json(const PolicySwap& swap);

} // namespace tapgate::daemon
