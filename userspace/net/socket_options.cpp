// SPDX-License-Identifier: Apache-2.0
#include "net/socket_options.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

namespace tapgate::net {

namespace {

bool set_int(int fd, int level, int option, int value) {
    return ::setsockopt(fd, level, option, &value, sizeof value) == 0;
}

bool set_linger(int fd, const linger& value) {
    return ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &value, sizeof value) == 0;
}

} // namespace

bool reset_on_close(int fd) {
    return set_linger(fd, {.l_onoff = 1, .l_linger = 0});
}

bool finish_on_close(int fd) {
    return set_linger(fd, {.l_onoff = 0, .l_linger = 0});
}

bool prepare_to_relay(int fd) {
    return reset_on_close(fd) && set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1) &&
           set_int(fd, SOL_SOCKET, SO_OOBINLINE, 1);
}

bool set_keepalive(int fd, std::chrono::seconds idle, std::chrono::seconds interval, int probes) {
    return set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, static_cast<int>(idle.count())) &&
           set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, static_cast<int>(interval.count())) &&
           set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, probes) && set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
}

} // namespace tapgate::net
