// SPDX-License-Identifier: Apache-2.0
//
// Runs inside the guest of microvm_test, as root: sends what no guest's kernel would, as frames on eth0, and
// prints for each drop reason how many frames must have been dropped for it ("REASON COUNT").
#include "harness/dns.hpp"
#include "harness/packets.hpp"
#include "harness/topology.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <map>
#include <system_error>

#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/socket.h>

namespace tapgate::test {
namespace {

constexpr Mac kGuestMac = {2, 0, 0, 0, 0, 2};
constexpr Mac kTapMac = {2, 0, 0, 0, 1, 1};
constexpr std::uint16_t kPort = 7000;
constexpr std::uint16_t kFrom = 40000;
constexpr unsigned kOpen = 10;

constexpr std::uint8_t kHopByHop = 0;
constexpr std::uint8_t kRouting = 43;
constexpr std::uint8_t kEsp = 50;
constexpr std::uint8_t kIcmpv6 = 58;
constexpr std::uint8_t kDestinationOptions = 60;

Bytes joined(Bytes first, const Bytes& second) {
    first.insert(first.end(), second.begin(), second.end());
    return first;
}

/// What one IP version has to offer.
class Attacker {
  public:
    explicit Attacker(const Family& family) : family_(family) {}

    /// Frames by the reason for which each must be dropped.
    [[nodiscard]] std::map<std::string, std::vector<Bytes>> frames() const {
        std::map<std::string, std::vector<Bytes>> all = {
            {"source-address", spoofed()},
            {"source-mac", {frame(kTapMac, {2, 0, 0, 0, 0, 3}, syn()), frame(kTapMac, kTapMac, syn())}},
            {"vlan", {tagged({kEtherVlan}), tagged({kEtherQinQ}), tagged({kEtherQinQ, kEtherVlan})}},
            {"ethertype", other_ethertypes()},
            {"fragment", fragments()},
            {"protocol", other_protocols()},
            {"tcp-no-flow", {segment(kTcpAck), segment(kTcpAck | kTcpPsh), segment(kTcpRst)}},
            {"tcp-ingress", {segment(kTcpSyn | kTcpAck)}},
            {"tcp-header", {segment(0), segment(kTcpSyn | kTcpFin), segment(kTcpSyn | kTcpRst)}},
            {"policy-first-packet", {datagram(443)}},
            {"dns-transport", {datagram(853), datagram(5353)}},
        };
        if (is_v4()) {
            all["ip-options"] = {with_source_route()};
            all["arp"] = {gateway_is_me()};
        } else {
            all["extension-header"] = extension_headers();
            all["nd"] = {nd_message(134), nd_message(136), nd_message(137)}; // router, neighbour, redirect
        }
        return all;
    }

    /// A SYN from another guest's address with 4000 bytes that the card is to cut into segments.
    [[nodiscard]] Bytes spoofed_large_syn() const {
        const Endpoint from{IpAddress::parse(is_v4() ? "192.0.2.18" : "2001:db8:1:1::2").value(), kFrom};
        return to_gateway(ip_packet(from.address, open().address, kProtocolTcp,
                                    tcp_segment(from, open(), kTcpSyn, 1, 0, Bytes(4000, 'x'))));
    }

    [[nodiscard]] bool is_v4() const { return family_.guest.is_v4(); }

  private:
    [[nodiscard]] Endpoint open() const { return {family_.server(kOpen), kPort}; }

    [[nodiscard]] Endpoint here() const { return {family_.guest, kFrom}; }

    static Bytes to_gateway(const Bytes& packet) { return frame(kTapMac, kGuestMac, packet); }

    [[nodiscard]] Bytes syn(const Bytes& payload = {}) const {
        return ip_packet(family_.guest, open().address, kProtocolTcp,
                         tcp_segment(here(), open(), kTcpSyn, 1, 0, payload));
    }

    [[nodiscard]] Bytes segment(unsigned flags) const {
        return to_gateway(ip_packet(family_.guest, open().address, kProtocolTcp,
                                    tcp_segment(here(), open(), static_cast<std::uint8_t>(flags), 5, 6)));
    }

