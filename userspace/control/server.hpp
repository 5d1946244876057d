// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"
#include "control/protocol.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/json/object.hpp>

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <sys/types.h>

namespace tapgate::control {

/// Answers one command. Runs on the server's io_context; others are served while it waits. The reply gets
/// "schema":1 in front. An exception is answered as an error and logged.
using Handler = std::function<boost::asio::awaitable<Result<boost::json::object>>(boost::json::object args)>;

struct ServerLimits {
    std::size_t request_bytes = kMaxRequestBytes;
    /// Connections at a time. One more takes the place of the one that has kept us waiting longest, for a
    /// request or for taking a reply; if none does, it is told so and closed.
    std::size_t clients = 64;
    /// Requests of more than a MiB that are being received at a time; one more is refused.
    std::size_t large_requests = 2;
    /// Replies and events that clients have not taken yet, all together; who has kept us waiting longest with
    /// his is closed to make room. A single one may be larger.
    std::size_t untaken_bytes = std::size_t{128} << 20U;
    /// Events waiting for one monitor; further ones are counted and told as {"type":"lost","count":N}.
    std::size_t queued_events = 4096;
    /// From connect or from the last reply to the end of the next request; then the connection is closed.
    std::chrono::milliseconds request_timeout{30'000};
    /// For the client to take a reply or an event; then the connection is closed.
    std::chrono::milliseconds write_timeout{30'000};
};

/// The control socket: a unix stream socket of mode 0600 that serves root only (SO_PEERCRED, whatever the
/// mode says by then), or root and a group that may read. Wire format: protocol.hpp.
///
/// `event monitor` is built in; its arguments are those of EventFilter.
/// All functions are for the thread that runs the io_context. Handlers and what they refer to must live until
/// the io_context runs no more.
class Server {
  public:
    Server(boost::asio::io_context& context, std::string path, const ServerLimits& limits = ServerLimits());
    /// Stops.
    ~Server();
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;

    /// Names the handler of a command such as "guest show". Before start(); a second one of the same name is
    /// a bug.
    void add(std::string command, Handler handler);

    /// Lets members of `group` connect, monitor and send `commands`, and nothing else. Half of the
    /// connections stay root's. Before start(), which then wants the socket file to be of that group
    /// (UnixListener::open()).
    void open_for_reading(gid_t group, std::vector<std::string> commands);

    /// Creates the socket and serves. A socket file on which nobody answers is replaced; kExists if somebody
    /// does or if the path is something else than a socket. Its directory is made (0755) if it is missing.
    Result<void> start();

    /// False if publish() would reach nobody.
    [[nodiscard]] bool has_monitors() const;

    /// Sends `event` to the monitors. Never blocks.
    void publish(const boost::json::object& event);

    /// Takes no further connection and removes the socket file; those that are there go on.
    void stop_accepting();

    /// Closes all connections and removes the socket file. Further calls do nothing.
    void stop();

  private:
    class Connection;
    struct State;
    std::shared_ptr<State> state_; // shared with the connections' coroutines, which may outlive the server
};

} // namespace tapgate::control
