// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "policy/model.hpp"
#include "proxy/judgement.hpp"
#include "proxy/session_info.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

// What a policy swap does to the sessions that are open when it comes (B52).
namespace tapgate::proxy {

/// What is to become of the flows that the new policy denies.
struct LiveFlowsOrder {
    policy::LiveFlows what = policy::LiveFlows::kCut;
    std::chrono::seconds drain{30}; ///< only with kDrain
};

enum class SwapFate : std::uint8_t {
    kNone,     ///< there is no verdict on it yet, or it is ending already
    kAllowed,  ///< goes on, now under the new policy
    kCut,      ///< ends at once, with resets to both ends
    kDraining, ///< goes on until its deadline, then is cut
    kKept,     ///< goes on although the new policy denies it
};

/// One session under a new policy.
struct SwapVerdict {
    SwapFate fate = SwapFate::kNone;
    Judgement judgement; ///< the new policy's; of no meaning with kNone
};

/// A flow that the new policy denies.
struct DeniedFlow {
    FlowInfo flow; ///< as it was before the swap
    SwapFate fate = SwapFate::kCut;
    Judgement judgement;
};

struct SwapReport {
    /// More denied flows than this are only counted.
    static constexpr std::size_t kMaxListed = 1000;

    std::uint64_t allowed = 0;
    std::uint64_t cut = 0;
    std::uint64_t draining = 0;
    std::uint64_t kept = 0;
    std::vector<DeniedFlow> denied;

    [[nodiscard]] std::uint64_t denied_total() const { return cut + draining + kept; }

    void count(SwapFate fate);
    /// Adds what another worker reports.
    void add(SwapReport other);
};

} // namespace tapgate::proxy
