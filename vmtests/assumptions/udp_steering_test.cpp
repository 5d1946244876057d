// SPDX-License-Identifier: Apache-2.0
//
// Asserts: bpf_sk_assign() gives a datagram to exactly the assigned one of several UDP sockets bound to the
// same address (SO_REUSEADDR; SO_REUSEPORT is refused by bpf_sk_assign before Linux 6.6); IP_PKTINFO tells
// the address it was sent to and the interface it came by, and sends the answer from that address through
// that interface, although the socket is bound to another and the host has neither.
//
// The design needs it for DNS (bpf/lib/dns_query.bpf.h, userspace/proxy/dns_udp_server.cpp): whatever server
// the guest asks, the answer has to come from there.
#include "attach.hpp"
#include "harness/udp_responder.hpp"
#include "harness/wait.hpp"
#include "steered_host.hpp"
#include "steering.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

namespace tapgate::assumptions {
namespace {

using namespace std::chrono_literals;

/// A datagram with its packet information, kept as it arrived to be used for the answer.
struct Query {
    std::array<char, 64> bytes{};
    std::size_t length = 0;
    sockaddr_storage from{};
    socklen_t from_length = sizeof from;
    IpAddress server;
    unsigned interface = 0;
};

union Control {
    std::array<char, CMSG_SPACE(sizeof(in6_pktinfo))> bytes;
    cmsghdr alignment;
};

bool readable(int socket, std::chrono::milliseconds time) {
    pollfd poll{socket, POLLIN, 0};
    return ::poll(&poll, 1, static_cast<int>(time.count())) == 1;
}

Query receive(int socket) {
    Query query;
    Control control{};
    iovec vector{query.bytes.data(), query.bytes.size()};
    msghdr message{};
    message.msg_name = &query.from;
    message.msg_namelen = sizeof query.from;
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    message.msg_control = &control;
    message.msg_controllen = sizeof control;
    const ssize_t length = ::recvmsg(socket, &message, MSG_DONTWAIT);
    query.length = length < 0 ? 0 : static_cast<std::size_t>(length);
    query.from_length = message.msg_namelen;
    const cmsghdr* header = CMSG_FIRSTHDR(&message);
    if (header != nullptr && header->cmsg_level == SOL_IP && header->cmsg_type == IP_PKTINFO) {
        in_pktinfo info{};
        std::memcpy(&info, CMSG_DATA(header), sizeof info);
        query.server = IpAddress::from_v4(ntohl(info.ipi_addr.s_addr));
        query.interface = static_cast<unsigned>(info.ipi_ifindex);
    } else if (header != nullptr && header->cmsg_level == SOL_IPV6 && header->cmsg_type == IPV6_PKTINFO) {
        in6_pktinfo info{};
        std::memcpy(&info, CMSG_DATA(header), sizeof info);
        IpAddress::Bytes address{};
        std::memcpy(address.data(), &info.ipi6_addr, address.size());
        query.server = IpAddress(address);
        query.interface = info.ipi6_ifindex;
    }
    return query;
}

/// Sends the query back, from where it was sent to.
ssize_t answer(int socket, Query& query) {
    Control control{};
    iovec vector{query.bytes.data(), query.length};
    msghdr message{};
    message.msg_name = &query.from;
    message.msg_namelen = query.from_length;
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    message.msg_control = &control;
    message.msg_controllen = sizeof control;
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    if (query.server.is_v4()) {
        in_pktinfo info{};
        info.ipi_ifindex = static_cast<int>(query.interface);
        info.ipi_spec_dst.s_addr = htonl(query.server.v4());
        header->cmsg_level = SOL_IP;
        header->cmsg_type = IP_PKTINFO;
        header->cmsg_len = CMSG_LEN(sizeof info);
        std::memcpy(CMSG_DATA(header), &info, sizeof info);
        message.msg_controllen = CMSG_SPACE(sizeof info);
    } else {
        in6_pktinfo info{};
        info.ipi6_ifindex = query.interface;
        std::memcpy(&info.ipi6_addr, query.server.bytes().data(), query.server.bytes().size());
        header->cmsg_level = SOL_IPV6;
        header->cmsg_type = IPV6_PKTINFO;
        header->cmsg_len = CMSG_LEN(sizeof info);
        std::memcpy(CMSG_DATA(header), &info, sizeof info);
        message.msg_controllen = CMSG_SPACE(sizeof info);
    }
    return ::sendmsg(socket, &message, 0);
}

class UdpSteering : public testing::TestWithParam<const test::Family*> {
  protected:
    SteeredHost host_;
};

TEST_P(UdpSteering, the_assigned_socket_is_asked_and_answers_from_the_address_that_was_asked) {
    const test::Family& family = *GetParam();
    const test::Topology& topology = host_.topology();
    const UniqueFd assigned = host_.open_socket(family, SOCK_DGRAM);
    const UniqueFd other = host_.open_socket(family, SOCK_DGRAM); // bound later: what a plain lookup prefers
    host_.set_listener(family.guest.is_v4() ? STEER_UDP4 : STEER_UDP6, assigned.get());
    const Endpoint server{family.server(77), 53};
    const test::UdpSocket guest(topology.guest().ns, {family.guest, 0});

    guest.send(server, {'a', 's', 'k'});
    ASSERT_TRUE(readable(assigned.get(), test::kPatience));
    Query query = receive(assigned.get());
    EXPECT_EQ(std::string_view(query.bytes.data(), query.length), "ask");
    EXPECT_EQ(query.server, server.address);
    EXPECT_EQ(query.interface, interface_index(topology.host(), topology.guest().tap));
    EXPECT_FALSE(readable(other.get(), 0ms));

    ASSERT_EQ(answer(assigned.get(), query), 3) << std::strerror(errno);
    const auto reply = guest.receive(test::kPatience);
    ASSERT_TRUE(reply.has_value());
    EXPECT_EQ(reply->from, server);
    EXPECT_EQ(reply->bytes, (test::Bytes{'a', 's', 'k'}));
}

INSTANTIATE_TEST_SUITE_P(Families, UdpSteering, testing::Values(&test::ipv4(), &test::ipv6()),
                         [](const auto& instance) { return instance.param->name; });

} // namespace
} // namespace tapgate::assumptions
