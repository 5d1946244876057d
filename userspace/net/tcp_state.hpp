// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>

namespace tapgate::net {

/// What the kernel's TCP knows of one connection, as a hand-off needs it (DESIGN 9.1). Sequence numbers and
/// clocks are modulo 2^32.
struct TcpState {
    std::uint32_t send_next = 0;    ///< of the next octet that is to be sent
    std::uint32_t receive_next = 0; ///< of the next octet that is expected: all before it is acknowledged
    std::uint32_t clock = 0;        ///< the timestamp (TSval) that a segment sent now would carry
    std::uint8_t options = 0;       ///< what both sides agreed on: TCPI_OPT_TIMESTAMPS, _SACK, _WSCALE, _ECN
    std::uint8_t own_scale = 0;     ///< the window scale that this side has offered (RFC 7323 2)
    std::uint8_t peer_scale = 0;    ///< and the one that the peer has
    std::uint32_t send_mss = 0;    ///< the most payload that a segment to the peer may have, options included
    std::uint32_t own_mss = 0;     ///< the MSS that this side has offered (RFC 9293 3.7.1), for a segment
                                   ///< without options
    std::uint32_t send_window = 0; ///< octets, as the peer has offered it last
    std::uint64_t bytes_sent = 0;
    std::uint64_t bytes_received = 0; ///< in order
    bool is_established = false;      ///< and no FIN of either side is under way

    [[nodiscard]] bool has_timestamps() const;
    /// The payload of a full segment in either direction, whatever options take from it.
    [[nodiscard]] std::uint32_t send_mss_with_options() const;
};

/// Fails where read_tcp_state() cannot work: kPermission, kUnsupported as there.
Result<void> check_tcp_repair();

/// Reads it, by TCP_REPAIR, from a connected socket, which lives on; nothing is sent. kPermission: needs
/// CAP_NET_ADMIN. kUnsupported: the kernel has no TCP_REPAIR, or the socket's state forbids it.
Result<TcpState> read_tcp_state(int fd);

/// Makes the kernel forget the connection when `fd` is closed, by anybody or by the end of the process:
/// neither a FIN nor a reset is sent, and what is unsent or unread is dropped.
Result<void> close_silently(int fd);

} // namespace tapgate::net
