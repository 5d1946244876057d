// SPDX-License-Identifier: Apache-2.0
#include "proxy/dns_upstreams.hpp"

#include <gtest/gtest.h>

namespace tapgate::proxy {
namespace {

using Clock = DnsUpstreams::Clock;

const Endpoint kFirst = *Endpoint::parse("192.0.2.1:53");
const Endpoint kSecond = *Endpoint::parse("192.0.2.2:53");
const Endpoint kThird = *Endpoint::parse("[2001:db8::3]:5353");

DnsUpstreams three() {
    DnsUpstreams upstreams;
    upstreams.set({kFirst, kSecond, kThird});
    return upstreams;
}

TEST(DnsUpstreams, healthy_ones_are_asked_in_the_configured_order) {
    EXPECT_EQ(three().in_order(), (std::vector{kFirst, kSecond, kThird}));
}

TEST(DnsUpstreams, a_failed_one_is_last_until_it_answers_again) {
    DnsUpstreams upstreams = three();
    EXPECT_TRUE(upstreams.failed(kFirst, Clock::now()));
    EXPECT_EQ(upstreams.in_order(), (std::vector{kSecond, kThird, kFirst}));
    EXPECT_FALSE(upstreams.is_healthy(kFirst));
    upstreams.succeeded(kFirst);
    EXPECT_EQ(upstreams.in_order(), (std::vector{kFirst, kSecond, kThird}));
    EXPECT_TRUE(upstreams.is_healthy(kFirst));
}

TEST(DnsUpstreams, a_failure_is_news_only_once) {
    DnsUpstreams upstreams = three();
    EXPECT_TRUE(upstreams.failed(kFirst, Clock::now()));
    EXPECT_FALSE(upstreams.failed(kFirst, Clock::now()));
    EXPECT_FALSE(upstreams.failed(*Endpoint::parse("192.0.2.99:53"), Clock::now()));
}

TEST(DnsUpstreams, of_failed_ones_the_oldest_failure_is_tried_first) {
    DnsUpstreams upstreams = three();
    const auto now = Clock::now();
    EXPECT_TRUE(upstreams.failed(kSecond, now));
    EXPECT_TRUE(upstreams.failed(kFirst, now + std::chrono::seconds(1)));
    EXPECT_EQ(upstreams.in_order(), (std::vector{kThird, kSecond, kFirst}));
}

TEST(DnsUpstreams, a_new_list_keeps_the_health_of_those_that_stay) {
    DnsUpstreams upstreams = three();
    EXPECT_TRUE(upstreams.failed(kFirst, Clock::now()));
    upstreams.set({kFirst, kThird});
    EXPECT_EQ(upstreams.in_order(), (std::vector{kThird, kFirst}));
    EXPECT_FALSE(upstreams.status().front().healthy);
    EXPECT_FALSE(upstreams.is_known(kSecond));
}

TEST(ResolvConf, takes_name_servers_of_both_families_and_skips_the_rest) {
    const auto upstreams = parse_resolv_conf("# comment\n"
                                             "search example.com\n"
                                             "nameserver 192.0.2.1\n"
                                             "nameserver\t2001:db8::3 # trailing\n"
                                             "nameserver fe80::1%eth0\n"
                                             "nameserver dns.example.com\n"
                                             "nameserver\n"
                                             "options edns0\n");
    EXPECT_EQ(upstreams, (std::vector{kFirst, *Endpoint::parse("[2001:db8::3]:53")}));
}

TEST(ResolvConf, an_empty_file_names_nobody) {
    EXPECT_TRUE(parse_resolv_conf("").empty());
}

} // namespace
} // namespace tapgate::proxy
