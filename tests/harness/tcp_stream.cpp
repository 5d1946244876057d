// SPDX-License-Identifier: Apache-2.0
#include "harness/tcp_stream.hpp"

#include <algorithm>
#include <cerrno>
#include <system_error>

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

namespace tapgate::test {

namespace {

/// True if `fd` became ready for `events` (or failed) before `deadline`.
bool ready(int fd, short events, Deadline deadline) {
    pollfd entry{fd, events, 0};
    int count = 0;
    do {
        count = ::poll(&entry, 1, poll_timeout(deadline));
    } while (count < 0 && errno == EINTR);
    return count == 1;
}

} // namespace

TcpStream::TcpStream(UniqueFd fd) : fd_(std::move(fd)) {
    const int on = 1;
    ::setsockopt(fd_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    ::fcntl(fd_.get(), F_SETFL, O_NONBLOCK);
}

std::expected<TcpStream, int> TcpStream::connect(const NetNs& ns, const Endpoint& to,
                                                 std::chrono::milliseconds time, std::uint32_t mark) {
    sockaddr_storage storage{};
    const socklen_t length = to.to_sockaddr(storage);
    UniqueFd fd(ns.run([&] { return ::socket(storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0); }));
    if (!fd)
        throw std::system_error(errno, std::generic_category(), "socket");
    if (mark != 0 && ::setsockopt(fd.get(), SOL_SOCKET, SO_MARK, &mark, sizeof mark) != 0)
        throw std::system_error(errno, std::generic_category(), "SO_MARK");
    TcpStream stream(std::move(fd));
    const auto* target = reinterpret_cast<const sockaddr*>(&storage);
    if (::connect(stream.fd(), target, length) == 0)
        return stream;
    if (errno != EINPROGRESS)
        return std::unexpected(errno);
    if (!ready(stream.fd(), POLLOUT, in(time)))
        return std::unexpected(ETIMEDOUT);
    int error = 0;
    socklen_t size = sizeof error;
    ::getsockopt(stream.fd(), SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0)
        return std::unexpected(error);
    return stream;
}

int TcpStream::send(std::string_view bytes, std::chrono::milliseconds time) {
    const Deadline deadline = in(time);
    while (!bytes.empty()) {
        const ssize_t count = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
        if (count >= 0)
            bytes.remove_prefix(static_cast<std::size_t>(count));
        else if (errno != EAGAIN && errno != EINTR)
            return errno;
        else if (!ready(fd_.get(), POLLOUT, deadline))
            return ETIMEDOUT;
    }
    return 0;
}

long TcpStream::receive_into(std::span<char> buffer, std::chrono::milliseconds time) {
    const Deadline deadline = in(time);
    for (;;) {
        const ssize_t count = ::recv(fd_.get(), buffer.data(), buffer.size(), 0);
        if (count >= 0)
            return count;
        if (errno != EAGAIN && errno != EINTR)
            return -errno;
        if (!ready(fd_.get(), POLLIN, deadline))
            return -ETIMEDOUT;
    }
}

Received TcpStream::receive_some(std::size_t most, std::chrono::milliseconds time) {
    Received received;
    received.bytes.resize(most);
    const long count = receive_into(received.bytes, time);
    received.bytes.resize(static_cast<std::size_t>(std::max(count, 0L)));
    if (count == 0 && most > 0)
        received.end = End::kFin;
    else if (count < 0 && count != -ETIMEDOUT)
        received.end = End::kReset;
    return received;
}

Received TcpStream::receive(std::size_t count, std::chrono::milliseconds time) {
    const Deadline deadline = in(time);
    Received all;
    while (all.bytes.size() < count && all.end == End::kNone) {
        const Received piece = receive_some(std::min<std::size_t>(count - all.bytes.size(), 1U << 16U),
                                            std::chrono::milliseconds(poll_timeout(deadline)));
        all.bytes += piece.bytes;
        all.end = piece.end;
        if (piece.bytes.empty())
            break;
    }
    return all;
}

Received TcpStream::receive_to_end(std::chrono::milliseconds time) {
    const Deadline deadline = in(time);
    Received all;
    for (;;) {
        const Received piece = receive_some(1U << 16U, std::chrono::milliseconds(poll_timeout(deadline)));
        all.bytes += piece.bytes;
        all.end = piece.end;
        if (piece.bytes.empty())
            return all;
    }
}

void TcpStream::finish() {
    ::shutdown(fd_.get(), SHUT_WR);
}

void TcpStream::reset() {
    const linger now{1, 0};
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &now, sizeof now);
    fd_.reset();
}

Endpoint TcpStream::local() const {
    sockaddr_storage storage{};
    socklen_t length = sizeof storage;
    ::getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&storage), &length);
    return Endpoint::from_sockaddr(storage).value_or(Endpoint{});
}

Endpoint TcpStream::peer() const {
    sockaddr_storage storage{};
    socklen_t length = sizeof storage;
    ::getpeername(fd_.get(), reinterpret_cast<sockaddr*>(&storage), &length);
    return Endpoint::from_sockaddr(storage).value_or(Endpoint{});
}

} // namespace tapgate::test
