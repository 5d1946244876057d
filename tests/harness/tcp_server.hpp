// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "harness/tcp_stream.hpp"

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace tapgate::test {

/// A TCP server with a thread per connection.
class TcpServer {
  public:
    /// Called on a thread of its own with each accepted connection, which closes when it returns.
    using Handler = std::function<void(TcpStream&)>;

    /// Listens on `endpoint` inside `ns` at once. Throws std::system_error.
    TcpServer(const NetNs& ns, const Endpoint& endpoint, Handler handler);
    TcpServer(const TcpServer&) = delete;
    TcpServer& operator=(const TcpServer&) = delete;
    /// Stops listening and waits for the handlers; their connections are cut.
    ~TcpServer();

    [[nodiscard]] unsigned accepted() const { return accepted_; }

    [[nodiscard]] const Endpoint& endpoint() const { return endpoint_; }

  private:
    void accept_loop();
    void serve(UniqueFd fd);

    Endpoint endpoint_;
    Handler handler_;
    UniqueFd listener_;
    std::atomic<unsigned> accepted_{0};
    std::mutex mutex_;
    std::vector<int> live_; // descriptors being served; guarded by mutex_
    std::condition_variable served_;
    std::thread acceptor_;
};

/// Sends back what it gets, until FIN.
void echo(TcpStream& stream);

} // namespace tapgate::test
