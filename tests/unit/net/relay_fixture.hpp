// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "loopback.hpp"
#include "net/async.hpp"
#include "net/relay.hpp"

#include <boost/asio/cancellation_signal.hpp>

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <sys/socket.h>

namespace tapgate::net {

/// A session under test: two peers with the relay between them.
struct RelayedPair {
    Peer guest;
    Peer upstream;
    RelayCounters counters;
    std::shared_ptr<boost::asio::cancellation_signal> cancel =
        std::make_shared<boost::asio::cancellation_signal>();
    std::optional<RelayResult> result;

    [[nodiscard]] bool is_over() const { return result.has_value(); }

    bool pump() {
        const bool did_guest = guest.pump();
        return upstream.pump() || did_guest;
    }
};

/// How start_session() sets a session up.
struct SessionSetup {
    std::chrono::milliseconds idle = std::chrono::minutes(10);
    std::chrono::milliseconds half_closed = std::chrono::minutes(10);
    int family = AF_INET;
    int buffer_bytes = 0;
};

/// Runs `session` through `relay`; unlike `relay`, the session has to stay until its result is there.
inline void start_session(boost::asio::io_context& context, Relay& relay, RelayedPair& session,
                          const SessionSetup& setup = {}) {
    TcpPair guest_side = connect_pair(setup.family, setup.buffer_bytes);
    TcpPair upstream_side = connect_pair(setup.family, setup.buffer_bytes);
    session.guest = Peer(std::move(guest_side.near), 1, 2);
    session.upstream = Peer(std::move(upstream_side.near), 2, 1);
    const RelayOptions options(setup.idle, setup.half_closed, &session.counters);
    auto carry = [](Relay& through, RelayedPair& carried, boost::asio::ip::tcp::socket guest,
                    boost::asio::ip::tcp::socket upstream,
                    RelayOptions limits) -> boost::asio::awaitable<void> {
        carried.result = co_await through.run(std::move(guest), std::move(upstream), limits);
    };
    spawn(context.get_executor(), "session under test",
          carry(relay, session, to_socket(context, std::move(guest_side.far)),
                to_socket(context, std::move(upstream_side.far)), options),
          session.cancel);
}

} // namespace tapgate::net
