// SPDX-License-Identifier: Apache-2.0
#include "harness/packets.hpp"

#include "base/bytes.hpp"
#include "harness/wait.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <system_error>

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <sys/socket.h>

namespace tapgate::test {

namespace {

void put16(Bytes& bytes, unsigned value) {
    bytes.push_back(static_cast<std::uint8_t>(value >> 8U));
    bytes.push_back(static_cast<std::uint8_t>(value));
}

void put32(Bytes& bytes, std::uint32_t value) {
    put16(bytes, value >> 16U);
    put16(bytes, value & 0xffffU);
}

void append(Bytes& bytes, std::span<const std::uint8_t> more) {
    bytes.insert(bytes.end(), more.begin(), more.end());
}

/// The wire form of an address: 4 or 16 bytes.
Bytes wire(const IpAddress& address) {
    const auto& bytes = address.bytes();
    return {bytes.begin() + (address.is_v4() ? 12 : 0), bytes.end()};
}

void set16(Bytes& bytes, std::size_t offset, unsigned value) {
    bytes.at(offset) = static_cast<std::uint8_t>(value >> 8U);
    bytes.at(offset + 1) = static_cast<std::uint8_t>(value);
}

/// RFC 1071.
std::uint16_t checksum(const Bytes& bytes) {
    std::uint32_t sum = 0;
    for (std::size_t i = 0; i < bytes.size(); i += 2)
        sum += (std::uint32_t{bytes[i]} << 8U) | (i + 1 < bytes.size() ? bytes[i + 1] : 0U);
    while (sum >> 16U)
        sum = (sum & 0xffffU) + (sum >> 16U);
    return static_cast<std::uint16_t>(~sum);
}

/// Writes the checksum over `segment` and its pseudo-header at `offset`.
void finish_transport(Bytes& segment, std::size_t offset, const Endpoint& from, const Endpoint& to,
                      std::uint8_t protocol) {
    Bytes pseudo = wire(from.address);
    append(pseudo, wire(to.address));
    put32(pseudo, static_cast<std::uint32_t>(segment.size()));
    put32(pseudo, protocol);
    append(pseudo, segment);
    set16(segment, offset, checksum(pseudo));
}

Bytes ipv4_packet(const IpAddress& from, const IpAddress& to, std::uint8_t protocol, const Bytes& payload,
                  unsigned fragment_field, std::uint8_t hops = kHops) {
    Bytes packet = {0x45, 0};
    put16(packet, static_cast<unsigned>(20 + payload.size()));
    put16(packet, 0x7467); // identification: the same for all fragments of a packet
    put16(packet, fragment_field);
    packet.push_back(hops);
    packet.push_back(protocol);
    put16(packet, 0);
    append(packet, wire(from));
    append(packet, wire(to));
    set16(packet, 10, checksum(packet));
    append(packet, payload);
    return packet;
}

Bytes ipv6_packet(const IpAddress& from, const IpAddress& to, std::uint8_t protocol, const Bytes& payload,
                  std::uint8_t hops = kHops) {
    Bytes packet = {0x60, 0, 0, 0};
    put16(packet, static_cast<unsigned>(payload.size()));
    packet.push_back(protocol);
    packet.push_back(hops);
    append(packet, wire(from));
    append(packet, wire(to));
    append(packet, payload);
    return packet;
}

void read_transport(ByteReader& reader, Seen& seen) {
    if (seen.protocol != kProtocolTcp && seen.protocol != kProtocolUdp)
        return;
    seen.from->port = reader.u16().value_or(0);
    seen.to->port = reader.u16().value_or(0);
    std::size_t header_left = 4;
    if (seen.protocol == kProtocolTcp) {
        seen.tcp_seq = reader.u32().value_or(0);
        seen.tcp_ack = reader.u32().value_or(0);
        const unsigned words = reader.u8().value_or(0x50) >> 4U;
        seen.tcp_flags = reader.u8().value_or(0);
        header_left = words * 4 - 14;
    }
    (void)reader.take(header_left);
    const auto rest = reader.take(reader.remaining());
    seen.payload.assign(rest->begin(), rest->end());
}

IpAddress read_v4(ByteReader& reader) {
    return IpAddress::from_v4(reader.u32().value_or(0));
}

IpAddress read_v6(ByteReader& reader) {
    IpAddress::Bytes bytes{};
    if (const auto view = reader.take(bytes.size()))
        std::ranges::copy(*view, bytes.begin());
    return IpAddress(bytes);
}

Seen read_frame(ByteView bytes) {
    Seen seen;
    ByteReader reader(bytes);
    (void)reader.take(12);
    seen.ethertype = reader.u16().value_or(0);
    const std::size_t start = reader.position();
    seen.packet.assign(bytes.begin() + static_cast<std::ptrdiff_t>(start), bytes.end());
    if (seen.ethertype == kEtherIpv4 && reader.remaining() >= 20) {
        const unsigned header = (reader.u8().value_or(0) & 0x0fU) * 4;
        (void)reader.u8();
        const std::size_t total = reader.u16().value_or(0);
        (void)reader.take(5);
        seen.protocol = reader.u8().value_or(0);
        (void)reader.u16();
        seen.from = Endpoint{read_v4(reader), 0};
        seen.to = Endpoint{read_v4(reader), 0};
        // Without Ethernet's padding of short frames.
        ByteReader transport(bytes.subspan(start).first(std::min(total, bytes.size() - start)));
        if (transport.take(header))
            read_transport(transport, seen);
    } else if (seen.ethertype == kEtherIpv6 && reader.remaining() >= 40) {
        (void)reader.take(4);
        const std::size_t length = reader.u16().value_or(0);
        seen.protocol = reader.u8().value_or(0);
        (void)reader.u8();
        seen.from = Endpoint{read_v6(reader), 0};
        seen.to = Endpoint{read_v6(reader), 0};
        ByteReader transport(bytes.subspan(start + 40).first(std::min(length, bytes.size() - start - 40)));
        read_transport(transport, seen);
    }
    return seen;
}

} // namespace

Bytes tcp_segment(const Endpoint& from, const Endpoint& to, std::uint8_t flags, std::uint32_t seq,
                  std::uint32_t ack, const Bytes& payload, const TcpOptions& options) {
    Bytes segment;
    put16(segment, from.port);
    put16(segment, to.port);
    put32(segment, seq);
    put32(segment, ack);
    const std::size_t words = 5 + options.options.size() / 4;
    segment.push_back(static_cast<std::uint8_t>(words << 4U));
    segment.push_back(flags);
    put16(segment, options.window);
    put16(segment, 0); // checksum
    put16(segment, options.urgent);
    append(segment, options.options);
    append(segment, payload);
    finish_transport(segment, 16, from, to, kProtocolTcp);
    return segment;
}

Bytes udp_datagram(const Endpoint& from, const Endpoint& to, const Bytes& payload) {
    Bytes datagram;
    put16(datagram, from.port);
    put16(datagram, to.port);
    put16(datagram, static_cast<unsigned>(8 + payload.size()));
    put16(datagram, 0);
    append(datagram, payload);
    finish_transport(datagram, 6, from, to, kProtocolUdp);
    return datagram;
}

Bytes ip_packet(const IpAddress& from, const IpAddress& to, std::uint8_t protocol, const Bytes& payload,
                std::uint8_t hops) {
    return from.is_v4() ? ipv4_packet(from, to, protocol, payload, 0, hops)
                        : ipv6_packet(from, to, protocol, payload, hops);
}

std::array<Bytes, 2> ip_fragments(const IpAddress& from, const IpAddress& to, std::uint8_t protocol,
                                  const Bytes& payload, std::size_t first) {
    const auto cut = payload.begin() + static_cast<std::ptrdiff_t>(first);
    const std::array<Bytes, 2> parts = {Bytes(payload.begin(), cut), Bytes(cut, payload.end())};
    if (from.is_v4()) {
        constexpr unsigned kMoreFragments = 0x2000;
        return {ipv4_packet(from, to, protocol, parts[0], kMoreFragments),
                ipv4_packet(from, to, protocol, parts[1], static_cast<unsigned>(first / 8))};
    }
    const auto with_header = [protocol](unsigned offset, unsigned more, const Bytes& part) {
        Bytes bytes = {protocol, 0};
        put16(bytes, offset | more); // the offset's unit of 8 bytes leaves the low three bits free
        put32(bytes, 0x7461);
        append(bytes, part);
        return bytes;
    };
    return {ipv6_packet(from, to, kProtocolFragment, with_header(0, 1, parts[0])),
            ipv6_packet(from, to, kProtocolFragment, with_header(static_cast<unsigned>(first), 0, parts[1]))};
}

Bytes frame(const Mac& to, const Mac& from, const Bytes& packet, std::optional<std::uint16_t> ethertype) {
    Bytes bytes(to.begin(), to.end());
    append(bytes, from);
    put16(bytes, ethertype.value_or((packet.at(0) >> 4U) == 4 ? kEtherIpv4 : kEtherIpv6));
    append(bytes, packet);
    return bytes;
}

std::string Seen::to_string() const {
    if (!from || !to)
        return fmt::format("ethertype {:04x}", ethertype);
    return fmt::format("protocol {} {} -> {} flags {:02x}, {} bytes", protocol, from->to_string(),
                       to->to_string(), tcp_flags, payload.size());
}

PacketTap::PacketTap(const NetNs& ns, const std::string& interface)
    : fd_(ns.run([] { return ::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0); })),
      ifindex_(ns.run([&] { return ::if_nametoindex(interface.c_str()); })) {
    const int buffer = 64 << 20;
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer);
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(ETH_P_ALL);
    address.sll_ifindex = static_cast<int>(ifindex_);
    if (::bind(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
        throw std::system_error(errno, std::generic_category(), "packet socket on " + interface);
}

void PacketTap::send(const Bytes& bytes) const {
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_ifindex = static_cast<int>(ifindex_);
    address.sll_halen = ETH_ALEN;
    std::memcpy(address.sll_addr, bytes.data(), ETH_ALEN);
    if (::sendto(fd_.get(), bytes.data(), bytes.size(), 0, reinterpret_cast<const sockaddr*>(&address),
                 sizeof address) < 0)
        throw std::system_error(errno, std::generic_category(), "send a frame");
}

std::vector<Seen> PacketTap::drain() {
    std::vector<Seen> all;
    Bytes buffer(1U << 17U);
    for (;;) {
        const ssize_t count = ::recv(fd_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
        if (count < 0)
            break;
        all.push_back(read_frame(ByteView(buffer).first(static_cast<std::size_t>(count))));
    }
    tpacket_stats stats{};
    socklen_t length = sizeof stats;
    ::getsockopt(fd_.get(), SOL_PACKET, PACKET_STATISTICS, &stats, &length);
    if (stats.tp_drops != 0)
        throw std::runtime_error("the packet socket overflowed; the test would miss frames");
    return all;
}

std::optional<Seen> PacketTap::wait_for(const std::function<bool(const Seen&)>& condition,
                                        std::chrono::milliseconds time) {
    const Deadline deadline = in(time);
    for (;;) {
        const auto seen = drain();
        const auto found = std::ranges::find_if(seen, condition);
        if (found != seen.end())
            return *found;
        pollfd entry{fd_.get(), POLLIN, 0};
        if (::poll(&entry, 1, poll_timeout(deadline)) == 0)
            return std::nullopt;
    }
}

} // namespace tapgate::test
