// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "net/gated_relay.hpp"
#include "policy/decide.hpp"
#include "proxy/bindings_in_use.hpp"
#include "proxy/carriers.hpp"
#include "proxy/events.hpp"
#include "proxy/first_flight.hpp"
#include "proxy/flight_gate.hpp"
#include "proxy/guest.hpp"
#include "proxy/judgement.hpp"
#include "proxy/kernel_state.hpp"
#include "proxy/session_info.hpp"
#include "proxy/swap.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace tapgate::proxy {

struct SessionSettings {
    std::chrono::milliseconds peek_timeout{5000};
    std::size_t peek_bytes = proto::kDefaultPeekCap;
    /// How long a guest may be silent before the bindings alone may admit it, so that the server can speak
    /// first.
    std::chrono::milliseconds server_first{300};
    std::chrono::milliseconds connect_timeout{10000};
    std::chrono::seconds idle_timeout{3600};
    std::chrono::seconds half_closed_timeout{300};
    /// What carries connections under policies that do not say.
    policy::Splice splice = policy::Splice::kAuto;
};

/// What the sessions of one worker share. References outlive the sessions.
struct SessionContext {
    SessionSettings settings;
    KernelState& kernel;
    EventSink& events;
    Carriers& carriers;
    net::GatedRelay& gated_relay;
    std::function<std::shared_ptr<const Guest>(GuestId)> find_guest;
    /// Every address of the host itself, never null.
    std::function<std::shared_ptr<const std::vector<IpAddress>>()> host_addresses;
    /// What peeking reads into, between two waits: a guest that says nothing costs no memory.
    std::vector<std::uint8_t> peek_buffer = {};
};

/// One proxied connection, from accept to close (DESIGN 3).
///
///     accepted -> Peek (only if the SYN verdict is defer) -> Dial -> Relay -> ended
///
/// Where the verdict at peek was not the last word, the relay has a gate (flight_gate.hpp) that asks the
/// session again: admits().
///
/// Every state may end the session; each end is recorded once, as a verdict event that denies or as a
/// flow-end event. Whatever is not said by name ends in a reset of the guest's connection.
///
/// A policy swap (session_swap.cpp) finds a session in one of these states:
///
///     Peek           goes on under the new policy; a SYN verdict other than defer settles it at once
///     Dial, Relay    allowed: goes on under the new policy. Denied: cut, drained or kept
///     otherwise      is ending already, and is left alone
class Session : public std::enable_shared_from_this<Session>, private FlightGate::Judge {
  public:
    /// `guest_socket` was accepted from `source`, which dialled `destination`.
    Session(SessionContext& context, boost::asio::ip::tcp::socket guest_socket, const Endpoint& source,
            const Endpoint& destination, std::uint64_t id);

    /// The session's whole life; the caller keeps the object until it returns.
    boost::asio::awaitable<void> run();

    /// The same from the hand-off on, for a flow that an earlier daemon has left: it goes on if the policy in
    /// force allows it.
    boost::asio::awaitable<void> run_adopted(SpliceTable::Left left);

    /// For whoever spawns run(): what cancel() and a cut act on. Keeps the session.
    [[nodiscard]] std::shared_ptr<boost::asio::cancellation_signal> cancellation_signal() {
        return {shared_from_this(), &cancel_};
    }

    /// Leaves the flow to BPF and to the next daemon, which tells how it ended, unless BPF does not carry it
    /// or not all of it yet.
    void leave();

    /// Resets both ends, since the operator wants it.
    void kill();

    /// Resets both ends.
    void cancel() { cancel_.emit(boost::asio::cancellation_type::terminal); }

    /// What a swap to `policy` does to this session. Changes nothing.
    [[nodiscard]] SwapVerdict under(const PolicyGeneration& policy, const LiveFlowsOrder& order) const;

    /// Lets the swap to `policy` happen: `verdict` is what under() has said. A flow that drains already keeps
    /// its deadline if that is earlier.
    void swap(std::shared_ptr<const PolicyGeneration> policy, const SwapVerdict& verdict,
              const LiveFlowsOrder& order);

    [[nodiscard]] FlowInfo info() const;

    /// Adds the bindings that this session was admitted by, if it was admitted by a rule on names.
    void add_bindings_in_use(std::set<BindingInUse>& in_use) const;

    [[nodiscard]] std::uint64_t id() const { return id_; }

    [[nodiscard]] GuestId guest_id() const { return guest_ ? guest_->id : 0; }

    /// True if the policy of that name judges this session.
    [[nodiscard]] bool is_under(std::string_view policy_name) const {
        return policy_ && policy_->name == policy_name;
    }

  private:
    enum class State : std::uint8_t { kAccepted, kPeek, kRefused, kDial, kRelay };
    struct Record;

