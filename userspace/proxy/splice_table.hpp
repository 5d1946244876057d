// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/clock.hpp"
#include "base/ip.hpp"
#include "base/result.hpp"
#include "policy/decide.hpp"
#include "proxy/kernel_state.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace tapgate::proxy {

/// Why a flow is carried in userspace although the kernel was to splice it. Nothing of it is lost by that.
enum class SpliceRefusal : std::uint8_t {
    kHostAlias,   ///< the guest's gateway address means the host itself
    kJudged,      ///< what the guest says next is still judged
    kNoRoute,     ///< the destination is not behind another host
    kNoUplink,    ///< the interface has no program for what comes back, or another one got the answer
    kTableFull,   ///< no room for the flow
    kOptions,     ///< the guest and the server agreed on different TCP options
    kSegmentSize, ///< a segment of one side could be too large for the other
    kServerSpoke, ///< the server has sent something already
    kEnding,      ///< one side has sent FIN or RST already
    kFirstFlight, ///< the guest has sent more than is kept for sending again, or urgent data
    kFailed,      ///< a system call
    kUnavailable, ///< a policy wants it, and the host cannot
};

inline constexpr std::size_t kSpliceRefusals = 12;

/// The stable lower-case word: "host-alias", ...
[[nodiscard]] std::string_view splice_refusal_name(SpliceRefusal refusal);

/// The kernel's table of flows that BPF carries, as the proxy sees it (bpf_abi.h: flows). Implemented over
/// the datapath by the daemon, and in memory by tests. Called from every worker thread.
class SpliceTable {
  public:
    using Id = std::uint64_t; ///< never 0, never used twice

    /// The guest's view of a flow: the key.
    struct Key {
        Endpoint guest;
        Endpoint destination;

        auto operator<=>(const Key&) const = default;
    };

    struct Recording {
        Key flow;
        GuestId guest = 0;
        unsigned guest_ifindex = 0;
        unsigned uplink_ifindex = 0;
        IpAddress next_hop; ///< at that interface; zero: whom the host's routes say
        Endpoint local;     ///< what the connection to `flow.destination` is bound to
        /// Nothing if the SYN decided; never CONNECT.
        std::optional<policy::FirstFlight> flight;
        /// The name that a binding tied to the destination: that of `flight`, or one of several if it has
        /// none.
        std::optional<policy::Name> bound;
    };

    /// A flow that an earlier daemon has left to BPF.
    struct Left {
        Recording recording;
        Id id = 0;
        BootClock::time_point since;
    };

    enum class State : std::uint8_t { kEnded, kRecording, kHeld, kForwarding, kClosed };

    enum End : std::size_t { kGuest, kServer }; ///< index of a flow's sides

    struct Side {
        std::uint64_t bytes = 0;      ///< payload that it has sent, the first flight included
        BootClock::time_point last{}; ///< when it last sent a packet; zero: it has not
        std::uint32_t delta = 0;      ///< added to its sequence numbers for the other side
        std::uint32_t floor = 0;      ///< what it had sent up to the hand-off ends here
        std::uint32_t end = 0;        ///< behind the highest octet it has sent
        std::uint32_t acked = 0;      ///< what the other side has acknowledged of it
        std::uint32_t replays = 0;    ///< how often it has sent what is from before the hand-off
        std::uint32_t clock = 0;      ///< its latest timestamp, as it wrote it
        std::uint32_t clock_delta = 0;
        std::uint8_t shown_scale = 0; ///< of the windows that the other side is shown
        bool has_clock = false;       ///< `clock` is known
        bool has_clock_delta = false; ///< `clock_delta` is known
        bool has_finished = false;    ///< it has sent FIN
        bool has_reset = false;       ///< it has ended the flow with RST, or with a new SYN
    };

    struct Flow {
        State state = State::kEnded;
        std::array<Side, 2> sides;
    };

    /// Numbers of a side at the hand-off; see tg_new_side.
    struct NewSide {
        std::uint32_t next = 0;
        std::uint32_t acked = 0;
        std::uint32_t delta = 0;
        std::uint32_t clock_base = 0;
        std::uint8_t scale = 0;
        std::uint8_t shown_scale = 0;
    };

    SpliceTable() = default;
    SpliceTable(const SpliceTable&) = delete;
    SpliceTable& operator=(const SpliceTable&) = delete;
    virtual ~SpliceTable() = default;

    /// True if what comes back through that interface meets our program, which is attached if need be. False
    /// for the interface of a guest.
    virtual bool has_uplink(unsigned ifindex) = 0;

    /// Begins a flow, whose packets still go to the sockets. A flow of the same key that is left over ends.
    /// kExists: `local` is in use towards that destination; kLimit: no room.
    virtual Result<Id> record(const Recording& recording) = 0;

    /// Nothing if that flow is gone.
    [[nodiscard]] virtual std::optional<Flow> find(const Key& key, Id id) = 0;

    /// From now on packets of both sides are dropped, for TCP to send again. False: it is gone.
    virtual bool hold(const Key& key, Id id) = 0;

    /// From now on BPF carries the held flow. False: it is gone.
    virtual bool forward(const Key& key, Id id, const std::array<NewSide, 2>& sides) = 0;

    /// From now on the server is reached through that interface and next hop, as in Recording. False: the
    /// flow is gone.
    virtual bool reroute(const Key& key, Id id, unsigned uplink_ifindex, const IpAddress& next_hop) = 0;

    /// Ends the flow, if it is there, and removes it: its packets are treated like those of any other.
    virtual void remove(const Key& key, Id id) = 0;

    /// Notes that this process looks after the flow no more: another daemon may adopt it while this one runs.
    virtual void leave(const Key& key, Id id) = 0;

    /// Notes that the end of the flow is told: whoever adopts flows leaves this one alone.
    virtual void conclude(const Key& key, Id id) = 0;

    virtual void count(SpliceRefusal refusal) = 0;
};

} // namespace tapgate::proxy
