// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/ip.hpp"
#include "base/unique_fd.hpp"
#include "harness/netns.hpp"
#include "harness/wait.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <span>
#include <string>
#include <string_view>

namespace tapgate::test {

/// How a direction of a connection ended, seen from the reader.
enum class End {
    kNone, ///< it did not, within the time given
    kFin,
    kReset,
};

/// What arrived and how it ended.
struct Received {
    std::string bytes;
    End end = End::kNone;
};

/// One end of a TCP connection in a test. Every call has a deadline; none throws for what a network can do.
class TcpStream {
  public:
    /// Takes a connected socket.
    explicit TcpStream(UniqueFd fd);

    /// Connects from inside `ns`; the errno if it fails, ETIMEDOUT after `time`. `mark` is the socket's
    /// (SO_MARK).
    static std::expected<TcpStream, int> connect(const NetNs& ns, const Endpoint& to,
                                                 std::chrono::milliseconds time = kPatience,
                                                 std::uint32_t mark = 0);

    /// Sends all of `bytes`; the errno that stopped it, 0 if none.
    int send(std::string_view bytes, std::chrono::milliseconds time = kPatience);
    /// Whatever comes next, at most `most` bytes; no bytes means the end or the time was reached.
    Received receive_some(std::size_t most, std::chrono::milliseconds time = kPatience);
    /// Exactly `count` bytes, fewer if the stream ends before.
    Received receive(std::size_t count, std::chrono::milliseconds time = kPatience);
    /// Everything up to the end.
    Received receive_to_end(std::chrono::milliseconds time = kPatience);
    /// Fills `buffer` as far as one read does: the count, 0 at FIN, -errno on a reset or time-out.
    long receive_into(std::span<char> buffer, std::chrono::milliseconds time = kPatience);

    /// Sends FIN; reading goes on.
    void finish();
    /// Closes with RST.
    void reset();

    /// Closes; FIN if everything that arrived was read.
    void close() { fd_.reset(); }

    [[nodiscard]] int fd() const { return fd_.get(); }

    [[nodiscard]] Endpoint local() const;
    [[nodiscard]] Endpoint peer() const;

  private:
    UniqueFd fd_;
};

} // namespace tapgate::test
