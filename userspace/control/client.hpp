// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"
#include "base/unique_fd.hpp"

#include <boost/json/object.hpp>

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

namespace tapgate::control {

/// A blocking connection to the daemon, for the CLI. One thread.
class Client {
  public:
    /// kUnavailable if nobody listens there (with what to do), kPermission if we may not connect.
    static Result<Client> connect(const std::string& path);

    /// Sends a request. A daemon that has refused already and closed is no error here: its refusal is read.
    Result<void> send(std::string_view command, const boost::json::object& args);

    /// The next line; nothing once the daemon has closed. A refusal comes back as its Error. Waits at most
    /// `timeout` for each piece, or for ever if there is none.
    Result<std::optional<boost::json::object>>
    receive(std::optional<std::chrono::milliseconds> timeout = std::nullopt);

    /// send() and the one reply; a connection closed without one is kUnavailable.
    Result<boost::json::object> call(std::string_view command, const boost::json::object& args,
                                     std::chrono::milliseconds timeout = std::chrono::minutes(2));

  private:
    explicit Client(UniqueFd socket) : socket_(std::move(socket)) {}

    UniqueFd socket_;
    std::string buffer_; // received, not yet returned
};

} // namespace tapgate::control
