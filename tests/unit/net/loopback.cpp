// SPDX-License-Identifier: Apache-2.0
#include "loopback.hpp"

#include "base/result.hpp"
#include "net/socket_options.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <random>
#include <vector>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>

namespace tapgate::net {

namespace {

// A prime, so that a piece of a stream never fits where another piece belongs.
constexpr std::size_t kPatternBytes = 1'000'003;

const std::vector<std::uint8_t>& pattern() {
    static const std::vector<std::uint8_t> bytes = [] {
        std::vector<std::uint8_t> made(kPatternBytes);
        std::mt19937 random(1); // NOLINT: the same bytes in every run
        std::ranges::generate(made, [&random] { return static_cast<std::uint8_t>(random()); });
        return made;
    }();
    return bytes;
}

void set_non_blocking(int fd) {
    TAPGATE_ASSERT(::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK) == 0);
}

} // namespace

TcpPair connect_pair(int family, int buffer_bytes) {
    const auto open_socket = [family, buffer_bytes] {
        UniqueFd fd(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
        TAPGATE_ASSERT(static_cast<bool>(fd));
        if (buffer_bytes != 0) {
            ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &buffer_bytes, sizeof buffer_bytes);
            ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDBUF, &buffer_bytes, sizeof buffer_bytes);
        }
        return fd;
    };
    sockaddr_storage address{};
    socklen_t length = family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
    address.ss_family = static_cast<sa_family_t>(family);
    if (family == AF_INET)
        reinterpret_cast<sockaddr_in*>(&address)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    else
        reinterpret_cast<sockaddr_in6*>(&address)->sin6_addr = in6addr_loopback;
    auto* const generic = reinterpret_cast<sockaddr*>(&address);

    const UniqueFd listener = open_socket();
    TAPGATE_ASSERT(::bind(listener.get(), generic, length) == 0 && ::listen(listener.get(), 1) == 0);
    TAPGATE_ASSERT(::getsockname(listener.get(), generic, &length) == 0);
    TcpPair pair;
    pair.near = open_socket();
    TAPGATE_ASSERT(::connect(pair.near.get(), generic, length) == 0);
    pair.far.reset(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    TAPGATE_ASSERT(static_cast<bool>(pair.far));
    set_non_blocking(pair.near.get());
    set_non_blocking(pair.far.get());
    return pair;
}

boost::asio::ip::tcp::socket to_socket(boost::asio::io_context& context, UniqueFd fd) {
    TAPGATE_ASSERT(prepare_to_relay(fd.get()));
    sockaddr_storage address{};
    socklen_t length = sizeof address;
    TAPGATE_ASSERT(::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &length) == 0);
    using boost::asio::ip::tcp;
    return {context, address.ss_family == AF_INET ? tcp::v4() : tcp::v6(), fd.release()};
}

std::size_t count_descriptors() {
    const std::filesystem::directory_iterator open_files("/proc/self/fd");
    return static_cast<std::size_t>(std::distance(begin(open_files), end(open_files)));
}

bool run_until(boost::asio::io_context& context, const std::function<bool()>& is_done,
               const std::function<bool()>& step, std::chrono::seconds deadline) {
    const auto end = std::chrono::steady_clock::now() + deadline;
    while (!is_done()) {
        if (std::chrono::steady_clock::now() > end)
            return false;
        if (context.stopped())
            context.restart();
        if (step())
            context.poll();
        else
            context.run_one_for(std::chrono::milliseconds(1));
    }
    return true;
}

std::span<const std::uint8_t> stream_bytes(std::uint64_t seed, std::uint64_t position) {
    return std::span(pattern()).subspan((seed * 7919 + position) % kPatternBytes);
}

void Peer::plan(std::uint64_t bytes, bool fin, std::size_t piece) {
    planned_ += bytes;
    piece_ = piece;
    fin_planned_ = fin;
}

bool Peer::pump() {
    const bool did_send = pump_out();
    return pump_in() || did_send;
}

bool Peer::pump_out() {
    if (!fd_ || error_ != 0 || fin_sent_)
        return false;
    if (sent_ == planned_) {
        if (!fin_planned_)
            return false;
        fin_sent_ = true;
        if (::shutdown(fd_.get(), SHUT_WR) != 0)
            error_ = errno;
        return true;
    }
    const auto bytes = stream_bytes(sent_seed_, sent_);
    const std::size_t length = std::min({bytes.size(), piece_, static_cast<std::size_t>(planned_ - sent_)});
    const ssize_t sent = ::send(fd_.get(), bytes.data(), length, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0)
        sent_ += static_cast<std::uint64_t>(sent);
    else if (errno != EAGAIN)
        error_ = errno;
    return sent >= 0;
}

bool Peer::pump_in() {
    if (!fd_ || error_ != 0 || has_eof_ || appetite_ == 0)
        return false;
    static std::vector<std::uint8_t> buffer(1024 * 1024);
    const ssize_t result = ::recv(fd_.get(), buffer.data(), std::min(appetite_, buffer.size()), MSG_DONTWAIT);
    if (result < 0) {
        if (errno != EAGAIN)
            error_ = errno;
        return false;
    }
    has_eof_ = result == 0;
    for (std::size_t done = 0; done < static_cast<std::size_t>(result);) {
        const auto expected = stream_bytes(expected_seed_, received_);
        const std::size_t length = std::min(expected.size(), static_cast<std::size_t>(result) - done);
        is_verbatim_ = is_verbatim_ && std::memcmp(expected.data(), buffer.data() + done, length) == 0;
        done += length;
        received_ += length;
    }
    return true;
}

void Peer::reset() {
    (void)reset_on_close(fd_.get());
    fd_.reset();
}

} // namespace tapgate::net
