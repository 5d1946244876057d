// SPDX-License-Identifier: Apache-2.0
#include "net/socket_options.hpp"

#include "base/result.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

namespace tapgate::net {

namespace {

void set_int(int fd, int level, int option, int value) {
    const bool is_set = ::setsockopt(fd, level, option, &value, sizeof value) == 0;
    TAPGATE_ASSERT(is_set);
}

void set_linger(int fd, const linger& value) {
    const bool is_set = ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &value, sizeof value) == 0;
    // Going on could end a cut transfer with a FIN: it would look complete.
    TAPGATE_ASSERT(is_set);
}

} // namespace

void reset_on_close(int fd) {
    set_linger(fd, {.l_onoff = 1, .l_linger = 0});
}

void finish_on_close(int fd) {
    set_linger(fd, {.l_onoff = 0, .l_linger = 0});
}

void set_nodelay(int fd) {
    set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
}

void set_urgent_inline(int fd) {
    set_int(fd, SOL_SOCKET, SO_OOBINLINE, 1);
}

void set_keepalive(int fd, std::chrono::seconds idle, std::chrono::seconds interval, int probes) {
    set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, static_cast<int>(idle.count()));
    set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, static_cast<int>(interval.count()));
    set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, probes);
    set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
}

} // namespace tapgate::net
