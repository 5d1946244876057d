// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"

#include <array>
#include <compare>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

struct sockaddr_storage;

namespace tapgate {

/// An IPv4 or IPv6 address in its one canonical form: 16 bytes, IPv4 as ::ffff:a.b.c.d (RFC 4291, 2.5.5.2).
///
/// An IPv4-mapped IPv6 address *is* the IPv4 address: both parse to the same value and compare equal, so no
/// lookup can be bypassed by spelling an address differently.
class IpAddress {
  public:
    using Bytes = std::array<std::uint8_t, 16>;

    /// The unspecified IPv6 address, ::
    constexpr IpAddress() = default;

    constexpr explicit IpAddress(const Bytes& bytes) : bytes_(bytes) {}

    /// The IPv4 address whose value in host byte order is `value`.
    static IpAddress from_v4(std::uint32_t value);

    /// Parses dotted-quad IPv4 or RFC 4291 IPv6 text, without brackets, zone or prefix length.
    static std::optional<IpAddress> parse(std::string_view text);

    [[nodiscard]] bool is_v4() const;
    /// The IPv4 value in host byte order; only when is_v4().
    [[nodiscard]] std::uint32_t v4() const;

    [[nodiscard]] const Bytes& bytes() const { return bytes_; }

    /// "192.0.2.1" or RFC 5952 text, without brackets.
    [[nodiscard]] std::string to_string() const;

    auto operator<=>(const IpAddress&) const = default;

  private:
    Bytes bytes_{};
};

/// An address block. Lengths are always over the 128-bit form: an IPv4 /24 has length 120.
class IpPrefix {
  public:
    IpPrefix() = default;

    /// `length` is over the 128-bit form, 0..128; host bits of `address` must be clear.
    IpPrefix(const IpAddress& address, unsigned length) : address_(address), length_(length) {}

    /// The block of `length` (over the 128-bit form) that holds `address`.
    static IpPrefix around(const IpAddress& address, unsigned length);

    /// A single address.
    explicit IpPrefix(const IpAddress& address) : IpPrefix(address, 128) {}

    /// Parses "ADDRESS" or "ADDRESS/LENGTH", without brackets. Host bits that are set are an error whose
    /// message names the network address. A v4-mapped CIDR (::ffff:10.0.0.0/104) is its IPv4 form;
    /// 0.0.0.0/0 covers IPv4 only.
    static Result<IpPrefix> parse(std::string_view text);

    [[nodiscard]] const IpAddress& address() const { return address_; }

    [[nodiscard]] unsigned length() const { return length_; }

    /// True if `address` lies in the block. ::/0 is all of IPv6 and nothing of IPv4.
    [[nodiscard]] bool contains(const IpAddress& address) const;

    [[nodiscard]] bool contains(const IpPrefix& other) const {
        return other.length_ >= length_ && contains(other.address_);
    }

    /// "10.0.0.0/8", "2001:db8::/32"; a single address without its length.
    [[nodiscard]] std::string to_string() const;

    auto operator<=>(const IpPrefix&) const = default;

  private:
    IpAddress address_;
    unsigned length_ = 0;
};

/// An address and a port, the port in host byte order.
struct Endpoint {
    IpAddress address;
    std::uint16_t port = 0;

    /// Parses "192.0.2.1:443" or "[2001:db8::1]:443".
    static std::optional<Endpoint> parse(std::string_view text);
    /// From a kernel socket address of family AF_INET or AF_INET6; anything else gives an empty result.
    static std::optional<Endpoint> from_sockaddr(const sockaddr_storage& storage);
    /// Writes AF_INET for IPv4 addresses and AF_INET6 otherwise; returns the length to pass to the kernel.
    [[nodiscard]] unsigned to_sockaddr(sockaddr_storage& storage) const;
    /// "192.0.2.1:443" or "[2001:db8::1]:443".
    [[nodiscard]] std::string to_string() const;

    auto operator<=>(const Endpoint&) const = default;
};

} // namespace tapgate

template <>
struct std::hash<tapgate::IpAddress> {
    std::size_t operator()(const tapgate::IpAddress& address) const noexcept;
};

template <>
struct std::hash<tapgate::Endpoint> {
    std::size_t operator()(const tapgate::Endpoint& endpoint) const noexcept {
        return std::hash<tapgate::IpAddress>{}(endpoint.address) * 31U + endpoint.port;
    }
};
