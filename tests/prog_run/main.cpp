// SPDX-License-Identifier: Apache-2.0
#include "program_fixture.hpp"

#include <cstdio>
#include <cstdlib>
#include <string>

#include <sched.h>
#include <sys/mount.h>

namespace {

bool run(const std::string& command) {
    if (std::system(command.c_str()) == 0)
        return true;
    std::fprintf(stderr, "failed: %s\n", command.c_str());
    return false;
}

/// A network namespace of our own with two veth pairs: the host's end and, beside it, the guest's or the
/// server's, which the host has no addresses on. It ends with the process.
bool make_links() {
    const std::string tap = tapgate::test::kTapName;
    const std::string guest = tapgate::test::kGuestName;
    const std::string uplink = tapgate::test::kUplinkName;
    const std::string server = tapgate::test::kServerName;
    return run("ip link set lo up") &&
           run("ip link add " + tap + " address 02:00:00:00:00:01 type veth peer name " + guest +
               " address 02:00:00:00:00:02") &&
           run("sysctl -qw net.ipv6.conf." + guest + ".disable_ipv6=1 net.ipv6.conf." + tap +
               ".accept_dad=0") &&
           run("ip addr add 192.0.2.1/24 dev " + tap) && run("ip addr add 2001:db8::1/64 nodad dev " + tap) &&
           run("ip link set " + guest + " up") && run("ip link set " + tap + " up") &&
           run("ip neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev " + tap) &&
           run("ip neigh add 2001:db8::2 lladdr 02:00:00:00:00:02 dev " + tap) &&
           run("ip link add " + uplink + " address 02:00:00:00:00:04 type veth peer name " + server +
               " address 02:00:00:00:00:05") &&
           run("sysctl -qw net.ipv6.conf." + server + ".disable_ipv6=1 net.ipv6.conf." + uplink +
               ".accept_dad=0") &&
           run("ip addr add 198.51.100.1/24 dev " + uplink) &&
           run("ip addr add 2001:db8:7::1/64 nodad dev " + uplink) && run("ip link set " + server + " up") &&
           run("ip link set " + uplink + " up") &&
           run("ip neigh add 198.51.100.7 lladdr 02:00:00:00:00:05 dev " + uplink) &&
           run("ip neigh add 2001:db8:7::7 lladdr 02:00:00:00:00:05 dev " + uplink) &&
           run("ip neigh add 198.51.100.8 lladdr 02:00:00:00:00:06 dev " + uplink) &&
           run("ip neigh add 2001:db8:7::8 lladdr 02:00:00:00:00:06 dev " + uplink);
}

} // namespace

int main(int argc, char** argv) {
    testing::InitGoogleTest(&argc, argv);
    if (testing::GTEST_FLAG(list_tests))
        return RUN_ALL_TESTS();
    if (::unshare(CLONE_NEWNET | CLONE_NEWNS) != 0 ||
        ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("sysfs", "/sys", "sysfs", 0, nullptr) != 0) {
        std::perror("make a network and a mount namespace (needs root)");
        return EXIT_FAILURE;
    }
    if (!make_links())
        return EXIT_FAILURE;
    return RUN_ALL_TESTS();
}
