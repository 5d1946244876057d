// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/bytes.hpp"
#include "proto/dns_name.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace tapgate::proto {

inline constexpr std::size_t kDnsHeaderSize = 12;
/// What every client takes over UDP (RFC 1035 2.3.4).
inline constexpr std::size_t kMinDnsUdpPayload = 512;
/// What we ask for and the most we deliver over UDP: no fragments on any path (DNS flag day 2020), and what
/// the BPF parser reads.
inline constexpr std::size_t kMaxDnsUdpPayload = 1232;
inline constexpr std::size_t kMaxDnsTcpPayload = 65535;
inline constexpr std::uint16_t kDnsClassIn = 1;

/// The types that the gateway itself looks into or names (IANA DNS parameters).
enum class DnsType : std::uint16_t {
    kA = 1,
    kNs = 2,
    kCname = 5,
    kSoa = 6,
    kPtr = 12,
    kMx = 15,
    kTxt = 16,
    kAaaa = 28,
    kSrv = 33,
    kNaptr = 35,
    kOpt = 41,
    kDs = 43,
    kSshfp = 44,
    kDnskey = 48,
    kTlsa = 52,
    kSvcb = 64,
    kHttps = 65,
    kCaa = 257,
};

/// RFC 1035 4.1.1, RFC 6891 9.
enum class DnsRcode : std::uint8_t {
    kNoError = 0,
    kFormErr = 1,
    kServFail = 2,
    kNxDomain = 3,
    kNotImp = 4,
    kRefused = 5,
    kBadVers = 16, ///< needs an OPT record in the answer
};

/// The header's second and third 16-bit words (RFC 1035 4.1.1, RFC 4035 3).
///
///     QR(1) OPCODE(4) AA(1) TC(1) RD(1) | RA(1) Z(1) AD(1) CD(1) RCODE(4)
struct DnsHeader {
    std::uint16_t id = 0;
    bool response = false;
    std::uint8_t opcode = 0; ///< 0 is QUERY
    bool authoritative = false;
    bool truncated = false;
    bool recursion_desired = false;
    bool recursion_available = false;
    bool authentic_data = false;
    bool checking_disabled = false;
    std::uint8_t rcode = 0; ///< the low four bits
};

struct DnsQuestion {
    DnsName name;
    std::uint16_t type = 0; ///< a number, since any is possible on the wire
    std::uint16_t klass = kDnsClassIn;
};

enum class DnsSection : std::uint8_t { kAnswer, kAuthority, kAdditional };

struct DnsRecord {
    DnsSection section = DnsSection::kAnswer;
    DnsName owner; ///< decompressed
    std::uint16_t type = 0;
    std::uint16_t klass = 0;
    std::uint32_t ttl_seconds = 0; ///< as on the wire
    std::size_t offset = 0;        ///< where the record begins in the message
    std::size_t rdata_offset = 0;
    ByteView rdata; ///< a view into the message that was parsed
};

/// What a message may hold; over any of these it is malformed. As they stand they are those of the BPF
/// parser.
struct DnsLimits {
    std::size_t size = kMaxDnsUdpPayload;
    std::size_t answers = 32;
    std::size_t records = 64;   ///< in all three sections
    std::size_t addresses = 64; ///< of the question name, hints and repetitions included
    std::size_t steps = DnsNameReader::kMaxSteps;
};

/// Over TCP, where the daemon parses and BPF only records: more than any name needs, and still little work.
inline constexpr DnsLimits kDnsTcpLimits{
    .size = kMaxDnsTcpPayload, .answers = 512, .records = 1024, .addresses = 256, .steps = 16384};

/// A message taken apart. Borrows the bytes it was parsed from.
struct DnsMessage {
    ByteView bytes;
    DnsHeader header;
    std::vector<DnsQuestion> questions;
    std::vector<DnsRecord> records; ///< all sections, in the order of the message

    /// The name that makes up the whole RDATA of `record` (CNAME, PTR, NS); empty if it is not exactly one
    /// name.
    [[nodiscard]] std::optional<DnsName> rdata_name(const DnsRecord& record) const;
};

/// Either a message, or the reason why there is none (short, stable, lives forever).
struct DnsParse {
    std::optional<DnsMessage> message;
    std::string_view reason;
};

/// The header at the start of `bytes`, without its counts; empty if they are fewer than kDnsHeaderSize.
[[nodiscard]] std::optional<DnsHeader> read_dns_header(ByteView bytes);

/// Takes `bytes` apart: every section to its declared count, to the last byte and no further. Names in owners
/// are decompressed; RDATA is not looked into. At most one question.
///
///     message    := header question{QDCOUNT} record{ANCOUNT + NSCOUNT + ARCOUNT}         RFC 1035 4.1
///     header     := id(2) flags(2) QDCOUNT(2) ANCOUNT(2) NSCOUNT(2) ARCOUNT(2)
///     question   := name type(2) class(2)
///     record     := name type(2) class(2) ttl(4) rdlength(2) rdata{rdlength}
[[nodiscard]] DnsParse parse_dns_message(ByteView bytes, const DnsLimits& limits = {});

} // namespace tapgate::proto
