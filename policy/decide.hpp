// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/ip.hpp"
#include "policy/compile.hpp"
#include "policy/model.hpp"

#include <concepts>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

// The decision function: (policy, what is known) -> verdict. Pure; every source of facts is an argument.
namespace tapgate::policy {

enum class Verdict : std::uint8_t {
    kAllow,
    kDeny,
    kDefer, ///< only at SYN time: a name is needed first
};
[[nodiscard]] std::string_view verdict_name(Verdict verdict);

/// A name that a live binding of the guest ties to the flow's address, with the aliases on the way to it.
struct BoundName {
    Name name;
    std::vector<Name> aliases;
};

/// Group `host` as one guest sees it. Borrowed.
struct HostAddresses {
    HostAddresses() = default;

    HostAddresses(std::span<const IpAddress> of_host, std::span<const IpAddress> of_guest)
        : host(of_host), gateways(of_guest) {}

    template <std::convertible_to<std::span<const IpAddress>> Addresses>
    HostAddresses(const Addresses& of_host) : host(of_host) {}

    [[nodiscard]] bool contains(const IpAddress& address) const;

    std::span<const IpAddress> host;     ///< every address of the host itself
    std::span<const IpAddress> gateways; ///< the guest's
};

/// What is known of a flow when its first packet arrives. The spans are borrowed for the call.
struct FlowFacts {
    /// Egress: what the guest dials. Ingress: the peer's address with the guest's service port.
    Endpoint destination;
    Protocol protocol = Protocol::kTcp;
    Direction direction = Direction::kEgress;
    /// Live bindings of the guest to destination.address.
    std::span<const BoundName> bound;
    HostAddresses host_addresses;
};

enum class FirstFlightKind : std::uint8_t {
    kTls,      ///< complete ClientHello with one server name
    kTlsNoSni, ///< complete ClientHello without one
    kTlsBad,   ///< began like TLS and is malformed, oversized or unfinished at the deadline
    kHttp,     ///< HTTP/1 request head
    kHttpBad,  ///< an HTTP/1 request head that is malformed, oversized or unfinished at the deadline
    kPlain,    ///< anything else, or nothing by the deadline
};
[[nodiscard]] std::string_view first_flight_kind_name(FirstFlightKind kind);

struct FirstFlight {
    FirstFlightKind kind = FirstFlightKind::kPlain;
    /// The name on the wire; set for kTls, and for kHttp when the authority is a name.
    std::optional<Name> name = std::nullopt;
    /// The authority of kHttp when it is an IP literal. One that is not the flow's own address is denied
    /// like kHttpBad; the flow's own address, and no authority at all (HTTP/1.0), is no name on the wire.
    std::optional<IpAddress> literal = std::nullopt;
    /// The port in the authority of CONNECT. `name` or `literal` then is where the server is asked to go, not
    /// who the server is.
    std::optional<std::uint16_t> connect_port = std::nullopt;
    /// The hello carries encrypted_client_hello (GREASE included).
    bool ech = false;
};

/// Why a verdict fell. Exactly one.
enum class Basis : std::uint8_t {
    kRule,           ///< `rule` decided
    kDefault,        ///< no rule matched
    kRefusedAddress, ///< 0.0.0.0, ::, broadcast, class E: refused whatever the policy says
    kTlsBad,         ///< an unparsable hello where a name decides
    kHttpBad,        ///< an unparsable request head where a name decides (unless [http] host is "ignore")
    kNoSni,          ///< a hello without a name where a name decides
    kEch,            ///< ECH where the policy denies it
    kConnect,        ///< CONNECT to an authority and port that no rule allows (unless host is "ignore")
};
[[nodiscard]] std::string_view basis_name(Basis basis);

struct Decision {
    Verdict verdict = Verdict::kDeny;
    Basis basis = Basis::kDefault;
    /// Index into Policy::rules when basis is kRule.
    std::optional<std::size_t> rule;
};

/// The verdict on a new flow before anything but its addresses is known (DESIGN 6.2, column "at SYN").
/// Never contradicted by decide_first_flight() while the bindings stay the same. For protocols other than
/// TCP there is no first flight and the result is never kDefer.
[[nodiscard]] Decision decide_syn(const CompiledPolicy& policy, const FlowFacts& facts);

/// The rule of group `group` (CompiledPolicy::rule_groups()) that the flow meets before it has a name: how a
/// verdict made of groups names its rule. Empty if it meets none, as when a binding has ended since.
[[nodiscard]] std::optional<RuleIndex> rule_in_group(const CompiledPolicy& policy, const FlowFacts& facts,
                                                     std::size_t group);

/// The verdict once the first flight was peeked; never kDefer.
[[nodiscard]] Decision decide_first_flight(const CompiledPolicy& policy, const FlowFacts& facts,
                                           const FirstFlight& flight);

/// Whether a rule allows what the CONNECT in `flight` asks for: a TCP connection that the server makes to
/// that authority and port. A name is taken as bound, since the address is the server's choice, so that of
/// the rules on addresses only `any` says something of it. A default is no rule.
[[nodiscard]] bool connect_permitted(const CompiledPolicy& policy, const FlowFacts& facts,
                                     const FirstFlight& flight);

/// The verdict on a DNS question for `name` sent over `transport` (UDP or TCP); never kDefer (DESIGN 6.3).
/// `aliases` is the chain from `name` in the answer, which rules with the option `cname` match too; empty as
/// long as there is no answer.
[[nodiscard]] Decision decide_query(const CompiledPolicy& policy, const Name& name, Protocol transport,
                                    std::span<const Name> aliases = {});

/// Whether aliases could turn `decision`, made by decide_query() without them, from deny into allow: an allow
/// rule with the option `cname` comes before what decided. Such a question has to be asked before it is
/// judged for good.
[[nodiscard]] bool alias_could_allow(const CompiledPolicy& policy, const Decision& decision);

/// The group of `address` under this policy: a built-in group's name or one from [groups]; first hit wins.
[[nodiscard]] std::string_view group_of(const CompiledPolicy& policy, const IpAddress& address,
                                        const HostAddresses& host_addresses);

/// One rule as it was walked.
struct ExplainStep {
    std::size_t rule = 0;
    /// Where the rule stands: "FILE:LINE:COLUMN"; empty if that is not known.
    std::string place;
    bool matched = false;
    /// Why it did or did not match, in words: "address 10.0.0.5 is in group private, not public".
    std::string reason;
};

struct Explanation {
    Decision decision;
    /// Where the deciding rule stands; empty if none decided or that is not known.
    std::string place;
    std::string address_group; ///< empty for a query
    std::vector<ExplainStep> steps;
    /// The verdict in one sentence.
    std::string summary;
};

/// The walk behind decide_syn (`flight` empty) or decide_first_flight, with the same decision.
[[nodiscard]] Explanation explain_flow(const CompiledPolicy& policy, const FlowFacts& facts,
                                       const std::optional<FirstFlight>& flight);
[[nodiscard]] Explanation explain_query(const CompiledPolicy& policy, const Name& name, Protocol transport,
                                        std::span<const Name> aliases = {});

/// Whether an answer for `name` may carry `address` to the guest (rebinding protection, DESIGN 7): public and
/// [groups] addresses that are not private always; others only if an address rule without ports allows the
/// address, or a domain allow rule for the name is `private-ok`. `aliases` is the chain from `name` to the
/// owner of the address; it counts for `private-ok` rules that are also `cname`.
[[nodiscard]] bool answer_address_permitted(const CompiledPolicy& policy, const Name& name,
                                            const IpAddress& address, const HostAddresses& host_addresses,
                                            std::span<const Name> aliases = {});

} // namespace tapgate::policy
