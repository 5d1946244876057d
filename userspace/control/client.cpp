// SPDX-License-Identifier: Apache-2.0
#include "control/client.hpp"

#include "control/protocol.hpp"
#include "control/unix_listener.hpp"

#include <fmt/format.h>

#include <array>
#include <cerrno>

#include <poll.h>
#include <sys/socket.h>

namespace tapgate::control {

namespace {

/// The longest line taken from the daemon; `flow show` of a busy host is some tens of MiB.
constexpr std::size_t kMaxReplyBytes = std::size_t{512} << 20U;

} // namespace

Result<Client> Client::connect(const std::string& path) {
    const auto address = unix_address(path);
    if (!address)
        return fail(address.error());
    UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!socket)
        return fail_errno("open a unix socket");
    const auto* generic = reinterpret_cast<const sockaddr*>(&*address);
    if (::connect(socket.get(), generic, sizeof *address) != 0) {
        if (errno == ENOENT || errno == ECONNREFUSED)
            return fail(ErrorCode::kUnavailable,
                        fmt::format("nobody answers on {} (is tapgated running? -s names its socket)", path));
        return fail_errno(fmt::format("connect to {}", path),
                          errno == EACCES ? "needs root, or the group that daemon.control_group names" : "");
    }
    return Client(std::move(socket));
}

Result<void> Client::send(std::string_view command, const boost::json::object& args) {
    const std::string line = request_line(command, args);
    if (line.size() > kMaxRequestBytes)
        return fail(ErrorCode::kLimit, fmt::format("the request has {} bytes, more than the {} MiB allowed",
                                                   line.size(), kMaxRequestBytes >> 20U));
    for (std::size_t sent = 0; sent < line.size();) {
        const ssize_t n = ::send(socket_.get(), line.data() + sent, line.size() - sent, MSG_NOSIGNAL);
        if (n >= 0)
            sent += static_cast<std::size_t>(n);
        else if (errno == EPIPE || errno == ECONNRESET)
            return {};
        else if (errno != EINTR)
            return fail_errno("send a request to the daemon");
    }
    return {};
}

Result<std::optional<boost::json::object>> Client::receive(std::optional<std::chrono::milliseconds> timeout) {
    std::size_t searched = 0;
    for (;;) {
        const std::size_t newline = buffer_.find('\n', searched);
        if (newline != std::string::npos) {
            auto reply = parse_reply(std::string_view(buffer_).substr(0, newline));
            buffer_.erase(0, newline + 1);
            if (!reply)
                return fail(reply.error());
            return std::optional(std::move(*reply));
        }
        searched = buffer_.size();
        if (searched > kMaxReplyBytes)
            return fail(ErrorCode::kLimit, "the reply of the daemon is too long");

        pollfd ready{.fd = socket_.get(), .events = POLLIN, .revents = 0};
        const int polled = ::poll(&ready, 1, timeout ? static_cast<int>(timeout->count()) : -1);
        if (polled == 0)
            return fail(ErrorCode::kUnavailable,
                        fmt::format("the daemon has not answered for {} s", timeout->count() / 1000));
        if (polled < 0 && errno != EINTR)
            return fail_errno("wait for the daemon");
        if (polled < 0)
            continue;
        std::array<char, 65536> chunk; // NOLINT(cppcoreguidelines-pro-type-member-init): filled by recv
        const ssize_t n = ::recv(socket_.get(), chunk.data(), chunk.size(), 0);
        if (n > 0)
            buffer_.append(chunk.data(), static_cast<std::size_t>(n));
        else if (n == 0 || errno == ECONNRESET)
            return std::optional<boost::json::object>();
        else if (errno != EINTR)
            return fail_errno("read the daemon's reply");
    }
}

Result<boost::json::object> Client::call(std::string_view command, const boost::json::object& args,
                                         std::chrono::milliseconds timeout) {
    if (auto sent = send(command, args); !sent)
        return fail(sent.error());
    auto reply = receive(timeout);
    if (!reply)
        return fail(reply.error());
    if (!*reply)
        return fail(ErrorCode::kUnavailable, "the daemon closed the connection without an answer");
    return std::move(**reply);
}

} // namespace tapgate::control
