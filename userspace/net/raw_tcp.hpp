// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/bytes.hpp"
#include "base/ip.hpp"
#include "base/result.hpp"
#include "base/unique_fd.hpp"

#include <cstdint>
#include <optional>
#include <vector>

namespace tapgate::net {

/// A TCP segment to be sent as it stands (RFC 9293 3.1). Numbers in host byte order.
struct RawSegment {
    struct Timestamps { // RFC 7323 3.2
        std::uint32_t value = 0;
        std::uint32_t echo = 0;
    };

    Endpoint from; ///< any address, of the host or not
    Endpoint to;   ///< of the same family
    std::uint32_t sequence = 0;
    std::uint32_t acknowledgement = 0;
    std::uint8_t flags = 0;   ///< FIN 1, SYN 2, RST 4, PSH 8, ACK 16
    std::uint16_t window = 0; ///< as on the wire
    std::optional<Timestamps> timestamps;
    ByteView payload;
};

/// Sends segments of connections that no socket of the kernel speaks for. Any thread.
class RawTcp {
  public:
    /// kPermission: needs CAP_NET_RAW, which may be given up afterwards. Without IPv6 in the kernel only IPv4
    /// is sent.
    static Result<RawTcp> open();

    /// Hands one packet to the kernel, routed by its destination, with DF set. Never blocks: a full queue is
    /// EAGAIN or ENOBUFS, as if the network had lost it.
    Result<void> send(const RawSegment& segment) const;

    /// The packet from the IP header on; the kernel fills in the IPv4 checksum.
    [[nodiscard]] static std::vector<std::uint8_t> build(const RawSegment& segment);

  private:
    RawTcp(UniqueFd v4, UniqueFd v6) : v4_(std::move(v4)), v6_(std::move(v6)) {}

    UniqueFd v4_;
    UniqueFd v6_;
};

} // namespace tapgate::net
