// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "proto/dns_message.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tapgate::proto {

/// What an OPT record says of its sender (RFC 6891 6.1).
struct DnsEdns {
    std::uint16_t udp_payload = kMinDnsUdpPayload; ///< at least 512: less means 512 (RFC 6891 6.2.3)
    bool dnssec_ok = false;
};

/// A guest's question, in values. Nothing else of what the guest sent is kept.
struct DnsQuery {
    std::uint16_t id = 0;
    std::uint8_t opcode = 0;
    bool recursion_desired = false;
    bool authentic_data = false;
    bool checking_disabled = false;
    /// As the guest wrote it, case included. Empty only in a query that was refused before its question was
    /// read.
    std::optional<DnsQuestion> question;
    std::optional<DnsEdns> edns;

    /// The most that may be sent back over UDP, in bytes: 512 without EDNS, else the guest's size, never more
    /// than kMaxDnsUdpPayload.
    [[nodiscard]] std::size_t udp_limit() const;
};

enum class DnsQueryStatus : std::uint8_t {
    kAccepted, ///< `query` is complete
    kRefused,  ///< answer with `rcode`; `query` holds what build_error_answer() needs
    kDropped,  ///< no answer: not even a header, or not a query
};

struct DnsQueryParse {
    DnsQueryStatus status = DnsQueryStatus::kDropped;
    DnsRcode rcode = DnsRcode::kNoError;
    std::string_view reason; ///< short, stable, lives forever; empty if accepted
    DnsQuery query;
};

/// Reads a guest's query strictly: QUERY, one uncompressed question of class IN and an allowed type, at most
/// an OPT record of version 0 beside it, not a byte more. EDNS options are checked for form and forgotten.
///
///     shorter than a header, or QR=1                            dropped
///     other opcode                                              NOTIMP
///     TC=1, RCODE, several questions, other sections, length    FORMERR
///     class other than IN, type that is not allowed             REFUSED
///     EDNS version other than 0                                 BADVERS
[[nodiscard]] DnsQueryParse parse_dns_query(ByteView bytes);

/// True if guests may ask for `type`: what stub resolvers, mail, SSH and validating clients need. ANY, NULL,
/// zone transfers and the unknown are not among them (large answers, tunnels).
[[nodiscard]] bool dns_type_allowed(std::uint16_t type);

/// The mnemonic of a type that guests often ask for, or TYPE and its number (RFC 3597 5).
[[nodiscard]] std::string dns_type_text(std::uint16_t type);

/// A query ready to be sent to an upstream, and the question in it, to check the answer against.
struct DnsUpstreamQuery {
    std::vector<std::uint8_t> bytes;
    DnsQuestion question;
};

/// Builds the query that goes upstream for `query`, which must have been accepted: RD=1, CD and DO as the
/// guest wants them, EDNS size kMaxDnsUdpPayload, no options. Of the guest's bytes only the name is in it, in
/// lower case, or, with `case_bits` of 32 random bytes, in a random case that the answer must repeat
/// (draft-vixie-dnsext-dns0x20).
[[nodiscard]] DnsUpstreamQuery build_upstream_query(const DnsQuery& query, std::uint16_t id,
                                                    ByteView case_bits = {});

/// An Extended DNS Error (RFC 8914). The text is UTF-8; what is over 200 bytes of it is cut.
struct DnsExtendedError {
    static constexpr std::uint16_t kFiltered = 17;   ///< the client asked for filtering
    static constexpr std::uint16_t kProhibited = 18; ///< the client is not allowed to ask
    std::uint16_t code = kProhibited;
    std::string text;
};

/// An answer without records to `query`, whose question is echoed byte for byte if there was one. `error` is
/// put in if the guest sent EDNS. Never more than 512 bytes.
[[nodiscard]] std::vector<std::uint8_t> build_error_answer(const DnsQuery& query, DnsRcode rcode,
                                                           const std::optional<DnsExtendedError>& error = {});

} // namespace tapgate::proto
