// SPDX-License-Identifier: Apache-2.0
#include "net/netlink/link_monitor.hpp"
#include "own_netns.hpp"

#include <algorithm>
#include <chrono>
#include <functional>

#include <poll.h>
#include <sys/socket.h>

namespace tapgate::net {
namespace {

constexpr std::chrono::seconds kDeadline{5};

class LinkMonitorTest : public OwnNetns {
  protected:
    void SetUp() override {
        OwnNetns::SetUp();
        if (HasFatalFailure())
            return;
        run("ip link add tap0 type veth peer name far0");
        run("ip addr add 192.0.2.1/24 dev tap0");
        auto opened = LinkMonitor::open();
        ASSERT_TRUE(opened) << opened.error().message();
        monitor_ = std::move(*opened);
    }

    /// Reads events until `condition` holds; false at the deadline.
    bool wait_until(const std::function<bool()>& condition) {
        const auto deadline = std::chrono::steady_clock::now() + kDeadline;
        while (!condition()) {
            if (std::chrono::steady_clock::now() > deadline)
                return false;
            pollfd poll{monitor_->fd(), POLLIN, 0};
            ::poll(&poll, 1, 100);
            const auto read =
                monitor_->read_events([this](const LinkEvent& event) { seen_.push_back(event); });
            EXPECT_TRUE(read);
        }
        return true;
    }

    [[nodiscard]] bool saw(LinkChange change, std::string_view name) const {
        return std::ranges::any_of(
            seen_, [&](const LinkEvent& event) { return event.change == change && event.link.name == name; });
    }

    [[nodiscard]] const Link* link(std::string_view name) const {
        const auto found = std::ranges::find(monitor_->links(), name, &Link::name);
        return found == monitor_->links().end() ? nullptr : &*found;
    }

    [[nodiscard]] bool has_address(const char* text) const {
        const auto addresses = monitor_->host_addresses();
        return std::ranges::find(addresses, *IpAddress::parse(text)) != addresses.end();
    }

