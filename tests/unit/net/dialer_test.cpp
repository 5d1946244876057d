// SPDX-License-Identifier: Apache-2.0
#include "loopback.hpp"
#include "net/async.hpp"
#include "net/dialer.hpp"

#include <boost/asio/cancellation_signal.hpp>
#include <gtest/gtest.h>

#include <cerrno>
#include <optional>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/socket.h>

namespace tapgate::net {
namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;
using asio::ip::tcp;

class DialerTest : public ::testing::TestWithParam<const char*> {
  protected:
    Endpoint listen(tcp::acceptor& acceptor, int backlog) {
        const tcp::endpoint any_port(asio::ip::make_address(GetParam()), 0);
        acceptor.open(any_port.protocol());
        acceptor.bind(any_port);
        acceptor.listen(backlog);
        return {*IpAddress::parse(GetParam()), acceptor.local_endpoint().port()};
    }

    void dial_and_run(Endpoint to, std::chrono::milliseconds timeout, const DialSource* source = nullptr) {
        begin(to, timeout, source);
        context_.run();
    }

    void begin(Endpoint to, std::chrono::milliseconds timeout, const DialSource* source = nullptr) {
        auto dialling = [](DialerTest& test, Endpoint where, std::chrono::milliseconds limit,
                           const DialSource* from) -> asio::awaitable<void> {
            test.outcome_ = co_await dial(where, limit, from);
        };
        spawn(context_.get_executor(), "test dial", dialling(*this, to, timeout, source), cancel_);
    }

    int errno_of_failure() { return outcome_ && !*outcome_ ? outcome_->error().errno_value() : 0; }

