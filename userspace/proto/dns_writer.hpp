// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "proto/dns_message.hpp"
#include "proto/dns_query.hpp"

#include <cstdint>
#include <optional>
#include <vector>

// How the codec puts messages together; private to proto.
namespace tapgate::proto {

/// Appends numbers in network order, names and bytes to a message.
class DnsWriter {
  public:
    void u8(std::uint8_t value) { bytes_.push_back(value); }

    void u16(std::uint16_t value);
    void u32(std::uint32_t value);

    void bytes(ByteView view) { bytes_.insert(bytes_.end(), view.begin(), view.end()); }

    /// The header with section counts of 0 or 1 question and 0 or 1 additional record, and no other.
    void header(const DnsHeader& header, bool question, bool additional);
    void question(const DnsQuestion& question);
    /// An OPT record with our own payload size and `options`, already encoded (RFC 6891 6.1.2).
    void opt(bool dnssec_ok, std::uint8_t extended_rcode, ByteView options);

    [[nodiscard]] std::vector<std::uint8_t> take() { return std::move(bytes_); }

    [[nodiscard]] std::size_t size() const { return bytes_.size(); }

  private:
    std::vector<std::uint8_t> bytes_;
};

/// The second word of the header.
[[nodiscard]] std::uint16_t pack_dns_flags(const DnsHeader& header);

/// The header fields of every answer to `query`: id, opcode, RD and CD as asked, QR and RA set.
[[nodiscard]] DnsHeader answer_header(const DnsQuery& query);

} // namespace tapgate::proto
