// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "policy/decide.hpp"

#include <optional>
#include <string>

// Why something is decided as it is, without the walk over all rules.
namespace tapgate::policy {

/// explain_flow() with the step of the deciding rule alone, if a rule decided. Costs what decide_syn() and
/// decide_first_flight() cost, however many rules there are.
[[nodiscard]] Explanation ground_of_flow(const CompiledPolicy& policy, const FlowFacts& facts,
                                         const std::optional<FirstFlight>& flight);

/// The same of explain_query().
[[nodiscard]] Explanation ground_of_query(const CompiledPolicy& policy, const Name& name, Protocol transport);

/// Which limit of [dns] on the length of names `name` is over, as a sentence; empty if it is over none.
[[nodiscard]] std::string over_length(const DnsSettings& limits, const Name& name);

} // namespace tapgate::policy
