// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/ip.hpp"
#include "proto/dns_message.hpp"
#include "proto/dns_query.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tapgate::proto {

enum class DnsCase : std::uint8_t { kExact, kIgnore };

/// Why `bytes` is not the answer to what was asked with `id` and `question`: not a response, another id,
/// opcode, name, type or class, not exactly one question. Empty if it is. Looks at the header and the
/// question alone; cheap enough for every packet that arrives. What does not match is to be ignored, never
/// forwarded.
[[nodiscard]] std::string_view dns_answer_mismatch(ByteView bytes, const DnsQuestion& question,
                                                   std::uint16_t id, DnsCase name_case);

/// The answer `upstream` as the guest gets it, at most `limit` bytes (query.udp_limit() over UDP,
/// kMaxDnsTcpPayload over TCP). Empty if the question is not the guest's, or if a record's name is made of
/// bytes of the OPT record or behind it.
///
/// Id, RD, CD and the question are the guest's, so that compression pointers into the question stay valid;
/// records stay byte for byte as they are, up to the OPT record: that one and what may follow it is replaced
/// by our own OPT if the guest sent EDNS. AD is kept if the guest asked for it (RFC 6840 5.8). An answer that
/// is truncated or does not fit becomes TC=1 without records; one with an extended RCODE, which speaks of our
/// EDNS and not of the guest's question, becomes SERVFAIL.
[[nodiscard]] std::optional<std::vector<std::uint8_t>>
build_guest_answer(const DnsMessage& upstream, const DnsQuery& query, std::size_t limit);

/// More aliases than this make an answer malformed.
inline constexpr std::size_t kMaxDnsAliases = 16;

struct DnsAddress {
    IpAddress address;
    /// The least TTL of the address record and of the aliases that led to it. A TTL with the top bit set is 0
    /// (RFC 2181 8).
    std::uint32_t ttl_seconds = 0;
};

/// What an answer says of the name in its question.
struct DnsAddresses {
    std::vector<DnsAddress> addresses; ///< each address once, in the order of the message
    std::vector<DnsName> aliases;      ///< the names that the question name is an alias of, in order
    std::string_view reason;           ///< why the answer is malformed; empty if it is not. Lives forever.
};

/// What has more text than this cannot be recorded: 253 octets, which only names full of escapes exceed.
inline constexpr std::size_t kMaxDnsTextSize = 253;

/// The addresses bound by `answer` to its question name: the reference for what BPF records, with the limits
/// as they stand. Of those only `addresses` is looked at here.
///
/// Follows CNAMEs from the question name, in the answer section and class IN only, records in any order; then
/// takes A, AAAA and the hints of SVCB and HTTPS records (RFC 9460 7.3) of the last name, whatever type was
/// asked. Nothing is bound, without it being an error, unless RCODE is NOERROR and TC is clear, and by
/// records of other owners. Malformed, and nothing is bound: no question, several CNAMEs at one name of the
/// chain, a CNAME beside one of the other types, a loop, more than kMaxDnsAliases or `limits.addresses`, an A
/// record that is not 4 or an AAAA record that is not 16 bytes (whoever owns it), a CNAME that is not exactly
/// one name, a service record that is malformed, a name that is too long to be recorded.
[[nodiscard]] DnsAddresses derive_addresses(const DnsMessage& answer, const DnsLimits& limits = {});

} // namespace tapgate::proto
