// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/ip.hpp"
#include "base/result.hpp"

#include <boost/asio/io_context.hpp>

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>

namespace tapgate::control {

struct MetricsServerLimits {
    /// Connections at a time; a further one takes the place of the oldest.
    std::size_t connections = 16;
    std::size_t request_bytes = 8192;
    /// For the client to say what it wants, and again to take the answer; then the connection is closed.
    std::chrono::milliseconds timeout{10'000};
    /// How old an answer may be: however many ask, the text is not made more often.
    std::chrono::milliseconds freshness{1000};
};

/// Serves `GET /metrics` over HTTP/1, one request a connection, in the format of OpenMetrics. There is no
/// authentication: whoever can reach the address can read. All functions are for the thread that runs the
/// io_context.
class MetricsServer {
  public:
    /// Makes the text. Called on the io_context's thread, while start()'s result exists.
    using Render = std::function<std::string()>;

    /// Listens; the error says which address could not be had.
    static Result<std::unique_ptr<MetricsServer>>
    start(boost::asio::io_context& context, const Endpoint& listen, Render render,
          const MetricsServerLimits& limits = MetricsServerLimits());
    /// Closes all connections.
    ~MetricsServer();
    MetricsServer(const MetricsServer&) = delete;
    MetricsServer& operator=(const MetricsServer&) = delete;

    /// With the port that the kernel chose, if `listen` had none.
    [[nodiscard]] Endpoint endpoint() const;

  private:
    struct State;

    explicit MetricsServer(std::shared_ptr<State> state);

    std::shared_ptr<State> state_; // shared with the connections' coroutines, which may outlive the server
};

} // namespace tapgate::control
