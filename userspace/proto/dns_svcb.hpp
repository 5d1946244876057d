// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/ip.hpp"
#include "proto/dns_message.hpp"

#include <cstdint>
#include <optional>
#include <vector>

// SVCB and HTTPS records (RFC 9460): where a service is, and with which keys to talk to it.
namespace tapgate::proto {

/// The parameters that the gateway looks at (RFC 9460 14.3.2).
enum class SvcParamKey : std::uint16_t {
    kIpv4Hint = 4,
    kEch = 5,
    kIpv6Hint = 6,
};

/// One parameter, a view into the message.
struct SvcParam {
    std::uint16_t key = 0; ///< a number, since any is possible on the wire
    ByteView value;
    ByteView whole; ///< key and length included
};

/// The RDATA of an SVCB or HTTPS record, taken apart.
struct SvcRecord {
    std::uint16_t priority = 0; ///< 0: alias form
    ByteView head;              ///< priority and target name
    std::vector<SvcParam> params;
};

[[nodiscard]] bool is_svcb(const DnsRecord& record);

/// Reads the RDATA of `record`; empty if it is malformed: keys out of order or twice, an ill-formed or
/// compressed target, a length that does not fit, more than kMaxSvcParams.
///
///     rdata := priority(2) target param*                                            RFC 9460 2.2
///     param := key(2) length(2) value{length}        keys strictly ascending
[[nodiscard]] std::optional<SvcRecord> parse_svcb(const DnsRecord& record);

/// More parameters than this make a record malformed; no service has a tenth of them.
inline constexpr std::size_t kMaxSvcParams = 32;

/// The addresses of `ipv4hint` and `ipv6hint`; empty if the record is malformed or a hint is not a whole
/// number of addresses, at least one. The alias form has none: its parameters mean nothing (RFC 9460 2.4.2).
[[nodiscard]] std::optional<std::vector<IpAddress>> svcb_hints(const DnsRecord& record);

/// True if an SVCB or HTTPS record of `message` carries `ech`, or cannot be read.
[[nodiscard]] bool carries_ech(const DnsMessage& message);

/// `message` again without `ech` in any SVCB or HTTPS record. Signatures over those types would not verify
/// any more: they go, and with them AD. Names are written uncompressed, except owners that are the question
/// name. Empty if that is not possible: a malformed SVCB record or name, or a record of one of the types of
/// old whose RDATA may hold compressed names (RFC 3597 4).
[[nodiscard]] std::optional<std::vector<std::uint8_t>> without_ech(const DnsMessage& message);

} // namespace tapgate::proto
