// SPDX-License-Identifier: Apache-2.0
#include "child.hpp"

#include "base/unique_fd.hpp"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <system_error>

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace tapgate::assumptions {

Child::Child(const std::function<void()>& work) {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0)
        throw std::system_error(errno, std::generic_category(), "pipe");
    const UniqueFd done(ends[0]);
    UniqueFd tell(ends[1]);
    pid_ = ::fork();
    if (pid_ < 0)
        throw std::system_error(errno, std::generic_category(), "fork");
    if (pid_ == 0) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        try {
            work();
        } catch (const std::exception& error) {
            std::fprintf(stderr, "child: %s\n", error.what());
            ::_exit(1);
        }
        if (::write(tell.get(), "", 1) != 1)
            ::_exit(1);
        for (;;)
            ::pause();
    }
    tell.reset();
    char byte = 0;
    if (::read(done.get(), &byte, 1) != 1) {
        kill();
        throw std::runtime_error("the child failed");
    }
}

void Child::kill() {
    if (pid_ < 0)
        return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
}

} // namespace tapgate::assumptions
