// SPDX-License-Identifier: Apache-2.0
#include "base/unique_fd.hpp"
#include "control/metrics_server.hpp"
#include "control/open_metrics.hpp"
#include "deadline.hpp"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <future>
#include <thread>

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

namespace tapgate::control {
namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;

/// A server on a thread of its own, and a client's view of it.
class MetricsServerTest : public testing::TestWithParam<const char*> {
  protected:
    ~MetricsServerTest() override {
        if (!thread_.joinable())
            return;
        asio::post(context_, [this] { server_.reset(); });
        work_.reset();
        thread_.join();
    }

    void start(const MetricsServerLimits& limits = MetricsServerLimits()) {
        auto server = MetricsServer::start(
            context_, {IpAddress::parse(GetParam()).value(), 0},
            [this] { return "made " + std::to_string(++made_) + "\n" + more_; }, limits);
        ASSERT_TRUE(server.has_value()) << server.error().message();
        server_ = std::move(*server);
        endpoint_ = server_->endpoint();
        thread_ = std::thread([this] { context_.run(); });
    }

    [[nodiscard]] UniqueFd connect() const {
        sockaddr_storage address{};
        const unsigned length = endpoint_.to_sockaddr(address);
        UniqueFd fd(::socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
        EXPECT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), length), 0);
        return fd;
    }

    static void send(const UniqueFd& fd, std::string_view bytes) {
        EXPECT_EQ(::send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
                  static_cast<ssize_t>(bytes.size()));
    }

    /// What comes until the server closes, which it has to.
    static std::string receive(const UniqueFd& fd) {
        std::string all;
        std::array<char, 65536> chunk{};
        for (;;) {
            pollfd ready{.fd = fd.get(), .events = POLLIN, .revents = 0};
            if (::poll(&ready, 1, static_cast<int>(kDeadline.count())) != 1) {
                ADD_FAILURE() << "the server does not close";
                return all;
            }
            const ssize_t n = ::recv(fd.get(), chunk.data(), chunk.size(), 0);
            if (n <= 0)
                return all;
            all.append(chunk.data(), static_cast<std::size_t>(n));
        }
    }

    [[nodiscard]] std::string ask(std::string_view request) const {
        const UniqueFd fd = connect();
        send(fd, request);
        return receive(fd);
    }

    asio::io_context context_{1};
    asio::executor_work_guard<asio::io_context::executor_type> work_{context_.get_executor()};
    std::string more_; ///< before start()
    std::atomic<int> made_{0};
    std::unique_ptr<MetricsServer> server_;
    Endpoint endpoint_;
    std::thread thread_;
};

constexpr std::string_view kGet = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";

TEST_P(MetricsServerTest, the_text_is_served_with_its_type_and_length) {
    start();
    const std::string answer = ask(kGet);
    EXPECT_EQ(answer.rfind("HTTP/1.1 200 OK\r\n", 0), 0U) << answer;
    EXPECT_NE(answer.find("Content-Type: " + std::string(kOpenMetricsType) + "\r\n"), std::string::npos)
        << answer;
    EXPECT_NE(answer.find("Content-Length: 7\r\n"), std::string::npos) << answer;
    EXPECT_NE(answer.find("Connection: close\r\n"), std::string::npos) << answer;
    EXPECT_TRUE(answer.ends_with("\r\n\r\nmade 1\n")) << answer;
    EXPECT_TRUE(ask("GET /metrics?x=y HTTP/1.0\r\n\r\n").ends_with("\r\n\r\nmade 1\n"));
}

TEST_P(MetricsServerTest, however_many_ask_the_text_is_made_once_in_its_time) {
    MetricsServerLimits limits;
    limits.freshness = 1h;
    start(limits);
    for (int i = 0; i < 20; ++i)
        EXPECT_TRUE(ask(kGet).ends_with("made 1\n"));
    EXPECT_EQ(made_, 1);
}

