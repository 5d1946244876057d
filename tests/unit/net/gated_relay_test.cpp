// SPDX-License-Identifier: Apache-2.0
#include "loopback.hpp"
#include "net/async.hpp"
#include "net/gated_relay.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include <sys/socket.h>

namespace tapgate::net {
namespace {

using namespace std::chrono_literals;
using Then = GateStep::Then;

/// A gate that does as the test says, and remembers what it was told.
class ScriptedGate final : public RelayGate {
  public:
    GateStep offer(ByteView held, GateCue cue) override {
        last_held = std::string(held.begin(), held.end());
        last_cue = cue;
        ++offers;
        return script(last_held, cue);
    }

    void answered(ByteView bytes) override { answers.append(bytes.begin(), bytes.end()); }

    void answer_ended() override { has_ended = true; }

    [[nodiscard]] std::size_t capacity() const override { return 1000; }

    std::function<GateStep(const std::string& held, GateCue cue)> script;
    std::string last_held;
    GateCue last_cue = GateCue::kBytes;
    unsigned offers = 0;
    std::string answers;
    bool has_ended = false;
};

class GatedRelayTest : public ::testing::Test {
  protected:
    GatedRelayTest() {
        TcpPair guest_side = connect_pair(AF_INET, 0);
        TcpPair upstream_side = connect_pair(AF_INET, 0);
        guest_ = std::move(guest_side.near);
        upstream_ = std::move(upstream_side.near);
        guest_socket_.emplace(to_socket(context_, std::move(guest_side.far)));
        upstream_socket_.emplace(to_socket(context_, std::move(upstream_side.far)));
    }

    void start() {
        const RelayOptions options(10min, 10min, &counters_);
        auto carry = [](GatedRelayTest& test, RelayOptions limits) -> boost::asio::awaitable<void> {
            test.result_ = co_await test.relay_.run(*test.guest_socket_, std::move(*test.upstream_socket_),
                                                    limits, test.gate_);
        };
        spawn(context_.get_executor(), "session under test", carry(*this, options));
    }

    bool run(const std::function<bool()>& is_done) {
        return run_until(context_, is_done, [] { return false; });
    }

