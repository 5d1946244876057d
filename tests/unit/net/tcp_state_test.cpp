// SPDX-License-Identifier: Apache-2.0
#include "loopback.hpp"
#include "net/tcp_state.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cerrno>

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace tapgate::net {
namespace {

class TcpStateTest : public ::testing::TestWithParam<int> {
  protected:
    void SetUp() override {
        if (::geteuid() != 0)
            GTEST_SKIP() << "needs root";
    }

    /// Sends `count` octets from one end and waits until the other has them.
    void carry(const UniqueFd& from, const UniqueFd& to, std::size_t count) {
        const std::array<char, 64> bytes{};
        ASSERT_EQ(::send(from.get(), bytes.data(), count, 0), static_cast<ssize_t>(count));
        pollfd readable{to.get(), POLLIN, 0};
        ASSERT_EQ(::poll(&readable, 1, 10'000), 1);
    }

    TcpPair pair_ = connect_pair(GetParam());
};

INSTANTIATE_TEST_SUITE_P(Families, TcpStateTest, ::testing::Values(AF_INET, AF_INET6),
                         [](const auto& of) { return of.param == AF_INET ? "ipv4" : "ipv6"; });

TEST_P(TcpStateTest, both_ends_tell_the_same_numbers) {
    const auto near = read_tcp_state(pair_.near.get());
    const auto far = read_tcp_state(pair_.far.get());
    ASSERT_TRUE(near) << near.error().message();
    ASSERT_TRUE(far) << far.error().message();
    EXPECT_EQ(near->send_next, far->receive_next);
    EXPECT_EQ(far->send_next, near->receive_next);
    EXPECT_EQ(near->options, far->options);
    EXPECT_EQ(near->own_scale, far->peer_scale);
    EXPECT_EQ(far->own_scale, near->peer_scale);
    EXPECT_TRUE(near->is_established);
    EXPECT_EQ(near->bytes_sent, 0U);
    EXPECT_EQ(near->bytes_received, 0U);
    EXPECT_GT(near->own_mss, 0U);
}

TEST_P(TcpStateTest, numbers_move_with_what_is_carried_and_the_connection_lives_on) {
    const auto before = read_tcp_state(pair_.far.get());
    ASSERT_TRUE(before) << before.error().message();
    carry(pair_.near, pair_.far, 10);
    const auto after = read_tcp_state(pair_.far.get());
    ASSERT_TRUE(after) << after.error().message();
    EXPECT_EQ(after->receive_next, before->receive_next + 10);
    EXPECT_EQ(after->bytes_received, 10U);
    EXPECT_GE(after->clock - before->clock, 0U);
    carry(pair_.far, pair_.near, 20);
    const auto sender = read_tcp_state(pair_.far.get());
    ASSERT_TRUE(sender) << sender.error().message();
    EXPECT_EQ(sender->send_next, before->send_next + 20);
    EXPECT_EQ(sender->bytes_sent, 20U);
}

TEST_P(TcpStateTest, a_connection_with_a_fin_is_not_established) {
    ::shutdown(pair_.near.get(), SHUT_WR);
    pollfd readable{pair_.far.get(), POLLIN, 0};
    ASSERT_EQ(::poll(&readable, 1, 10'000), 1);
    const auto state = read_tcp_state(pair_.far.get());
    ASSERT_TRUE(state) << state.error().message();
    EXPECT_FALSE(state->is_established);
}

TEST_P(TcpStateTest, a_socket_that_is_closed_silently_leaves_its_peer_connected) {
    ASSERT_TRUE(close_silently(pair_.near.get()));
    carry(pair_.far, pair_.near, 5); // unread data would make an ordinary close() a reset
    pair_.near.reset();
    // Loopback delivers within close(): a FIN or a reset would be here.
    pollfd ended{pair_.far.get(), POLLIN | POLLRDHUP, 0};
    EXPECT_EQ(::poll(&ended, 1, 0), 0);
}

TEST_P(TcpStateTest, another_socket_is_an_error) {
    const UniqueFd datagrams(::socket(GetParam(), SOCK_DGRAM | SOCK_CLOEXEC, 0));
    EXPECT_FALSE(read_tcp_state(datagrams.get()));
}

} // namespace
} // namespace tapgate::net
