// SPDX-License-Identifier: Apache-2.0
#include "harness/dns_tcp.hpp"

namespace tapgate::test {

std::string framed(const Bytes& message) {
    std::string frame = {static_cast<char>(message.size() >> 8U), static_cast<char>(message.size() & 0xffU)};
    frame.append(message.begin(), message.end());
    return frame;
}

std::optional<Bytes> receive_message(TcpStream& stream, std::chrono::milliseconds time) {
    const std::string head = stream.receive(2, time).bytes;
    if (head.size() != 2)
        return std::nullopt;
    const std::size_t length = static_cast<std::size_t>(static_cast<std::uint8_t>(head[0])) << 8U |
                               static_cast<std::uint8_t>(head[1]);
    const std::string body = stream.receive(length, time).bytes;
    if (body.size() != length)
        return std::nullopt;
    return Bytes(body.begin(), body.end());
}

std::optional<DnsReply> receive_reply(TcpStream& stream, std::chrono::milliseconds time) {
    const auto message = receive_message(stream, time);
    return message ? read_answer({stream.peer(), *message}) : std::nullopt;
}

std::optional<DnsReply> ask_over_tcp(const NetNs& ns, const Endpoint& server, const std::string& name,
                                     const std::string& type, std::chrono::milliseconds time) {
    constexpr std::uint16_t kId = 4711;
    auto stream = TcpStream::connect(ns, server, time);
    if (!stream || stream->send(framed(make_query(kId, name, type))) != 0)
        return std::nullopt;
    const auto reply = receive_reply(*stream, time);
    return reply && reply->id == kId ? reply : std::nullopt;
}

} // namespace tapgate::test
