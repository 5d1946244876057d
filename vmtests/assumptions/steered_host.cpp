// SPDX-License-Identifier: Apache-2.0
#include "steered_host.hpp"

#include "attach.hpp"
#include "harness/process.hpp"
#include "harness/wait.hpp"
#include "steering.h"
#include "steering.skel.h"

#include <bpf/bpf.h>
#include <fmt/format.h>

#include <cerrno>
#include <stdexcept>
#include <system_error>

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

namespace tapgate::assumptions {

namespace {

constexpr int kRouteTable = 7461;

void check(int result, const char* what) {
    if (result < 0)
        throw std::system_error(errno, std::generic_category(), what);
}

void enable(int socket, int level, int option) {
    const int on = 1;
    check(::setsockopt(socket, level, option, &on, sizeof on), "setsockopt");
}

} // namespace

void SteeredHost::Unload::operator()(steering* bpf) const {
    steering::destroy(bpf);
}

SteeredHost::SteeredHost() : bpf_(steering::open_and_load()) {
    if (!bpf_)
        throw std::system_error(errno, std::generic_category(), "load steering.bpf.c");
    const test::NetNs& host = topology_.host();
    attach_clsact(host, topology_.guest().tap, Direction::kIngress,
                  ::bpf_program__fd(bpf_->progs.steer_ingress));
    attach_clsact(host, topology_.guest().tap, Direction::kEgress,
                  ::bpf_program__fd(bpf_->progs.steer_egress));
    for (const char* version : {"", "-6 "}) {
        const std::string mark = fmt::format("{:#x}", static_cast<unsigned>(STEER_MARK));
        test::must_run({"sh", "-c",
                        fmt::format("ip {0}rule add fwmark {1} lookup {2} && "
                                    "ip {0}route add local default dev lo table {2}",
                                    version, mark, kRouteTable)},
                       &host);
    }
}

SteeredHost::~SteeredHost() = default;

std::uint64_t SteeredHost::count(std::uint32_t what) const {
    std::uint64_t value = 0;
    check(::bpf_map_lookup_elem(::bpf_map__fd(bpf_->maps.counts), &what, &value), "read a counter");
    return value;
}

void SteeredHost::set_listener(std::uint32_t kind, int socket) const {
    const std::uint64_t value = static_cast<std::uint64_t>(socket);
    check(::bpf_map_update_elem(::bpf_map__fd(bpf_->maps.listeners), &kind, &value, BPF_ANY),
          "put a socket into the sockmap");
}

UniqueFd SteeredHost::open_socket(const test::Family& family, int type) const {
    return topology_.host().run([&] {
        const bool v4 = family.guest.is_v4();
        UniqueFd fd(::socket(v4 ? AF_INET : AF_INET6, type | SOCK_CLOEXEC, 0));
        check(fd.get(), "socket");
        enable(fd.get(), v4 ? SOL_IP : SOL_IPV6, v4 ? IP_TRANSPARENT : IPV6_TRANSPARENT);
        if (!v4)
            enable(fd.get(), SOL_IPV6, IPV6_V6ONLY);
        if (type == SOCK_DGRAM) {
            enable(fd.get(), SOL_SOCKET, SO_REUSEADDR);
            enable(fd.get(), v4 ? SOL_IP : SOL_IPV6, v4 ? IP_PKTINFO : IPV6_RECVPKTINFO);
        }
        sockaddr_storage address{};
        const Endpoint endpoint{*IpAddress::parse(v4 ? "192.0.0.8" : "100::8"),
                                static_cast<std::uint16_t>(type == SOCK_DGRAM ? 53 : 0)};
        const unsigned length = endpoint.to_sockaddr(address);
        check(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), length), "bind");
        if (type == SOCK_STREAM)
            check(::listen(fd.get(), 16), "listen");
        return fd;
    });
}

UniqueFd accept_one(int listener) {
    pollfd poll{listener, POLLIN, 0};
    if (::poll(&poll, 1, test::poll_timeout(test::in(test::kPatience))) != 1)
        throw std::runtime_error("no connection arrived at the listener");
    UniqueFd accepted(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
    check(accepted.get(), "accept");
    return accepted;
}

Endpoint local_endpoint(int socket) {
    sockaddr_storage address{};
    socklen_t length = sizeof address;
    check(::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &length), "getsockname");
    return Endpoint::from_sockaddr(address).value();
}

} // namespace tapgate::assumptions
