// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/ip.hpp"
#include "base/result.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>

#include <chrono>
#include <optional>

namespace tapgate::net {

/// Opens a TCP connection to `destination` on the calling coroutine's executor. The socket is non-blocking,
/// close-on-exec and has TCP_NODELAY.
///
/// `source` is the local endpoint to bind first, port 0 for any; both must be of one family.
/// A refusal keeps its errno in Error::errno_value(): ECONNREFUSED, ENETUNREACH, EHOSTUNREACH, ...; ETIMEDOUT
/// when nothing was decided within `timeout`; ECANCELED when the coroutine was cancelled. On any failure the
/// socket is closed, nothing of the attempt remains.
boost::asio::awaitable<Result<boost::asio::ip::tcp::socket>>
dial(Endpoint destination, std::chrono::milliseconds timeout, std::optional<Endpoint> source = std::nullopt);

} // namespace tapgate::net
