// SPDX-License-Identifier: Apache-2.0
#include "proxy/dns_forwarder.hpp"

#include "base/log.hpp"
#include "net/async.hpp"
#include "policy/decide.hpp"
#include "proto/dns_answer.hpp"
#include "proto/dns_message.hpp"
#include "proxy/judgement.hpp"

#include <boost/asio/ip/udp.hpp>
#include <boost/asio/steady_timer.hpp>

#include <algorithm>
#include <array>
#include <cstring>

#include <netinet/in.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

namespace tapgate::proxy {

namespace asio = boost::asio;
using asio::ip::udp;

namespace {

/// Datagrams taken off a socket before other work of the thread gets its turn.
constexpr int kReceiveBatch = 64;
/// Resolvers asked for one query; with the timeout of each this bounds a query's life.
constexpr std::size_t kMaxAttempts = 3;

std::uint16_t random_id() {
    std::uint16_t id = 0;
    TAPGATE_ASSERT(::getrandom(&id, sizeof id, 0) == ssize_t{sizeof id});
    return id;
}

asio::ip::address to_asio(const IpAddress& address) {
    if (address.is_v4())
        return asio::ip::address_v4(address.v4());
    return asio::ip::address_v6(address.bytes());
}

/// Room for one control message with the packet's addresses, of either family.
union PacketInfoControl {
    cmsghdr align;
    std::array<char, CMSG_SPACE(sizeof(in6_pktinfo))> bytes;
};

} // namespace

DnsForwarder::DnsForwarder(asio::io_context& context, int dns4, int dns6, KernelState& kernel,
                           EventSink& events, FindGuest find_guest, HostAddresses host_addresses,
                           std::chrono::milliseconds timeout)
    : context_(context), dns4_(context, ::dup(dns4)), dns6_(context, ::dup(dns6)), kernel_(kernel),
      events_(events), find_guest_(std::move(find_guest)), host_addresses_(std::move(host_addresses)),
      timeout_(timeout) {}

void DnsForwarder::start() {
    net::spawn(context_.get_executor(), "dns receiver (IPv4)", receive(dns4_));
    net::spawn(context_.get_executor(), "dns receiver (IPv6)", receive(dns6_));
}

void DnsForwarder::stop() {
    boost::system::error_code ignored;
    dns4_.close(ignored);
    dns6_.close(ignored);
}

asio::awaitable<void> DnsForwarder::receive(asio::posix::stream_descriptor& socket) {
    for (;;) {
        const auto [error] =
            co_await socket.async_wait(asio::posix::stream_descriptor::wait_read, net::kAsTuple);
        if (error)
            co_return;
        for (int i = 0; i < kReceiveBatch && receive_one(socket.native_handle()); ++i) {
        }
    }
}

bool DnsForwarder::receive_one(int socket) {
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
    if (length < 0)
        return errno == EINTR;

    Request request;
    request.socket = socket;
    request.bytes.assign(buffer.begin(), buffer.begin() + length);
    const auto client = Endpoint::from_sockaddr(from);
    for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
         header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level == SOL_IP && header->cmsg_type == IP_PKTINFO) {
            in_pktinfo info{};
            std::memcpy(&info, CMSG_DATA(header), sizeof info);
            request.ifindex = static_cast<unsigned>(info.ipi_ifindex);
            request.server = IpAddress::from_v4(ntohl(info.ipi_addr.s_addr));
        } else if (header->cmsg_level == SOL_IPV6 && header->cmsg_type == IPV6_PKTINFO) {
            in6_pktinfo info{};
            std::memcpy(&info, CMSG_DATA(header), sizeof info);
            request.ifindex = info.ipi6_ifindex;
            IpAddress::Bytes bytes{};
            std::memcpy(bytes.data(), &info.ipi6_addr, bytes.size());
            request.server = IpAddress(bytes);
        }
    }
    if (client && request.ifindex != 0) {
        request.client = *client;
        admit(std::move(request));
    }
    return true;
}

void DnsForwarder::admit(Request request) {
    std::shared_ptr<const Guest> guest = find_guest_(request.ifindex);
    if (!guest)
        return; // detached a moment ago
    // Over the cap a query is not answered: the guest's resolver asks again later. Their rate is capped in
    // BPF.
    auto ticket = std::make_shared<const CapTicket>(
        CapTicket::take(guest->counters, &GuestCounters::dns_in_flight, guest->limits.dns_in_flight));
    if (!*ticket) {
        kernel_.count_refusal(request.ifindex, Refusal::kDnsRate);
        return;
    }
    auto shared_request = std::make_shared<const Request>(std::move(request));
    net::spawn(context_.get_executor(), "dns query",
               serve(std::move(guest), std::move(shared_request), std::move(ticket)));
}

