// SPDX-License-Identifier: Apache-2.0
#include "proxy/listeners.hpp"

#include "base/ip.hpp"
#include "net/socket_options.hpp"

#include <netinet/in.h>
#include <sys/socket.h>

namespace tapgate::proxy {

namespace {

// The longest queue of accepted connections; the kernel lowers it to net.core.somaxconn.
constexpr int kBacklog = 4096;

Result<void> enable(int fd, int level, int option, const char* what) {
    const int on = 1;
    if (::setsockopt(fd, level, option, &on, sizeof on) != 0)
        return fail_errno(what, errno == EPERM ? "needs CAP_NET_ADMIN" : "");
    return {};
}

Result<UniqueFd> open_transparent(const Endpoint& endpoint, int type) {
    const bool v4 = endpoint.address.is_v4();
    UniqueFd fd(::socket(v4 ? AF_INET : AF_INET6, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd)
        return fail_errno("open a socket for guests");
    const auto transparent = v4 ? enable(fd.get(), SOL_IP, IP_TRANSPARENT, "set IP_TRANSPARENT")
                                : enable(fd.get(), SOL_IPV6, IPV6_TRANSPARENT, "set IPV6_TRANSPARENT");
    if (!transparent)
        return fail(transparent.error());
    if (!v4) {
        if (const auto only = enable(fd.get(), SOL_IPV6, IPV6_V6ONLY, "set IPV6_V6ONLY"); !only)
            return fail(only.error());
    }
    if (type == SOCK_DGRAM) {
        // Every worker has one on the same address; not SO_REUSEPORT, which bpf_sk_assign refuses before 6.6.
        if (const auto reuse = enable(fd.get(), SOL_SOCKET, SO_REUSEADDR, "set SO_REUSEADDR"); !reuse)
            return fail(reuse.error());
        // With it a send fails (ENOBUFS) whose datagram tap_egress has dropped: the guest then gets an error
        // in place of an answer that could not be recorded (udp_send_skb() in net/ipv4/udp.c).
        const auto errors = v4 ? enable(fd.get(), SOL_IP, IP_RECVERR, "set IP_RECVERR")
                               : enable(fd.get(), SOL_IPV6, IPV6_RECVERR, "set IPV6_RECVERR");
        if (!errors)
            return fail(errors.error());
        const auto info = v4 ? enable(fd.get(), SOL_IP, IP_PKTINFO, "set IP_PKTINFO")
                             : enable(fd.get(), SOL_IPV6, IPV6_RECVPKTINFO, "set IPV6_RECVPKTINFO");
        if (!info)
            return fail(info.error());
    }
    // Inherited by what is accepted, so that no connection is ever without them: also what the kernel does
    // with one that is not accepted yet should this process die.
    if (type == SOCK_STREAM && !net::prepare_to_relay(fd.get()))
        return fail_errno("set options of a socket for guests");
    sockaddr_storage address{};
    const unsigned length = endpoint.to_sockaddr(address);
    if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0)
        return fail_errno("bind a socket for guests to " + endpoint.to_string(),
                          errno == EACCES ? "needs CAP_NET_BIND_SERVICE" : "");
    if (type == SOCK_STREAM && ::listen(fd.get(), kBacklog) != 0)
        return fail_errno("listen on a socket for guests");
    return fd;
}

} // namespace

Result<Listeners> open_listeners() {
    const IpAddress v4 = *IpAddress::parse("192.0.0.8");
    const IpAddress v6 = *IpAddress::parse("100::8");
    auto tcp4 = open_transparent({v4, 0}, SOCK_STREAM);
    if (!tcp4)
        return fail(tcp4.error());
    auto tcp6 = open_transparent({v6, 0}, SOCK_STREAM);
    if (!tcp6)
        return fail(tcp6.error());
    auto dns4 = open_transparent({v4, kDnsPort}, SOCK_DGRAM);
    if (!dns4)
        return fail(dns4.error());
    auto dns6 = open_transparent({v6, kDnsPort}, SOCK_DGRAM);
    if (!dns6)
        return fail(dns6.error());
    return Listeners{std::move(*tcp4), std::move(*tcp6), std::move(*dns4), std::move(*dns6)};
}

} // namespace tapgate::proxy
