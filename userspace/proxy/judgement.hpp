// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/ip.hpp"
#include "policy/decide.hpp"
#include "proxy/events.hpp"
#include "proxy/guest.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace tapgate::proxy {

/// What a session is judged on, kept so that another policy can judge it again on the same facts.
struct SessionFacts {
    Endpoint destination;
    /// Live bindings of the guest to the destination when it was judged. What expires later does not change a
    /// session that was admitted by it.
    std::vector<policy::BoundName> bound;
    /// Every address of the host itself; of one daemon's sessions most have the same. Null: none is known.
    std::shared_ptr<const std::vector<IpAddress>> host;
    std::vector<IpAddress> gateways; ///< the guest's
    /// Nothing if the SYN decided: then nobody has looked at what the guest sent.
    std::optional<policy::FirstFlight> flight;

    /// Sets `bound` and `gateways` to what holds now for `guest` and the destination, and `host`. Fails, with
    /// `bound` empty, if the bindings cannot be read.
    Result<void> learn(KernelState& kernel, const Guest& guest,
                       std::shared_ptr<const std::vector<IpAddress>> host_now);

    /// The same for a session that goes on: names that were bound to the destination when it was judged
    /// before stay so, also if this fails.
    Result<void> learn_more(KernelState& kernel, const Guest& guest,
                            std::shared_ptr<const std::vector<IpAddress>> host_now);

    /// Group `host`. Borrows from this object.
    [[nodiscard]] policy::HostAddresses host_addresses() const;

    /// Borrows from this object.
    [[nodiscard]] policy::FlowFacts flow() const;
};

/// What one generation of a policy says of a session.
struct Judgement {
    std::uint64_t generation = 0;
    bool allowed = false;
    DecidingRule rule;
    std::string basis; ///< policy::basis_name, or "name-not-seen"
};

[[nodiscard]] DecidingRule deciding_rule(const policy::CompiledPolicy& policy,
                                         const policy::Decision& decision);

[[nodiscard]] Judgement judgement_of(const PolicyGeneration& policy, const policy::Decision& decision);

/// What `policy` says of a session that another generation has admitted on `facts`.
///
/// A session that its SYN admitted has no known name. Where `policy` needs one it is denied
/// ("name-not-seen"): what the guest said is gone, and the bindings alone do not tell whom it is talking to.
[[nodiscard]] Judgement judge_again(const PolicyGeneration& policy, const SessionFacts& facts);

} // namespace tapgate::proxy
