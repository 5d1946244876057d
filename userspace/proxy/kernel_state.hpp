// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/ip.hpp"
#include "policy/decide.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace tapgate::proxy {

/// Identity of a guest; never used twice while the host is up.
using GuestId = std::uint64_t;

/// Why the proxy refused something; the daemon counts each with BPF's drop reasons.
enum class Refusal : std::uint8_t {
    kNoPending,
    kPolicy,
    kSessionCap,
    kDnsPolicy,
    kDnsRefused,
    kDnsRebinding,
    kDnsUpstream,
    kDnsRate,
};

/// What the proxy asks of the kernel side. Implemented over the datapath by the daemon, and in memory by
/// tests. Called from every worker thread.
class KernelState {
  public:
    struct Pending {
        GuestId guest = 0;
        unsigned ifindex = 0;
        /// What the kernel's generation of the policy said of the SYN: allow or defer.
        policy::Verdict verdict = policy::Verdict::kDeny;
        std::uint64_t generation = 0;
        /// Position of the deciding group in CompiledPolicy::rule_groups(); empty for the default.
        std::optional<std::size_t> rule_group;
    };

    struct BoundName {
        std::string name;
        std::vector<std::string> aliases;
    };

    KernelState() = default;
    KernelState(const KernelState&) = delete;
    KernelState& operator=(const KernelState&) = delete;
    virtual ~KernelState() = default;

    /// Removes and returns what tap_ingress recorded of the connection's SYN; nothing if it never saw one.
    virtual std::optional<Pending> take_pending(const Endpoint& guest, const Endpoint& destination) = 0;

    /// The names that live bindings of `guest` tie to `address`, each with the aliases on the way to it.
    virtual std::vector<BoundName> bound_names(GuestId guest, const IpAddress& address) = 0;

    virtual void count_refusal(unsigned ifindex, Refusal refusal) = 0;
};

} // namespace tapgate::proxy
