// SPDX-License-Identifier: Apache-2.0
#include "proxy/dns_udp_server.hpp"

#include "base/log.hpp"
#include "net/async.hpp"
#include "proto/dns_message.hpp"

#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

namespace tapgate::proxy {

namespace asio = boost::asio;

namespace {

/// Datagrams taken off a socket before other work of the thread gets its turn.
constexpr int kReceiveBatch = 64;
/// Errors of other datagrams that a send may meet before its own turn comes.
constexpr int kSendAttempts = 3;

/// Room for one control message with the packet's addresses, of either family.
union PacketInfoControl {
    cmsghdr align;
    std::array<char, CMSG_SPACE(sizeof(in6_pktinfo))> bytes;
};

/// With IP_RECVERR the kernel keeps what it learns of datagrams that were sent (a guest that does not answer
/// ARP), and a call on the socket fails with it, whatever the call is about. It is of no use to us.
void forget_errors(int socket) {
    msghdr message{};
    while (::recvmsg(socket, &message, MSG_ERRQUEUE | MSG_DONTWAIT) >= 0) {
        message = {};
    }
}

struct Route {
    int socket = -1;
    unsigned ifindex = 0;
    Endpoint client;
    IpAddress server;
};

/// 0, or the errno: ENOBUFS if the datagram was dropped on its way to the guest.
int send_datagram(const Route& route, ByteView bytes) {
    sockaddr_storage to{};
    const unsigned to_length = route.client.to_sockaddr(to);
    PacketInfoControl control{};
    // sendmsg() does not write through the vector.
    iovec vector{const_cast<std::uint8_t*>(bytes.data()), bytes.size()};
    msghdr message{};
    message.msg_name = &to;
    message.msg_namelen = to_length;
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    message.msg_control = &control;
    message.msg_controllen = sizeof control;
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    if (route.client.address.is_v4()) {
        in_pktinfo info{};
        info.ipi_ifindex = static_cast<int>(route.ifindex);
        info.ipi_spec_dst.s_addr = htonl(route.server.v4());
        header->cmsg_level = SOL_IP;
        header->cmsg_type = IP_PKTINFO;
        header->cmsg_len = CMSG_LEN(sizeof info);
        std::memcpy(CMSG_DATA(header), &info, sizeof info);
        message.msg_controllen = CMSG_SPACE(sizeof info);
    } else {
        in6_pktinfo info{};
        info.ipi6_ifindex = route.ifindex;
        std::memcpy(&info.ipi6_addr, route.server.bytes().data(), route.server.bytes().size());
        header->cmsg_level = SOL_IPV6;
        header->cmsg_type = IPV6_PKTINFO;
        header->cmsg_len = CMSG_LEN(sizeof info);
        std::memcpy(CMSG_DATA(header), &info, sizeof info);
        message.msg_controllen = CMSG_SPACE(sizeof info);
    }
    int error = 0;
    for (int attempt = 0; attempt < kSendAttempts; ++attempt) {
        if (::sendmsg(route.socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
            return 0;
        error = errno;
        if (error == ENOBUFS || error == EAGAIN)
            return error;
        forget_errors(route.socket);
    }
    return error;
}

/// Answers one datagram.
class UdpChannel final : public DnsChannel {
  public:
    UdpChannel(KernelState& kernel, const Guest& guest, const Route& route, std::uint16_t id,
               CapTicket ticket)
        : kernel_(kernel), route_(route), question_{guest.id, route.client, route.server, id},
          ticket_(std::move(ticket)) {}

    [[nodiscard]] policy::Protocol transport() const override { return policy::Protocol::kUdp; }

    Delivery deliver(const DnsReply& reply) override {
        const bool binds = reply.recording.has_value();
        if (binds && reply.recording->resolver &&
            !kernel_.set_resolver(question_, *reply.recording->resolver))
            return Delivery::kLost;
        int error = send_datagram(route_, reply.bytes);
        if (error == ENOBUFS && binds) {
            // Dropped by tap_egress, or for want of room in a queue. The kernel does not say which, but
            // recording it here does, and after that tap_egress finds nothing left to write.
            const auto recorded = kernel_.record_answer(route_.ifindex, *reply.recording);
            if (!recorded)
                return recorded.error().code() == ErrorCode::kLimit ? Delivery::kNoRoom
                                                                    : Delivery::kUnrecorded;
            error = send_datagram(route_, reply.bytes);
            if (error == ENOBUFS)
                return Delivery::kUnrecorded;
        }
        if (error == 0)
            return Delivery::kDelivered;
        spdlog::debug("dns answer to {}: {}", route_.client.to_string(), std::strerror(error));
        return Delivery::kLost;
    }

  private:
    KernelState& kernel_;
    Route route_;
    KernelState::Question question_;
    CapTicket ticket_; // held while the query is in flight
};

} // namespace

DnsUdpServer::DnsUdpServer(asio::io_context& context, int dns4, int dns6, KernelState& kernel,
                           DnsResolver& resolver, FindGuest find_guest)
    : context_(context), dns4_(context, ::dup(dns4)), dns6_(context, ::dup(dns6)), kernel_(kernel),
      resolver_(resolver), find_guest_(std::move(find_guest)) {}

void DnsUdpServer::start() {
    net::spawn(context_.get_executor(), "dns receiver (IPv4)", receive(dns4_));
    net::spawn(context_.get_executor(), "dns receiver (IPv6)", receive(dns6_));
}

void DnsUdpServer::stop() {
    boost::system::error_code ignored;
    dns4_.close(ignored);
    dns6_.close(ignored);
}

asio::awaitable<void> DnsUdpServer::receive(asio::posix::stream_descriptor& socket) {
    for (;;) {
        const auto [error] =
            co_await socket.async_wait(asio::posix::stream_descriptor::wait_read, net::kAsTuple);
        if (error)
            co_return;
        for (int i = 0; i < kReceiveBatch && receive_one(socket.native_handle()); ++i) {
        }
    }
}

bool DnsUdpServer::receive_one(int socket) {
    // One byte more than what BPF lets through, so that a longer datagram is seen as such.
    std::array<std::uint8_t, proto::kMaxDnsUdpPayload + 1> buffer{};
    sockaddr_storage from{};
    PacketInfoControl control{};
    iovec vector{buffer.data(), buffer.size()};
    msghdr message{};
    message.msg_name = &from;
    message.msg_namelen = sizeof from;
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    message.msg_control = &control;
    message.msg_controllen = sizeof control;
    const ssize_t length = ::recvmsg(socket, &message, MSG_DONTWAIT);
    if (length < 0) {
        if (errno == EAGAIN)
            return false;
        forget_errors(socket);
        return true;
    }

    Datagram datagram;
    datagram.bytes.assign(buffer.begin(), buffer.begin() + length);
    const auto client = Endpoint::from_sockaddr(from);
    for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
         header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level == SOL_IP && header->cmsg_type == IP_PKTINFO) {
            in_pktinfo info{};
            std::memcpy(&info, CMSG_DATA(header), sizeof info);
            datagram.ifindex = static_cast<unsigned>(info.ipi_ifindex);
            datagram.server = IpAddress::from_v4(ntohl(info.ipi_addr.s_addr));
        } else if (header->cmsg_level == SOL_IPV6 && header->cmsg_type == IPV6_PKTINFO) {
            in6_pktinfo info{};
            std::memcpy(&info, CMSG_DATA(header), sizeof info);
            datagram.ifindex = info.ipi6_ifindex;
            IpAddress::Bytes bytes{};
            std::memcpy(bytes.data(), &info.ipi6_addr, bytes.size());
            datagram.server = IpAddress(bytes);
        }
    }
    if (client && datagram.ifindex != 0) {
        datagram.client = *client;
        admit(socket, std::move(datagram));
    }
    return true;
}

void DnsUdpServer::admit(int socket, Datagram datagram) {
    std::shared_ptr<const Guest> guest = find_guest_(datagram.ifindex);
    if (!guest)
        return; // detached a moment ago
    // Over the cap a query is not answered: the guest's resolver asks again later. Their rate is capped in
    // BPF.
    CapTicket ticket = take_query_place(*guest);
    if (!ticket) {
        kernel_.count_refusal(datagram.ifindex, Refusal::kDnsRate);
        resolver_.count(*guest, DnsOutcome::kOverCap, std::chrono::microseconds::zero());
        return;
    }
    const Route route{socket, datagram.ifindex, datagram.client, datagram.server};
    const std::uint16_t id = ByteReader(datagram.bytes).u16().value_or(0);
    auto channel = std::make_shared<UdpChannel>(kernel_, *guest, route, id, std::move(ticket));
    net::spawn(context_.get_executor(), "dns query",
               resolver_.serve(std::move(guest), std::move(datagram.bytes), std::move(channel)));
}

} // namespace tapgate::proxy
