// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/unique_fd.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

namespace tapgate::net {

inline constexpr std::uint64_t kMiB = 1024 * 1024;

/// Two connected TCP sockets on loopback; both non-blocking. `buffer_bytes` asks for small kernel buffers on
/// both, 0 for the system's own.
struct TcpPair {
    UniqueFd near;
    UniqueFd far;
};

TcpPair connect_pair(int family, int buffer_bytes = 0);

/// Hands `fd` to Asio, with the options that relays rely on.
boost::asio::ip::tcp::socket to_socket(boost::asio::io_context& context, UniqueFd fd);

/// Descriptors this process has open.
std::size_t count_descriptors();

/// Runs `context`, and `step` between its handlers, until `is_done` or the deadline; false at the deadline.
/// `step` says whether it got anything done.
bool run_until(
    boost::asio::io_context& context, const std::function<bool()>& is_done,
    const std::function<bool()>& step = [] { return false; },
    std::chrono::seconds deadline = std::chrono::seconds(60));

/// One end of a connection under test: sends a known stream, and checks that what arrives is a known stream.
class Peer {
  public:
    Peer() = default;

    /// Streams of different seeds differ.
    Peer(UniqueFd fd, std::uint64_t sent_seed, std::uint64_t expected_seed)
        : fd_(std::move(fd)), sent_seed_(sent_seed), expected_seed_(expected_seed) {}

    /// Lets pump() send `bytes` more, at most `piece` at once; with `fin` a FIN after the last.
    void plan(std::uint64_t bytes, bool fin, std::size_t piece = 256 * 1024);

    /// Lets pump() read up to `piece` bytes at once; 0 stops reading.
    void set_appetite(std::size_t piece) { appetite_ = piece; }

    /// Sends and receives what is possible now; true if anything happened.
    bool pump();
    /// Closes with an RST.
    void reset();

    [[nodiscard]] int fd() const { return fd_.get(); }

    [[nodiscard]] std::uint64_t sent() const { return sent_; }

    [[nodiscard]] std::uint64_t received() const { return received_; }

    [[nodiscard]] bool has_sent_all() const { return sent_ == planned_; }

    /// False once a byte arrived that the other end did not send there.
    [[nodiscard]] bool is_verbatim() const { return is_verbatim_; }

    [[nodiscard]] bool has_eof() const { return has_eof_; }

    /// The errno that ended receiving or sending, 0 while there is none.
    [[nodiscard]] int error() const { return error_; }

  private:
    bool pump_out();
    bool pump_in();

    UniqueFd fd_;
    std::uint64_t sent_seed_ = 0;
    std::uint64_t expected_seed_ = 0;
    std::uint64_t planned_ = 0;
    std::uint64_t sent_ = 0;
    std::uint64_t received_ = 0;
    std::size_t piece_ = 0;
    std::size_t appetite_ = 256 * 1024;
    bool fin_planned_ = false;
    bool fin_sent_ = false;
    bool is_verbatim_ = true;
    bool has_eof_ = false;
    int error_ = 0;
};

/// The bytes of stream `seed` from `position` on, as many as lie together.
std::span<const std::uint8_t> stream_bytes(std::uint64_t seed, std::uint64_t position);

} // namespace tapgate::net
