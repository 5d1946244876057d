// SPDX-License-Identifier: Apache-2.0
//
// The relay over Asio's reactor. Per session two pump coroutines, one per direction, and two watches:
//
//     wait readable -> recv() into the relay's scratch buffer -> send() -> again, until recv() has nothing
//                                                                |
//                         what the sink does not take: a copy of the tail, kept until the sink has taken it
//
// The reactor runs one coroutine at a time and a pump never waits with bytes in the scratch buffer, so one
// buffer serves all sessions and stays in the cache; an idle session holds none and a stalled one its tail
// alone. While its sink is stalled a pump does not read, so an RST of the source would go unnoticed: hence
// the watches.

#include "net/async.hpp"
#include "net/relay_session.hpp"
#include "net/socket_options.hpp"

#include <boost/asio/post.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <new>
#include <utility>

#include <poll.h>
#include <sys/socket.h>

namespace tapgate::net {

namespace asio = boost::asio;
using asio::ip::tcp;

namespace {

/// Larger gains nothing over loopback and starts to fall out of the second-level cache.
constexpr std::size_t kBufferBytes = 128 * 1024;
/// Buffers one direction may carry before the other sessions of the worker get their turn.
constexpr unsigned kBuffersPerTurn = 8;
/// How long a watch sleeps when it was woken by urgent data, which the reactor reports for as long as it is
/// unread.
constexpr std::chrono::milliseconds kUrgentPause{100};

using Buffer = std::array<std::uint8_t, kBufferBytes>;

class CopySession final : public RelaySession, public std::enable_shared_from_this<CopySession> {
  public:
    CopySession(tcp::socket guest, tcp::socket upstream, std::shared_ptr<Buffer> scratch,
                const RelayOptions& options)
        : RelaySession(guest.get_executor(), options), sockets_{std::move(guest), std::move(upstream)},
          watch_pauses_{asio::steady_timer(sockets_[0].get_executor()),
                        asio::steady_timer(sockets_[0].get_executor())},
          scratch_(std::move(scratch)) {}

    void start() {
        for (tcp::socket& socket : sockets_) {
            set_nodelay(socket.native_handle());
            set_urgent_inline(socket.native_handle());
            reset_on_close(socket.native_handle());
        }
        for (const Direction direction : kBothDirections) {
            watch(source_of(direction));
            spawn(sockets_[0].get_executor(), "copy relay", pump(shared_from_this(), direction));
        }
    }

  private:
    static asio::awaitable<void> pump(std::shared_ptr<CopySession> self, Direction direction);
    asio::awaitable<bool> send_all(Direction direction, std::size_t length);

    tcp::socket& socket(RelayParty party) { return sockets_[party == RelayParty::kGuest ? 0 : 1]; }

    void watch(RelayParty party);
    void look_for_error(RelayParty party);
    void release() override;

