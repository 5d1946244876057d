// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/ip.hpp"
#include "base/unique_fd.hpp"
#include "harness/netns.hpp"

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

namespace tapgate::test {

using Bytes = std::vector<std::uint8_t>;

struct Datagram {
    Endpoint from;
    Bytes bytes;
};

/// A UDP socket of a test inside a namespace.
class UdpSocket {
  public:
    /// Bound to `local`; port 0 takes any. Throws std::system_error.
    UdpSocket(const NetNs& ns, const Endpoint& local);

    void send(const Endpoint& to, const Bytes& bytes) const;
    /// The next datagram; nothing after `time`.
    [[nodiscard]] std::optional<Datagram> receive(std::chrono::milliseconds time) const;
    [[nodiscard]] Endpoint local() const;

    [[nodiscard]] int fd() const { return fd_.get(); }

  private:
    UniqueFd fd_;
};

/// A UDP server whose replies a function decides: the hostile resolver.
class UdpResponder {
  public:
    /// Called on the server's thread; sends whatever it likes through `socket`.
    using Handler = std::function<void(const UdpSocket& socket, const Datagram& query)>;

    UdpResponder(const NetNs& ns, const Endpoint& local, Handler handler);
    UdpResponder(const UdpResponder&) = delete;
    UdpResponder& operator=(const UdpResponder&) = delete;
    ~UdpResponder();

    /// Replaces the behaviour from the next datagram on.
    void set_handler(Handler handler);

    [[nodiscard]] unsigned received() const { return received_; }

  private:
    void loop();

    UdpSocket socket_;
    std::mutex mutex_;
    Handler handler_; // guarded by mutex_
    std::atomic<unsigned> received_{0};
    std::atomic<bool> stopping_{false};
    std::thread thread_;
};

} // namespace tapgate::test
