// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/ip.hpp"
#include "base/result.hpp"
#include "base/unique_fd.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>

#include <chrono>
#include <functional>
#include <optional>

namespace tapgate::net {

/// Where a connection is to come from.
struct DialSource {
    DialSource() = default;

    DialSource(const Endpoint& local, std::function<bool(const Endpoint&)> hook)
        : endpoint(local), bound(std::move(hook)) {}

    /// To be bound; port 0 for any. One port serves connections to different destinations (SO_REUSEADDR).
    Endpoint endpoint;
    /// Told what the socket was bound to, before anything is sent. False: the port does not do, and another
    /// one is tried if `endpoint` leaves it open. May be empty.
    std::function<bool(const Endpoint& local)> bound;
};

/// Opens a TCP connection to `destination` on the calling coroutine's executor. The socket is non-blocking
/// and close-on-exec.
///
/// `source` and `destination` must be of one family; `source` is borrowed until the dial is over.
/// A refusal keeps its errno in Error::errno_value(): ECONNREFUSED, ENETUNREACH, EHOSTUNREACH, ...; ETIMEDOUT
/// when nothing was decided within `timeout`; ECANCELED when the coroutine was cancelled; EADDRINUSE or
/// EADDRNOTAVAIL when no port does. On any failure the socket is closed, nothing of the attempt remains.
boost::asio::awaitable<Result<boost::asio::ip::tcp::socket>>
dial(Endpoint destination, std::chrono::milliseconds timeout, const DialSource* source = nullptr);

/// A TCP socket that is bound to `local` and never connected: while it is open the kernel chooses that port
/// for no other connection.
Result<UniqueFd> hold_port(const Endpoint& local);

} // namespace tapgate::net