    [[nodiscard]] Bytes datagram(std::uint16_t port) const {
        const Endpoint to{open().address, port};
        return to_gateway(
            ip_packet(family_.guest, to.address, kProtocolUdp, udp_datagram(here(), to, Bytes(100, 0xc3))));
    }

    [[nodiscard]] std::vector<Bytes> spoofed() const {
        const std::vector<std::string> sources =
            is_v4()
                ? std::vector<std::string>{"192.0.2.18", "192.0.2.1", "198.51.100.1", "127.0.0.1", "0.0.0.0"}
                : std::vector<std::string>{"2001:db8:1:1::2", "2001:db8:1::1", "2001:db8:2::1", "::1",
                                           "fe80::1234"};
        std::vector<Bytes> frames;
        for (const std::string& source : sources) {
            const Endpoint from{IpAddress::parse(source).value(), kFrom};
            const Endpoint resolver{family_.gateway, 53};
            frames.push_back(to_gateway(ip_packet(from.address, open().address, kProtocolTcp,
                                                  tcp_segment(from, open(), kTcpSyn, 1, 0))));
            frames.push_back(to_gateway(
                ip_packet(from.address, resolver.address, kProtocolUdp,
                          udp_datagram(from, resolver, make_query(7, "www.allowed.test", family_.record)))));
        }
        return frames;
    }

    [[nodiscard]] Bytes tagged(const std::vector<std::uint16_t>& tags) const {
        Bytes bytes = to_gateway(syn());
        for (auto tag = tags.rbegin(); tag != tags.rend(); ++tag) {
            const Bytes header = {static_cast<std::uint8_t>(*tag >> 8U), static_cast<std::uint8_t>(*tag), 0,
                                  5};
            bytes.insert(bytes.begin() + 12, header.begin(), header.end());
        }
        return bytes;
    }

    [[nodiscard]] std::vector<Bytes> other_ethertypes() const {
        std::vector<Bytes> frames;
        for (const std::uint16_t type : {0x0040, 0x8847, 0x8864, 0x88cc, 0x88b5}) // LLC, MPLS, PPPoE, LLDP
            frames.push_back(frame(kTapMac, kGuestMac, syn(), type));
        return frames;
    }

    [[nodiscard]] std::vector<Bytes> fragments() const {
        std::vector<Bytes> frames;
        for (const std::size_t first : {8U, 24U}) {
            for (const Bytes& part :
                 ip_fragments(family_.guest, open().address, kProtocolTcp,
                              tcp_segment(here(), open(), kTcpSyn, 1, 0, Bytes(64, 'x')), first))
                frames.push_back(to_gateway(part));
        }
        return frames;
    }

    [[nodiscard]] std::vector<Bytes> other_protocols() const {
        std::vector<Bytes> frames;
        for (const std::uint8_t protocol : {4, 41, 47, 132, 253}) // 4in4, 6in4, GRE, SCTP, experimental
            frames.push_back(to_gateway(ip_packet(family_.guest, open().address, protocol, Bytes(40, 0))));
        return frames;
    }

    /// A SYN behind headers that hide it (RFC 8200, 4): each 8 octets long.
    [[nodiscard]] std::vector<Bytes> extension_headers() const {
        const Bytes tcp = tcp_segment(here(), open(), kTcpSyn, 1, 0);
        const auto behind = [&](const std::vector<std::uint8_t>& headers) {
            Bytes payload = tcp;
            std::uint8_t next = kProtocolTcp;
            for (auto header = headers.rbegin(); header != headers.rend(); ++header) {
                payload = joined({next, 0, 1, 4, 0, 0, 0, 0}, payload); // one PadN option fills the header
                next = *header;
            }
            return to_gateway(ip_packet(family_.guest, open().address, next, payload));
        };
        return {behind({kRouting}), behind({kHopByHop, kRouting}), behind({kDestinationOptions, kHopByHop}),
                behind({kEsp}), behind(std::vector<std::uint8_t>(5, kDestinationOptions))};
    }

