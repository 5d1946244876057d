// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/unique_fd.hpp"
#include "program_fixture.hpp"

#include <stdexcept>

#include <netinet/in.h>
#include <sys/socket.h>

namespace tapgate::test {

/// A transparent socket like the daemon's, marked as ours and put where flows of `kind` are steered to.
inline UniqueFd open_listener(const Programs& programs, tg_listener_kind kind, const Endpoint& local) {
    const bool v4 = local.address.is_v4();
    const bool tcp = kind == TG_LISTENER_TCP4 || kind == TG_LISTENER_TCP6;
    UniqueFd fd(::socket(v4 ? AF_INET : AF_INET6, (tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC, 0));
    const int on = 1;
    sockaddr_storage address{};
    const unsigned length = local.to_sockaddr(address);
    const bool opened = fd &&
                        ::setsockopt(fd.get(), v4 ? SOL_IP : SOL_IPV6, v4 ? IP_TRANSPARENT : IPV6_TRANSPARENT,
                                     &on, sizeof on) == 0 &&
                        ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), length) == 0 &&
                        (!tcp || ::listen(fd.get(), 16) == 0);
    if (!opened)
        throw std::runtime_error("open a listener on " + local.to_string());
    programs.store("owned_sockets", fd.get(), tg_owned{static_cast<std::uint32_t>(kind) + 1});
    programs.store("listeners", static_cast<std::uint32_t>(kind), static_cast<std::uint64_t>(fd.get()));
    return fd;
}

} // namespace tapgate::test
