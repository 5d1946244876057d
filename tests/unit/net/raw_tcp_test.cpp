// SPDX-License-Identifier: Apache-2.0
#include "loopback.hpp"
#include "net/raw_tcp.hpp"
#include "net/tcp_state.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cerrno>
#include <string>
#include <string_view>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace tapgate::net {
namespace {

constexpr std::uint8_t kAck = 0x10;
constexpr std::uint8_t kRst = 0x04;

Endpoint local_of(int fd) {
    sockaddr_storage storage{};
    socklen_t length = sizeof storage;
    ::getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &length);
    return Endpoint::from_sockaddr(storage).value();
}

/// A connection whose near end has become silent: RawTcp speaks in its place, and the kernel's own TCP of the
/// far end judges what it says.
class RawTcpTest : public ::testing::TestWithParam<int> {
  protected:
    void SetUp() override {
        if (::geteuid() != 0)
            GTEST_SKIP() << "needs root";
        auto raw = RawTcp::open();
        ASSERT_TRUE(raw) << raw.error().message();
        raw_.emplace(std::move(*raw));
        const auto near = read_tcp_state(pair_.near.get());
        const auto far = read_tcp_state(pair_.far.get());
        ASSERT_TRUE(near && far);
        segment_.from = local_of(pair_.near.get());
        segment_.to = local_of(pair_.far.get());
        segment_.sequence = near->send_next;
        segment_.acknowledgement = near->receive_next;
        segment_.flags = kAck;
        segment_.window = 1000;
        if (near->has_timestamps())
            segment_.timestamps = RawSegment::Timestamps{near->clock, far->clock};
    }

    std::string received() {
        pollfd readable{pair_.far.get(), POLLIN, 0};
        ::poll(&readable, 1, 10'000);
        std::array<char, 256> bytes{};
        const ssize_t count = ::recv(pair_.far.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
        return count < 0 ? "errno " + std::to_string(errno)
                         : std::string(bytes.data(), static_cast<std::size_t>(count));
    }

    TcpPair pair_ = connect_pair(GetParam());
    std::optional<RawTcp> raw_;
    RawSegment segment_;
};

INSTANTIATE_TEST_SUITE_P(Families, RawTcpTest, ::testing::Values(AF_INET, AF_INET6),
                         [](const auto& of) { return of.param == AF_INET ? "ipv4" : "ipv6"; });

TEST_P(RawTcpTest, a_peer_takes_the_payload) {
    for (const std::string_view text : {"odd", "even", ""}) {
        segment_.payload = ByteView(reinterpret_cast<const std::uint8_t*>(text.data()), text.size());
        const auto sent = raw_->send(segment_);
        ASSERT_TRUE(sent) << sent.error().message();
        segment_.sequence += static_cast<std::uint32_t>(text.size());
        if (!text.empty()) {
            EXPECT_EQ(received(), text);
        }
    }
}

TEST_P(RawTcpTest, a_peer_obeys_the_reset) {
    segment_.flags = kRst | kAck;
    const auto sent = raw_->send(segment_);
    ASSERT_TRUE(sent) << sent.error().message();
    EXPECT_EQ(received(), "errno " + std::to_string(ECONNRESET));
}

TEST_P(RawTcpTest, a_segment_before_the_window_is_not_taken) {
    const std::string_view text = "late";
    segment_.payload = ByteView(reinterpret_cast<const std::uint8_t*>(text.data()), text.size());
    segment_.sequence -= 1000;
    ASSERT_TRUE(raw_->send(segment_));
    segment_.sequence += 1000;
    ASSERT_TRUE(raw_->send(segment_));
    EXPECT_EQ(received(), text); // once
    pollfd readable{pair_.far.get(), POLLIN, 0};
    EXPECT_EQ(::poll(&readable, 1, 0), 0);
}

} // namespace
} // namespace tapgate::net
