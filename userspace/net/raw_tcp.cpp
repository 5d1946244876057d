// SPDX-License-Identifier: Apache-2.0
#include "net/raw_tcp.hpp"

#include <cerrno>
#include <cstring>
#include <span>
#include <type_traits>
#include <utility>

#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

namespace tapgate::net {

namespace {

constexpr std::uint8_t kHopLimit = 64;
constexpr std::size_t kTimestampBytes = 12;
constexpr std::size_t kChecksumOffset = 16;

void put16(std::vector<std::uint8_t>& out, std::uint16_t value) {
    out.push_back(static_cast<std::uint8_t>(value >> 8U));
    out.push_back(static_cast<std::uint8_t>(value));
}

void put32(std::vector<std::uint8_t>& out, std::uint32_t value) {
    put16(out, static_cast<std::uint16_t>(value >> 16U));
    put16(out, static_cast<std::uint16_t>(value));
}

/// RFC 1071, unfolded.
std::uint64_t sum_of(ByteView bytes) {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < bytes.size(); ++i)
        sum += i % 2 == 0 ? static_cast<std::uint64_t>(bytes[i]) << 8U : bytes[i];
    return sum;
}

std::uint16_t fold(std::uint64_t sum) {
    while (sum > 0xffff)
        sum = (sum & 0xffffU) + (sum >> 16U);
    return static_cast<std::uint16_t>(sum);
}

/// The address as it stands in a header.
ByteView wire(const IpAddress& address) {
    return ByteView(address.bytes()).subspan(address.is_v4() ? 12 : 0);
}

void put_tcp(std::vector<std::uint8_t>& out, const RawSegment& segment) {
    const std::size_t start = out.size();
    const std::size_t header = sizeof(tcphdr) + (segment.timestamps ? kTimestampBytes : 0);
    put16(out, segment.from.port);
    put16(out, segment.to.port);
    put32(out, segment.sequence);
    put32(out, segment.acknowledgement);
    out.push_back(static_cast<std::uint8_t>(header / 4 << 4U));
    out.push_back(segment.flags);
    put16(out, segment.window);
    put32(out, 0); // checksum, urgent pointer
    if (segment.timestamps) {
        put32(out, TCPOPT_NOP << 24U | TCPOPT_NOP << 16U | TCPOPT_TIMESTAMP << 8U | TCPOLEN_TIMESTAMP);
        put32(out, segment.timestamps->value);
        put32(out, segment.timestamps->echo);
    }
    out.insert(out.end(), segment.payload.begin(), segment.payload.end());
    const ByteView tcp = ByteView(out).subspan(start);
    const auto checksum = static_cast<std::uint16_t>(~fold(sum_of(wire(segment.from.address)) +
                                                           sum_of(wire(segment.to.address)) + IPPROTO_TCP +
                                                           tcp.size() + sum_of(tcp)));
    out[start + kChecksumOffset] = static_cast<std::uint8_t>(checksum >> 8U);
    out[start + kChecksumOffset + 1] = static_cast<std::uint8_t>(checksum);
}

template <typename Header>
void put_header(std::vector<std::uint8_t>& out, const Header& header) {
    static_assert(std::is_trivially_copyable_v<Header>);
    const std::size_t start = out.size();
    out.resize(start + sizeof header);
    std::memcpy(out.data() + start, &header, sizeof header);
}

} // namespace

Result<RawTcp> RawTcp::open() {
    // A socket of this protocol sends whole packets and receives none (raw(7)).
    UniqueFd v4(::socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_RAW));
    if (!v4)
        return fail_errno("open a raw socket", errno == EPERM ? "needs CAP_NET_RAW" : "");
    UniqueFd v6(::socket(AF_INET6, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_RAW));
    if (!v6 && errno != EAFNOSUPPORT)
        return fail_errno("open a raw socket");
    return RawTcp(std::move(v4), std::move(v6));
}

std::vector<std::uint8_t> RawTcp::build(const RawSegment& segment) {
    const std::size_t tcp_length =
        sizeof(tcphdr) + (segment.timestamps ? kTimestampBytes : 0) + segment.payload.size();
    std::vector<std::uint8_t> packet;
    packet.reserve(sizeof(ip6_hdr) + tcp_length);
    if (segment.to.address.is_v4()) {
        iphdr header{};
        header.version = 4;
        header.ihl = sizeof header / 4;
        header.tot_len = htons(static_cast<std::uint16_t>(sizeof header + tcp_length));
        header.frag_off = htons(IP_DF);
        header.ttl = kHopLimit;
        header.protocol = IPPROTO_TCP;
        header.saddr = htonl(segment.from.address.v4());
        header.daddr = htonl(segment.to.address.v4());
        put_header(packet, header);
    } else {
        ip6_hdr header{};
        header.ip6_flow = htonl(6U << 28U);
        header.ip6_plen = htons(static_cast<std::uint16_t>(tcp_length));
        header.ip6_nxt = IPPROTO_TCP;
        header.ip6_hlim = kHopLimit;
        std::memcpy(&header.ip6_src, segment.from.address.bytes().data(), sizeof header.ip6_src);
        std::memcpy(&header.ip6_dst, segment.to.address.bytes().data(), sizeof header.ip6_dst);
        put_header(packet, header);
    }
    put_tcp(packet, segment);
    return packet;
}

Result<void> RawTcp::send(const RawSegment& segment) const {
    TAPGATE_ASSERT(segment.from.address.is_v4() == segment.to.address.is_v4());
    const std::vector<std::uint8_t> packet = build(segment);
    sockaddr_storage storage{};
    // In a raw socket's address the port would be a protocol number.
    const socklen_t length = Endpoint{segment.to.address, 0}.to_sockaddr(storage);
    const int fd = segment.to.address.is_v4() ? v4_.get() : v6_.get();
    if (::sendto(fd, packet.data(), packet.size(), 0, reinterpret_cast<const sockaddr*>(&storage), length) <
        0)
        return fail_errno("send a TCP segment to " + segment.to.to_string());
    return {};
}

} // namespace tapgate::net
