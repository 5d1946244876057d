// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/ip.hpp"
#include "proto/dns_query.hpp"

#include <boost/asio/awaitable.hpp>

#include <chrono>
#include <cstdint>
#include <vector>

namespace tapgate::proxy {

/// What one resolver said to one query.
struct DnsExchange {
    enum class End : std::uint8_t {
        kAnswer,  ///< `bytes` answers the question that was sent
        kForged,  ///< so many answers to other questions came that none is trusted
        kNothing, ///< no answer until the deadline, or nobody listens there
    };

    End end = End::kNothing;
    std::vector<std::uint8_t> bytes;
};

/// Asks `upstream` over UDP, from a socket of its own: the kernel draws the port at random, and connect()
/// makes it deaf to other senders. The id is random too. Of what comes only an answer to that very question
/// counts; the rest is ignored, so that a forger does not win by being first, and after some of it the answer
/// is not trusted either (kForged), so that it does not win by guessing.
boost::asio::awaitable<DnsExchange> ask_over_udp(Endpoint upstream, const proto::DnsQuery& query,
                                                 std::chrono::steady_clock::time_point deadline);

/// Asks `upstream` over a TCP connection of its own (RFC 7766). Any other message on it ends the exchange.
boost::asio::awaitable<DnsExchange> ask_over_tcp(Endpoint upstream, const proto::DnsQuery& query,
                                                 std::chrono::steady_clock::time_point deadline);

/// Whether `upstream` answers at all, whatever it says: asked for localhost (RFC 6761 6.3), which it can
/// answer by itself.
boost::asio::awaitable<bool> is_answering(Endpoint upstream, std::chrono::steady_clock::time_point deadline);

} // namespace tapgate::proxy
