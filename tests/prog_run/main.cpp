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

/// A network namespace of our own with a veth pair: the host's end and, beside it, the guest's, which the
/// host has no addresses on. It ends with the process.
bool make_links() {
    const std::string tap = tapgate::test::kTapName;
    const std::string guest = tapgate::test::kGuestName;
    return run("ip link set lo up") &&
           run("ip link add " + tap + " address 02:00:00:00:00:01 type veth peer name " + guest +
               " address 02:00:00:00:00:02") &&
           run("sysctl -qw net.ipv6.conf." + guest + ".disable_ipv6=1 net.ipv6.conf." + tap +
               ".accept_dad=0") &&
           run("ip addr add 192.0.2.1/24 dev " + tap) && run("ip addr add 2001:db8::1/64 nodad dev " + tap) &&
           run("ip link set " + guest + " up") && run("ip link set " + tap + " up") &&
           run("ip neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev " + tap) &&
           run("ip neigh add 2001:db8::2 lladdr 02:00:00:00:00:02 dev " + tap);
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
