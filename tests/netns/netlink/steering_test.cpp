// SPDX-License-Identifier: Apache-2.0
#include "net/netlink/steering.hpp"
#include "own_netns.hpp"

#include <cstdint>
#include <utility>

#include <linux/capability.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace tapgate::net {
namespace {

using SteeringTest = OwnNetns;

constexpr std::uint32_t kMark = 0x7461;
constexpr std::uint32_t kTable = 29793;

std::string state() {
    return "ip rule; ip -6 rule; ip route show table all; ip -6 route show table all";
}

TEST_F(SteeringTest, adds_rule_and_route_for_both_families_and_removes_them) {
    const std::string before = output(state());
    {
        const auto steering = Steering::install(kMark, kTable);
        ASSERT_TRUE(steering) << steering.error().message();
        EXPECT_TRUE((*steering)->has_ipv6());
        for (const std::string family : {"-4", "-6"}) {
            EXPECT_NE(output("ip " + family + " rule").find("100:\tfrom all fwmark 0x7461 lookup 29793"),
                      std::string::npos);
            EXPECT_NE(output("ip " + family + " route show table 29793").find("local default dev lo"),
                      std::string::npos);
        }
        EXPECT_NE(output("ip route get 203.0.113.9 mark 0x7461").find("local 203.0.113.9"),
                  std::string::npos);
        EXPECT_NE(output("ip -6 route get 2001:db8::9 mark 0x7461").find("local 2001:db8::9"),
                  std::string::npos);
    }
    EXPECT_EQ(output(state()), before);
}

TEST_F(SteeringTest, takes_over_what_a_killed_daemon_left) {
    const std::string before = output(state());
    for (const std::string family : {"-4", "-6"}) {
        run("ip " + family + " rule add priority 100 fwmark 0x7461 lookup 29793 protocol static");
        run("ip " + family + " route add local default dev lo table 29793 protocol static");
    }
    const std::string left = output(state());
    {
        const auto steering = Steering::install(kMark, kTable);
        ASSERT_TRUE(steering) << steering.error().message();
        EXPECT_EQ(output(state()), left) << "no second rule, no second route";
    }
    EXPECT_EQ(output(state()), before);
}

TEST_F(SteeringTest, a_table_with_routes_of_others_is_refused_and_left_alone) {
    for (const std::string route : {"-4 route add blackhole 198.51.100.0/24", "-6 route add blackhole "
                                                                              "2001:db8::/32"}) {
        run("ip " + route + " table 29793");
        const std::string before = output(state());
        const auto steering = Steering::install(kMark, kTable);
        ASSERT_FALSE(steering);
        EXPECT_EQ(steering.error().code(), ErrorCode::kExists);
        EXPECT_NE(steering.error().message().find("choose another route_table"), std::string::npos);
        EXPECT_EQ(output(state()), before);
        run("ip -4 route flush table 29793 2>/dev/null; true");
    }
}

TEST_F(SteeringTest, lo_down_is_a_clear_error) {
    run("ip link set lo down");
    const auto steering = Steering::install(kMark, kTable);
    ASSERT_FALSE(steering);
    EXPECT_EQ(steering.error().code(), ErrorCode::kUnavailable);
    EXPECT_NE(steering.error().message().find("ip link set lo up"), std::string::npos);
}

TEST_F(SteeringTest, without_ipv6_only_ipv4_is_steered) {
    // /proc/sys/net shows the namespace of whoever opens it.
    run("echo 1 > /proc/sys/net/ipv6/conf/lo/disable_ipv6");
    const std::string before = output(state());
    {
        const auto steering = Steering::install(kMark, kTable);
        ASSERT_TRUE(steering) << steering.error().message();
        EXPECT_FALSE((*steering)->has_ipv6());
        EXPECT_EQ(output("ip -6 rule").find("29793"), std::string::npos);
        EXPECT_NE(output("ip rule").find("29793"), std::string::npos);
    }
    EXPECT_EQ(output(state()), before);
}

TEST_F(SteeringTest, bad_marks_and_tables_are_refused) {
    for (const auto& [mark, table] : {std::pair(0U, kTable), std::pair(kMark, 0U), std::pair(kMark, 253U),
                                      std::pair(kMark, 254U), std::pair(kMark, 255U)}) {
        const auto steering = Steering::install(mark, table);
        ASSERT_FALSE(steering);
        EXPECT_EQ(steering.error().code(), ErrorCode::kInvalid);
    }
}

TEST_F(SteeringTest, a_missing_capability_is_named) {
    // In a child, since capabilities given up do not come back.
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
        __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
        __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3]{};
        if (::syscall(SYS_capset, &header, none) != 0)
            ::_exit(2);
        const auto steering = Steering::install(kMark, kTable);
        const bool named = !steering && steering.error().code() == ErrorCode::kPermission &&
                           steering.error().message().find("CAP_NET_ADMIN") != std::string::npos;
        ::_exit(named ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

} // namespace
} // namespace tapgate::net