TEST_P(MetricsServerTest, after_its_time_the_text_is_made_again) {
    MetricsServerLimits limits;
    limits.freshness = 0ms;
    start(limits);
    EXPECT_TRUE(ask(kGet).ends_with("made 1\n"));
    EXPECT_TRUE(ask(kGet).ends_with("made 2\n"));
}

TEST_P(MetricsServerTest, a_long_text_arrives_whole) {
    more_.assign(std::size_t{16} << 20U, 'x');
    start();
    const std::string answer = ask(kGet);
    EXPECT_TRUE(answer.ends_with("\r\n\r\nmade 1\n" + more_));
}

TEST_P(MetricsServerTest, anything_else_is_answered_and_makes_nothing) {
    start();
    EXPECT_EQ(ask("GET / HTTP/1.1\r\n\r\n").rfind("HTTP/1.1 404 ", 0), 0U);
    EXPECT_EQ(ask("GET /metricsx HTTP/1.1\r\n\r\n").rfind("HTTP/1.1 404 ", 0), 0U);
    EXPECT_EQ(ask("DELETE /metrics HTTP/1.1\r\n\r\n").rfind("HTTP/1.1 405 ", 0), 0U);
    EXPECT_EQ(ask("\x16\x03\x01\r\n\r\n").rfind("HTTP/1.1 400 ", 0), 0U);
    EXPECT_EQ(
        ask("GET /metrics HTTP/1.1\r\nX: " + std::string(10'000, 'x') + "\r\n\r\n").rfind("HTTP/1.1 400 ", 0),
        0U);
    EXPECT_EQ(made_, 0);
    EXPECT_TRUE(ask(kGet).ends_with("made 1\n"));
}

TEST_P(MetricsServerTest, a_client_that_says_nothing_is_closed_and_holds_up_nobody) {
    MetricsServerLimits limits;
    limits.timeout = 200ms;
    start(limits);
    const UniqueFd silent = connect();
    const UniqueFd half = connect();
    send(half, "GET /metr");
    EXPECT_TRUE(ask(kGet).ends_with("made 1\n"));
    EXPECT_EQ(receive(silent), "");
    EXPECT_EQ(receive(half), "");
}

TEST_P(MetricsServerTest, one_connection_too_many_takes_the_place_of_the_oldest) {
    MetricsServerLimits limits;
    limits.connections = 2;
    limits.timeout = 1h;
    start(limits);
    const UniqueFd first = connect();
    const UniqueFd second = connect();
    send(second, "GET /metrics HTTP/1.1\r\n");
    EXPECT_TRUE(ask(kGet).ends_with("made 1\n"));
    EXPECT_EQ(receive(first), "");
    send(second, "\r\n");
    EXPECT_TRUE(receive(second).ends_with("made 1\n"));
}

TEST_P(MetricsServerTest, an_address_that_is_taken_is_an_error_that_names_it) {
    start();
    const auto again = MetricsServer::start(context_, endpoint_, [] { return std::string(); });
    ASSERT_FALSE(again.has_value());
    EXPECT_EQ(again.error().message(),
              "serve metrics on " + endpoint_.to_string() +
                  ": Address already in use; metrics_listen chooses another address, "
                  "\"\" serves none");
}

TEST_P(MetricsServerTest, stopping_closes_what_is_open) {
    start();
    const UniqueFd silent = connect();
    const UniqueFd asked = connect();
    send(asked, kGet);
    EXPECT_TRUE(receive(asked).ends_with("made 1\n")) << "so that `silent` was accepted before";
    asio::post(context_, [this] { server_.reset(); });
    EXPECT_EQ(receive(silent), "");
}

std::string family_name(const testing::TestParamInfo<const char*>& tested) {
    return tested.index == 0 ? "IPv4" : "IPv6";
}

INSTANTIATE_TEST_SUITE_P(Family, MetricsServerTest, testing::Values("127.0.0.1", "::1"), family_name);

} // namespace
} // namespace tapgate::control
