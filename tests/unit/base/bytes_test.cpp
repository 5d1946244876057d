// SPDX-License-Identifier: Apache-2.0
#include "base/bytes.hpp"

#include <gtest/gtest.h>

#include <array>

namespace tapgate {
namespace {

constexpr std::array<std::uint8_t, 10> kBytes = {0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0xff, 0xfe, 0xfd, 0xfc};

TEST(ByteReader, numbers_are_read_in_network_order) {
    ByteReader reader{ByteView(kBytes)};
    EXPECT_EQ(reader.u8(), 0x01);
    EXPECT_EQ(reader.u16(), 0x0203);
    EXPECT_EQ(reader.u24(), 0x040506U);
    EXPECT_EQ(reader.u32(), 0xfffefdfcU);
    EXPECT_TRUE(reader.at_end());
}

TEST(ByteReader, a_read_past_the_end_gives_nothing_and_does_not_move) {
    ByteReader reader{ByteView(kBytes).first(3)};
    EXPECT_FALSE(reader.u32().has_value());
    EXPECT_EQ(reader.position(), 0U);
    EXPECT_EQ(reader.u24(), 0x010203U);
    EXPECT_FALSE(reader.u8().has_value());
    EXPECT_EQ(reader.position(), 3U);
}

TEST(ByteReader, take_is_a_view_into_the_input) {
    ByteReader reader{ByteView(kBytes)};
    const auto view = reader.take(4);
    ASSERT_TRUE(view.has_value());
    EXPECT_EQ(view->data(), kBytes.data());
    EXPECT_EQ(view->size(), 4U);
    EXPECT_EQ(reader.remaining(), 6U);
}

TEST(ByteReader, taking_nothing_succeeds_even_at_the_end) {
    ByteReader reader{ByteView()};
    EXPECT_TRUE(reader.take(0).has_value());
    EXPECT_FALSE(reader.take(1).has_value());
}

TEST(ByteReader, a_length_near_the_top_of_its_type_cannot_wrap_around) {
    ByteReader reader{ByteView(kBytes)};
    ASSERT_TRUE(reader.u16().has_value());
    EXPECT_FALSE(reader.take(static_cast<std::size_t>(-1)).has_value());
    EXPECT_EQ(reader.position(), 2U);
}

} // namespace
} // namespace tapgate
