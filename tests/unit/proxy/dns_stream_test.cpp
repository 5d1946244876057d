// SPDX-License-Identifier: Apache-2.0
#include "proxy/dns_stream.hpp"

#include <gtest/gtest.h>

#include <algorithm>

namespace tapgate::proxy {
namespace {

using Bytes = std::vector<std::uint8_t>;

/// The messages in `stream` if it arrives in pieces of `size`.
std::vector<Bytes> messages_of(const Bytes& stream, std::size_t size) {
    DnsStreamReader reader;
    std::vector<Bytes> messages;
    for (std::size_t at = 0; at < stream.size();) {
        const std::size_t taken = std::min({size, reader.wanted(), stream.size() - at});
        reader.add(ByteView(stream).subspan(at, taken));
        at += taken;
        if (auto message = reader.next())
            messages.push_back(std::move(*message));
    }
    return messages;
}

TEST(DnsStream, B16_messages_are_the_same_however_the_stream_is_cut) {
    const std::vector<Bytes> sent = {Bytes(12, 1), Bytes(1, 2), Bytes(300, 3), Bytes{}, Bytes(65535, 4)};
    Bytes stream;
    for (const Bytes& message : sent) {
        const Bytes frame = dns_frame(message);
        stream.insert(stream.end(), frame.begin(), frame.end());
    }
    // One byte at a time the length field is cut in two.
    for (const std::size_t size : {1UL, 2UL, 3UL, 7UL, 4096UL, 100000UL})
        EXPECT_EQ(messages_of(stream, size), sent) << size;
}

TEST(DnsStream, an_incomplete_message_is_none) {
    const Bytes frame = dns_frame(Bytes(40, 7));
    for (std::size_t size = 0; size < frame.size(); ++size) {
        const Bytes cut(frame.begin(), frame.begin() + static_cast<std::ptrdiff_t>(size));
        EXPECT_TRUE(messages_of(cut, cut.size() + 1).empty()) << size;
    }
}

TEST(DnsStream, it_never_wants_more_than_the_message_at_hand) {
    DnsStreamReader reader;
    EXPECT_EQ(reader.wanted(), 2U);
    EXPECT_TRUE(reader.is_idle());
    reader.add(Bytes{0});
    EXPECT_EQ(reader.wanted(), 1U);
    EXPECT_FALSE(reader.is_idle());
    reader.add(Bytes{5});
    EXPECT_EQ(reader.wanted(), 5U);
    reader.add(Bytes{1, 2, 3, 4, 5});
    EXPECT_EQ(reader.next(), (Bytes{1, 2, 3, 4, 5}));
    EXPECT_EQ(reader.wanted(), 2U);
}

} // namespace
} // namespace tapgate::proxy
