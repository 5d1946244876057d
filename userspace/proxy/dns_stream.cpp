// SPDX-License-Identifier: Apache-2.0
#include "proxy/dns_stream.hpp"

#include "base/result.hpp"

#include <algorithm>
#include <utility>

namespace tapgate::proxy {

std::optional<std::size_t> DnsStreamReader::whole() const {
    const auto length = ByteReader(bytes_).u16();
    return length ? std::optional<std::size_t>(kLengthSize + *length) : std::nullopt;
}

std::size_t DnsStreamReader::wanted() const {
    return whole().value_or(kLengthSize) - bytes_.size();
}

void DnsStreamReader::add(ByteView bytes) {
    TAPGATE_ASSERT(bytes.size() <= wanted());
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
}

std::optional<std::vector<std::uint8_t>> DnsStreamReader::next() {
    if (whole() != bytes_.size())
        return std::nullopt;
    std::vector<std::uint8_t> message(bytes_.begin() + kLengthSize, bytes_.end());
    bytes_ = {};
    return message;
}

std::vector<std::uint8_t> dns_frame(ByteView message) {
    TAPGATE_ASSERT(message.size() <= UINT16_MAX);
    std::vector<std::uint8_t> frame(sizeof(std::uint16_t) + message.size());
    frame[0] = static_cast<std::uint8_t>(message.size() >> 8U);
    frame[1] = static_cast<std::uint8_t>(message.size() & 0xffU);
    std::ranges::copy(message, frame.begin() + sizeof(std::uint16_t));
    return frame;
}

} // namespace tapgate::proxy
