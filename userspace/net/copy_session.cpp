// SPDX-License-Identifier: Apache-2.0
#include "net/copy_session.hpp"

#include "net/async.hpp"

#include <boost/asio/post.hpp>

#include <algorithm>
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

/// Buffers one direction may carry before the other sessions of the worker get their turn.
constexpr unsigned kBuffersPerTurn = 8;
/// How long a watch sleeps when it was woken by urgent data, which the reactor reports for as long as it is
/// unread.
constexpr std::chrono::milliseconds kUrgentPause{100};

} // namespace

CopySession::CopySession(tcp::socket guest, tcp::socket upstream, std::shared_ptr<CopyBuffer> scratch,
                         const RelayOptions& options)
    : RelaySession(guest.get_executor(), options), sockets_{std::move(guest), std::move(upstream)},
      watch_pauses_{asio::steady_timer(sockets_[0].get_executor()),
                    asio::steady_timer(sockets_[0].get_executor())},
      scratch_(std::move(scratch)) {}

void CopySession::start() {
    for (const Direction direction : kBothDirections) {
        watch(source_of(direction));
        spawn(sockets_[0].get_executor(), "copy relay", pump(shared_from_this(), direction));
    }
}

asio::awaitable<void> CopySession::pump(std::shared_ptr<CopySession> self, Direction direction) {
    co_await self->carry(direction);
}

asio::awaitable<void> CopySession::carry(Direction direction) {
    tcp::socket& source = socket(source_of(direction));
    for (unsigned buffers = 0;;) {
        between_buffers();
        if (is_ending())
            co_return;
        const std::ptrdiff_t received = receive(direction);
        if (received > 0) {
            const auto length = static_cast<std::size_t>(received);
            passing(direction, ByteView(*scratch_).first(length));
            if (!co_await send_all(direction, scratch_->data(), length))
                co_return;
            if (++buffers % kBuffersPerTurn == 0)
                co_await asio::post(source.get_executor(), asio::use_awaitable);
        } else if (received == 0) {
            passing_end(direction);
            source_ended(direction);
            co_return;
        } else if (!is_ending()) {
            co_await source.async_wait(tcp::socket::wait_read, kAsTuple);
        }
    }
}

std::ptrdiff_t CopySession::receive(Direction direction, std::size_t most) {
    tcp::socket& source = socket(source_of(direction));
    for (;;) {
        const ssize_t received = ::recv(source.native_handle(), scratch_->data(), most, MSG_DONTWAIT);
        if (received >= 0)
            return received;
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN)
            end_by_error(source_of(direction), errno);
        return -1;
    }
}

void CopySession::source_ended(Direction direction) {
    source_finished(direction, socket(sink_of(direction)).native_handle());
}

asio::awaitable<bool> CopySession::send_all(Direction direction, const std::uint8_t* data,
                                            std::size_t length) {
    tcp::socket& sink = socket(sink_of(direction));
    std::unique_ptr<std::uint8_t[]> tail;
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
            is_sending_[static_cast<std::size_t>(direction)] = true;
            co_await sink.async_wait(tcp::socket::wait_write, kAsTuple);
            if (is_ending())
                co_return false;
        } else if (errno != EINTR) {
            end_by_error(sink_of(direction), errno);
            co_return false;
        }
    }
    is_sending_[static_cast<std::size_t>(direction)] = false;
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
        before_close(socket.native_handle());
        boost::system::error_code ignored; // the descriptor is gone whatever close() says
        socket.close(ignored);
    }
    stop_watching();
    released();
}

void CopySession::stop_watching() {
    for (asio::steady_timer& pause : watch_pauses_)
        pause.cancel();
}

} // namespace tapgate::net
