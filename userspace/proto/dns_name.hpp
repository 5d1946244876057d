// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/bytes.hpp"

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace tapgate::proto {

/// RFC 1035 2.3.4: a name is at most 255 octets on the wire, a label at most 63.
inline constexpr std::size_t kMaxDnsNameSize = 255;
inline constexpr std::size_t kMaxDnsLabelSize = 63;

/// An uncompressed DNS name as it stood on the wire, letters in their case: length-prefixed labels and the
/// root.
///
///     name  := label* 0x00                       RFC 1035 3.1
///     label := length(1..63) octet{length}       any octet, NUL and '.' included
class DnsName {
  public:
    /// The root.
    DnsName() : wire_(1, '\0') {}

    /// From dotted text without escapes; one trailing dot is allowed, "." is the root. Empty if a label is
    /// empty or longer than 63 octets or the name is too long.
    static std::optional<DnsName> from_text(std::string_view text);

    /// The wire form, the root's zero octet included.
    [[nodiscard]] ByteView wire() const;

    [[nodiscard]] bool is_root() const { return wire_.size() == 1; }

    /// Lower-case dotted text without the trailing dot, safe to print: octets other than letters, digits, '-'
    /// and '_' as \DDD (RFC 1035 5.1). The root is ".".
    [[nodiscard]] std::string text() const;
    /// The same name in lower case, the form to hash and compare (RFC 4343).
    [[nodiscard]] DnsName lower() const;
    /// The same name with letter number i (counting every octet of the wire form) in upper case where bit i
    /// of `bits`, least significant first, is set, and in lower case elsewhere.
    [[nodiscard]] DnsName with_case(ByteView bits) const;

    /// Equal up to ASCII case (RFC 4343).
    [[nodiscard]] bool same_as(const DnsName& other) const;
    /// Equal octet by octet, case included.
    bool operator==(const DnsName&) const = default;

  private:
    friend class DnsNameReader;

    explicit DnsName(std::string wire) : wire_(std::move(wire)) {}

    std::string wire_;
};

/// Reads names out of one message, following compression (RFC 1035 4.1.4) under bounds.
///
/// A pointer must go strictly backwards: to an offset behind the header and before the start of the run of
/// labels it ends. So no loop is possible, and what one name costs is bounded by its 255 octets. All names of
/// a message together may take so many labels and pointers: a hostile message stays cheap.
class DnsNameReader {
  public:
    /// Labels, pointers and roots over the whole message; the budget of the BPF parser.
    static constexpr std::size_t kMaxSteps = 1024;

    /// `message` is borrowed and starts at the DNS header.
    explicit DnsNameReader(ByteView message, std::size_t max_steps = kMaxSteps)
        : message_(message), max_steps_(max_steps) {}

    struct Read {
        DnsName name;
        std::size_t end = 0; ///< offset behind the name where it was read, not where a pointer led
    };

    /// The name at `offset`; empty if it is malformed or over a bound.
    [[nodiscard]] std::optional<Read> read(std::size_t offset);

  private:
    ByteView message_;
    std::size_t max_steps_;
    std::size_t steps_ = 0;
};

} // namespace tapgate::proto
