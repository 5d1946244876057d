// SPDX-License-Identifier: Apache-2.0
#include "net/netlink/netlink_message.hpp"

#include <gtest/gtest.h>

#include <linux/rtnetlink.h>

namespace tapgate::net {
namespace {

std::vector<std::uint8_t> sample() {
    NetlinkRequest request(RTM_NEWROUTE, NLM_F_ACK, rtmsg{});
    request.add_u8(RTA_PREF, 7);
    request.add_u32(RTA_TABLE, 29793);
    return request.finish(5);
}

TEST(NetlinkMessageTest, what_is_built_is_read_back) {
    const auto bytes = sample();
    const auto messages = split_messages(bytes);
    ASSERT_EQ(messages.size(), 1U);
    EXPECT_EQ(messages[0].header.nlmsg_seq, 5U);
    EXPECT_EQ(messages[0].header.nlmsg_flags, NLM_F_ACK | NLM_F_REQUEST);
    EXPECT_EQ(attribute_u32(messages[0].attributes(sizeof(rtmsg)), RTA_TABLE), 29793U);
    EXPECT_FALSE(attribute_u32(messages[0].attributes(sizeof(rtmsg)), RTA_OIF));
    EXPECT_FALSE(attribute_u32(messages[0].attributes(sizeof(rtmsg)), RTA_PREF)) << "of another size";
}

TEST(NetlinkMessageTest, cut_at_every_offset_nothing_is_read_beyond_the_end) {
    const auto bytes = sample();
    for (std::size_t length = 0; length < bytes.size(); ++length) {
        // A copy of its own, so that the sanitizer sees a read beyond it.
        const std::vector<std::uint8_t> cut(bytes.begin(),
                                            bytes.begin() + static_cast<std::ptrdiff_t>(length));
        EXPECT_TRUE(split_messages(cut).empty());
        const std::size_t headers = sizeof(nlmsghdr) + sizeof(rtmsg);
        if (length < headers)
            continue;
        const auto table = attribute_u32(ByteView(cut).subspan(headers), RTA_TABLE);
        EXPECT_FALSE(table);
    }
}

TEST(NetlinkMessageTest, lengths_that_lie_end_the_reading) {
    auto bytes = sample();
    const std::size_t first_attribute = sizeof(nlmsghdr) + sizeof(rtmsg);
    for (const std::uint8_t length : {0, 1, 3, 200}) {
        bytes[first_attribute] = length;
        EXPECT_FALSE(attribute_u32(ByteView(bytes).subspan(first_attribute), RTA_TABLE));
    }
    for (const std::uint8_t length : {0, 15, 255}) {
        bytes[0] = length;
        EXPECT_TRUE(split_messages(bytes).empty());
    }
}

} // namespace
} // namespace tapgate::net
