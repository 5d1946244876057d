// SPDX-License-Identifier: Apache-2.0
#include "base/unique_fd.hpp"

#include <gtest/gtest.h>

#include <utility>

#include <fcntl.h>

namespace tapgate {
namespace {

int open_one() {
    return ::open("/dev/null", O_RDONLY | O_CLOEXEC);
}

bool is_open(int fd) {
    return ::fcntl(fd, F_GETFD) >= 0;
}

TEST(UniqueFd, closes_what_it_owns) {
    const int fd = open_one();
    ASSERT_GE(fd, 0);
    {
        const UniqueFd owner(fd);
    }
    EXPECT_FALSE(is_open(fd));
}

TEST(UniqueFd, moving_hands_ownership_on_and_closes_the_old_one) {
    const int first = open_one();
    const int second = open_one();
    UniqueFd a(first);
    UniqueFd b(second);
    a = std::move(b);
    EXPECT_FALSE(is_open(first));
    EXPECT_TRUE(is_open(second));
    EXPECT_EQ(a.get(), second);
}

TEST(UniqueFd, release_gives_up_ownership) {
    UniqueFd owner(open_one());
    const int fd = owner.release();
    EXPECT_FALSE(owner);
    EXPECT_TRUE(is_open(fd));
    owner.reset(fd);
    owner.reset();
    EXPECT_FALSE(is_open(fd));
}

TEST(UniqueFd, resetting_to_the_same_descriptor_keeps_it_open) {
    UniqueFd owner(open_one());
    owner.reset(owner.get());
    EXPECT_TRUE(is_open(owner.get()));
}

} // namespace
} // namespace tapgate