    [[nodiscard]] Bytes nd_message(std::uint8_t type) const {
        const IpAddress gateway = family_.gateway;
        Bytes message = {type, 0, 0, 0, 0, 0, 0, 0};
        message.insert(message.end(), gateway.bytes().begin(), gateway.bytes().end());
        return to_gateway(ip_packet(family_.guest, gateway, kIcmpv6, message));
    }

    [[nodiscard]] Bytes with_source_route() const {
        Bytes packet = syn();
        packet[0] = 0x47; // seven words of header
        packet[3] = static_cast<std::uint8_t>(packet[3] + 8);
        const Bytes option = {131, 7, 4, 203, 0, 113, 53, 0}; // loose source route, RFC 791
        packet.insert(packet.begin() + 20, option.begin(), option.end());
        return to_gateway(packet);
    }

    /// An ARP reply that claims the gateway's address.
    [[nodiscard]] static Bytes gateway_is_me() {
        constexpr std::uint16_t kEtherArp = 0x0806;
        return frame(kTapMac, kGuestMac,
                     {0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 2, 192, 0, 2, 1, 2, 0, 0, 0, 1, 1, 192, 0, 2, 1},
                     kEtherArp);
    }

    const Family& family_;
};

/// eth0 as a raw socket; with `vnet_header` each frame begins with what the card is to do with it.
class Card {
  public:
    explicit Card(bool vnet_header) : fd_(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0)) {
        const int on = vnet_header ? 1 : 0;
        if (!fd_ || ::setsockopt(fd_.get(), SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on) != 0)
            throw std::system_error(errno, std::generic_category(), "open a packet socket");
    }

    void send(const Bytes& bytes) const {
        sockaddr_ll address{};
        address.sll_family = AF_PACKET;
        address.sll_ifindex = static_cast<int>(::if_nametoindex("eth0"));
        address.sll_halen = 6;
        if (::sendto(fd_.get(), bytes.data(), bytes.size(), 0, reinterpret_cast<const sockaddr*>(&address),
                     sizeof address) < 0)
            throw std::system_error(errno, std::generic_category(), "send a frame");
    }

  private:
    UniqueFd fd_;
};

/// What stands before a frame (struct virtio_net_hdr, whose header is not C++).
struct OffloadHeader {
    std::uint8_t flags = 1;    ///< VIRTIO_NET_HDR_F_NEEDS_CSUM
    std::uint8_t gso_type = 0; ///< 1: TCP over IPv4, 4: over IPv6
    std::uint16_t header_bytes = 0;
    std::uint16_t segment_bytes = 1000;
    std::uint16_t checksum_start = 0;
    std::uint16_t checksum_offset = 16;
};

static_assert(sizeof(OffloadHeader) == 10);

/// `segment`, a TCP frame, behind a header that asks for segmentation and for its checksum.
Bytes to_be_segmented(const Attacker& attacker, const Bytes& segment) {
    OffloadHeader header;
    header.gso_type = attacker.is_v4() ? 1 : 4;
    header.checksum_start = attacker.is_v4() ? 34 : 54;
    header.header_bytes = static_cast<std::uint16_t>(header.checksum_start + 20);
    Bytes bytes(sizeof header);
    std::memcpy(bytes.data(), &header, sizeof header);
    return joined(std::move(bytes), segment);
}

void attack() {
    const Card plain(false);
    const Card offloading(true);
    std::map<std::string, std::size_t> sent;
    for (const Family* family : {&ipv4(), &ipv6()}) {
        const Attacker attacker(*family);
        for (const auto& [reason, frames] : attacker.frames()) {
            for (const Bytes& bytes : frames)
                plain.send(bytes);
            sent[reason] += frames.size();
        }
        offloading.send(to_be_segmented(attacker, attacker.spoofed_large_syn()));
        ++sent["source-address"];
    }
    for (const auto& [reason, count] : sent)
        fmt::print("{} {}\n", reason, count);
}

} // namespace
} // namespace tapgate::test

int main() {
    try {
        tapgate::test::attack();
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}
