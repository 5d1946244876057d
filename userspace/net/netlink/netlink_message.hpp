// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/bytes.hpp"
#include "base/ip.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include <linux/netlink.h>

namespace tapgate::net {

/// A netlink request under construction: header, the family's fixed header, attributes (netlink(7)).
class NetlinkRequest {
  public:
    template <typename Family>
    NetlinkRequest(std::uint16_t type, std::uint16_t flags, const Family& family) {
        static_assert(std::is_trivially_copyable_v<Family>);
        nlmsghdr header{};
        header.nlmsg_type = type;
        header.nlmsg_flags = static_cast<std::uint16_t>(flags | NLM_F_REQUEST);
        append(&header, sizeof(header));
        append(&family, sizeof(family));
    }

    void add_u32(std::uint16_t type, std::uint32_t value) { add(type, &value, sizeof(value)); }

    void add_u8(std::uint16_t type, std::uint8_t value) { add(type, &value, sizeof(value)); }

    /// Four bytes for IPv4, sixteen for IPv6.
    void add_address(std::uint16_t type, const IpAddress& address);

    /// The finished message, with its length and `sequence` filled in.
    [[nodiscard]] std::vector<std::uint8_t> finish(std::uint32_t sequence) const;

  private:
    void add(std::uint16_t type, const void* value, std::size_t size);
    void append(const void* data, std::size_t size); // padded to 4 bytes

    std::vector<std::uint8_t> bytes_;
};

/// One message as received. Views into the receive buffer.
struct NetlinkMessage {
    nlmsghdr header;
    ByteView payload;

    /// The family's fixed header; nothing if the message is too short.
    template <typename Family>
    [[nodiscard]] std::optional<Family> family() const {
        static_assert(std::is_trivially_copyable_v<Family>);
        Family out{};
        if (payload.size() < sizeof(out))
            return std::nullopt;
        std::memcpy(&out, payload.data(), sizeof(out));
        return out;
    }

    /// The attributes after a fixed header of `family_size` bytes.
    [[nodiscard]] ByteView attributes(std::size_t family_size) const;
};

/// Splits what one receive call returned into messages. Stops at the first one that is malformed.
[[nodiscard]] std::vector<NetlinkMessage> split_messages(ByteView bytes);

/// The value of the first attribute of that type, nested and byte-order flags ignored.
[[nodiscard]] std::optional<ByteView> find_attribute(ByteView attributes, std::uint16_t type);

[[nodiscard]] std::optional<std::uint32_t> attribute_u32(ByteView attributes, std::uint16_t type);
/// A NUL-terminated string.
[[nodiscard]] std::optional<std::string> attribute_string(ByteView attributes, std::uint16_t type);
/// Four bytes as IPv4, sixteen as IPv6.
[[nodiscard]] std::optional<IpAddress> attribute_address(ByteView attributes, std::uint16_t type);

} // namespace tapgate::net
