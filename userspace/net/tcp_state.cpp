// SPDX-License-Identifier: Apache-2.0
//
// That the numbers are exact and that nothing is sent is asserted by vmtests/assumptions/tcp_repair_test.cpp.
#include "net/tcp_state.hpp"

#include "base/unique_fd.hpp"

#include <cerrno>

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

namespace tapgate::net {

namespace {

// Kind, length and two values, padded to words (RFC 7323 3.2 and appendix A).
constexpr std::uint32_t kTimestampOption = 12;
// enum in the kernel's net/tcp_states.h.
constexpr std::uint8_t kEstablished = 1;

Result<void> set_option(int fd, int option, int value) {
    if (::setsockopt(fd, IPPROTO_TCP, option, &value, sizeof value) != 0)
        return fail_errno("set a TCP option", errno == EPERM ? "needs CAP_NET_ADMIN" : "");
    return {};
}

Result<std::uint32_t> get_option(int fd, int option) {
    std::uint32_t value = 0;
    socklen_t length = sizeof value;
    if (::getsockopt(fd, IPPROTO_TCP, option, &value, &length) != 0)
        return fail_errno("read a TCP option");
    return value;
}

Result<std::uint32_t> next_of_queue(int fd, int queue) {
    if (auto chosen = set_option(fd, TCP_REPAIR_QUEUE, queue); !chosen)
        return fail(chosen.error());
    return get_option(fd, TCP_QUEUE_SEQ);
}

Result<void> read_info(int fd, TcpState& state) {
    tcp_info info{};
    socklen_t length = sizeof info;
    if (::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) != 0)
        return fail_errno("read TCP_INFO");
    state.options =
        info.tcpi_options & (TCPI_OPT_TIMESTAMPS | TCPI_OPT_SACK | TCPI_OPT_WSCALE | TCPI_OPT_ECN);
    // The kernel names them by direction: a scale for what is sent, and one for what is received.
    state.own_scale = info.tcpi_rcv_wscale;
    state.peer_scale = info.tcpi_snd_wscale;
    state.send_mss = info.tcpi_snd_mss;
    state.own_mss = info.tcpi_advmss;
    state.send_window = info.tcpi_snd_wnd;
    state.bytes_sent = info.tcpi_bytes_sent;
    state.bytes_received = info.tcpi_bytes_received;
    state.is_established = info.tcpi_state == kEstablished;
    return {};
}

Result<void> read_numbers(int fd, TcpState& state) {
    const auto sent = next_of_queue(fd, TCP_SEND_QUEUE);
    if (!sent)
        return fail(sent.error());
    const auto received = next_of_queue(fd, TCP_RECV_QUEUE);
    if (!received)
        return fail(received.error());
    const auto clock = get_option(fd, TCP_TIMESTAMP);
    if (!clock)
        return fail(clock.error());
    state.send_next = *sent;
    state.receive_next = *received;
    state.clock = *clock;
    return read_info(fd, state);
}

} // namespace

bool TcpState::has_timestamps() const {
    return (options & TCPI_OPT_TIMESTAMPS) != 0;
}

std::uint32_t TcpState::send_mss_with_options() const {
    return send_mss + (has_timestamps() ? kTimestampOption : 0);
}

Result<void> check_tcp_repair() {
    const UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!socket)
        return fail_errno("open a socket");
    if (auto set = set_option(socket.get(), TCP_REPAIR, TCP_REPAIR_ON); !set)
        return fail(set.error().with_context("TCP_REPAIR"));
    return {};
}

Result<TcpState> read_tcp_state(int fd) {
    if (auto begun = set_option(fd, TCP_REPAIR, TCP_REPAIR_ON); !begun)
        return fail(begun.error());
    TcpState state;
    const auto read = read_numbers(fd, state);
    // The plain way out would send a window probe. Either takes SO_REUSEADDR away (do_tcp_setsockopt() in
    // net/ipv4/tcp.c), without which a port in TIME_WAIT serves no other destination.
    const auto ended = set_option(fd, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP);
    const int on = 1;
    ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (!read)
        return fail(read.error());
    if (!ended)
        return fail(ended.error());
    return state;
}

Result<void> close_silently(int fd) {
    return set_option(fd, TCP_REPAIR, TCP_REPAIR_ON);
}

} // namespace tapgate::net
