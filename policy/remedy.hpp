// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "policy/compile.hpp"
#include "policy/decide.hpp"
#include "policy/model.hpp"

#include <cstdint>
#include <optional>
#include <span>
#include <string>

// What would have to change for something that was denied to be allowed.
namespace tapgate::policy {

struct Remedy {
    /// The narrowest rule that allows it: for one name, or one address if no name is known, one protocol and
    /// one port. Empty: no rule on its own does, or none should be proposed.
    std::optional<Rule> rule;
    /// The rule has to stand before this one; empty: it may stand anywhere.
    std::optional<RuleIndex> before;
    /// Why there is no rule, and what would help instead.
    std::string obstacle;
};

/// The port of the rule for a name of which no more is known than that it was asked for.
inline constexpr std::uint16_t kLikelyPort = 443;

/// For a question for `name` that decide_query() denied, perhaps for the `aliases` in its answer, and then a
/// connection by TCP to `port`.
[[nodiscard]] Remedy remedy_for_query(const CompiledPolicy& policy, const Name& name, std::uint16_t port,
                                      std::span<const Name> aliases = {});

/// For a flow that decide_syn() denied (`flight` empty) or decide_first_flight() did, by `decision`.
/// `wanted`: the name that the guest is after, if that is known apart from the flight. With the rule added in
/// its place the name resolves and the flow is allowed, if what the guest sends first names it.
[[nodiscard]] Remedy remedy_for_flow(const CompiledPolicy& policy, const FlowFacts& facts,
                                     const std::optional<FirstFlight>& flight, const Decision& decision,
                                     const Name* wanted = nullptr);

/// "add 'allow@pypi.org:tcp:443' before rule 3 (line 7)", or the obstacle. The rule is as it can be copied
/// into a policy file.
[[nodiscard]] std::string remedy_text(const Policy& policy, const Remedy& remedy);

} // namespace tapgate::policy
