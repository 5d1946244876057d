// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "net/relay.hpp"

#include <boost/asio/steady_timer.hpp>
#include <boost/intrusive/list.hpp>

#include <array>
#include <chrono>
#include <memory>

namespace tapgate::net {

/// One of the two directions of a session; an index into per-direction arrays.
enum class Direction : std::uint8_t { kUp, kDown };

inline constexpr std::array<Direction, 2> kBothDirections{Direction::kUp, Direction::kDown};

[[nodiscard]] constexpr RelayParty source_of(Direction direction) {
    return direction == Direction::kUp ? RelayParty::kGuest : RelayParty::kUpstream;
}

[[nodiscard]] constexpr RelayParty sink_of(Direction direction) {
    return direction == Direction::kUp ? RelayParty::kUpstream : RelayParty::kGuest;
}

/// What the relays share of one session: its result, its inactivity clock, and its one way out.
///
///     running --end()--> ending --released()--> over
///
/// end() fixes the result and calls release(), where the relay lets go of both sockets: with an RST, unless
/// both sides have sent FIN. The relay calls released() when nothing of the session is left with the kernel.
class RelaySession
    : public boost::intrusive::list_base_hook<boost::intrusive::link_mode<boost::intrusive::auto_unlink>> {
  public:
    RelaySession(const boost::asio::any_io_executor& executor, const RelayOptions& options);
    RelaySession(const RelaySession&) = delete;
    RelaySession& operator=(const RelaySession&) = delete;
    virtual ~RelaySession() = default;

    [[nodiscard]] bool is_ending() const { return is_ending_; }

    [[nodiscard]] const RelayResult& result() const { return result_; }

    /// Ends the session; only the first call counts.
    void end(RelayEnd how, RelayParty who, int error_number = 0);
    /// Ends the session over `error_number`, which a call on `party`'s socket reported.
    void end_by_error(RelayParty party, int error_number);
    /// Ends the session since poll() reported POLLERR for `party`'s socket `fd`.
    void end_by_pending_error(RelayParty party, int fd);

  protected:
    /// Lets go of the sockets, see above; is_ending() holds and `result().how` says how to close them.
    virtual void release() = 0;
    /// To be called on each socket before it is closed: only a session that has finished ends in order. If
    /// that cannot be had the socket is reset, and the session has failed after all.
    void before_close(int fd);
    void released();

    /// `bytes` more were taken by the kernel for the sink of `direction`.
    void carried(Direction direction, std::size_t bytes);
    /// The source of `direction` has sent its FIN and everything before it was handed on: passes the FIN on
    /// to the sink, `sink_fd`, and ends the session if it was the second.
    void source_finished(Direction direction, int sink_fd);

  private:
    friend boost::asio::awaitable<RelayResult> supervise(std::shared_ptr<RelaySession> session);

    [[nodiscard]] std::chrono::steady_clock::time_point deadline() const;

    RelayOptions options_;
    RelayResult result_;
    std::chrono::steady_clock::time_point last_activity_;
    boost::asio::steady_timer wake_; ///< what supervise() sleeps on; cancelled to make it look again
    bool has_fin_ = false;
    RelayParty first_fin_ = RelayParty::kDaemon;
    bool is_ending_ = false;
    bool is_over_ = false;
};

/// Sessions leave the list when they are destroyed.
using RelaySessions = boost::intrusive::list<RelaySession, boost::intrusive::constant_time_size<false>>;

/// Ends every session of the list with kCancelled and empties it.
void cancel_all(RelaySessions& sessions);

/// Waits until the session is over, ends it at its deadline or when the calling coroutine is cancelled.
boost::asio::awaitable<RelayResult> supervise(std::shared_ptr<RelaySession> session);

} // namespace tapgate::net
