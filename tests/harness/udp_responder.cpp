// SPDX-License-Identifier: Apache-2.0
#include "harness/udp_responder.hpp"

#include "harness/wait.hpp"

#include <cerrno>
#include <system_error>

#include <poll.h>
#include <sys/socket.h>

namespace tapgate::test {

UdpSocket::UdpSocket(const NetNs& ns, const Endpoint& local)
    : fd_(ns.run([&] {
          sockaddr_storage storage{};
          const socklen_t length = local.to_sockaddr(storage);
          UniqueFd fd(::socket(storage.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
          if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&storage), length) != 0)
              throw std::system_error(errno, std::generic_category(), "bind " + local.to_string());
          return fd;
      })) {}

void UdpSocket::send(const Endpoint& to, const Bytes& bytes) const {
    sockaddr_storage storage{};
    const socklen_t length = to.to_sockaddr(storage);
    ::sendto(fd_.get(), bytes.data(), bytes.size(), 0, reinterpret_cast<const sockaddr*>(&storage), length);
}

std::optional<Datagram> UdpSocket::receive(std::chrono::milliseconds time) const {
    const Deadline deadline = in(time);
    for (;;) {
        pollfd entry{fd_.get(), POLLIN, 0};
        if (::poll(&entry, 1, poll_timeout(deadline)) == 0)
            return std::nullopt;
        Bytes bytes(65536);
        sockaddr_storage storage{};
        socklen_t length = sizeof storage;
        const ssize_t count = ::recvfrom(fd_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT,
                                         reinterpret_cast<sockaddr*>(&storage), &length);
        if (count < 0 && std::chrono::steady_clock::now() >= deadline)
            return std::nullopt;
        if (count < 0)
            continue; // an ICMP error about an earlier datagram
        bytes.resize(static_cast<std::size_t>(count));
        return Datagram{Endpoint::from_sockaddr(storage).value(), std::move(bytes)};
    }
}

Endpoint UdpSocket::local() const {
    sockaddr_storage storage{};
    socklen_t length = sizeof storage;
    ::getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&storage), &length);
    return Endpoint::from_sockaddr(storage).value();
}

UdpResponder::UdpResponder(const NetNs& ns, const Endpoint& local, Handler handler)
    : socket_(ns, local), handler_(std::move(handler)), thread_([this] { loop(); }) {}

UdpResponder::~UdpResponder() {
    stopping_ = true; // seen within one wait of loop()
    thread_.join();
}

void UdpResponder::set_handler(Handler handler) {
    const std::lock_guard lock(mutex_);
    handler_ = std::move(handler);
}

void UdpResponder::loop() {
    while (!stopping_) {
        const auto query = socket_.receive(std::chrono::milliseconds(50)); // how soon stopping_ is seen
        if (!query || query->bytes.empty())
            continue;
        ++received_;
        const std::lock_guard lock(mutex_);
        handler_(socket_, *query);
    }
}

} // namespace tapgate::test
