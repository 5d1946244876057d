// SPDX-License-Identifier: Apache-2.0
#include "net/netlink/netlink_message.hpp"

#include <algorithm>

#include <linux/rtnetlink.h>

namespace tapgate::net {

namespace {

constexpr std::size_t padded(std::size_t size) {
    return (size + 3) & ~std::size_t{3};
}

} // namespace

void NetlinkRequest::append(const void* data, std::size_t size) {
    const std::size_t at = bytes_.size();
    bytes_.resize(at + padded(size));
    std::memcpy(bytes_.data() + at, data, size);
}

void NetlinkRequest::add(std::uint16_t type, const void* value, std::size_t size) {
    rtattr header{};
    header.rta_type = type;
    header.rta_len = static_cast<std::uint16_t>(sizeof(header) + size);
    append(&header, sizeof(header));
    append(value, size);
}

void NetlinkRequest::add_address(std::uint16_t type, const IpAddress& address) {
    const ByteView bytes = ByteView(address.bytes()).subspan(address.is_v4() ? 12 : 0);
    add(type, bytes.data(), bytes.size());
}

std::vector<std::uint8_t> NetlinkRequest::finish(std::uint32_t sequence) const {
    std::vector<std::uint8_t> out = bytes_;
    nlmsghdr header{};
    std::memcpy(&header, out.data(), sizeof(header));
    header.nlmsg_len = static_cast<std::uint32_t>(out.size());
    header.nlmsg_seq = sequence;
    std::memcpy(out.data(), &header, sizeof(header));
    return out;
}

ByteView NetlinkMessage::attributes(std::size_t family_size) const {
    return payload.subspan(std::min(padded(family_size), payload.size()));
}

std::vector<NetlinkMessage> split_messages(ByteView bytes) {
    std::vector<NetlinkMessage> messages;
    while (bytes.size() >= sizeof(nlmsghdr)) {
        NetlinkMessage message{};
        std::memcpy(&message.header, bytes.data(), sizeof(message.header));
        const std::size_t length = message.header.nlmsg_len;
        if (length < sizeof(nlmsghdr) || length > bytes.size())
            break;
        message.payload = bytes.subspan(sizeof(nlmsghdr), length - sizeof(nlmsghdr));
        messages.push_back(message);
        bytes = bytes.subspan(std::min(padded(length), bytes.size()));
    }
    return messages;
}

std::optional<ByteView> find_attribute(ByteView attributes, std::uint16_t type) {
    while (attributes.size() >= sizeof(rtattr)) {
        rtattr header{};
        std::memcpy(&header, attributes.data(), sizeof(header));
        if (header.rta_len < sizeof(header) || header.rta_len > attributes.size())
            break;
        if ((header.rta_type & NLA_TYPE_MASK) == type)
            return attributes.subspan(sizeof(header), header.rta_len - sizeof(header));
        attributes = attributes.subspan(std::min(padded(header.rta_len), attributes.size()));
    }
    return std::nullopt;
}

std::optional<std::uint32_t> attribute_u32(ByteView attributes, std::uint16_t type) {
    const auto value = find_attribute(attributes, type);
    std::uint32_t out = 0;
    if (!value || value->size() != sizeof(out))
        return std::nullopt;
    std::memcpy(&out, value->data(), sizeof(out));
    return out;
}

std::optional<std::string> attribute_string(ByteView attributes, std::uint16_t type) {
    const auto value = find_attribute(attributes, type);
    if (!value)
        return std::nullopt;
    return std::string(value->begin(), std::ranges::find(*value, std::uint8_t{0}));
}

std::optional<IpAddress> attribute_address(ByteView attributes, std::uint16_t type) {
    const auto value = find_attribute(attributes, type);
    if (!value)
        return std::nullopt;
    if (value->size() == 4) {
        ByteReader reader(*value);
        return IpAddress::from_v4(*reader.u32());
    }
    IpAddress::Bytes bytes{};
    if (value->size() != bytes.size())
        return std::nullopt;
    std::ranges::copy(*value, bytes.begin());
    return IpAddress(bytes);
}

} // namespace tapgate::net