    asio::io_context context_;
    std::shared_ptr<asio::cancellation_signal> cancel_ = std::make_shared<asio::cancellation_signal>();
    std::optional<Result<tcp::socket>> outcome_;
};

INSTANTIATE_TEST_SUITE_P(Families, DialerTest, ::testing::Values("127.0.0.1", "::1"),
                         [](const auto& of) { return of.index == 0 ? "ipv4" : "ipv6"; });

TEST_P(DialerTest, a_connection_is_ready_to_use) {
    tcp::acceptor acceptor(context_);
    const Endpoint to = listen(acceptor, 1);
    dial_and_run(to, 10s);
    ASSERT_TRUE(outcome_.has_value());
    ASSERT_TRUE(outcome_->has_value()) << outcome_->error().message();
    tcp::socket& socket = **outcome_;
    EXPECT_EQ(socket.remote_endpoint().port(), to.port);
    EXPECT_NE(::fcntl(socket.native_handle(), F_GETFD) & FD_CLOEXEC, 0);
    EXPECT_NE(::fcntl(socket.native_handle(), F_GETFL) & O_NONBLOCK, 0);
}

TEST_P(DialerTest, the_source_is_bound_first) {
    tcp::acceptor acceptor(context_);
    const Endpoint to = listen(acceptor, 1);
    Endpoint source{*IpAddress::parse(GetParam()), 0};
    {
        tcp::acceptor finds_a_free_port(context_);
        source.port = listen(finds_a_free_port, 1).port;
    }
    std::vector<Endpoint> told;
    const DialSource from(source, [&](const Endpoint& local) {
        told.push_back(local);
        return true;
    });
    dial_and_run(to, 10s, &from);
    ASSERT_TRUE(outcome_.has_value());
    ASSERT_TRUE(outcome_->has_value()) << outcome_->error().message();
    EXPECT_EQ((*outcome_)->local_endpoint().port(), source.port);
    EXPECT_EQ(told, std::vector{source});
}

TEST_P(DialerTest, a_port_that_does_not_do_is_replaced_by_another) {
    tcp::acceptor acceptor(context_);
    const Endpoint to = listen(acceptor, 1);
    std::vector<Endpoint> told;
    const DialSource from({*IpAddress::parse(GetParam()), 0}, [&](const Endpoint& local) {
        told.push_back(local);
        return told.size() == 2;
    });
    dial_and_run(to, 10s, &from);
    ASSERT_TRUE(outcome_.has_value());
    ASSERT_TRUE(outcome_->has_value()) << outcome_->error().message();
    ASSERT_EQ(told.size(), 2U);
    EXPECT_EQ((*outcome_)->local_endpoint().port(), told[1].port);
}

TEST_P(DialerTest, a_dial_for_which_no_port_does_is_an_error) {
    tcp::acceptor acceptor(context_);
    const Endpoint to = listen(acceptor, 1);
    const std::size_t descriptors_before = count_descriptors();
    const DialSource from({*IpAddress::parse(GetParam()), 0}, [](const Endpoint&) { return false; });
    dial_and_run(to, 10s, &from);
    EXPECT_EQ(errno_of_failure(), EADDRNOTAVAIL);
    EXPECT_EQ(count_descriptors(), descriptors_before);
}

TEST_P(DialerTest, a_source_this_host_does_not_have_is_an_error) {
    const bool is_v4 = IpAddress::parse(GetParam())->is_v4();
    const DialSource source({*IpAddress::parse(is_v4 ? "192.0.2.1" : "2001:db8::1"), 0}, {});
    dial_and_run({*IpAddress::parse(GetParam()), 9}, 10s, &source);
    EXPECT_EQ(errno_of_failure(), EADDRNOTAVAIL);
}

TEST_P(DialerTest, a_refusal_keeps_its_errno_and_leaves_no_descriptor) {
    Endpoint to;
    {
        tcp::acceptor acceptor(context_);
        to = listen(acceptor, 1);
    }
    const std::size_t descriptors_before = count_descriptors();
    dial_and_run(to, 10s);
    EXPECT_EQ(errno_of_failure(), ECONNREFUSED);
    EXPECT_NE(outcome_->error().message().find("connect to " + to.to_string()), std::string::npos);
    EXPECT_EQ(count_descriptors(), descriptors_before);
}

/// Fills the backlog of a listener that accepts nothing: its kernel ignores further SYNs.
class SilentListener {
  public:
    explicit SilentListener(const Endpoint& to) {
        sockaddr_storage remote{};
        const socklen_t length = to.to_sockaddr(remote);
        for (int i = 0; i < 4; ++i) {
            fillers_.emplace_back(::socket(remote.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
            (void)::connect(fillers_.back().get(), reinterpret_cast<sockaddr*>(&remote), length);
        }
    }

  private:
    std::vector<UniqueFd> fillers_;
};

TEST_P(DialerTest, a_silent_destination_times_out) {
    tcp::acceptor acceptor(context_);
    const Endpoint to = listen(acceptor, 0);
    const SilentListener silent(to);
    const std::size_t descriptors_before = count_descriptors();
    const auto begun = std::chrono::steady_clock::now();
    dial_and_run(to, 50ms);
    EXPECT_EQ(errno_of_failure(), ETIMEDOUT);
    EXPECT_GE(std::chrono::steady_clock::now() - begun, 50ms);
    EXPECT_EQ(count_descriptors(), descriptors_before);
}

TEST_P(DialerTest, a_cancelled_dial_leaves_no_descriptor) {
    tcp::acceptor acceptor(context_);
    const Endpoint to = listen(acceptor, 0);
    const SilentListener silent(to);
    const std::size_t descriptors_before = count_descriptors();
    begin(to, 1h);
    context_.poll();
    EXPECT_FALSE(outcome_.has_value());
    cancel_->emit(asio::cancellation_type::terminal);
    context_.run();
    EXPECT_EQ(errno_of_failure(), ECANCELED);
    EXPECT_EQ(count_descriptors(), descriptors_before);
}

TEST(Dialer, an_unreachable_network_keeps_its_errno) {
    // A thread of its own, since it moves to an empty network namespace, in which nothing has a route.
    int error_number = 0;
    bool is_isolated = false;
    std::thread([&] {
        is_isolated = ::unshare(CLONE_NEWNET) == 0;
        if (!is_isolated)
            return;
        asio::io_context context;
        auto dialling = [](int& result) -> asio::awaitable<void> {
            const Endpoint nowhere = *Endpoint::parse("192.0.2.1:9");
            const auto outcome = co_await dial(nowhere, 10s);
            result = outcome ? 0 : outcome.error().errno_value();
        };
        spawn(context.get_executor(), "test dial", dialling(error_number));
        context.run();
    }).join();
    if (!is_isolated)
        GTEST_SKIP() << "needs root";
    EXPECT_EQ(error_number, ENETUNREACH);
}

} // namespace
} // namespace tapgate::net
