// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/ip.hpp"
#include "harness/netns.hpp"
#include "harness/udp_responder.hpp"

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

// DNS as tests speak it. The messages are made and read by ldns, not by the product's own codec.
namespace tapgate::test {

/// Response codes (RFC 1035 4.1.1).
inline constexpr unsigned kNoError = 0;
inline constexpr unsigned kServFail = 2;
inline constexpr unsigned kNxDomain = 3;
inline constexpr unsigned kRefused = 5;

struct DnsReply {
    unsigned id = 0;
    unsigned rcode = 0;
    bool truncated = false;
    Endpoint from;
    std::vector<std::string> addresses; ///< canonical text of all A and AAAA records in the answer section
};

/// A query for `name` with recursion desired and no EDNS. `type` is "A", "AAAA", "TXT", ...
[[nodiscard]] Bytes make_query(std::uint16_t id, const std::string& name, const std::string& type);

/// Records of an answer in zone file form, "www.allowed.test. 60 IN A 203.0.113.5".
struct AnswerRecords {
    std::vector<std::string> answer;
    std::vector<std::string> authority;
    std::vector<std::string> additional;
};

/// A NOERROR answer to the message `query` with these records.
[[nodiscard]] Bytes make_answer(const Bytes& query, const AnswerRecords& records);

/// Name (lower case, no trailing dot) and type of the question of `message`.
struct Question {
    std::string name;
    std::string type;
};

[[nodiscard]] std::optional<Question> question_of(const Bytes& message);

/// Reads an answer; nothing if ldns cannot.
[[nodiscard]] std::optional<DnsReply> read_answer(const Datagram& datagram);

/// Asks `server` from inside `ns`, once; nothing if no answer comes in `time`.
std::optional<DnsReply> ask(const NetNs& ns, const Endpoint& server, const std::string& name,
                            const std::string& type, std::chrono::milliseconds time);

} // namespace tapgate::test
