// SPDX-License-Identifier: Apache-2.0
#include "proxy/dns_name_budget.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace tapgate::proxy {
namespace {

using Clock = DnsNameBudget::Clock;
using std::chrono::seconds;

policy::Name name(const std::string& text) {
    return policy::Name::from_wire(text).value();
}

TEST(DnsNameBudget, B15_distinct_names_below_one_registrable_domain_are_counted) {
    DnsNameBudget budget;
    const Clock::time_point now{};
    EXPECT_TRUE(budget.admit(name("a.tunnel.example.com"), 2, now));
    EXPECT_TRUE(budget.admit(name("b.example.com"), 2, now));
    EXPECT_FALSE(budget.admit(name("c.d.example.com"), 2, now));
    EXPECT_TRUE(budget.admit(name("b.example.com"), 2, now)) << "asked again it is no other name";
    EXPECT_TRUE(budget.admit(name("c.example.net"), 2, now)) << "another domain";
    EXPECT_TRUE(budget.admit(name("x.someone.co.uk"), 2, now));
    EXPECT_TRUE(budget.admit(name("y.other.co.uk"), 2, now)) << "below a public suffix domains are apart";
}

TEST(DnsNameBudget, B15_the_minute_slides) {
    DnsNameBudget budget;
    const Clock::time_point start{};
    EXPECT_TRUE(budget.admit(name("a.example.com"), 2, start));
    EXPECT_TRUE(budget.admit(name("b.example.com"), 2, start + seconds(40)));
    EXPECT_FALSE(budget.admit(name("c.example.com"), 2, start + seconds(59)));
    EXPECT_TRUE(budget.admit(name("c.example.com"), 2, start + seconds(60)));
    EXPECT_FALSE(budget.admit(name("d.example.com"), 2, start + seconds(99)));
    EXPECT_TRUE(budget.admit(name("d.example.com"), 2, start + seconds(100)));
}

TEST(DnsNameBudget, asking_again_does_not_keep_a_name_in_its_place) {
    DnsNameBudget budget;
    const Clock::time_point start{};
    EXPECT_TRUE(budget.admit(name("a.example.com"), 1, start));
    EXPECT_TRUE(budget.admit(name("a.example.com"), 1, start + seconds(59)));
    EXPECT_TRUE(budget.admit(name("b.example.com"), 1, start + seconds(60)));
}

TEST(DnsNameBudget, the_names_of_a_guest_are_bounded_over_all_domains) {
    DnsNameBudget budget;
    const Clock::time_point now{};
    for (std::size_t i = 0; i < DnsNameBudget::kMaxNames; ++i)
        ASSERT_TRUE(budget.admit(name(fmt::format("www.zone{}.com", i)), 10, now));
    EXPECT_FALSE(budget.admit(name("www.one-more.com"), 10, now));
    EXPECT_TRUE(budget.admit(name("www.one-more.com"), 10, now + DnsNameBudget::kWindow));
}

} // namespace
} // namespace tapgate::proxy
