// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/ip.hpp"
#include "proxy/dns_outcome.hpp"

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>

namespace tapgate::proxy {

/// The rule that decided, as events and listings name it; empty when no rule did.
struct DecidingRule {
    std::string text;
    std::uint32_t number = 0; ///< its place in the policy, from 1
    std::uint32_t line = 0;   ///< in the policy's file; 0: unknown
};

/// A verdict on a new connection.
struct VerdictEvent {
    std::string guest;
    Endpoint source;
    Endpoint destination;
    std::string name;        ///< empty when no name was on the wire
    std::string name_source; ///< "sni", "host", "bindings" or empty
    bool allowed = false;
    DecidingRule rule;
    std::string basis; ///< policy::basis_name, "session-cap", ...
    std::uint64_t generation = 0;
    std::string to_allow; ///< for a denial by the policy: policy::remedy_text
};

/// The end of a session, one for each that took a place under its guest's cap.
struct FlowEndEvent {
    std::string guest;
    Endpoint source;
    Endpoint destination;
    std::string name;
    std::string_view name_source; ///< as in VerdictEvent
    std::string_view verdict;     ///< the last: "allow", "deny", or "defer" if it ended before there was one
    std::string_view splice;      ///< what carried it; empty if nothing did
    std::uint64_t bytes_up = 0;
    std::uint64_t bytes_down = 0;
    std::chrono::milliseconds duration{0};
    /// "finished", "reset", "idle", "cancelled", "failed: ..." (this host could not go on), "dial-failed:
    /// ...", "denied", "policy" (cut by a swap) or "killed" (by a command)
    std::string how;
    std::string who; ///< "guest", "upstream", "daemon" or "operator"
    /// Of the policy that spoke last on the flow: for "policy" the one that cut it, with the rule that denies
    /// it, else the one that allowed it.
    std::uint64_t generation = 0;
    DecidingRule rule;
    std::string reason; ///< a sentence for "policy", the basis for "denied"; else empty
};

/// A DNS question and what became of it.
struct DnsEvent {
    std::string guest;
    std::string name;
    std::string type;
    std::string_view transport; ///< "udp" or "tcp"
    bool allowed = false;
    DecidingRule rule;
    std::string reason; ///< why it was refused or answered with an error: the policy basis, or a sentence
    std::uint64_t generation = 0;
    std::string to_allow;     ///< as in VerdictEvent
    std::string_view outcome; ///< dns_outcome_name()
    std::string upstream;     ///< who answered; empty if nobody was asked or nobody answered
    unsigned answers = 0;     ///< records in the answer section
    std::chrono::microseconds latency{0};
};

using Event = std::variant<VerdictEvent, FlowEndEvent, DnsEvent>;

/// Where workers send events. Called from worker threads; must not block. Best effort: no decision waits on
/// it.
class EventSink {
  public:
    EventSink() = default;
    EventSink(const EventSink&) = delete;
    EventSink& operator=(const EventSink&) = delete;
    virtual ~EventSink() = default;
    virtual void publish(Event event) = 0;
    /// Counts a query that has ended; each once, also those of which no event is published. `latency`: from
    /// its arrival to the answer.
    virtual void count_dns(DnsOutcome outcome, std::chrono::microseconds latency) = 0;
};

} // namespace tapgate::proxy
