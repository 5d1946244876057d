// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "policy/compile.hpp"
#include "policy/model.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

// What is to be said about a policy that loads: rules without effect, and rules that do not do what they seem
// to.
namespace tapgate::policy {

enum class FindingKind : std::uint8_t {
    kHidden,            ///< `by` decides every flow and query that the rule could
    kMatchesNothing,    ///< there is no flow and no query that the rule matches
    kHiddenButHost,     ///< `by` decides all but what goes to the host's own addresses
    kDenialBehindAny,   ///< a denied name behind an allow rule on addresses: those are not asked for a name
    kDenialBehindName,  ///< a denied name behind an allow rule that covers it
    kUnresolvable,      ///< an allowed name whose queries `by` denies
    kPublicSuffix,      ///< a suffix under which anyone can have a name is allowed
    kAliasOpensQueries, ///< an allow rule with `cname`: any name may have to be asked for its aliases
};

struct Finding {
    FindingKind kind = FindingKind::kHidden;
    RuleIndex rule = 0;
    /// The earlier rules on account of which the rule is listed, ascending; mostly one.
    std::vector<RuleIndex> by;
};

/// True for rules that never take effect; the other kinds are warnings.
[[nodiscard]] bool is_without_effect(FindingKind kind);
/// The stable word of `kind`, as used in JSON.
[[nodiscard]] std::string_view finding_name(FindingKind kind);

/// The findings on `policy` in the order of its rules. Takes time about linear in the number of rules.
///
/// Sound, not complete: without a rule that is reported as hidden, every decision function gives the same
/// verdict on every input (one exception: where a deny rule hides an allow rule on names, a flow may be
/// denied at SYN time already that would else be denied at its first flight). Not reported: rules that
/// several others hide together, and rules that repeat the default action.
///
/// The groups are those of `policy` and `daemon_groups`; a daemon with other groups may decide otherwise.
[[nodiscard]] std::vector<Finding> review(const Policy& policy, const GroupTable& daemon_groups = {});

/// The finding in one line: "FILE:LINE:COLUMN: RULE can never take effect: FILE:LINE:COLUMN: RULE decides
/// first".
[[nodiscard]] std::string finding_text(const Policy& policy, const Finding& finding);

} // namespace tapgate::policy
