// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/ip.hpp"

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include <netinet/in.h>

// Packets, right in every field unless told otherwise, so that a test says only what is wrong with its own.
namespace tapgate::test {

using Bytes = std::vector<std::uint8_t>;
using Mac = std::array<std::uint8_t, 6>;

inline constexpr Mac kHostMac{0x02, 0, 0, 0, 0, 0x01};
inline constexpr Mac kGuestMac{0x02, 0, 0, 0, 0, 0x02};
inline constexpr Mac kOtherMac{0x02, 0, 0, 0, 0, 0x03};
inline constexpr Mac kBroadcastMac{0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

inline constexpr std::uint16_t kEtherIpv4 = 0x0800;
inline constexpr std::uint16_t kEtherArp = 0x0806;
inline constexpr std::uint16_t kEtherVlan = 0x8100;
inline constexpr std::uint16_t kEtherIpv6 = 0x86dd;

inline constexpr std::uint8_t kFin = 0x01;
inline constexpr std::uint8_t kSyn = 0x02;
inline constexpr std::uint8_t kRst = 0x04;
inline constexpr std::uint8_t kPsh = 0x08;
inline constexpr std::uint8_t kAck = 0x10;

inline void put8(Bytes& out, unsigned value) {
    out.push_back(static_cast<std::uint8_t>(value));
}

inline void put16(Bytes& out, unsigned value) {
    put8(out, value >> 8U);
    put8(out, value);
}

inline void put32(Bytes& out, std::uint32_t value) {
    put16(out, value >> 16U);
    put16(out, value);
}

template <typename Range>
void append(Bytes& out, const Range& more) {
    out.insert(out.end(), more.begin(), more.end());
}

inline std::uint16_t get16(const Bytes& in, std::size_t at) {
    return static_cast<std::uint16_t>(in.at(at) << 8U | in.at(at + 1));
}

inline std::uint32_t get32(const Bytes& in, std::size_t at) {
    return static_cast<std::uint32_t>(get16(in, at)) << 16U | get16(in, at + 2);
}

inline void set16(Bytes& out, std::size_t at, unsigned value) {
    out.at(at) = static_cast<std::uint8_t>(value >> 8U);
    out.at(at + 1) = static_cast<std::uint8_t>(value);
}

inline Bytes address_bytes(const IpAddress& address) {
    const auto& all = address.bytes();
    return address.is_v4() ? Bytes(all.begin() + 12, all.end()) : Bytes(all.begin(), all.end());
}

/// RFC 1071.
inline std::uint16_t internet_checksum(const Bytes& bytes) {
    std::uint32_t sum = 0;
    for (std::size_t i = 0; i < bytes.size(); ++i)
        sum += static_cast<std::uint32_t>(bytes[i]) << (i % 2 == 0 ? 8U : 0U);
    while (sum >> 16U != 0)
        sum = (sum & 0xffffU) + (sum >> 16U);
    return static_cast<std::uint16_t>(~sum);
}

/// Over the pseudo-header and `segment`; 0 if the checksum in `segment` is right.
inline std::uint16_t transport_checksum(const IpAddress& source, const IpAddress& destination,
                                        std::uint8_t protocol, const Bytes& segment) {
    Bytes all = address_bytes(source);
    append(all, address_bytes(destination));
    put32(all, static_cast<std::uint32_t>(segment.size()));
    put32(all, protocol);
    append(all, segment);
    return internet_checksum(all);
}

inline Bytes ethernet(std::uint16_t type, const Bytes& payload, const Mac& source = kGuestMac,
                      const Mac& destination = kHostMac) {
    Bytes frame(destination.begin(), destination.end());
    append(frame, source);
    put16(frame, type);
    append(frame, payload);
    return frame;
}

struct Ipv4Fields {
    unsigned version = 4;
    std::optional<unsigned> ihl;
    std::optional<unsigned> total_length;
    unsigned fragment = 0x4000;
    unsigned ttl = 64;
    unsigned tos = 0;
    Bytes options;
};

inline Bytes ipv4(const IpAddress& source, const IpAddress& destination, std::uint8_t protocol,
                  const Bytes& payload, const Ipv4Fields& fields = {}) {
    const std::size_t header = 20 + fields.options.size();
    Bytes packet;
    put8(packet, fields.version << 4U | fields.ihl.value_or(static_cast<unsigned>(header / 4)));
    put8(packet, fields.tos);
    put16(packet, fields.total_length.value_or(static_cast<unsigned>(header + payload.size())));
    put16(packet, 0);
    put16(packet, fields.fragment);
    put8(packet, fields.ttl);
    put8(packet, protocol);
    put16(packet, 0);
    append(packet, address_bytes(source));
    append(packet, address_bytes(destination));
    append(packet, fields.options);
    set16(packet, 10, internet_checksum(packet));
    append(packet, payload);
    return packet;
}

struct Ipv6Fields {
    unsigned version = 6;
    unsigned hop_limit = 64;
    unsigned traffic_class = 0;
    std::optional<unsigned> payload_length;
};

/// Addresses as they are on the wire: IPv4 ones come out mapped.
inline Bytes ipv6(const IpAddress& source, const IpAddress& destination, std::uint8_t next,
                  const Bytes& payload, const Ipv6Fields& fields = {}) {
    Bytes packet;
    put32(packet, fields.version << 28U | fields.traffic_class << 20U);
    put16(packet, fields.payload_length.value_or(static_cast<unsigned>(payload.size())));
    put8(packet, next);
    put8(packet, fields.hop_limit);
    append(packet, source.bytes());
    append(packet, destination.bytes());
    append(packet, payload);
    return packet;
}

/// A frame with the transport bytes `l4`, in the family of the addresses.
inline Bytes ip_frame(const IpAddress& source, const IpAddress& destination, std::uint8_t protocol,
                      const Bytes& l4, const Mac& source_mac = kGuestMac,
                      const Mac& destination_mac = kHostMac) {
    return source.is_v4()
               ? ethernet(kEtherIpv4, ipv4(source, destination, protocol, l4), source_mac, destination_mac)
               : ethernet(kEtherIpv6, ipv6(source, destination, protocol, l4), source_mac, destination_mac);
}

struct TcpFields {
    std::uint16_t source_port = 40000;
    std::uint16_t destination_port = 443;
    std::uint32_t sequence = 1000;
    std::uint32_t acknowledgement = 0;
    std::optional<unsigned> data_offset;
    std::uint8_t flags = kSyn;
    std::uint16_t window = 65535;
    std::uint16_t urgent = 0;
    Bytes options; ///< whole words
    Bytes payload;
};

inline Bytes tcp_segment(const IpAddress& source, const IpAddress& destination, const TcpFields& fields) {
    Bytes segment;
    put16(segment, fields.source_port);
    put16(segment, fields.destination_port);
    put32(segment, fields.sequence);
    put32(segment, fields.acknowledgement);
    put8(segment, fields.data_offset.value_or(static_cast<unsigned>(5 + fields.options.size() / 4)) << 4U);
    put8(segment, fields.flags);
    put16(segment, fields.window);
    put16(segment, 0);
    put16(segment, fields.urgent);
    append(segment, fields.options);
    append(segment, fields.payload);
    set16(segment, 16, transport_checksum(source, destination, IPPROTO_TCP, segment));
    return segment;
}

inline Bytes tcp_frame(const IpAddress& source, const IpAddress& destination, const TcpFields& fields) {
    return ip_frame(source, destination, IPPROTO_TCP, tcp_segment(source, destination, fields));
}

inline Bytes udp_datagram(const IpAddress& source, const IpAddress& destination, std::uint16_t source_port,
                          std::uint16_t destination_port, const Bytes& payload) {
    Bytes datagram;
    put16(datagram, source_port);
    put16(datagram, destination_port);
    put16(datagram, static_cast<unsigned>(8 + payload.size()));
    put16(datagram, 0);
    append(datagram, payload);
    set16(datagram, 6, transport_checksum(source, destination, IPPROTO_UDP, datagram));
    return datagram;
}

inline Bytes udp_frame(const IpAddress& source, const IpAddress& destination, std::uint16_t source_port,
                       std::uint16_t destination_port, const Bytes& payload) {
    return ip_frame(source, destination, IPPROTO_UDP,
                    udp_datagram(source, destination, source_port, destination_port, payload));
}

struct ArpFields {
    unsigned hardware_type = 1;
    unsigned protocol_type = kEtherIpv4;
    unsigned hardware_length = 6;
    unsigned protocol_length = 4;
    unsigned operation = 1;
    Mac sender_mac = kGuestMac;
    IpAddress sender;
    IpAddress target;
    Mac frame_source = kGuestMac;
    Mac frame_destination = kBroadcastMac;
};

inline Bytes arp_frame(const ArpFields& fields) {
    Bytes arp;
    put16(arp, fields.hardware_type);
    put16(arp, fields.protocol_type);
    put8(arp, fields.hardware_length);
    put8(arp, fields.protocol_length);
    put16(arp, fields.operation);
    append(arp, fields.sender_mac);
    append(arp, address_bytes(fields.sender));
    append(arp, Mac{});
    append(arp, address_bytes(fields.target));
    return ethernet(kEtherArp, arp, fields.frame_source, fields.frame_destination);
}

struct NdFields {
    IpAddress source;
    IpAddress destination;
    unsigned type = 135;
    unsigned code = 0;
    IpAddress target;
    Bytes options;
    unsigned hop_limit = 255;
    Mac frame_source = kGuestMac;
};

inline Bytes nd_frame(const NdFields& fields) {
    Bytes nd;
    put8(nd, fields.type);
    put8(nd, fields.code);
    put16(nd, 0);
    put32(nd, 0);
    append(nd, fields.target.bytes());
    append(nd, fields.options);
    set16(nd, 2, transport_checksum(fields.source, fields.destination, IPPROTO_ICMPV6, nd));
    Ipv6Fields ip;
    ip.hop_limit = fields.hop_limit;
    return ethernet(kEtherIpv6, ipv6(fields.source, fields.destination, IPPROTO_ICMPV6, nd, ip),
                    fields.frame_source, Mac{0x33, 0x33, 0, 0, 0, 1});
}

inline Bytes nd_mac_option(unsigned type, const Mac& mac) {
    Bytes option;
    put8(option, type);
    put8(option, 1);
    append(option, mac);
    return option;
}

} // namespace tapgate::test
