// SPDX-License-Identifier: Apache-2.0
#include "base/ip.hpp"

#include <gtest/gtest.h>

#include <sys/socket.h>

namespace tapgate {
namespace {

IpAddress address(std::string_view text) {
    return IpAddress::parse(text).value();
}

IpPrefix prefix(std::string_view text) {
    const auto parsed = IpPrefix::parse(text);
    EXPECT_TRUE(parsed.has_value()) << text;
    return parsed.value_or(IpPrefix{});
}

std::string prefix_error(std::string_view text) {
    const auto parsed = IpPrefix::parse(text);
    return parsed ? "no error" : parsed.error().message();
}

TEST(IpAddress, a_v4_mapped_address_is_its_ipv4_address) {
    EXPECT_EQ(address("::ffff:192.0.2.1"), address("192.0.2.1"));
    EXPECT_EQ(address("::ffff:c000:201"), address("192.0.2.1"));
    EXPECT_EQ(std::hash<IpAddress>{}(address("::ffff:192.0.2.1")),
              std::hash<IpAddress>{}(address("192.0.2.1")));
    EXPECT_EQ(address("::ffff:192.0.2.1").to_string(), "192.0.2.1");
}

TEST(IpAddress, a_v4_compatible_address_is_not_its_ipv4_address) {
    EXPECT_NE(address("::192.0.2.1"), address("192.0.2.1"));
    EXPECT_FALSE(address("::192.0.2.1").is_v4());
}

TEST(IpAddress, values_and_bytes_agree) {
    EXPECT_EQ(IpAddress::from_v4(0xc0000201), address("192.0.2.1"));
    EXPECT_EQ(address("192.0.2.1").v4(), 0xc0000201U);
    EXPECT_EQ(address("2001:db8::1").bytes().at(15), 1);
}

TEST(IpAddress, text_is_canonical) {
    EXPECT_EQ(address("2001:DB8:0:0::0:1").to_string(), "2001:db8::1");
    EXPECT_EQ(IpAddress().to_string(), "::");
}

TEST(IpAddress, text_that_is_not_exactly_one_address_is_refused) {
    for (const std::string_view text :
         {"", " 192.0.2.1", "192.0.2.1 ", "192.0.2", "192.0.2.256", "0xc0.0.2.1", "192.0.2.01.1",
          "[2001:db8::1]", "2001:db8::1%eth0", "2001:db8::1/64", "2001:db8:::1", "example.com", "1"})
        EXPECT_FALSE(IpAddress::parse(text).has_value()) << text;
    EXPECT_FALSE(IpAddress::parse(std::string_view("192.0.2.1\0", 10)).has_value());
    EXPECT_FALSE(IpAddress::parse(std::string(1000, '1')).has_value());
}

TEST(IpPrefix, contains_its_block_and_nothing_else) {
    const IpPrefix block = prefix("192.0.2.128/25");
    EXPECT_TRUE(block.contains(address("192.0.2.128")));
    EXPECT_TRUE(block.contains(address("192.0.2.255")));
    EXPECT_FALSE(block.contains(address("192.0.2.127")));
    EXPECT_FALSE(block.contains(address("192.0.3.0")));
    EXPECT_TRUE(prefix("2001:db8::/33").contains(address("2001:db8:7fff::1")));
    EXPECT_FALSE(prefix("2001:db8::/33").contains(address("2001:db8:8000::1")));
}

TEST(IpPrefix, all_of_one_family_holds_nothing_of_the_other) {
    EXPECT_TRUE(prefix("0.0.0.0/0").contains(address("203.0.113.1")));
    EXPECT_FALSE(prefix("0.0.0.0/0").contains(address("2001:db8::1")));
    EXPECT_TRUE(prefix("::/0").contains(address("2001:db8::1")));
    EXPECT_FALSE(prefix("::/0").contains(address("203.0.113.1")));
}

TEST(IpPrefix, a_mapped_block_is_its_ipv4_block) {
    EXPECT_EQ(prefix("::ffff:10.0.0.0/104"), prefix("10.0.0.0/8"));
    EXPECT_EQ(prefix("10.0.0.0/8").length(), 104U);
    EXPECT_EQ(prefix("::ffff:10.0.0.0/104").to_string(), "10.0.0.0/8");
}

TEST(IpPrefix, a_block_contains_blocks_inside_it) {
    EXPECT_TRUE(prefix("10.0.0.0/8").contains(prefix("10.1.0.0/16")));
    EXPECT_FALSE(prefix("10.1.0.0/16").contains(prefix("10.0.0.0/8")));
    EXPECT_TRUE(prefix("10.0.0.1").contains(prefix("10.0.0.1/32")));
}

TEST(IpPrefix, host_bits_are_an_error_that_names_the_network) {
    EXPECT_EQ(prefix_error("10.1.2.3/8"), "10.1.2.3/8 has host bits set; the network is 10.0.0.0/8");
    EXPECT_EQ(prefix_error("2001:db8::1/32"),
              "2001:db8::1/32 has host bits set; the network is 2001:db8::/32");
}

TEST(IpPrefix, bad_lengths_and_addresses_say_what_would_be_right) {
    EXPECT_EQ(prefix_error("10.0.0.0/33"), "'33' is not a prefix length (0 to 32)");
    EXPECT_EQ(prefix_error("2001:db8::/129"), "'129' is not a prefix length (0 to 128)");
    EXPECT_EQ(prefix_error("10.0.0.0/"), "'' is not a prefix length (0 to 32)");
    EXPECT_EQ(prefix_error("10.0.0.0/-1"), "'-1' is not a prefix length (0 to 32)");
    EXPECT_EQ(prefix_error("10.0.0.0/8 "), "'8 ' is not a prefix length (0 to 32)");
    EXPECT_EQ(prefix_error("10.0.0/8"), "'10.0.0' is not an IP address");
}

TEST(Endpoint, text_of_both_families_is_read_back) {
    for (const std::string_view text : {"192.0.2.1:443", "[2001:db8::1]:53"})
        EXPECT_EQ(Endpoint::parse(text).value().to_string(), text);
}

TEST(Endpoint, ambiguous_or_incomplete_text_is_refused) {
    for (const std::string_view text :
         {"192.0.2.1", "192.0.2.1:", "192.0.2.1:65536", "192.0.2.1:x", "2001:db8::1:53", "[2001:db8::1]",
          "[2001:db8::1]53", ":53", "[]:53", "host:53", "192.0.2.1:+53"})
        EXPECT_FALSE(Endpoint::parse(text).has_value()) << text;
}

TEST(Endpoint, socket_addresses_survive_a_round_trip) {
    for (const std::string_view text : {"192.0.2.1:443", "[2001:db8::1]:53"}) {
        const Endpoint endpoint = Endpoint::parse(text).value();
        sockaddr_storage storage{};
        EXPECT_EQ(endpoint.to_sockaddr(storage), text[0] == '[' ? 28U : 16U);
        EXPECT_EQ(storage.ss_family, text[0] == '[' ? AF_INET6 : AF_INET);
        EXPECT_EQ(Endpoint::from_sockaddr(storage), endpoint);
    }
}

TEST(Endpoint, other_socket_families_give_nothing) {
    sockaddr_storage storage{};
    storage.ss_family = AF_UNIX;
    EXPECT_FALSE(Endpoint::from_sockaddr(storage).has_value());
}

} // namespace
} // namespace tapgate