    static void send(const UniqueFd& peer, std::string_view bytes) {
        ASSERT_EQ(::send(peer.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
                  static_cast<ssize_t>(bytes.size()));
    }

    /// What has arrived at `peer`; "RST" if it was reset, "FIN" at its end.
    static std::string received(const UniqueFd& peer) {
        std::array<char, 4096> buffer{};
        const ssize_t length = ::recv(peer.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
        if (length == 0)
            return "FIN";
        if (length < 0)
            return errno == ECONNRESET ? "RST" : "";
        return {buffer.data(), static_cast<std::size_t>(length)};
    }

    boost::asio::io_context context_;
    GatedRelay relay_;
    ScriptedGate gate_;
    RelayCounters counters_;
    std::optional<boost::asio::ip::tcp::socket> guest_socket_;
    std::optional<boost::asio::ip::tcp::socket> upstream_socket_;
    UniqueFd guest_;
    UniqueFd upstream_;
    std::optional<GatedResult> result_;
};

TEST_F(GatedRelayTest, nothing_passes_but_what_the_gate_lets_pass) {
    gate_.script = [](const std::string& held, GateCue) { return GateStep{held.size() / 2, Then::kMore}; };
    start();
    send(guest_, "abcdef");
    ASSERT_TRUE(run([&] { return counters_.bytes_up == 3; }));
    EXPECT_EQ(received(upstream_), "abc");
    send(guest_, "g");
    ASSERT_TRUE(run([&] { return counters_.bytes_up == 5; }));
    EXPECT_EQ(gate_.last_held, "defg");
    EXPECT_EQ(received(upstream_), "de");
}

TEST_F(GatedRelayTest, a_refusal_resets_the_upstream_and_leaves_the_guest_to_the_caller) {
    gate_.script = [](const std::string& held, GateCue) {
        return held.empty() ? GateStep{} : GateStep{2, Then::kRefuse};
    };
    start();
    send(guest_, "abcdef");
    ASSERT_TRUE(run([&] { return result_.has_value(); }));
    EXPECT_EQ(result_->relay.how, RelayEnd::kRefused);
    EXPECT_EQ(result_->relay.who, RelayParty::kGuest);
    EXPECT_FALSE(result_->guest_is_owed);
    EXPECT_EQ(received(upstream_), "ab");
    EXPECT_EQ(received(upstream_), "RST");
    ASSERT_TRUE(guest_socket_->is_open());
    guest_socket_->write_some(boost::asio::buffer("no", 2));
    ASSERT_TRUE(run([&] { return received(guest_) == "no"; }));
}

TEST_F(GatedRelayTest, a_refusal_says_when_the_guest_has_not_got_all_that_was_sent_to_it) {
    gate_.script = [](const std::string& held, GateCue) {
        return held.empty() ? GateStep{} : GateStep{0, Then::kRefuse};
    };
    start();
    const std::string much(1 << 20, 'x');
    // The guest does not read: its window and the relay's send buffer fill up.
    ASSERT_TRUE(run([&] {
        const auto before = counters_.bytes_down;
        (void)::send(upstream_.get(), much.data(), much.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
        context_.poll();
        return before != 0 && counters_.bytes_down == before;
    }));
    send(guest_, "a");
    ASSERT_TRUE(run([&] { return result_.has_value(); }));
    EXPECT_EQ(result_->relay.how, RelayEnd::kRefused);
    EXPECT_TRUE(result_->guest_is_owed);
}

TEST_F(GatedRelayTest, a_gate_that_waits_for_an_answer_is_asked_again_when_there_is_one) {
    bool may_pass = false;
    gate_.script = [&](const std::string& held, GateCue) {
        if (held.empty())
            return GateStep{};
        return may_pass ? GateStep{held.size(), Then::kOpen} : GateStep{1, Then::kAnswer};
    };
    start();
    send(guest_, "abc");
    ASSERT_TRUE(run([&] { return counters_.bytes_up == 1; }));
    const unsigned offers = gate_.offers;
    send(guest_, "def");
    boost::asio::steady_timer pause(context_, 20ms);
    bool has_paused = false;
    pause.async_wait([&](const auto&) { has_paused = true; });
    ASSERT_TRUE(run([&] { return has_paused; }));
    EXPECT_EQ(gate_.offers, offers) << "what comes meanwhile stays in the socket";
    may_pass = true;
    send(upstream_, "101");
    // Open: both sockets come back, with what the gate was not offered still in them.
    ASSERT_TRUE(run([&] { return result_.has_value(); }));
    EXPECT_EQ(result_->relay.how, RelayEnd::kOpened);
    EXPECT_EQ(gate_.answers, "101");
    EXPECT_EQ(received(guest_), "101");
    EXPECT_EQ(received(upstream_), "abc");
    EXPECT_EQ(gate_.last_held, "bc");
    std::array<char, 8> rest{};
    ASSERT_TRUE(result_->upstream && guest_socket_->is_open());
    EXPECT_EQ(guest_socket_->read_some(boost::asio::buffer(rest)), 3U);
    EXPECT_EQ(std::string_view(rest.data(), 3), "def");
    result_->upstream->write_some(boost::asio::buffer("on", 2));
    ASSERT_TRUE(run([&] { return received(upstream_) == "on"; }));
}

TEST_F(GatedRelayTest, an_open_gate_gives_the_session_back_when_what_is_under_way_has_arrived) {
    gate_.script = [](const std::string& held, GateCue) {
        return held.empty() ? GateStep{} : GateStep{0, Then::kOpen};
    };
    start();
    const std::string much(1 << 20, 'x');
    std::size_t sent = 0;
    // The guest does not read: its window and the relay's send buffer fill up.
    ASSERT_TRUE(run([&] {
        const auto before = counters_.bytes_down;
        const ssize_t taken = ::send(upstream_.get(), much.data(), much.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
        sent += static_cast<std::size_t>(std::max<ssize_t>(taken, 0));
        context_.poll();
        return before != 0 && counters_.bytes_down == before;
    }));
    send(guest_, "a");
    ASSERT_TRUE(run([&] { return received(upstream_) == "a"; }));
    EXPECT_FALSE(result_.has_value());
    std::size_t arrived = 0;
    ASSERT_TRUE(run([&] {
        arrived += received(guest_).size();
        return result_.has_value();
    }));
    EXPECT_EQ(result_->relay.how, RelayEnd::kOpened);
    // The rest is in the sockets: the guest's has what was sent to it, the upstream's what was not read.
    std::array<char, 65536> rest{};
    std::size_t unread = 0;
    boost::system::error_code error;
    result_->upstream->non_blocking(true);
    while (const std::size_t count = result_->upstream->read_some(boost::asio::buffer(rest), error))
        unread += count;
    ASSERT_TRUE(run([&] {
        arrived += received(guest_).size();
        return arrived + unread == sent;
    }));
}

TEST_F(GatedRelayTest, an_open_gate_is_passed_here_once_one_direction_has_ended) {
    gate_.script = [](const std::string& held, GateCue) {
        return held.empty() ? GateStep{} : GateStep{0, Then::kOpen};
    };
    start();
    // The server has ended already.
    ::shutdown(upstream_.get(), SHUT_WR);
    ASSERT_TRUE(run([&] { return received(guest_) == "FIN"; }));
    send(guest_, "abc");
    ASSERT_TRUE(run([&] { return received(upstream_) == "abc"; }));
    send(guest_, "def");
    ASSERT_TRUE(run([&] { return received(upstream_) == "def"; }));
    EXPECT_FALSE(result_.has_value());
}

TEST_F(GatedRelayTest, a_guest_that_misses_the_deadline_is_told_of) {
    gate_.script = [](const std::string& held, GateCue cue) {
        if (cue == GateCue::kLate)
            return GateStep{0, Then::kRefuse};
        GateStep step;
        if (!held.empty())
            step.deadline = std::chrono::steady_clock::now() + 30ms;
        return step;
    };
    start();
    send(guest_, "a");
    ASSERT_TRUE(run([&] { return result_.has_value(); }));
    EXPECT_EQ(gate_.last_cue, GateCue::kLate);
    EXPECT_EQ(gate_.last_held, "a");
    EXPECT_EQ(result_->relay.bytes_up, 0U);
}

TEST_F(GatedRelayTest, a_fin_is_offered_before_it_goes_upstream) {
    gate_.script = [](const std::string& held, GateCue cue) {
        return cue == GateCue::kEnd ? GateStep{held.size(), Then::kMore} : GateStep{};
    };
    start();
    send(guest_, "abc");
    ::shutdown(guest_.get(), SHUT_WR);
    ASSERT_TRUE(run([&] { return gate_.last_cue == GateCue::kEnd; }));
    ASSERT_TRUE(run([&] { return received(upstream_) == "abc"; }));
    ASSERT_TRUE(run([&] { return received(upstream_) == "FIN"; }));
    ::shutdown(upstream_.get(), SHUT_WR);
    ASSERT_TRUE(run([&] { return result_.has_value(); }));
    EXPECT_TRUE(gate_.has_ended);
    EXPECT_EQ(result_->relay.how, RelayEnd::kFinished);
    EXPECT_EQ(result_->relay.who, RelayParty::kGuest);
}

TEST_F(GatedRelayTest, an_upstream_that_resets_ends_a_session_that_waits_for_its_answer) {
    gate_.script = [](const std::string& held, GateCue) {
        return held.empty() ? GateStep{} : GateStep{0, Then::kAnswer};
    };
    start();
    send(guest_, "abc");
    ASSERT_TRUE(run([&] { return gate_.last_held == "abc"; }));
    const linger abort{1, 0};
    ::setsockopt(upstream_.get(), SOL_SOCKET, SO_LINGER, &abort, sizeof abort);
    upstream_.reset();
    ASSERT_TRUE(run([&] { return result_.has_value(); }));
    EXPECT_EQ(result_->relay.how, RelayEnd::kReset);
    EXPECT_EQ(result_->relay.who, RelayParty::kUpstream);
    ASSERT_TRUE(run([&] { return received(guest_) == "RST"; }));
}

} // namespace
} // namespace tapgate::net
