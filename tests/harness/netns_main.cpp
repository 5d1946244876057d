// SPDX-License-Identifier: Apache-2.0
#include "harness/sandbox.hpp"

#include <gtest/gtest.h>

#include <csignal>
#include <cstdio>
#include <exception>

#include <unistd.h>

namespace {

/// What ctest reports as "skipped" (SKIP_RETURN_CODE); tests/run fails on skips that it does not expect.
constexpr int kSkipped = 77;

} // namespace

/// main() of every test binary that needs namespaces.
int main(int argc, char** argv) {
    testing::InitGoogleTest(&argc, argv);
    if (testing::GTEST_FLAG(list_tests))
        return RUN_ALL_TESTS();
    if (::geteuid() != 0) {
        std::fputs("skipped: network namespaces need root\n", stderr);
        return kSkipped;
    }
    std::signal(SIGPIPE, SIG_IGN);
    try {
        // Guests ask their gateways; programs started in the other namespaces are given addresses.
        tapgate::test::enter_sandbox("nameserver 192.0.2.1\nnameserver 2001:db8:1::1\n"
                                     "options timeout:5 attempts:1\n");
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
    return RUN_ALL_TESTS();
}
