// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "policy/decide.hpp"

#include <optional>
#include <string_view>

// How one rule meets one flow or query. The decision functions and `explain` share it, so they cannot differ.
namespace tapgate::policy {

constexpr std::uint16_t kDnsPort = 53; // RFC 1035 4.2

/// Why a rule matched or did not.
enum class Why : std::uint8_t {
    kOtherDirection,
    kOtherProtocol,
    kOtherPort,
    kPortsAndIcmp,
    kQueriesOnly, ///< `dns` meets a flow
    kAny,         ///< target `any`
    kInGroup,
    kOtherGroup,
    kInPrefix,
    kTranslatedPrefix, ///< a deny rule on the IPv4 address inside a NAT64 or 6to4 address
    kOtherPrefix,
    kNotBound,   ///< no binding ties the address to the rule's name
    kBound,      ///< bound, and there is no name on the wire
    kBoundWaits, ///< bound; the name on the wire is not known yet
    kDenyWaits,  ///< a deny rule on a name that is not known yet
    kNamed,      ///< the name on the wire satisfies the rule (and is bound, for allow)
    kOtherName,
    kNamedNotBound, ///< the name on the wire satisfies the rule; the address is not bound by it
    kQueryName,
    kQueryAlias, ///< an alias in the answer
    kOtherQueryName,
    kQueryTarget,   ///< any, host or dns meets a query
    kNamesOnly,     ///< it would, but only rules on names allow queries ([dns] resolve)
    kNoQueryTarget, ///< a target that says nothing of queries
    kNoQueryPort,   ///< protocols or ports without DNS
};

/// What the rule does to the decision.
enum class Effect : std::uint8_t {
    kNone,
    kDecides,  ///< its action is the verdict
    kMayAllow, ///< allows if the name on the wire satisfies it
    kMayDeny,  ///< denies if the name on the wire satisfies it
};

struct Match {
    Effect effect = Effect::kNone;
    Why why = Why::kOtherDirection;
};

/// A flow with what follows from its address, computed once.
struct FlowView {
    const FlowFacts& facts;
    /// Names are still to come: the first packet of a TCP flow.
    bool at_syn = false;
    /// The name on the wire; null if there is none, or none yet.
    const Name* wire_name = nullptr;
    std::string_view group;
    std::optional<IpAddress> embedded;
};

[[nodiscard]] Match match_flow(const Rule& rule, const FlowView& view);
/// The same for the target alone, whatever the rule's direction, protocols and ports.
[[nodiscard]] Match match_target(const Rule& rule, const FlowView& view);

/// A question for `name`, in whose answer `aliases` stand.
struct QueryView {
    const DnsSettings& settings;
    const Name& name;
    Protocol transport;
    std::span<const Name> aliases;
};

[[nodiscard]] Match match_query(const Rule& rule, const QueryView& query);

/// One rule against a connection to `port` of `name` that a server is asked to make (CONNECT).
[[nodiscard]] Match match_connect(const Rule& rule, const Name& name, std::uint16_t port);

/// True if the domain rule's target covers `name`.
[[nodiscard]] bool covers(const DomainTarget& target, const Name& name);
/// The binding by which the domain rule knows the flow's address; null if there is none.
[[nodiscard]] const BoundName* binding_of(const Rule& rule, const FlowFacts& facts);

/// Turns the matches of the rules, given in their order, into a decision.
class RuleWalk {
  public:
    explicit RuleWalk(Action default_action) : default_action_(default_action) {}

    /// The decision, if `match` of the rule at `index` brings it about.
    [[nodiscard]] std::optional<Decision> step(std::size_t index, const Rule& rule, const Match& match);
    /// The decision when no rule brought one about.
    [[nodiscard]] Decision finish() const;

  private:
    Action default_action_;
    /// The first deny rule that waits for the name.
    std::optional<std::size_t> waiting_denial_;
};

/// The verdict that the kind of first flight settles before any rule on the flow is asked; empty if those
/// decide. Only for flows that were deferred.
[[nodiscard]] std::optional<Decision>
judge_first_flight_kind(const CompiledPolicy& policy, const FlowFacts& facts, const FirstFlight& flight);
/// The name in `flight` that the policy wants looked at; null if there is none.
[[nodiscard]] const Name* wire_name_of(const Policy& policy, const FirstFlight& flight);

[[nodiscard]] Action default_action(const Policy& policy, Direction direction);

} // namespace tapgate::policy
