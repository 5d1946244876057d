// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "net/async.hpp"

#include <boost/asio/error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <spdlog/spdlog.h>

#include <chrono>
#include <string_view>
#include <utility>

namespace tapgate::control {

/// How long a server waits before it accepts again after accepting has failed, for want of descriptors for
/// example.
constexpr std::chrono::milliseconds kAcceptPause{200};

/// Gives each client's socket to `take` until `acceptor` is closed. A failure is logged with `who` and waited
/// out on `pause`; cancelling that timer ends the wait. `acceptor`, `pause` and `take` are borrowed.
template <typename Acceptor, typename Take>
boost::asio::awaitable<void> accept_clients(Acceptor& acceptor, boost::asio::steady_timer& pause,
                                            std::string_view who, const Take& take) {
    while (acceptor.is_open()) {
        auto [error, socket] = co_await acceptor.async_accept(net::kAsTuple);
        if (error == boost::asio::error::operation_aborted)
            continue;
        if (error) {
            spdlog::warn("{}: accept: {}", who, error.message());
            pause.expires_after(kAcceptPause);
            co_await pause.async_wait(net::kAsTuple);
            continue;
        }
        take(std::move(socket));
    }
}

} // namespace tapgate::control
