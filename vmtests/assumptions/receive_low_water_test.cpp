// SPDX-License-Identifier: Apache-2.0
//
// Asserts: with SO_RCVLOWAT above what is queued, epoll does not report a TCP socket readable; it does when
// more has come, and at once when the peer finishes or resets.
//
// The design needs it for the peek (userspace/proxy/session.cpp: wake_after): MSG_PEEK leaves what was seen
// in place, so a plain wait would spin; and a guest that goes away must not hold a session until its
// deadline.
#include "base/unique_fd.hpp"
#include "harness/netns.hpp"
#include "harness/tcp_server.hpp"
#include "harness/wait.hpp"

#include <gtest/gtest.h>

#include <array>
#include <optional>

#include <sys/epoll.h>
#include <sys/socket.h>

namespace tapgate::assumptions {
namespace {

using namespace std::chrono_literals;

class ReceiveLowWater : public testing::Test {
  protected:
    /// Has the other end send 10 bytes, peeks them, and asks to be woken for the 11th.
    void SetUp() override {
        const Endpoint endpoint{*IpAddress::parse("127.0.0.1"), 4433};
        const UniqueFd listener = ns_.run([&] {
            UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
            sockaddr_storage address{};
            const unsigned length = endpoint.to_sockaddr(address);
            EXPECT_EQ(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), length), 0);
            EXPECT_EQ(::listen(fd.get(), 1), 0);
            return fd;
        });
        peer_.emplace(test::TcpStream::connect(ns_, endpoint).value());
        socket_ = UniqueFd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
        epoll_ = UniqueFd(::epoll_create1(EPOLL_CLOEXEC));
        epoll_event event{};
        event.events = EPOLLIN | EPOLLRDHUP;
        ASSERT_EQ(::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, socket_.get(), &event), 0);

        ASSERT_EQ(peer_->send("0123456789"), 0);
        std::array<char, 64> buffer{};
        ASSERT_TRUE(test::wait_until([&] {
            return ::recv(socket_.get(), buffer.data(), buffer.size(), MSG_PEEK | MSG_DONTWAIT) == 10;
        }));
        const int low_water = 11;
        ASSERT_EQ(::setsockopt(socket_.get(), SOL_SOCKET, SO_RCVLOWAT, &low_water, sizeof low_water), 0);
        ASSERT_EQ(events_within(200ms), 0U) << "awake for bytes that were seen";
    }

    [[nodiscard]] std::uint32_t events_within(std::chrono::milliseconds time) const {
        epoll_event event{};
        const int count = ::epoll_wait(epoll_.get(), &event, 1, static_cast<int>(time.count()));
        return count == 1 ? event.events : 0;
    }

    test::NetNs ns_;
    std::optional<test::TcpStream> peer_;
    UniqueFd socket_;
    UniqueFd epoll_;
};

TEST_F(ReceiveLowWater, one_byte_more_wakes) {
    ASSERT_EQ(peer_->send("x"), 0);
    EXPECT_TRUE(events_within(test::kPatience) & EPOLLIN);
}

TEST_F(ReceiveLowWater, fin_wakes) {
    peer_->finish();
    EXPECT_TRUE(events_within(test::kPatience) & EPOLLRDHUP);
}

TEST_F(ReceiveLowWater, rst_wakes) {
    peer_->reset();
    EXPECT_TRUE(events_within(test::kPatience) & EPOLLHUP);
}

} // namespace
} // namespace tapgate::assumptions
