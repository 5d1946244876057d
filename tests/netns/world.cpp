// SPDX-License-Identifier: Apache-2.0
#include "netns/world.hpp"

#include "harness/tls_hello_builder.hpp"
#include "harness/wait.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ostream>

namespace tapgate::test {

namespace {

/// A record of type alert, TLS 1.2, two bytes: fatal, access_denied (RFC 8446 6.2).
constexpr std::string_view kAccessDenied{"\x15\x03\x03\x00\x02\x02\x31", 7};

} // namespace

std::ostream& operator<<(std::ostream& stream, const Outcome& outcome) {
    static constexpr std::array<std::string_view, 3> kEnds = {"no end", "FIN", "RST"};
    return stream << "connect: " << std::strerror(outcome.connect_error) << ", answer of "
                  << outcome.answer.size() << " bytes: '" << outcome.answer << "', then "
                  << kEnds.at(static_cast<std::size_t>(outcome.end));
}

bool was_reset(const Outcome& outcome) {
    return outcome.answer.empty() && (outcome.connect_error == ECONNREFUSED ||
                                      outcome.connect_error == ECONNRESET || outcome.end == End::kReset);
}

bool was_denied_by_alert(const Outcome& outcome) {
    return outcome.answer == kAccessDenied && outcome.end != End::kNone;
}

bool was_served(const Outcome& outcome) {
    return outcome.answer == "served\n" && outcome.end == End::kFin;
}

CaptureServer::CaptureServer(const NetNs& ns, const Endpoint& endpoint)
    : server_(ns, endpoint, [this](TcpStream& stream) {
          Received received = stream.receive_to_end();
          {
              const std::lock_guard lock(mutex_);
              captured_.push_back(std::move(received.bytes));
          }
          stream.send("served\n");
      }) {}

std::vector<std::string> CaptureServer::captured() {
    const std::lock_guard lock(mutex_);
    return captured_;
}

Outcome exchange(const NetNs& guest, const Endpoint& to, const std::vector<std::string>& pieces) {
    auto stream = TcpStream::connect(guest, to);
    if (!stream)
        return {.connect_error = stream.error(), .answer = {}, .end = End::kNone};
    int send_error = 0;
    for (const std::string& piece : pieces) {
        // A refusal in the middle of sending shows in what is received.
        send_error = stream->send(piece);
        if (send_error != 0)
            break;
    }
    stream->finish();
    Received received = stream->receive_to_end();
    // The kernel tells of a reset once. If that was to send(), what is left to receive ends as if with FIN.
    if (send_error == ECONNRESET)
        received.end = End::kReset;
    return {.connect_error = 0, .answer = std::move(received.bytes), .end = received.end};
}

Outcome exchange(const NetNs& guest, const Endpoint& to, const std::string& bytes) {
    return exchange(guest, to, std::vector<std::string>{bytes});
}

std::string client_hello(std::string_view name) {
    const Bytes bytes = TlsHelloBuilder().sni(name).build();
    return {bytes.begin(), bytes.end()};
}

std::vector<std::string> one_by_one(const std::string& bytes) {
    std::vector<std::string> pieces;
    for (const char c : bytes)
        pieces.emplace_back(1, c);
    return pieces;
}

std::vector<std::string> resolve(const World& world, const Family& family, const std::string& name) {
    const auto reply = ask(world.topology.guest().ns, {family.gateway, 53}, name, family.record, kPatience);
    EXPECT_TRUE(reply.has_value()) << "no answer for " << name;
    if (!reply)
        return {};
    EXPECT_EQ(reply->rcode, kNoError) << name;
    EXPECT_FALSE(reply->addresses.empty()) << name;
    return reply->addresses;
}

UplinkWatch::UplinkWatch(const World& world) : tap_(world.topology.internet(), "eth0") {}

std::vector<std::string> UplinkWatch::leaks(const std::vector<Endpoint>& forbidden) {
    const std::vector<IpPrefix> guests = {IpPrefix::parse("192.0.2.0/24").value(),
                                          IpPrefix::parse("2001:db8:1::/48").value()};
    std::vector<std::string> found;
    for (const Seen& seen : tap_.drain()) {
        if (!seen.from)
            continue;
        const bool from_guest = std::ranges::any_of(
            guests, [&](const IpPrefix& prefix) { return prefix.contains(seen.from->address); });
        if (from_guest || std::ranges::find(forbidden, *seen.to) != forbidden.end())
            found.push_back(seen.to_string());
    }
    return found;
}

} // namespace tapgate::test
