// SPDX-License-Identifier: Apache-2.0
#include "proto/host_name.hpp"

#include <gtest/gtest.h>

#include <string>

namespace tapgate::proto {
namespace {

TEST(HostName, names_as_clients_send_them_are_accepted) {
    for (const char* name : {"example.com", "EXAMPLE.com", "a", "a.b.c.", "xn--bcher-kva.de",
                             "_dmarc.example.com", "1and1.com", "a-b.c_d", "x.1x", "0xg.example", "3com"})
        EXPECT_TRUE(is_host_name(name)) << name;
}

TEST(HostName, anything_else_is_refused) {
    for (const char* name : {"", ".", "..", ".a", "a..b", "a..", "a b", "a\tb", "b\xc3\xbc.de",
                             "*.example.com", "a:1", "a/b", "a@b", "[::1]", "::1", "a%2eb", "a\\b"})
        EXPECT_FALSE(is_host_name(name)) << name;
    EXPECT_FALSE(is_host_name(std::string_view("a\0b", 3)));
}

TEST(HostName, every_spelling_of_an_ipv4_address_is_refused) {
    for (const char* name : {"192.0.2.1", "192.0.2.1.", "127.1", "2130706433", "0x7f000001", "0X7f.1", "1.0x",
                             "example.0x7F", "a.b.5", "0300.0.2.1"})
        EXPECT_FALSE(is_host_name(name)) << name;
}

TEST(HostName, lengths_end_at_63_octets_a_label_and_253_a_name) {
    const std::string label(63, 'a');
    EXPECT_TRUE(is_host_name(label));
    EXPECT_FALSE(is_host_name(label + "a"));
    const std::string longest = label + "." + label + "." + label + "." + std::string(61, 'b');
    ASSERT_EQ(longest.size(), 253U);
    EXPECT_TRUE(is_host_name(longest));
    EXPECT_TRUE(is_host_name(longest + "."));
    EXPECT_FALSE(is_host_name(longest + "b"));
}

} // namespace
} // namespace tapgate::proto
