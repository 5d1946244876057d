// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/ip.hpp"
#include "proxy/events.hpp"
#include "proxy/judgement.hpp"

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tapgate::proxy {

/// A line of `flow show`.
struct FlowInfo {
    std::uint64_t id = 0;
    std::string guest;
    Endpoint source;
    Endpoint destination;
    std::string_view state; ///< "peek", "dial", "relay", "drain" or "refused"
    std::string name;
    std::string_view name_source;
    std::string_view verdict; ///< "defer", "allow" or "deny"
    /// Of the verdict; for "defer" of the policy it is judged by so far.
    std::uint64_t generation = 0;
    DecidingRule rule;
    std::string_view splice;
    std::uint64_t bytes_up = 0;
    std::uint64_t bytes_down = 0;
    std::chrono::steady_clock::duration age{};
    /// The newer policy that denies it, although it goes on: draining or kept.
    std::optional<Judgement> denied_by;
    std::optional<std::chrono::steady_clock::duration> drain_left; ///< until it is cut
    SessionFacts facts;
};

} // namespace tapgate::proxy
