// SPDX-License-Identifier: Apache-2.0
#include "control/unix_listener.hpp"
#include "temp_dir.hpp"

#include <gtest/gtest.h>

#include <fstream>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>

namespace tapgate::control {
namespace {

bool exists(const std::string& path) {
    return std::filesystem::exists(std::filesystem::symlink_status(path));
}

/// Leaves a socket file behind, as a killed process does.
void leave_socket(const std::string& path) {
    const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const auto address = unix_address(path).value();
    ASSERT_EQ(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
}

TEST(UnixListener, makes_a_socket_of_mode_0600_and_removes_it) {
    const TempDir dir;
    const std::string path = dir.file("new/control.sock");
    {
        const auto listener = UnixListener::open(path);
        ASSERT_TRUE(listener) << listener.error().message();
        struct stat made{};
        ASSERT_EQ(::lstat(path.c_str(), &made), 0);
        EXPECT_TRUE(S_ISSOCK(made.st_mode));
        EXPECT_EQ(made.st_mode & 07777U, 0600U);
    }
    EXPECT_FALSE(exists(path));
}

TEST(UnixListener, the_mode_does_not_depend_on_the_umask) {
    const TempDir dir;
    const std::string path = dir.file("control.sock");
    const mode_t old = ::umask(0);
    const auto listener = UnixListener::open(path);
    ::umask(old);
    ASSERT_TRUE(listener);
    struct stat made{};
    ASSERT_EQ(::lstat(path.c_str(), &made), 0);
    EXPECT_EQ(made.st_mode & 07777U, 0600U);
}

TEST(UnixListener, a_stale_socket_is_replaced) {
    const TempDir dir;
    const std::string path = dir.file("control.sock");
    leave_socket(path);
    EXPECT_TRUE(UnixListener::open(path));
}

TEST(UnixListener, a_socket_on_which_somebody_answers_is_left_alone) {
    const TempDir dir;
    const std::string path = dir.file("control.sock");
    const auto first = UnixListener::open(path);
    ASSERT_TRUE(first);
    const auto second = UnixListener::open(path);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code(), ErrorCode::kExists);
    EXPECT_TRUE(exists(path));
}

TEST(UnixListener, a_file_that_is_no_socket_is_left_alone) {
    const TempDir dir;
    const std::string path = dir.file("control.sock");
    std::ofstream(path) << "precious";
    const auto listener = UnixListener::open(path);
    ASSERT_FALSE(listener);
    EXPECT_EQ(listener.error().code(), ErrorCode::kExists);
    EXPECT_TRUE(std::filesystem::is_regular_file(path));
}

TEST(UnixListener, a_symbolic_link_is_not_followed) {
    const TempDir dir;
    std::ofstream(dir.file("target")) << "precious";
    std::filesystem::create_symlink(dir.file("target"), dir.file("control.sock"));
    EXPECT_FALSE(UnixListener::open(dir.file("control.sock")));
    EXPECT_TRUE(exists(dir.file("target")));
}

TEST(UnixListener, another_file_in_its_place_is_not_removed) {
    const TempDir dir;
    const std::string path = dir.file("control.sock");
    {
        const auto listener = UnixListener::open(path);
        ASSERT_TRUE(listener);
        // The new file exists before the old one goes, so that it cannot get the same inode number.
        leave_socket(dir.file("other.sock"));
        std::filesystem::rename(dir.file("other.sock"), path);
    }
    EXPECT_TRUE(exists(path));
}

TEST(UnixListener, waits_for_no_lock) {
    const TempDir dir;
    const UniqueFd lock(::open(dir.file("").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    ASSERT_EQ(::flock(lock.get(), LOCK_EX), 0);
    const auto listener = UnixListener::open(dir.file("control.sock"));
    ASSERT_FALSE(listener);
    EXPECT_EQ(listener.error().code(), ErrorCode::kExists);
}

TEST(UnixListener, a_path_that_does_not_fit_is_invalid) {
    EXPECT_EQ(UnixListener::open("/" + std::string(107, 'x')).error().code(), ErrorCode::kInvalid);
    EXPECT_EQ(UnixListener::open("").error().code(), ErrorCode::kInvalid);
}

TEST(UnixListener, a_directory_that_cannot_be_made_is_an_error) {
    const TempDir dir;
    EXPECT_EQ(UnixListener::open(dir.file("a/b/c.sock")).error().code(), ErrorCode::kNotFound);
}

} // namespace
} // namespace tapgate::control