asio::awaitable<void> DnsForwarder::serve(std::shared_ptr<const Guest> guest,
                                          std::shared_ptr<const Request> request,
                                          std::shared_ptr<const CapTicket> ticket) {
    static_cast<void>(ticket); // held while the query is in flight
    const proto::DnsQueryParse parsed = proto::parse_dns_query(request->bytes);
    if (parsed.status == proto::DnsQueryStatus::kDropped) {
        kernel_.count_refusal(request->ifindex, Refusal::kDnsRefused);
        co_return;
    }
    const proto::DnsQuery& query = parsed.query;
    DnsEvent event;
    event.guest = guest->name;
    if (query.question) {
        event.name = query.question->name.text();
        event.type = proto::dns_type_text(query.question->type);
    }
    if (parsed.status == proto::DnsQueryStatus::kRefused) {
        event.reason = parsed.reason;
        refuse(*guest, *request, query, parsed.rcode, Refusal::kDnsRefused, std::move(event));
        co_return;
    }
    const auto name = policy::Name::from_wire(query.question->name.text());
    if (!name) {
        event.reason = "not a host name";
        refuse(*guest, *request, query, proto::DnsRcode::kRefused, Refusal::kDnsRefused, std::move(event));
        co_return;
    }

    const std::shared_ptr<const PolicyGeneration> generation = guest->policy;
    const policy::CompiledPolicy& compiled = *generation->compiled;
    const policy::Decision decision = policy::decide_query(compiled, *name, policy::Protocol::kUdp);
    event.rule = deciding_rule(compiled, decision);
    event.generation = generation->generation;
    if (decision.verdict != policy::Verdict::kAllow) {
        event.reason = policy::basis_name(decision.basis);
        refuse(*guest, *request, query, proto::DnsRcode::kNxDomain, Refusal::kDnsPolicy, std::move(event));
        co_return;
    }
    const bool wants_v6 = query.question->type == static_cast<std::uint16_t>(proto::DnsType::kAaaa);
    if (wants_v6 && !guest->has_family(false)) {
        // A guest without IPv6 would only lose time on addresses it cannot reach: NODATA.
        send_answer(*request, proto::build_error_answer(query, proto::DnsRcode::kNoError));
        co_return;
    }

    const UpstreamAnswer upstream = co_await ask_upstreams(query);
    const proto::DnsParse answer = proto::parse_dns_message(upstream.bytes);
    if (!answer.message) {
        event.reason = "no trusted resolver answered";
        refuse(*guest, *request, query, proto::DnsRcode::kServFail, Refusal::kDnsUpstream, std::move(event));
        co_return;
    }
    const proto::DnsAddresses addresses = proto::derive_addresses(*answer.message);
    if (!addresses.reason.empty()) {
        event.reason = addresses.reason;
        refuse(*guest, *request, query, proto::DnsRcode::kServFail, Refusal::kDnsUpstream, std::move(event));
        co_return;
    }
    const auto host = host_addresses_();
    std::vector<IpAddress> host_and_gateways = *host;
    host_and_gateways.insert(host_and_gateways.end(), guest->gateways.begin(), guest->gateways.end());
    // Every address record counts, not only those of the chain: the guest sees them all.
    for (const proto::DnsRecord& record : answer.message->records) {
        std::optional<IpAddress> address;
        if (record.type == static_cast<std::uint16_t>(proto::DnsType::kA) && record.rdata.size() == 4) {
            address = IpAddress::from_v4(*ByteReader(record.rdata).u32());
        } else if (record.type == static_cast<std::uint16_t>(proto::DnsType::kAaaa) &&
                   record.rdata.size() == 16) {
            IpAddress::Bytes bytes{};
            std::ranges::copy(record.rdata, bytes.begin());
            address = IpAddress(bytes);
        }
        if (address && !policy::answer_address_permitted(compiled, *name, *address, host_and_gateways)) {
            event.reason = fmt::format("the answer carries {}", address->to_string());
            refuse(*guest, *request, query, proto::DnsRcode::kNxDomain, Refusal::kDnsRebinding,
                   std::move(event));
            co_return;
        }
    }
    const auto bytes = proto::build_guest_answer(*answer.message, query, query.udp_limit());
    if (bytes)
        send_answer(*request, *bytes);
}