    std::array<tcp::socket, 2> sockets_;
    std::array<asio::steady_timer, 2> watch_pauses_;
    std::shared_ptr<Buffer> scratch_;
};

/// Reads until nothing is left or the session ends. After each wait the session may have ended, its sockets
/// closed.
asio::awaitable<void> CopySession::pump(std::shared_ptr<CopySession> self, Direction direction) {
    tcp::socket& source = self->socket(source_of(direction));
    for (unsigned buffers = 0; !self->is_ending();) {
        const ssize_t received =
            ::recv(source.native_handle(), self->scratch_->data(), self->scratch_->size(), MSG_DONTWAIT);
        if (received > 0) {
            if (!co_await self->send_all(direction, static_cast<std::size_t>(received)))
                co_return;
            if (++buffers % kBuffersPerTurn == 0)
                co_await asio::post(source.get_executor(), asio::use_awaitable);
        } else if (received == 0) {
            self->source_finished(direction, self->socket(sink_of(direction)).native_handle());
            co_return;
        } else if (errno == EAGAIN) {
            co_await source.async_wait(tcp::socket::wait_read, kAsTuple);
        } else if (errno != EINTR) {
            self->end_by_error(source_of(direction), errno);
        }
    }
}

/// Sends the first `length` bytes of the scratch buffer; false when the session has ended instead. To be
/// awaited by a pump, which keeps the session alive.
asio::awaitable<bool> CopySession::send_all(Direction direction, std::size_t length) {
    tcp::socket& sink = socket(sink_of(direction));
    std::unique_ptr<std::uint8_t[]> tail;
    const std::uint8_t* data = scratch_->data();
    while (length > 0) {
        const ssize_t sent = ::send(sink.native_handle(), data, length, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent >= 0) {
            carried(direction, static_cast<std::size_t>(sent));
            data += sent;
            length -= static_cast<std::size_t>(sent);
        } else if (errno == EAGAIN) {
            if (!tail) {
                tail.reset(new (std::nothrow) std::uint8_t[length]);
                if (!tail) {
                    end(RelayEnd::kFailed, RelayParty::kDaemon, ENOMEM);
                    co_return false;
                }
                std::copy_n(data, length, tail.get());
                data = tail.get();
            }
            co_await sink.async_wait(tcp::socket::wait_write, kAsTuple);
            if (is_ending())
                co_return false;
        } else if (errno != EINTR) {
            end_by_error(sink_of(direction), errno);
            co_return false;
        }
    }
    co_return true;
}

void CopySession::watch(RelayParty party) {
    auto on_event = [self = shared_from_this(), party](const boost::system::error_code& error) {
        if (!error && !self->is_ending())
            self->look_for_error(party);
    };
    socket(party).async_wait(tcp::socket::wait_error, std::move(on_event));
}

/// The reactor completes wait_error for POLLERR, POLLHUP and POLLPRI alike.
void CopySession::look_for_error(RelayParty party) {
    const int fd = socket(party).native_handle();
    pollfd state{.fd = fd, .events = 0, .revents = 0};
    (void)::poll(&state, 1, 0);
    if ((state.revents & POLLERR) != 0) {
        end_by_pending_error(party, fd);
        return;
    }
    if ((state.revents & POLLHUP) != 0)
        return; // FIN both ways: there is nothing left that an RST could cut
    asio::steady_timer& pause = watch_pauses_[party == RelayParty::kGuest ? 0 : 1];
    pause.expires_after(kUrgentPause);
    pause.async_wait([self = shared_from_this(), party](const boost::system::error_code& error) {
        if (!error && !self->is_ending())
            self->watch(party);
    });
}

void CopySession::release() {
    for (tcp::socket& socket : sockets_) {
        if (result().how == RelayEnd::kFinished)
            finish_on_close(socket.native_handle());
        boost::system::error_code ignored; // the descriptor is gone whatever close() says
        socket.close(ignored);
    }
    for (asio::steady_timer& pause : watch_pauses_)
        pause.cancel();
    released();
}

class CopyRelay final : public Relay {
  public:
    ~CopyRelay() override {
        while (!sessions_.empty()) {
            RelaySession& session = sessions_.front();
            sessions_.pop_front();
            session.end(RelayEnd::kCancelled, RelayParty::kDaemon);
        }
    }

    asio::awaitable<RelayResult> run(tcp::socket guest, tcp::socket upstream,
                                     const RelayOptions& options) override {
        const auto session =
            std::make_shared<CopySession>(std::move(guest), std::move(upstream), scratch_, options);
        sessions_.push_back(*session);
        session->start();
        co_return co_await supervise(session);
    }

    [[nodiscard]] std::string_view name() const override { return "copy"; }

  private:
    std::shared_ptr<Buffer> scratch_ = std::make_shared<Buffer>();
    RelaySessions sessions_;
};

} // namespace

std::unique_ptr<Relay> make_copy_relay(asio::io_context& /*context*/) {
    return std::make_unique<CopyRelay>();
}

} // namespace tapgate::net
