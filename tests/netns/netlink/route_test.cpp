// SPDX-License-Identifier: Apache-2.0
#include "net/netlink/route.hpp"
#include "own_netns.hpp"
#include "tests/harness/wait.hpp"

#include <cerrno>

#include <net/if.h>

namespace tapgate::net {
namespace {

IpAddress address(const char* text) {
    return IpAddress::parse(text).value();
}

class RouteTest : public OwnNetns {
  protected:
    void SetUp() override {
        OwnNetns::SetUp();
        run("ip link add up0 type veth peer name far0");
        run("ip link set far0 up");
        run("ip link set up0 up");
        run("ip address add 198.51.100.1/24 dev up0");
        run("ip address add 2001:db8:2::1/64 dev up0 nodad");
    }
};

TEST_F(RouteTest, tells_interface_and_source_in_both_families) {
    run("ip route add default via 198.51.100.2");
    run("ip -6 route add default via 2001:db8:2::2");
    auto query = RouteQuery::open();
    ASSERT_TRUE(query) << query.error().message();
    const auto v4 = query->to(address("203.0.113.9"));
    ASSERT_TRUE(v4) << v4.error().message();
    EXPECT_EQ(v4->ifindex, ::if_nametoindex("up0"));
    EXPECT_EQ(v4->source, address("198.51.100.1"));
    EXPECT_TRUE(v4->is_forwarded_out);
    const auto v6 = query->to(address("2001:db8:3::9"));
    ASSERT_TRUE(v6) << v6.error().message();
    EXPECT_EQ(v6->ifindex, ::if_nametoindex("up0"));
    EXPECT_EQ(v6->source, address("2001:db8:2::1"));
    EXPECT_TRUE(v6->is_forwarded_out);
}

TEST_F(RouteTest, tells_the_next_hop_a_router_of_either_family_or_the_destination) {
    run("ip route add 203.0.113.0/24 via 198.51.100.2");
    run("ip route add 192.0.2.0/24 via inet6 2001:db8:2::3");
    run("ip -6 route add 2001:db8:3::/64 via 2001:db8:2::2");
    run("ip -6 route add 2001:db8:4::/64 via fe80::2 dev up0");
    auto query = RouteQuery::open();
    ASSERT_TRUE(query) << query.error().message();
    for (const auto& [destination, next_hop] : {std::pair{"203.0.113.9", "198.51.100.2"},
                                                {"192.0.2.9", "2001:db8:2::3"},
                                                {"198.51.100.9", "198.51.100.9"},
                                                {"2001:db8:3::9", "2001:db8:2::2"},
                                                {"2001:db8:4::9", "fe80::2"},
                                                {"2001:db8:2::9", "2001:db8:2::9"}}) {
        const auto route = query->to(address(destination));
        ASSERT_TRUE(route) << route.error().message();
        EXPECT_EQ(route->next_hop, address(next_hop)) << destination;
    }
}

TEST_F(RouteTest, an_address_of_the_host_is_not_forwarded_out) {
    auto query = RouteQuery::open();
    ASSERT_TRUE(query) << query.error().message();
    for (const char* own : {"198.51.100.1", "2001:db8:2::1"}) {
        // The kernel routes to an IPv6 address only once its link watch has seen the link.
        EXPECT_TRUE(test::wait_until([&] {
            const auto route = query->to(address(own));
            return route && !route->is_forwarded_out;
        })) << own;
    }
}

TEST_F(RouteTest, a_route_that_changed_is_seen_by_the_next_question) {
    run("ip link add up1 type veth peer name far1");
    run("ip link set far1 up");
    run("ip link set up1 up");
    run("ip address add 192.0.2.1/24 dev up1");
    run("ip route add 203.0.113.0/24 via 198.51.100.2");
    auto query = RouteQuery::open();
    ASSERT_TRUE(query) << query.error().message();
    EXPECT_EQ(query->to(address("203.0.113.9"))->ifindex, ::if_nametoindex("up0"));
    run("ip route replace 203.0.113.0/24 via 192.0.2.2");
    const auto route = query->to(address("203.0.113.9"));
    EXPECT_EQ(route->ifindex, ::if_nametoindex("up1"));
    EXPECT_EQ(route->source, address("192.0.2.1"));
}

TEST_F(RouteTest, no_route_keeps_its_errno) {
    auto query = RouteQuery::open();
    ASSERT_TRUE(query) << query.error().message();
    for (const char* nowhere : {"203.0.113.9", "2001:db8:3::9"}) {
        const auto route = query->to(address(nowhere));
        ASSERT_FALSE(route);
        EXPECT_EQ(route.error().errno_value(), ENETUNREACH) << nowhere;
    }
}

} // namespace
} // namespace tapgate::net
