// SPDX-License-Identifier: Apache-2.0
#include "net/dialer.hpp"

#include "base/unique_fd.hpp"
#include "net/async.hpp"
#include "net/socket_options.hpp"

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

} // namespace

asio::awaitable<Result<asio::ip::tcp::socket>> dial(Endpoint destination, std::chrono::milliseconds timeout,
                                                    std::optional<Endpoint> source) {
    const auto deadline = std::chrono::steady_clock::now() + timeout;
    const std::string operation = "connect to " + destination.to_string();

    sockaddr_storage remote{};
    const socklen_t remote_length = destination.to_sockaddr(remote);
    UniqueFd fd(::socket(remote.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP));
    if (!fd)
        co_return fail_errno("open a socket to " + operation);
    if (!set_nodelay(fd.get()))
        co_return fail_errno("set TCP_NODELAY to " + operation);

    if (source) {
        sockaddr_storage local{};
        const socklen_t local_length = source->to_sockaddr(local);
        if (::bind(fd.get(), generic(local), local_length) != 0)
            co_return fail_errno("bind to " + source->to_string() + " to " + operation);
    }
    const bool is_connected = ::connect(fd.get(), generic(remote), remote_length) == 0;
    if (!is_connected && errno != EINPROGRESS)
        co_return fail_errno(operation);

    asio::ip::tcp::socket socket(co_await asio::this_coro::executor);
    const auto protocol = remote.ss_family == AF_INET ? asio::ip::tcp::v4() : asio::ip::tcp::v6();
    boost::system::error_code error;
    socket.assign(protocol, fd.get(), error);
    if (error)
        co_return fail(Error::from_errno(error.value(), operation));
    (void)fd.release();

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

} // namespace tapgate::net
