// SPDX-License-Identifier: Apache-2.0
#include "net/dialer.hpp"

#include "net/async.hpp"

#include <boost/asio/error.hpp>
#include <boost/asio/this_coro.hpp>

#include <cerrno>
#include <string>
#include <utility>

#include <netinet/in.h>
#include <sys/socket.h>

namespace tapgate::net {

namespace asio = boost::asio;

namespace {

/// Outcome of the connect() that `fd` has pending: an errno, 0 for connected.
int connect_outcome(int fd) {
    int outcome = 0;
    socklen_t length = sizeof outcome;
    if (::getsockopt(fd, SOL_SOCKET, SO_ERROR, &outcome, &length) != 0)
        return errno;
    return outcome;
}

const sockaddr* generic(const sockaddr_storage& storage) {
    return reinterpret_cast<const sockaddr*>(&storage);
}

/// Tried one after the other: a port may be in use towards just this destination.
constexpr int kPortAttempts = 8;

Result<UniqueFd> open_socket(const sockaddr_storage& remote, const std::string& operation) {
    UniqueFd fd(::socket(remote.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP));
    if (!fd)
        return fail_errno("open a socket to " + operation);
    return fd;
}

/// Binds; false: the port does not do.
Result<bool> bind_to(int fd, const DialSource& source, const std::string& operation) {
    const int on = 1;
    ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    sockaddr_storage local{};
    socklen_t length = source.endpoint.to_sockaddr(local);
    if (::bind(fd, generic(local), length) != 0)
        return fail_errno("bind to " + source.endpoint.to_string() + " to " + operation);
    if (!source.bound)
        return true;
    length = sizeof local;
    if (::getsockname(fd, reinterpret_cast<sockaddr*>(&local), &length) != 0)
        return fail_errno("read the address to " + operation);
    const auto bound = Endpoint::from_sockaddr(local);
    return bound && source.bound(*bound);
}

/// A socket whose connect() has begun; `is_connected` if it is over already.
Result<UniqueFd> begin_connect(const Endpoint& destination, const DialSource* source,
                               const std::string& operation, bool& is_connected) {
    sockaddr_storage remote{};
    const socklen_t remote_length = destination.to_sockaddr(remote);
    const int attempts = source != nullptr && source->endpoint.port == 0 ? kPortAttempts : 1;
    int error_number = EADDRNOTAVAIL;
    for (int attempt = 0; attempt < attempts; ++attempt) {
        auto fd = open_socket(remote, operation);
        if (!fd)
            return fd;
        if (source != nullptr) {
            const auto bound = bind_to(fd->get(), *source, operation);
            if (!bound)
                return fail(bound.error());
            if (!*bound)
                continue;
        }
        is_connected = ::connect(fd->get(), generic(remote), remote_length) == 0;
        if (is_connected || errno == EINPROGRESS)
            return fd;
        error_number = errno;
        if (error_number != EADDRNOTAVAIL)
            break;
    }
    return fail(Error::from_errno(error_number, operation));
}

} // namespace

asio::awaitable<Result<asio::ip::tcp::socket>> dial(Endpoint destination, std::chrono::milliseconds timeout,
                                                    const DialSource* source) {
    const auto deadline = std::chrono::steady_clock::now() + timeout;
    const std::string operation = "connect to " + destination.to_string();
    bool is_connected = false;
    auto fd = begin_connect(destination, source, operation, is_connected);
    if (!fd)
        co_return fail(fd.error());

    asio::ip::tcp::socket socket(co_await asio::this_coro::executor);
    const auto protocol = destination.address.is_v4() ? asio::ip::tcp::v4() : asio::ip::tcp::v6();
    boost::system::error_code error;
    socket.assign(protocol, fd->get(), error);
    if (error)
        co_return fail(Error::from_errno(error.value(), operation));
    (void)fd->release();

    if (!is_connected) {
        error = co_await wait_writable_until(socket, deadline);
        if (error == asio::error::timed_out)
            co_return fail(Error::from_errno(ETIMEDOUT, operation));
        if (error)
            co_return fail(Error::from_errno(error.value(), operation));
        if (const int outcome = connect_outcome(socket.native_handle()); outcome != 0)
            co_return fail(Error::from_errno(outcome, operation));
    }
    co_return socket;
}

Result<UniqueFd> hold_port(const Endpoint& local) {
    UniqueFd fd(
        ::socket(local.address.is_v4() ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP));
    if (!fd)
        return fail_errno("open a socket to hold " + local.to_string());
    if (const auto bound = bind_to(fd.get(), DialSource(local, nullptr), "hold it"); !bound)
        return fail(bound.error());
    return fd;
}

} // namespace tapgate::net
