// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/unique_fd.hpp"

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include <fcntl.h>
#include <sched.h>

namespace tapgate::net {

/// Each test runs in a network namespace of its own, with `lo` up.
class OwnNetns : public testing::Test {
  protected:
    void SetUp() override {
        original_ = UniqueFd(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
        ASSERT_TRUE(original_);
        ASSERT_EQ(::unshare(CLONE_NEWNET), 0) << "needs root";
        separate_ = true;
        run("ip link set lo up");
    }

    void TearDown() override {
        if (separate_) {
            ASSERT_EQ(::setns(original_.get(), CLONE_NEWNET), 0);
        }
    }

    static void run(const std::string& command) { ASSERT_EQ(std::system(command.c_str()), 0) << command; }

    /// What a command prints.
    static std::string output(const std::string& command) {
        std::string text;
        FILE* pipe = ::popen(command.c_str(), "r");
        if (pipe == nullptr)
            return text;
        char chunk[512];
        while (std::fgets(chunk, sizeof(chunk), pipe) != nullptr)
            text += chunk;
        ::pclose(pipe);
        return text;
    }

  private:
    UniqueFd original_;
    bool separate_ = false;
};

} // namespace tapgate::net