    std::unique_ptr<LinkMonitor> monitor_;
    std::vector<LinkEvent> seen_;
};

TEST_F(LinkMonitorTest, open_shows_what_is_there) {
    ASSERT_NE(link("lo"), nullptr);
    EXPECT_EQ(link("lo")->ifindex, 1U);
    EXPECT_TRUE(link("lo")->up);
    ASSERT_NE(link("tap0"), nullptr);
    EXPECT_FALSE(link("tap0")->up);
    EXPECT_TRUE(has_address("127.0.0.1"));
    EXPECT_TRUE(has_address("::1"));
    EXPECT_TRUE(has_address("192.0.2.1"));
    const auto tap_address = InterfaceAddress{link("tap0")->ifindex, *IpAddress::parse("192.0.2.1")};
    EXPECT_NE(std::ranges::find(monitor_->addresses(), tap_address), monitor_->addresses().end());
}

TEST_F(LinkMonitorTest, links_appear_change_and_go) {
    run("ip link add tap1 type veth peer name far1");
    EXPECT_TRUE(wait_until([&] { return saw(LinkChange::kAdded, "tap1"); }));
    const unsigned ifindex = link("tap1")->ifindex;
    run("ip link set tap1 up");
    EXPECT_TRUE(wait_until([&] { return saw(LinkChange::kUp, "tap1"); }));
    run("ip link set tap1 down");
    EXPECT_TRUE(wait_until([&] { return saw(LinkChange::kDown, "tap1"); }));
    run("ip link set tap1 name tap9");
    EXPECT_TRUE(wait_until([&] { return saw(LinkChange::kRenamed, "tap9"); }));
    EXPECT_EQ(link("tap1"), nullptr);
    EXPECT_EQ(link("tap9")->ifindex, ifindex);
    run("ip link del tap9");
    EXPECT_TRUE(wait_until([&] { return saw(LinkChange::kRemoved, "tap9"); }));
    EXPECT_EQ(monitor_->find(ifindex), nullptr);
    EXPECT_NE(link("tap0"), nullptr);
}

TEST_F(LinkMonitorTest, addresses_come_and_go_in_both_families) {
    run("ip addr add 198.51.100.7/24 dev tap0");
    run("ip addr add 2001:db8::7/64 dev tap0 nodad");
    EXPECT_TRUE(wait_until([&] { return has_address("198.51.100.7") && has_address("2001:db8::7"); }));
    EXPECT_TRUE(saw(LinkChange::kAddresses, "tap0"));
    run("ip addr del 198.51.100.7/24 dev tap0");
    run("ip addr del 2001:db8::7/64 dev tap0");
    EXPECT_TRUE(wait_until([&] { return !has_address("198.51.100.7") && !has_address("2001:db8::7"); }));
    EXPECT_TRUE(has_address("192.0.2.1"));
}

TEST_F(LinkMonitorTest, the_local_end_of_a_point_to_point_link_is_the_address) {
    run("ip addr add 198.51.100.1 peer 198.51.100.2 dev tap0");
    EXPECT_TRUE(wait_until([&] { return has_address("198.51.100.1"); }));
    EXPECT_FALSE(has_address("198.51.100.2"));
}

TEST_F(LinkMonitorTest, an_address_with_two_prefix_lengths_stays_while_one_is_left) {
    run("ip addr add 198.51.100.7/24 dev tap0");
    run("ip addr add 198.51.100.7/32 dev tap0");
    EXPECT_TRUE(wait_until([&] { return has_address("198.51.100.7"); }));
    run("ip addr del 198.51.100.7/32 dev tap0");
    run("ip addr add 203.0.113.7/24 dev tap0");
    EXPECT_TRUE(wait_until([&] { return has_address("203.0.113.7"); }));
    EXPECT_TRUE(has_address("198.51.100.7"));
    run("ip addr del 198.51.100.7/24 dev tap0");
    EXPECT_TRUE(wait_until([&] { return !has_address("198.51.100.7"); }));
}

TEST_F(LinkMonitorTest, a_removed_link_takes_its_addresses_along) {
    run("ip link del tap0");
    EXPECT_TRUE(wait_until([&] { return saw(LinkChange::kRemoved, "tap0"); }));
    EXPECT_FALSE(has_address("192.0.2.1"));
}

TEST_F(LinkMonitorTest, an_overrun_is_made_up_for) {
    const int least = 1; // the kernel raises it to its minimum of some 2 KiB
    ASSERT_EQ(::setsockopt(monitor_->fd(), SOL_SOCKET, SO_RCVBUF, &least, sizeof(least)), 0);
    std::string commands = "ip -batch - <<END\n";
    for (int i = 1; i <= 40; ++i)
        commands +=
            "link add more" + std::to_string(i) + " type veth peer name other" + std::to_string(i) + "\n";
    run(commands + "link del tap0\nEND\n");
    EXPECT_TRUE(wait_until([&] { return link("other40") != nullptr && link("tap0") == nullptr; }));
    EXPECT_EQ(monitor_->links().size(), 1U + 80U);
    EXPECT_TRUE(saw(LinkChange::kAdded, "more40"));
    EXPECT_TRUE(saw(LinkChange::kRemoved, "tap0"));
}

TEST_F(LinkMonitorTest, leaving_a_bridge_is_not_leaving_the_host) {
    if (std::system("ip link add bridge0 type bridge 2>/dev/null") != 0)
        GTEST_SKIP() << "this kernel has no bridges";
    run("ip link set tap0 master bridge0; ip link set tap0 nomaster; ip link add tap1 type veth peer name "
        "far1");
    EXPECT_TRUE(wait_until([&] { return link("tap1") != nullptr; }));
    EXPECT_NE(link("tap0"), nullptr);
    EXPECT_FALSE(saw(LinkChange::kRemoved, "tap0"));
}

} // namespace
} // namespace tapgate::net
