// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "harness/dns.hpp"
#include "harness/tcp_stream.hpp"

#include <chrono>
#include <optional>
#include <string>

// DNS over TCP as tests speak it: messages with their length in front (RFC 1035 4.2.2).
namespace tapgate::test {

[[nodiscard]] std::string framed(const Bytes& message);

/// The next message on `stream`; nothing at its end or after `time`.
[[nodiscard]] std::optional<Bytes> receive_message(TcpStream& stream,
                                                   std::chrono::milliseconds time = kPatience);

/// The same, read as an answer.
[[nodiscard]] std::optional<DnsReply> receive_reply(TcpStream& stream,
                                                    std::chrono::milliseconds time = kPatience);

/// Asks `server` over a connection of its own from inside `ns`; nothing if it is refused or no answer comes.
std::optional<DnsReply> ask_over_tcp(const NetNs& ns, const Endpoint& server, const std::string& name,
                                     const std::string& type, std::chrono::milliseconds time = kPatience);

} // namespace tapgate::test
