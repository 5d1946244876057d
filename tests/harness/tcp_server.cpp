// SPDX-License-Identifier: Apache-2.0
#include "harness/tcp_server.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <system_error>

#include <sys/socket.h>

namespace tapgate::test {

namespace {

UniqueFd listen_in(const NetNs& ns, const Endpoint& endpoint) {
    return ns.run([&] {
        sockaddr_storage storage{};
        const socklen_t length = endpoint.to_sockaddr(storage);
        UniqueFd fd(::socket(storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
        const int on = 1;
        ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&storage), length) != 0 ||
            ::listen(fd.get(), 1024) != 0)
            throw std::system_error(errno, std::generic_category(), "listen on " + endpoint.to_string());
        return fd;
    });
}

} // namespace

TcpServer::TcpServer(const NetNs& ns, const Endpoint& endpoint, Handler handler)
    : endpoint_(endpoint), handler_(std::move(handler)), listener_(listen_in(ns, endpoint)),
      acceptor_([this] { accept_loop(); }) {}

TcpServer::~TcpServer() {
    ::shutdown(listener_.get(), SHUT_RDWR); // wakes accept()
    acceptor_.join();
    std::unique_lock lock(mutex_);
    for (const int fd : live_)
        ::shutdown(fd, SHUT_RDWR);
    served_.wait(lock, [this] { return live_.empty(); });
}

void TcpServer::accept_loop() {
    for (;;) {
        UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
        if (!fd && errno != ECONNABORTED && errno != EINTR)
            return;
        if (!fd)
            continue;
        ++accepted_;
        const std::lock_guard lock(mutex_);
        live_.push_back(fd.get());
        // Detached, since there may be thousands; the destructor waits for the last entry of live_.
        std::thread([this, owned = std::move(fd)]() mutable { serve(std::move(owned)); }).detach();
    }
}

void TcpServer::serve(UniqueFd fd) {
    const int number = fd.get();
    TcpStream stream(std::move(fd));
    handler_(stream);
    const std::lock_guard lock(mutex_);
    stream.close();
    live_.erase(std::ranges::find(live_, number)); // one: a handler that closed early lets the number recur
    served_.notify_all();
}

void echo(TcpStream& stream) {
    std::array<char, 65536> buffer{};
    for (;;) {
        const long count = stream.receive_into(buffer, std::chrono::minutes(1));
        if (count <= 0)
            return;
        if (stream.send({buffer.data(), static_cast<std::size_t>(count)}, std::chrono::minutes(1)) != 0)
            return;
    }
}

} // namespace tapgate::test
