// SPDX-License-Identifier: Apache-2.0
#include "net/relay_session.hpp"

#include "net/async.hpp"
#include "net/socket_options.hpp"

#include <boost/asio/this_coro.hpp>

#include <cerrno>

#include <sys/socket.h>

namespace tapgate::net {

namespace asio = boost::asio;

RelaySession::RelaySession(const asio::any_io_executor& executor, const RelayOptions& options)
    : options_(options), last_activity_(std::chrono::steady_clock::now()), wake_(executor) {}

void RelaySession::end(RelayEnd how, RelayParty who, int error_number) {
    if (is_ending_)
        return;
    is_ending_ = true;
    result_.how = how;
    result_.who = who;
    result_.error_number = error_number;
    release();
}

void RelaySession::end_by_error(RelayParty party, int error_number) {
    if (is_local_failure(error_number))
        end(RelayEnd::kFailed, RelayParty::kDaemon, error_number);
    else
        end(RelayEnd::kReset, party, error_number);
}

void RelaySession::end_by_pending_error(RelayParty party, int fd) {
    int error_number = 0;
    socklen_t length = sizeof error_number;
    if (::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error_number, &length) != 0 || error_number == 0)
        error_number = ECONNRESET; // a recv() or send() under way has taken it
    end_by_error(party, error_number);
}

void RelaySession::before_close(int fd) {
    if (result_.how != RelayEnd::kFinished || finish_on_close(fd))
        return;
    result_.how = RelayEnd::kFailed;
    result_.who = RelayParty::kDaemon;
    result_.error_number = errno;
}

void RelaySession::released() {
    is_over_ = true;
    wake_.cancel();
}

void RelaySession::carried(Direction direction, std::size_t bytes) {
    const bool is_up = direction == Direction::kUp;
    (is_up ? result_.bytes_up : result_.bytes_down) += bytes;
    if (options_.counters != nullptr)
        (is_up ? options_.counters->bytes_up : options_.counters->bytes_down) += bytes;
    last_activity_ = std::chrono::steady_clock::now();
}

void RelaySession::source_finished(Direction direction, int sink_fd) {
    if (::shutdown(sink_fd, SHUT_WR) != 0) {
        // ENOTCONN: the sink was reset before its FIN could go out.
        end_by_error(sink_of(direction), errno == ENOTCONN ? ECONNRESET : errno);
        return;
    }
    if (has_fin_) {
        end(RelayEnd::kFinished, first_fin_);
        return;
    }
    has_fin_ = true;
    first_fin_ = source_of(direction);
    last_activity_ = std::chrono::steady_clock::now();
    wake_.cancel(); // the other timeout is in force now
}

void cancel_all(RelaySessions& sessions) {
    while (!sessions.empty()) {
        RelaySession& session = sessions.front();
        sessions.pop_front();
        session.end(RelayEnd::kCancelled, RelayParty::kDaemon);
    }
}

std::chrono::steady_clock::time_point RelaySession::deadline() const {
    return last_activity_ + (has_fin_ ? options_.half_closed_timeout : options_.idle_timeout);
}

// One timer per session is both its inactivity clock and its wake-up call. Traffic does not touch it: when it
// goes off early, the loop sees that last_activity_ has moved on and sleeps again.
asio::awaitable<RelayResult> supervise(std::shared_ptr<RelaySession> session) {
    const bool caller_throws = co_await asio::this_coro::throw_if_cancelled();
    co_await asio::this_coro::throw_if_cancelled(false); // the session has to be brought to its end first
    while (!session->is_over_) {
        const auto state = co_await asio::this_coro::cancellation_state;
        if (state.cancelled() != asio::cancellation_type::none)
            session->end(RelayEnd::kCancelled, RelayParty::kDaemon);
        else if (std::chrono::steady_clock::now() >= session->deadline())
            session->end(RelayEnd::kIdle, RelayParty::kDaemon);
        if (session->is_over_)
            break;
        session->wake_.expires_at(session->is_ending_ ? asio::steady_timer::time_point::max()
                                                      : session->deadline());
        co_await session->wake_.async_wait(kAsTuple);
    }
    co_await asio::this_coro::throw_if_cancelled(caller_throws);
    co_return session->result();
}

} // namespace tapgate::net
