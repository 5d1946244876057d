// SPDX-License-Identifier: Apache-2.0
#include "proto/dns_writer.hpp"

namespace tapgate::proto {

namespace {

constexpr std::uint32_t kDnssecOk = 0x8000; // RFC 3225

} // namespace

void DnsWriter::u16(std::uint16_t value) {
    u8(static_cast<std::uint8_t>(value >> 8U));
    u8(static_cast<std::uint8_t>(value & 0xffU));
}

void DnsWriter::u32(std::uint32_t value) {
    u16(static_cast<std::uint16_t>(value >> 16U));
    u16(static_cast<std::uint16_t>(value & 0xffffU));
}

void DnsWriter::header(const DnsHeader& header, bool question, bool additional) {
    u16(header.id);
    u16(pack_dns_flags(header));
    u16(question ? 1 : 0);
    u16(0);
    u16(0);
    u16(additional ? 1 : 0);
}

void DnsWriter::question(const DnsQuestion& question) {
    bytes(question.name.wire());
    u16(question.type);
    u16(question.klass);
}

void DnsWriter::opt(bool dnssec_ok, std::uint8_t extended_rcode, ByteView options) {
    u8(0); // owner: the root
    u16(static_cast<std::uint16_t>(DnsType::kOpt));
    u16(kMaxDnsUdpPayload);
    u32(static_cast<std::uint32_t>(extended_rcode) << 24U | (dnssec_ok ? kDnssecOk : 0));
    u16(static_cast<std::uint16_t>(options.size()));
    bytes(options);
}

std::uint16_t pack_dns_flags(const DnsHeader& header) {
    const auto bit = [](bool set, unsigned position) { return set ? 1U << position : 0U; };
    return static_cast<std::uint16_t>(
        bit(header.response, 15) | (header.opcode & 0xfU) << 11U | bit(header.authoritative, 10) |
        bit(header.truncated, 9) | bit(header.recursion_desired, 8) | bit(header.recursion_available, 7) |
        bit(header.authentic_data, 5) | bit(header.checking_disabled, 4) | (header.rcode & 0xfU));
}

DnsHeader answer_header(const DnsQuery& query) {
    DnsHeader header;
    header.id = query.id;
    header.response = true;
    header.opcode = query.opcode;
    header.recursion_desired = query.recursion_desired;
    header.recursion_available = true;
    header.checking_disabled = query.checking_disabled;
    return header;
}

} // namespace tapgate::proto