asio::awaitable<DnsForwarder::UpstreamAnswer> DnsForwarder::ask_upstreams(const proto::DnsQuery& query) {
    const std::vector<Endpoint> order = upstreams_.in_order(DnsUpstreams::Clock::now());
    for (std::size_t i = 0; i < std::min(order.size(), kMaxAttempts); ++i) {
        UpstreamAnswer answer = co_await ask(order[i], query);
        if (!answer.bytes.empty()) {
            upstreams_.succeeded(order[i]);
            co_return answer;
        }
        upstreams_.failed(order[i], DnsUpstreams::Clock::now());
    }
    co_return UpstreamAnswer{};
}

asio::awaitable<DnsForwarder::UpstreamAnswer> DnsForwarder::ask(Endpoint upstream,
                                                                const proto::DnsQuery& query) {
    // A socket per query: the kernel draws its port at random, and `connect` makes it deaf to other senders.
    UpstreamAnswer answer;
    udp::socket socket(context_);
    boost::system::error_code error;
    const udp::endpoint endpoint(to_asio(upstream.address), upstream.port);
    socket.open(endpoint.protocol(), error);
    if (!error)
        socket.connect(endpoint, error);
    if (error)
        co_return answer;
    const std::uint16_t id = random_id();
    const proto::DnsUpstreamQuery question = proto::build_upstream_query(query, id);
    socket.send(asio::buffer(question.bytes), 0, error);
    if (error)
        co_return answer;

    const auto deadline = std::chrono::steady_clock::now() + timeout_;
    std::vector<std::uint8_t> buffer(proto::kMaxDnsUdpPayload + 1);
    while (!co_await net::wait_readable_until(socket, deadline)) {
        const std::size_t length = socket.receive(asio::buffer(buffer), 0, error);
        if (error)
            break; // ICMP: nobody listens there
        const ByteView bytes = ByteView(buffer).first(length);
        // Anything that does not match is ignored, not taken for a failure: a forger must not win by losing.
        if (!proto::dns_answer_mismatch(bytes, question.question, id, proto::DnsCase::kIgnore).empty())
            continue;
        answer.bytes.assign(bytes.begin(), bytes.end());
        break;
    }
    co_return answer;
}

void DnsForwarder::refuse(const Guest& guest, const Request& request, const proto::DnsQuery& query,
                          proto::DnsRcode rcode, Refusal refusal, DnsEvent event) {
    kernel_.count_refusal(request.ifindex, refusal);
    std::optional<proto::DnsExtendedError> extended;
    if (refusal == Refusal::kDnsPolicy || refusal == Refusal::kDnsRebinding) {
        extended.emplace();
        extended->code = refusal == Refusal::kDnsPolicy ? proto::DnsExtendedError::kProhibited
                                                        : proto::DnsExtendedError::kFiltered;
        extended->text = guest.policy->compiled->policy().deny_text;
    }
    send_answer(request, proto::build_error_answer(query, rcode, extended));
    events_.publish(std::move(event));
}

void DnsForwarder::send_answer(const Request& request, std::span<const std::uint8_t> answer) const {
    sockaddr_storage to{};
    const unsigned to_length = request.client.to_sockaddr(to);
    PacketInfoControl control{};
    // sendmsg() does not write through the vector.
    iovec vector{const_cast<std::uint8_t*>(answer.data()), answer.size()};
    msghdr message{};
    message.msg_name = &to;
    message.msg_namelen = to_length;
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    message.msg_control = &control;
    message.msg_controllen = sizeof control;
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    if (request.client.address.is_v4()) {
        in_pktinfo info{};
        info.ipi_ifindex = static_cast<int>(request.ifindex);
        info.ipi_spec_dst.s_addr = htonl(request.server.v4());
        header->cmsg_level = SOL_IP;
        header->cmsg_type = IP_PKTINFO;
        header->cmsg_len = CMSG_LEN(sizeof info);
        std::memcpy(CMSG_DATA(header), &info, sizeof info);
        message.msg_controllen = CMSG_SPACE(sizeof info);
    } else {
        in6_pktinfo info{};
        info.ipi6_ifindex = request.ifindex;
        std::memcpy(&info.ipi6_addr, request.server.bytes().data(), request.server.bytes().size());
        header->cmsg_level = SOL_IPV6;
        header->cmsg_type = IPV6_PKTINFO;
        header->cmsg_len = CMSG_LEN(sizeof info);
        std::memcpy(CMSG_DATA(header), &info, sizeof info);
        message.msg_controllen = CMSG_SPACE(sizeof info);
    }
    if (::sendmsg(request.socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        spdlog::debug("dns answer to {}: {}", request.client.to_string(), std::strerror(errno));
}

} // namespace tapgate::proxy
