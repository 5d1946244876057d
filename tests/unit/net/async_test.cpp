// SPDX-License-Identifier: Apache-2.0
#include "loopback.hpp"
#include "net/async.hpp"

#include <boost/asio/error.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <stdexcept>

#include <sys/socket.h>

namespace tapgate::net {
namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;
using boost::system::error_code;

asio::awaitable<void> fail_at_once() {
    throw std::runtime_error("on purpose");
    co_return;
}

asio::awaitable<void> sleep_for_an_hour() {
    asio::steady_timer timer(co_await asio::this_coro::executor, 1h);
    co_await timer.async_wait(asio::use_awaitable);
}

TEST(Spawn, an_escaping_exception_is_counted_and_ends_only_its_task) {
    asio::io_context context;
    const std::uint64_t before = escaped_exceptions();
    spawn(context.get_executor(), "test task", fail_at_once());
    context.run();
    EXPECT_EQ(escaped_exceptions(), before + 1);
}

TEST(Spawn, a_signal_is_held_until_its_task_is_over) {
    asio::io_context context;
    auto cancel = std::make_shared<asio::cancellation_signal>();
    const std::weak_ptr<asio::cancellation_signal> held = cancel;
    auto pause = []() -> asio::awaitable<void> { co_await asio::post(asio::use_awaitable); };
    spawn(context.get_executor(), "test task", pause(), std::move(cancel));
    context.poll_one();
    EXPECT_FALSE(held.expired());
    context.run();
    EXPECT_TRUE(held.expired());
}

TEST(Spawn, a_cancelled_task_ends_and_is_not_counted) {
    asio::io_context context;
    const std::uint64_t before = escaped_exceptions();
    const auto cancel = std::make_shared<asio::cancellation_signal>();
    spawn(context.get_executor(), "test task", sleep_for_an_hour(), cancel);
    context.poll();
    EXPECT_FALSE(context.stopped());
    cancel->emit(asio::cancellation_type::terminal);
    context.run();
    EXPECT_EQ(escaped_exceptions(), before);
}

class WaitTest : public ::testing::Test {
  protected:
    void wait(std::chrono::milliseconds timeout) {
        auto waiting = [](WaitTest& test, std::chrono::milliseconds limit) -> asio::awaitable<void> {
            test.outcome_ =
                co_await wait_readable_until(test.socket_, std::chrono::steady_clock::now() + limit);
        };
        spawn(context_.get_executor(), "test wait", waiting(*this, timeout), cancel_);
    }

    void say(std::string_view text) {
        ASSERT_EQ(::send(pair_.near.get(), text.data(), text.size(), 0), static_cast<ssize_t>(text.size()));
    }

    asio::io_context context_;
    std::shared_ptr<asio::cancellation_signal> cancel_ = std::make_shared<asio::cancellation_signal>();
    TcpPair pair_ = connect_pair(AF_INET);
    asio::ip::tcp::socket socket_ = to_socket(context_, std::move(pair_.far));
    std::optional<error_code> outcome_;
};

TEST_F(WaitTest, data_ends_the_wait_and_is_left_in_place) {
    wait(1h);
    context_.poll();
    EXPECT_FALSE(outcome_.has_value());
    say("hello");
    context_.run();
    EXPECT_EQ(outcome_, error_code());
    EXPECT_EQ(socket_.available(), 5U);
}

TEST_F(WaitTest, a_fin_ends_the_wait) {
    wait(1h);
    pair_.near.reset();
    context_.run();
    EXPECT_EQ(outcome_, error_code());
}

TEST_F(WaitTest, the_deadline_ends_the_wait_and_the_socket_stays_usable) {
    wait(20ms);
    context_.run();
    EXPECT_EQ(outcome_, error_code(asio::error::timed_out));
    say("later");
    context_.restart();
    wait(1h);
    context_.run();
    EXPECT_EQ(outcome_, error_code());
    EXPECT_EQ(socket_.available(), 5U);
}

TEST_F(WaitTest, a_deadline_in_the_past_ends_the_wait) {
    wait(-1h);
    context_.run();
    EXPECT_EQ(outcome_, error_code(asio::error::timed_out));
}

TEST_F(WaitTest, cancelling_the_coroutine_ends_the_wait) {
    wait(1h);
    context_.poll();
    cancel_->emit(asio::cancellation_type::terminal);
    context_.run();
    EXPECT_EQ(outcome_, error_code(asio::error::operation_aborted));
}

TEST_F(WaitTest, other_operations_of_the_socket_are_left_alone) {
    std::optional<error_code> read_outcome;
    socket_.async_wait(asio::socket_base::wait_read, [&](const error_code& error) { read_outcome = error; });
    wait(20ms);
    ASSERT_TRUE(run_until(context_, [this] { return outcome_.has_value(); }));
    EXPECT_FALSE(read_outcome.has_value());
    say("x");
    context_.run();
    EXPECT_EQ(read_outcome, error_code());
}

TEST_F(WaitTest, destroying_the_context_in_the_middle_of_a_wait_is_safe) {
    auto context = std::make_unique<asio::io_context>();
    asio::ip::udp::socket socket(*context, asio::ip::udp::v4());
    auto waiting = [](asio::ip::udp::socket& on) -> asio::awaitable<void> {
        (void)co_await wait_readable_until(on, std::chrono::steady_clock::time_point::max());
    };
    spawn(context->get_executor(), "test wait", waiting(socket));
    context->poll();
    socket.close();
    context.reset();
}

} // namespace
} // namespace tapgate::net
