// SPDX-License-Identifier: Apache-2.0
#include "harness/netns.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <system_error>

#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

namespace tapgate::test {

namespace {

void check_call(int result, const char* what) {
    if (result < 0)
        throw std::system_error(errno, std::generic_category(), what);
}

void bring_loopback_up() {
    const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    check_call(socket.get(), "socket");
    ifreq request{};
    std::strcpy(request.ifr_name, "lo");
    request.ifr_flags = IFF_UP;
    check_call(::ioctl(socket.get(), SIOCSIFFLAGS, &request), "bring lo up");
}

} // namespace

NetNs::NetNs() {
    // On a thread of its own: the caller stays where it is.
    fd_ = std::async(std::launch::async, [] {
              check_call(::unshare(CLONE_NEWNET), "unshare network namespace");
              bring_loopback_up();
              UniqueFd fd(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
              check_call(fd.get(), "open network namespace");
              return fd;
          }).get();
}

std::string NetNs::path() const {
    return fmt::format("/proc/{}/fd/{}", ::getpid(), fd_.get());
}

void NetNs::enter() const {
    check_call(::setns(fd_.get(), CLONE_NEWNET), "enter network namespace");
}

} // namespace tapgate::test
