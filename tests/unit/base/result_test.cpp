// SPDX-License-Identifier: Apache-2.0
#include "base/clock.hpp"
#include "base/result.hpp"

#include <gtest/gtest.h>

#include <cerrno>

namespace tapgate {
namespace {

TEST(Error, prints_operation_reason_and_hint) {
    const Error error = Error::from_errno(EPERM, "attach tc program to tap0", "needs CAP_NET_ADMIN");
    EXPECT_EQ(error.message(), "attach tc program to tap0: Operation not permitted (needs CAP_NET_ADMIN)");
    EXPECT_EQ(error.errno_value(), EPERM);
    EXPECT_EQ(error.code(), ErrorCode::kPermission);
}

TEST(Error, the_code_says_what_the_caller_can_do) {
    EXPECT_EQ(Error::from_errno(ENODEV, "x").code(), ErrorCode::kNotFound);
    EXPECT_EQ(Error::from_errno(EADDRINUSE, "x").code(), ErrorCode::kExists);
    EXPECT_EQ(Error::from_errno(ENOSYS, "x").code(), ErrorCode::kUnsupported);
    EXPECT_EQ(Error::from_errno(EMFILE, "x").code(), ErrorCode::kLimit);
    EXPECT_EQ(Error::from_errno(ECONNREFUSED, "x").code(), ErrorCode::kUnavailable);
    EXPECT_EQ(Error::from_errno(EINVAL, "x").code(), ErrorCode::kInvalid);
    EXPECT_EQ(Error::from_errno(EIO, "x").code(), ErrorCode::kIo);
}

TEST(Error, context_goes_in_front_and_keeps_code_and_errno) {
    const Error error = Error::from_errno(ENOENT, "open a.toml").with_context("policy web");
    EXPECT_EQ(error.message(), "policy web: open a.toml: No such file or directory");
    EXPECT_EQ(error.code(), ErrorCode::kNotFound);
    EXPECT_EQ(error.errno_value(), ENOENT);
}

TEST(Error, fail_errno_takes_the_current_errno) {
    errno = EBUSY;
    const Result<int> result = fail_errno("take it");
    ASSERT_FALSE(result.has_value());
    EXPECT_EQ(result.error().errno_value(), EBUSY);
}

TEST(Error, an_error_without_errno_says_so) {
    const Result<int> result = fail(ErrorCode::kInvalid, "no");
    ASSERT_FALSE(result.has_value());
    EXPECT_EQ(result.error().errno_value(), 0);
    EXPECT_EQ(error_code_name(result.error().code()), "invalid");
}

TEST(Assert, a_bug_ends_the_process_in_every_build) {
    EXPECT_DEATH(TAPGATE_ASSERT(1 + 1 == 3), "bug at .*result_test.cpp:[0-9]+: 1 \\+ 1 == 3");
}

TEST(BootClock, goes_forward) {
    const auto before = BootClock::now();
    EXPECT_LE(before, BootClock::now());
    EXPECT_GT(before.time_since_epoch().count(), 0);
}

} // namespace
} // namespace tapgate