    /// Finds out whose connection this is and takes a place under the guest's cap; false: to be reset.
    bool admit();
    /// The verdict; nothing if the guest or the session is gone.
    boost::asio::awaitable<std::optional<policy::Decision>> judge();
    /// The kernel's verdict on the SYN with the rule behind it, if it is of the policy in force.
    [[nodiscard]] policy::Decision decision_at_syn() const;
    /// Why peeking ended.
    enum class Peeked : std::uint8_t {
        kSettled, ///< the reader has a flight
        kSilent,  ///< nothing came within the server-first window, and the bindings admit that
        kSwapped, ///< swap_verdict_ says what a new policy makes of it
        kGone,    ///< the guest or the session is
    };
    boost::asio::awaitable<Peeked> peek(FirstFlightReader& reader);
    /// What the policy says of a guest that says nothing; nothing if that cannot be known.
    std::optional<policy::Decision> decide_silence();
    /// Sets what there is to judge on; false, with the ending noted, if it cannot be known.
    bool learn();

    struct Ending {
        std::string how;
        std::string_view who;
    };

    static Ending ending_of(const net::RelayResult& result);
    /// Notes that this host could not go on.
    void fail(std::string_view what);
    void cannot_read_first_flight(int error_number);
    boost::asio::awaitable<void> deny_readably();
    boost::asio::awaitable<void> say_and_close(std::string_view bytes);
    boost::asio::awaitable<Result<boost::asio::ip::tcp::socket>> dial();
    /// The same to the destination itself, so that BPF may carry the connection.
    boost::asio::awaitable<Result<boost::asio::ip::tcp::socket>> dial_to_splice();
    boost::asio::awaitable<void> run_spliced();
    /// What is to carry it, by the policy in force.
    [[nodiscard]] policy::Splice wanted_splice() const;
    boost::asio::awaitable<void> relay(boost::asio::ip::tcp::socket upstream);
    boost::asio::awaitable<void> relay_gated(boost::asio::ip::tcp::socket upstream, FlightGate::Stage stage);
    boost::asio::awaitable<void> relay_ungated(boost::asio::ip::tcp::socket upstream);

    /// How the gate has to begin; nothing if what the guest says next is not judged.
    [[nodiscard]] std::optional<FlightGate::Stage> gate_stage() const;
    bool admits(const policy::FirstFlight& flight, std::string_view reason) override;
    [[nodiscard]] bool judges_every_request() const override;

    /// The session's life once it is admitted; ending_ says how it ended.
    boost::asio::awaitable<void> live();
    /// Notes that the guest is denied; to be told by the caller.
    void refuse();

    /// Tells judgement_, which is of `decision`; nothing if it could not be decided.
    void publish_verdict(const std::optional<policy::Decision>& decision);
    void publish_end();
    [[nodiscard]] std::string judged_basis() const;
    [[nodiscard]] std::string_view verdict() const;
    [[nodiscard]] net::RelayCounters carried() const;
    void reset_guest();

    // Policy swaps, session_swap.cpp.
    void swap_while_peeking(std::shared_ptr<const PolicyGeneration> policy);
    void drain_until(std::chrono::steady_clock::time_point deadline);
    /// Ends a flow that denied_by_ denies; its end is recorded as such.
    void cut();
    void tell_cut(FlowEndEvent& event) const;

    SessionContext& context_;
    boost::asio::ip::tcp::socket socket_;
    std::uint64_t id_;
    boost::asio::cancellation_signal cancel_;
    std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
    State state_ = State::kAccepted;
    Endpoint source_;
    std::shared_ptr<const Guest> guest_;
    /// The generation this session is judged by: the one in force when it was accepted, later that of the
    /// last swap.
    std::shared_ptr<const PolicyGeneration> policy_;
    KernelState::Pending at_syn_;
    SessionFacts facts_;
    std::string_view flight_reason_;
    /// The guest was silent when it was admitted: its first bytes are still to be judged.
    bool is_unheard_ = false;
    /// Settles a session in peek: the SYN verdict of a policy that came meanwhile, if not defer.
    std::optional<policy::Decision> swap_verdict_;
    Judgement judgement_;                // the last that was no denial by a swap
    std::optional<Judgement> denied_by_; // a swap denies it: it drains, is kept, or is being cut
    bool is_cut_ = false;
    bool is_killed_ = false; // by the operator
    boost::asio::steady_timer drain_timer_;
    std::optional<std::chrono::steady_clock::time_point> drain_deadline_;
    net::RelayCounters counters_;
    std::shared_ptr<KernelSplice::Flow> kernel_flow_; ///< if BPF is to carry it, or does
    std::string_view splice_;                         ///< what carries it, once something does
    bool is_left_ = false;                            ///< to the next daemon

    /// What is recorded if nothing else is said: cancelled by the daemon, for its own end or the guest's.
    Ending ending_{"cancelled", "daemon"};
};

} // namespace tapgate::proxy
