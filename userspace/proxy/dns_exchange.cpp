// SPDX-License-Identifier: Apache-2.0
#include "proxy/dns_exchange.hpp"

#include "net/asio_address.hpp"
#include "net/async.hpp"
#include "net/dialer.hpp"
#include "proto/dns_answer.hpp"
#include "proxy/dns_stream.hpp"

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/udp.hpp>
#include <boost/asio/this_coro.hpp>

#include <algorithm>
#include <cerrno>

#include <sys/random.h>
#include <sys/socket.h>

namespace tapgate::proxy {

namespace asio = boost::asio;
using asio::ip::tcp;
using asio::ip::udp;

namespace {

/// Answers to other questions on one socket, from the resolver's own address. A resolver that repeats itself
/// sends one or two; who guesses ids sends thousands.
constexpr unsigned kMaxMismatches = 16;

std::uint16_t random_id() {
    std::uint16_t id = 0;
    TAPGATE_ASSERT(::getrandom(&id, sizeof id, 0) == ssize_t{sizeof id});
    return id;
}

std::chrono::milliseconds left_until(std::chrono::steady_clock::time_point deadline) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    return std::max(left, std::chrono::milliseconds(1));
}

/// Sends all of `bytes`; false at the deadline or on an error.
asio::awaitable<bool> send_all(tcp::socket& socket, ByteView bytes,
                               std::chrono::steady_clock::time_point deadline) {
    while (!bytes.empty()) {
        const ssize_t sent =
            ::send(socket.native_handle(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent > 0) {
            bytes = bytes.subspan(static_cast<std::size_t>(sent));
        } else if (sent < 0 && errno != EAGAIN && errno != EINTR) {
            co_return false;
        } else if (co_await net::wait_writable_until(socket, deadline)) {
            co_return false;
        }
    }
    co_return true;
}

/// The next message on the stream; empty at its end, at the deadline or on an error.
asio::awaitable<std::vector<std::uint8_t>> receive_message(tcp::socket& socket,
                                                           std::chrono::steady_clock::time_point deadline) {
    DnsStreamReader reader;
    std::vector<std::uint8_t> buffer(kStreamReadSize);
    for (;;) {
        if (auto message = reader.next())
            co_return std::move(*message);
        const std::size_t size = std::min(buffer.size(), reader.wanted());
        const ssize_t length = ::recv(socket.native_handle(), buffer.data(), size, MSG_DONTWAIT);
        if (length > 0) {
            reader.add(ByteView(buffer).first(static_cast<std::size_t>(length)));
            continue;
        }
        if (length == 0 || (errno != EAGAIN && errno != EINTR))
            break;
        if (co_await net::wait_readable_until(socket, deadline))
            break;
    }
    co_return std::vector<std::uint8_t>();
}

} // namespace

asio::awaitable<DnsExchange> ask_over_udp(Endpoint upstream, const proto::DnsQuery& query,
                                          std::chrono::steady_clock::time_point deadline) {
    DnsExchange exchange;
    udp::socket socket(co_await asio::this_coro::executor);
    boost::system::error_code error;
    const udp::endpoint endpoint(net::to_asio(upstream.address), upstream.port);
    socket.open(endpoint.protocol(), error);
    if (!error)
        socket.connect(endpoint, error);
    if (error)
        co_return exchange;
    const std::uint16_t id = random_id();
    const proto::DnsUpstreamQuery question = proto::build_upstream_query(query, id);
    socket.send(asio::buffer(question.bytes), 0, error);
    if (error)
        co_return exchange;

    std::vector<std::uint8_t> buffer(proto::kMaxDnsUdpPayload + 1);
    unsigned mismatches = 0;
    while (!co_await net::wait_readable_until(socket, deadline)) {
        const ssize_t length = ::recv(socket.native_handle(), buffer.data(), buffer.size(), MSG_DONTWAIT);
        if (length < 0 && (errno == EAGAIN || errno == EINTR))
            continue; // a datagram that was dropped for its checksum
        if (length < 0)
            break; // ICMP: nobody listens there
        const ByteView bytes = ByteView(buffer).first(static_cast<std::size_t>(length));
        if (proto::dns_answer_mismatch(bytes, question.question, id, proto::DnsCase::kIgnore).empty()) {
            exchange.end = DnsExchange::End::kAnswer;
            exchange.bytes.assign(bytes.begin(), bytes.end());
            break;
        }
        if (++mismatches >= kMaxMismatches) {
            exchange.end = DnsExchange::End::kForged;
            break;
        }
    }
    co_return exchange;
}

asio::awaitable<DnsExchange> ask_over_tcp(Endpoint upstream, const proto::DnsQuery& query,
                                          std::chrono::steady_clock::time_point deadline) {
    DnsExchange exchange;
    const std::chrono::milliseconds connect_time = left_until(deadline);
    Result<tcp::socket> socket = co_await net::dial(upstream, connect_time);
    if (!socket)
        co_return exchange;
    const std::uint16_t id = random_id();
    const proto::DnsUpstreamQuery question = proto::build_upstream_query(query, id);
    const std::vector<std::uint8_t> frame = dns_frame(question.bytes);
    if (!co_await send_all(*socket, frame, deadline))
        co_return exchange;
    std::vector<std::uint8_t> message = co_await receive_message(*socket, deadline);
    if (!proto::dns_answer_mismatch(message, question.question, id, proto::DnsCase::kIgnore).empty())
        co_return exchange;
    exchange.end = DnsExchange::End::kAnswer;
    exchange.bytes = std::move(message);
    co_return exchange;
}

asio::awaitable<bool> is_answering(Endpoint upstream, std::chrono::steady_clock::time_point deadline) {
    proto::DnsQuery query;
    query.question = proto::DnsQuestion{*proto::DnsName::from_text("localhost"),
                                        static_cast<std::uint16_t>(proto::DnsType::kA), proto::kDnsClassIn};
    const DnsExchange exchange = co_await ask_over_udp(upstream, query, deadline);
    co_return exchange.end != DnsExchange::End::kNothing;
}

} // namespace tapgate::proxy
