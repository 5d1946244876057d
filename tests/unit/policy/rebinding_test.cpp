// SPDX-License-Identifier: Apache-2.0
#include "support.hpp"

#include <gtest/gtest.h>

#include <array>

namespace tapgate::policy {
namespace {

using test::address;
using test::compiled;
using test::name;

const std::array<IpAddress, 1> kHost = {address("198.18.0.1")};

bool permitted(std::string_view policy, std::string_view owner, std::string_view at,
               std::span<const Name> aliases = {}) {
    return answer_address_permitted(*compiled(policy), name(owner), address(at), kHost, aliases);
}

TEST(Rebinding, public_addresses_are_always_permitted) {
    EXPECT_TRUE(permitted("", "a.example", "8.8.8.8"));
    EXPECT_TRUE(permitted("", "a.example", "2606:4700::1"));
    EXPECT_TRUE(permitted("groups.public = [\"198.51.100.0/24\"]", "a.example", "198.51.100.1"));
    EXPECT_TRUE(permitted("groups.cdn = [\"8.8.0.0/16\"]", "a.example", "8.8.8.8"));
}

TEST(Rebinding, every_other_group_is_refused_by_default) {
    for (const std::string_view at :
         {"10.0.0.1",    "127.0.0.1",       "169.254.1.1",    "169.254.169.254", "224.0.0.1",
          "192.0.2.1",   "198.18.0.1",      "0.0.0.0",        "240.0.0.1",       "::",
          "::1",         "fd00::1",         "fe80::1",        "fd00:ec2::254",   "ff02::1",
          "2001:db8::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::1",   "64:ff9b::c612:1"})
        EXPECT_FALSE(permitted("rules = [\"allow@a.example\"]", "a.example", at)) << at;
    EXPECT_FALSE(permitted("groups.corp = [\"10.0.0.0/8\"]", "a.example", "10.0.0.1"));
    EXPECT_FALSE(permitted("default_egress = \"allow\"", "a.example", "10.0.0.1"));
}

TEST(Rebinding, an_address_rule_without_ports_permits) {
    EXPECT_TRUE(permitted("rules = [\"allow@10.0.0.0/8\"]", "a.example", "10.0.0.1"));
    EXPECT_TRUE(permitted("rules = [\"allow@private\"]", "a.example", "fd00::1"));
    EXPECT_TRUE(permitted("rules = [\"allow@host\"]", "a.example", "198.18.0.1"));
    EXPECT_TRUE(permitted("rules = [\"allow@private:tcp\"]", "a.example", "10.0.0.1"));
    EXPECT_TRUE(permitted("rules = [\"allow@any\"]", "a.example", "10.0.0.1"));
    EXPECT_TRUE(
        permitted("rules = [\"allow@corp\"]\ngroups.corp = [\"10.0.0.0/8\"]", "a.example", "10.0.0.1"));
    EXPECT_TRUE(permitted("rules = [\"deny@private:tcp:25\", \"deny@private:udp\", \"allow@private\"]",
                          "a.example", "10.0.0.1"));
    EXPECT_FALSE(permitted("rules = [\"allow@private:tcp:443\"]", "a.example", "10.0.0.1"));
    EXPECT_FALSE(permitted("rules = [\"deny@meta\", \"allow@any\"]", "a.example", "169.254.169.254"));
    EXPECT_FALSE(permitted("rules = [\"allow:ingress@private\"]", "a.example", "10.0.0.1"));
    EXPECT_FALSE(permitted("rules = [\"allow@any\"]", "a.example", "0.0.0.0"));
    EXPECT_FALSE(permitted("rules = [\"allow@any\"]", "a.example", "64:ff9b::f000:1"));
}

TEST(Rebinding, a_private_ok_rule_permits_its_own_names) {
    constexpr std::string_view kPolicy = "rules = [{ action = \"allow\", destination = \"*.corp.example\", "
                                         "options = [\"private-ok\"] }, \"allow@*.shop.example\"]";
    constexpr std::string_view kCname = "rules = [{ action = \"allow\", destination = \"*.corp.example\", "
                                        "options = [\"private-ok\", \"cname\"] }]";
    EXPECT_TRUE(permitted(kPolicy, "git.corp.example", "10.0.0.1"));
    EXPECT_FALSE(permitted(kPolicy, "git.example", "10.0.0.1"));
    const std::array<Name, 1> aliases = {name("git.corp.example")};
    EXPECT_FALSE(permitted(kPolicy, "www.shop.example", "10.0.0.1", aliases));
    EXPECT_TRUE(permitted(kCname, "www.shop.example", "10.0.0.1", aliases));
    EXPECT_FALSE(permitted(kCname, "www.shop.example", "10.0.0.1"));
}

} // namespace
} // namespace tapgate::policy
