// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/clock.hpp"
#include "base/ip.hpp"
#include "base/result.hpp"
#include "policy/decide.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
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
    kDnsLimit,
    kDnsUnrecorded,
    kDnsConnectionCap,
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

    /// A name that live bindings tie to an address; lower case, without the trailing dot.
    struct BoundName {
        std::string name;
        std::vector<std::string> aliases; ///< the chain from the name to the address, in order
    };

    /// What an answer says of the name in its question. Names are in wire form, uncompressed.
    struct Recording {
        struct Address {
            IpAddress address;
            std::uint32_t ttl_seconds = 0;
        };

        GuestId guest = 0;
        std::vector<std::uint8_t> name;
        std::vector<std::vector<std::uint8_t>> aliases;
        std::vector<Address> addresses;
        std::optional<IpAddress> resolver;
    };

    /// Names a question in flight over UDP.
    struct Question {
        GuestId guest = 0;
        Endpoint client;
        IpAddress server;
        std::uint16_t id = 0;
    };

    KernelState() = default;
    KernelState(const KernelState&) = delete;
    KernelState& operator=(const KernelState&) = delete;
    virtual ~KernelState() = default;

    /// Removes and returns what tap_ingress recorded of the connection's SYN; nothing if it never saw one.
    virtual std::optional<Pending> take_pending(const Endpoint& guest, const Endpoint& destination) = 0;

    /// Takes one of `cap` places for sessions of `guest`, all workers' together; false if none is left. While
    /// that is so tap_ingress refuses the guest's SYNs. What was taken is to be given back.
    virtual bool take_session(GuestId guest, std::uint32_t cap) = 0;
    virtual void give_back_session(GuestId guest) = 0;

    /// The names that live bindings of `guest` tie to `address`. An error: they could not be read, and a
    /// verdict must not take them for none, since that could be one that a rule denies.
    virtual Result<std::vector<BoundName>> bound_names(GuestId guest, const IpAddress& address) = 0;

    /// Writes the bindings of an answer for the guest on `ifindex`, as tap_egress does for those that leave
    /// over UDP. kLimit: the guest is at its cap, or a table is full. After any error the answer must not
    /// reach the guest.
    virtual Result<void> record_answer(unsigned ifindex, const Recording& recording) = 0;

    /// Notes which resolver answered `question`, for the bindings that tap_egress makes of the answer; false:
    /// the question is not in flight any more, and an answer would not be delivered.
    virtual bool set_resolver(const Question& question, const IpAddress& resolver) = 0;

    /// Makes room for `count` bindings of `guest` by forgetting others of it, least recently used first; at
    /// most once a second for each guest, so that a flood of names does not keep the daemon busy. `done` is
    /// called afterwards, on another thread; never, if the daemon stops before.
    virtual void make_room(GuestId guest, std::size_t count, std::function<void()> done) = 0;

    /// Prolongs the binding of `name` to `address`, if there is one: a flow uses it.
    virtual void keep_binding(GuestId guest, const IpAddress& address, std::string_view name,
                              BootClock::time_point until) = 0;

    virtual void count_refusal(unsigned ifindex, Refusal refusal) = 0;
};

} // namespace tapgate::proxy
