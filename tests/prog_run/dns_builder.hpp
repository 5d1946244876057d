// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "packet_builder.hpp"

#include <cstdint>
#include <string>
#include <string_view>

// DNS messages put together record by record; every length and count can be set wrong afterwards.
namespace tapgate::test {

inline constexpr std::uint16_t kTypeA = 1;
inline constexpr std::uint16_t kTypeNs = 2;
inline constexpr std::uint16_t kTypeCname = 5;
inline constexpr std::uint16_t kTypeTxt = 16;
inline constexpr std::uint16_t kTypeAaaa = 28;
inline constexpr std::uint16_t kTypeSvcb = 64;
inline constexpr std::uint16_t kTypeHttps = 65;

/// Parameters of services (RFC 9460 14.3.2).
inline constexpr std::uint16_t kKeyAlpn = 1;
inline constexpr std::uint16_t kKeyIpv4Hint = 4;
inline constexpr std::uint16_t kKeyIpv6Hint = 6;

/// The wire form of dotted text; "" is the root.
inline Bytes dns_name(std::string_view text) {
    Bytes wire;
    while (!text.empty()) {
        const auto dot = std::min(text.find('.'), text.size());
        put8(wire, static_cast<unsigned>(dot));
        append(wire, text.substr(0, dot));
        text.remove_prefix(std::min(dot + 1, text.size()));
    }
    put8(wire, 0);
    return wire;
}

inline Bytes dns_pointer(unsigned offset) {
    Bytes wire;
    put16(wire, 0xc000U | offset);
    return wire;
}

/// Points at the question name, which is always at the same offset.
inline Bytes dns_question_pointer() {
    return dns_pointer(12);
}

/// One parameter of a service.
inline Bytes dns_param(unsigned key, const Bytes& value) {
    Bytes wire;
    put16(wire, key);
    put16(wire, static_cast<unsigned>(value.size()));
    append(wire, value);
    return wire;
}

/// The addresses one behind the other, as hints have them.
inline Bytes dns_hints(std::initializer_list<std::string_view> addresses) {
    Bytes wire;
    for (const std::string_view address : addresses)
        append(wire, address_bytes(*IpAddress::parse(address)));
    return wire;
}

/// The RDATA of an SVCB or HTTPS record.
inline Bytes dns_service(unsigned priority, const Bytes& target, std::initializer_list<Bytes> params) {
    Bytes wire;
    put16(wire, priority);
    append(wire, target);
    for (const Bytes& param : params)
        append(wire, param);
    return wire;
}

class DnsBuilder {
  public:
    DnsBuilder(std::uint16_t id, std::uint16_t flags, const Bytes& name, std::uint16_t type,
               std::uint16_t klass = 1) {
        put16(bytes_, id);
        put16(bytes_, flags);
        put16(bytes_, 1);
        put16(bytes_, 0);
        put32(bytes_, 0);
        append(bytes_, name);
        put16(bytes_, type);
        put16(bytes_, klass);
    }

    /// Adds a record to the section whose count is at header offset `count_at`: 6, 8 or 10, in this order.
    DnsBuilder& record(const Bytes& owner, std::uint16_t type, std::uint32_t ttl, const Bytes& rdata,
                       std::uint16_t klass = 1, std::size_t count_at = 6) {
        append(bytes_, owner);
        put16(bytes_, type);
        put16(bytes_, klass);
        put32(bytes_, ttl);
        put16(bytes_, static_cast<unsigned>(rdata.size()));
        append(bytes_, rdata);
        set16(bytes_, count_at, get16(bytes_, count_at) + 1U);
        return *this;
    }

    DnsBuilder& address(const Bytes& owner, std::uint32_t ttl, std::string_view text) {
        const auto address = *IpAddress::parse(text);
        return record(owner, address.is_v4() ? kTypeA : kTypeAaaa, ttl, address_bytes(address));
    }

    [[nodiscard]] const Bytes& bytes() const { return bytes_; }

  private:
    Bytes bytes_;
};

} // namespace tapgate::test
