// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"
#include "daemon/guest_registry.hpp"
#include "daemon/policy_store.hpp"
#include "proxy/swap.hpp"

#include <boost/json/object.hpp>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace tapgate::daemon {

/// What a load did to the flows that were open, or would have done.
struct PolicySwap {
    std::uint64_t generation = 0;
    proxy::LiveFlowsOrder order;
    proxy::SwapReport flows;
    std::string warning; ///< what the policy asks for in vain; mostly empty
};

/// "cut", "keep", "drain" or "drain=30s" (1s to 24h), as `policy load --live` has it.
Result<proxy::LiveFlowsOrder> parse_live_flows(std::string_view text);

/// Puts policies in force: in the kernel, in the store, for the guests, and on their live flows. Whoever
/// loads a policy does it here. Main thread only.
class PolicyLoader {
  public:
    using Publish = std::function<void(const boost::json::object& event)>;

    /// References outlive the loader. `publish` gets a `policy` event for each load.
    PolicyLoader(PolicyStore& store, GuestRegistry& guests, const Workers& workers, Publish publish)
        : store_(store), guests_(guests), workers_(workers), publish_(std::move(publish)) {}

    /// Makes `prepared` the next generation of its policy, everywhere, before this returns; or fails and has
    /// changed nothing. `order` is for the live flows that it denies; without one its [deny] live_flows is.
    Result<PolicySwap> load(const PreparedPolicy& prepared, const PolicyOrigin& origin,
                            std::optional<proxy::LiveFlowsOrder> order);

    /// What load() would report now. Changes nothing.
    [[nodiscard]] PolicySwap preview(const PreparedPolicy& prepared,
                                     std::optional<proxy::LiveFlowsOrder> order) const;

    /// Says in the log what is to be told of `prepared` although it can be loaded; mostly nothing.
    void warn(const PreparedPolicy& prepared) const;

  private:
    /// That it asks for a splice that this host has not; empty if not.
    [[nodiscard]] std::string warning(const PreparedPolicy& prepared) const;

    PolicyStore& store_;
    GuestRegistry& guests_;
    const Workers& workers_;
    Publish publish_;
};

} // namespace tapgate::daemon
