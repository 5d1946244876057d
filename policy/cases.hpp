// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"
#include "policy/decide.hpp"

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

// Cases in JSON lines (DESIGN 10, `policy test`): what is known of a flow or a query, and the verdict
// expected.
namespace tapgate::policy {

/// One line of a file of cases.
struct Case {
    /// "line N" if the case has none.
    std::string id;
    Policy policy;
    std::vector<IpAddress> gateway;
    /// Address -> the names bound to it.
    std::map<IpAddress, std::vector<BoundName>> bindings;
    /// Name -> the aliases on the way to its addresses.
    std::map<Name, std::vector<Name>> aliases;
    Endpoint destination;
    bool has_destination = false;
    bool has_port = false;
    Protocol protocol = Protocol::kTcp;
    Direction direction = Direction::kEgress;
    std::optional<FirstFlight> flight;
    /// The question of a case about a query, as it stands on the wire.
    std::optional<std::string> query;
    Protocol transport = Protocol::kUdp;
    std::optional<Verdict> expected_syn;
    std::optional<Verdict> expected_verdict;
    SourceLocation location;
};

/// Calls `visit` for each case in `text`, in order; blank lines are skipped. Fails on a line that is no case,
/// with its place (unknown keys are errors, `note` is allowed), and with what `visit` fails with.
Result<void> for_each_case(std::string_view text, std::string_view file,
                           const std::function<Result<void>(Case&&)>& visit);

/// The bindings of the case to its destination.
[[nodiscard]] std::vector<BoundName> bound_names(const Case& c);
/// What is known of the flow of the case, which is not about a query. Borrows from `c` and `bound`.
[[nodiscard]] FlowFacts flow_facts(const Case& c, std::span<const BoundName> bound);

struct CaseOutcome {
    /// Empty for a query.
    std::optional<Decision> syn;
    /// The last word: at SYN if the case has no first flight.
    Decision verdict;
};

/// The verdicts of `policy` on the case, whose own policy is not looked at.
[[nodiscard]] CaseOutcome judge_case(const CompiledPolicy& policy, const Case& c);

/// "deny (rule 2: deny@any)", "allow (default)".
[[nodiscard]] std::string decision_text(const Policy& policy, const Decision& decision);

} // namespace tapgate::policy
