// SPDX-License-Identifier: Apache-2.0
#include "proxy/guest.hpp"

#include <gtest/gtest.h>

namespace tapgate::proxy {
namespace {

TEST(CapTicket, is_refused_at_the_cap_and_given_back_when_destroyed) {
    auto counters = std::make_shared<GuestCounters>();
    const auto take = [&] { return CapTicket::take(counters, &GuestCounters::dns_connections, 2); };
    CapTicket first = take();
    {
        const CapTicket second = take();
        EXPECT_TRUE(first);
        EXPECT_TRUE(second);
        EXPECT_FALSE(take());
    }
    EXPECT_TRUE(take());
    first = CapTicket();
    EXPECT_EQ(counters->dns_connections.load(), 0U);
}

TEST(CapTicket, moves_without_counting_twice) {
    auto counters = std::make_shared<GuestCounters>();
    CapTicket ticket = CapTicket::take(counters, &GuestCounters::dns_connections, 1);
    const CapTicket moved = std::move(ticket);
    EXPECT_TRUE(moved);
    EXPECT_EQ(counters->dns_connections.load(), 1U);
}

TEST(CapTicket, keeps_its_counters_alive) {
    auto counters = std::make_shared<GuestCounters>();
    const std::weak_ptr<GuestCounters> watch = counters;
    {
        const CapTicket ticket = CapTicket::take(std::move(counters), &GuestCounters::dns_connections, 1);
        EXPECT_FALSE(watch.expired());
    }
    EXPECT_TRUE(watch.expired());
}

TEST(GuestCounters, queries_are_capped_per_second) {
    GuestCounters counters;
    EXPECT_TRUE(counters.admit_query(7, 2));
    EXPECT_TRUE(counters.admit_query(7, 2));
    EXPECT_FALSE(counters.admit_query(7, 2));
    EXPECT_TRUE(counters.admit_query(8, 2));
}

TEST(Guest, knows_its_families_and_gateways) {
    Guest guest;
    guest.addresses = {*IpAddress::parse("192.0.2.2")};
    guest.gateways = {*IpAddress::parse("192.0.2.1")};
    EXPECT_TRUE(guest.has_family(true));
    EXPECT_FALSE(guest.has_family(false));
    EXPECT_TRUE(guest.has_gateway(*IpAddress::parse("::ffff:192.0.2.1")));
    EXPECT_FALSE(guest.has_gateway(*IpAddress::parse("192.0.2.3")));
}

} // namespace
} // namespace tapgate::proxy
