// SPDX-License-Identifier: Apache-2.0
#include "proto/dns_name.hpp"

#include "proto/ascii.hpp"

#include <algorithm>
#include <cstdint>

namespace tapgate::proto {

namespace {

// RFC 1035 4.1.4: the top two bits of a length octet. 01 and 10 are reserved.
constexpr std::uint8_t kPointerBits = 0xc0;
constexpr std::size_t kHeaderSize = 12;

constexpr bool is_plain(char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

void append_escaped(std::string& text, char octet) {
    const auto value = static_cast<std::uint8_t>(octet);
    text += '\\';
    text += static_cast<char>('0' + value / 100);
    text += static_cast<char>('0' + value / 10 % 10);
    text += static_cast<char>('0' + value % 10);
}

} // namespace

std::optional<DnsName> DnsName::from_text(std::string_view text) {
    if (text.ends_with('.'))
        text.remove_suffix(1);
    std::string wire;
    while (!text.empty()) {
        const std::size_t dot = std::min(text.find('.'), text.size());
        if (dot == 0 || dot > kMaxDnsLabelSize || dot + 1 == text.size())
            return std::nullopt;
        wire += static_cast<char>(dot);
        wire += text.substr(0, dot);
        text.remove_prefix(std::min(dot + 1, text.size()));
    }
    wire += '\0';
    if (wire.size() > kMaxDnsNameSize)
        return std::nullopt;
    return DnsName(std::move(wire));
}

ByteView DnsName::wire() const {
    return {reinterpret_cast<const std::uint8_t*>(wire_.data()), wire_.size()};
}

std::string DnsName::text() const {
    if (is_root())
        return ".";
    std::string text;
    for (std::size_t at = 0; wire_[at] != '\0';) {
        const auto length = static_cast<std::uint8_t>(wire_[at]);
        if (at != 0)
            text += '.';
        for (std::size_t i = at + 1; i <= at + length; ++i) {
            const char octet = to_lower(wire_[i]);
            if (is_plain(octet))
                text += octet;
            else
                append_escaped(text, octet);
        }
        at += 1U + length;
    }
    return text;
}

DnsName DnsName::lower() const {
    // Length octets are at most 63, below 'A', so the whole wire form can be folded.
    DnsName name = *this;
    std::ranges::transform(name.wire_, name.wire_.begin(), to_lower);
    return name;
}

DnsName DnsName::with_case(ByteView bits) const {
    DnsName name = lower();
    for (std::size_t i = 0; i < std::min(name.wire_.size(), bits.size() * 8); ++i) {
        if ((bits[i / 8] >> (i % 8) & 1U) != 0)
            name.wire_[i] = to_upper(name.wire_[i]);
    }
    return name;
}

bool DnsName::same_as(const DnsName& other) const {
    return same_text(wire_, other.wire_);
}

std::optional<DnsNameReader::Read> DnsNameReader::read(std::size_t offset) {
    std::string wire;
    std::optional<std::size_t> end;
    std::size_t run_start = offset;
    std::size_t at = offset;
    while (at < message_.size()) {
        if (++steps_ > max_steps_)
            return std::nullopt;
        const std::uint8_t length = message_[at];
        if (length <= kMaxDnsLabelSize) {
            if (wire.size() + 1 + length > kMaxDnsNameSize || length >= message_.size() - at)
                return std::nullopt;
            const ByteView label = message_.subspan(at, 1U + length);
            wire.append(label.begin(), label.end());
            at += label.size();
            if (length == 0)
                return Read{DnsName(std::move(wire)), end.value_or(at)};
            continue;
        }
        if ((length & kPointerBits) != kPointerBits || message_.size() - at < 2)
            return std::nullopt;
        const std::size_t target = static_cast<std::size_t>(length & ~kPointerBits) << 8U | message_[at + 1];
        if (target < kHeaderSize || target >= run_start)
            return std::nullopt;
        end = end.value_or(at + 2);
        run_start = target;
        at = target;
    }
    return std::nullopt;
}

} // namespace tapgate::proto
