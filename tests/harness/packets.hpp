// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/ip.hpp"
#include "base/unique_fd.hpp"
#include "harness/netns.hpp"
#include "harness/udp_responder.hpp"

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

// Frames as an attacker makes them, and what a wire has seen.
namespace tapgate::test {

using Mac = std::array<std::uint8_t, 6>;

inline constexpr std::uint16_t kEtherIpv4 = 0x0800;
inline constexpr std::uint16_t kEtherIpv6 = 0x86dd;
inline constexpr std::uint16_t kEtherVlan = 0x8100;
inline constexpr std::uint16_t kEtherQinQ = 0x88a8;
inline constexpr std::uint8_t kProtocolTcp = 6;
inline constexpr std::uint8_t kProtocolUdp = 17;
inline constexpr std::uint8_t kProtocolFragment = 44; ///< IPv6 fragment header (RFC 8200 4.5)
inline constexpr std::uint8_t kTcpFin = 0x01;
inline constexpr std::uint8_t kTcpSyn = 0x02;
inline constexpr std::uint8_t kTcpRst = 0x04;
inline constexpr std::uint8_t kTcpPsh = 0x08;
inline constexpr std::uint8_t kTcpAck = 0x10;

/// Fields of a TCP header that hardly anybody sets.
struct TcpOptions {
    std::uint16_t window = 65535;
    std::uint16_t urgent = 0;
    Bytes options = {}; ///< behind the header; a multiple of four octets
};

/// A TCP segment or UDP datagram with its checksum right for these addresses.
[[nodiscard]] Bytes tcp_segment(const Endpoint& from, const Endpoint& to, std::uint8_t flags,
                                std::uint32_t seq, std::uint32_t ack, const Bytes& payload = {},
                                const TcpOptions& options = {});
[[nodiscard]] Bytes udp_datagram(const Endpoint& from, const Endpoint& to, const Bytes& payload);

inline constexpr std::uint8_t kHops = 64;

/// An IP packet of the addresses' version around `payload`; `hops`: its TTL or hop limit.
[[nodiscard]] Bytes ip_packet(const IpAddress& from, const IpAddress& to, std::uint8_t protocol,
                              const Bytes& payload, std::uint8_t hops = kHops);

/// `payload`, a transport packet, cut at `first` bytes (a multiple of 8) into two fragments.
[[nodiscard]] std::array<Bytes, 2> ip_fragments(const IpAddress& from, const IpAddress& to,
                                                std::uint8_t protocol, const Bytes& payload,
                                                std::size_t first);

/// An Ethernet frame; the ethertype is that of the packet's IP version unless given.
[[nodiscard]] Bytes frame(const Mac& to, const Mac& from, const Bytes& packet,
                          std::optional<std::uint16_t> ethertype = std::nullopt);

/// As much of a frame as the tests look at.
struct Seen {
    std::uint16_t ethertype = 0;
    std::optional<Endpoint> from; ///< IP packets only; port 0 unless TCP or UDP
    std::optional<Endpoint> to;
    std::uint8_t protocol = 0;
    std::uint8_t tcp_flags = 0;
    std::uint32_t tcp_seq = 0;
    std::uint32_t tcp_ack = 0;
    Bytes payload; ///< of TCP or UDP
    Bytes packet;  ///< all of it from behind the Ethernet header on

    [[nodiscard]] std::string to_string() const;
};

/// A raw socket on an interface: sees every frame in both directions and sends any.
class PacketTap {
  public:
    PacketTap(const NetNs& ns, const std::string& interface);

    void send(const Bytes& bytes) const;
    /// Everything seen since the last call. Throws std::runtime_error if the kernel had to drop some.
    std::vector<Seen> drain();
    /// Drains until a frame satisfies `condition`: that frame, or nothing after `time`.
    std::optional<Seen> wait_for(const std::function<bool(const Seen&)>& condition,
                                 std::chrono::milliseconds time);

  private:
    UniqueFd fd_;
    unsigned ifindex_ = 0;
};

} // namespace tapgate::test
