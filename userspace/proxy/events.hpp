// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/ip.hpp"

#include <chrono>
#include <cstdint>
#include <string>
#include <variant>

namespace tapgate::proxy {

/// A verdict on a new connection.
struct VerdictEvent {
    std::string guest;
    Endpoint source;
    Endpoint destination;
    std::string name;        ///< empty when no name was on the wire
    std::string name_source; ///< "sni", "host", "bindings" or empty
    bool allowed = false;
    std::string rule;  ///< text of the deciding rule; empty for the default
    std::string basis; ///< policy::basis_name, "session-cap", ...
    std::uint64_t generation = 0;
};

/// The end of a session that was allowed.
struct FlowEndEvent {
    std::string guest;
    Endpoint source;
    Endpoint destination;
    std::string name;
    std::uint64_t bytes_up = 0;
    std::uint64_t bytes_down = 0;
    std::chrono::milliseconds duration{0};
    std::string how; ///< "finished", "reset", "idle", "cancelled", "failed", "dial-failed"
    std::string who; ///< "guest", "upstream" or "daemon"
};

/// A DNS question that was refused, or answered with an error by us.
struct DnsEvent {
    std::string guest;
    std::string name;
    std::string type;
    bool allowed = false;
    std::string rule;
    std::string reason; ///< the drop reason's word, or the policy basis
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
};

} // namespace tapgate::proxy
