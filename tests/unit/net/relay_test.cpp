// SPDX-License-Identifier: Apache-2.0
#include "net/gated_relay.hpp"
#include "net/relay.hpp"
#include "relay_fixture.hpp"

#include <boost/asio/steady_timer.hpp>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <deque>

namespace tapgate::net {
namespace {

using namespace std::chrono_literals;

/// The gated relay with a gate that lets everything pass, as one relay among the others.
class GatedAsRelay final : public Relay {
  public:
    boost::asio::awaitable<RelayResult> run(boost::asio::ip::tcp::socket guest,
                                            boost::asio::ip::tcp::socket upstream,
                                            const RelayOptions& options) override {
        const auto gate = std::make_shared<PassAll>();
        const GatedResult result = co_await relay_.run(guest, std::move(upstream), options, *gate);
        co_return result.relay;
    }

    [[nodiscard]] std::string_view name() const override { return "gated"; }

  private:
    class PassAll final : public RelayGate {
      public:
        GateStep offer(ByteView held, GateCue /*cue*/) override { return {.pass = held.size()}; }

        void answered(ByteView /*bytes*/) override {}

        void answer_ended() override {}

        [[nodiscard]] std::size_t capacity() const override { return 65536; }
    };

    GatedRelay relay_;
};

/// Every relay keeps the same promises.
class RelayTest : public ::testing::TestWithParam<const char*> {
  protected:
    void SetUp() override {
        const boost::asio::steady_timer opens_the_reactor(context_);
        if (GetParam() == std::string_view("copy")) {
            relay_ = make_copy_relay(context_);
        } else if (GetParam() == std::string_view("gated")) {
            relay_ = std::make_unique<GatedAsRelay>();
        } else {
            auto made = make_uring_relay(context_, UringSettings());
            ASSERT_TRUE(made.has_value()) << made.error().message();
            relay_ = std::move(*made);
        }
        ASSERT_EQ(relay_->name(), GetParam());
    }

    void start(RelayedPair& session, const SessionSetup& setup = {}) {
        start_session(context_, *relay_, session, setup);
    }

    /// Runs relay and peers until `is_done`.
    bool pump_until(RelayedPair& session, const std::function<bool()>& is_done) {
        return run_until(context_, is_done, [&session] { return session.pump(); });
    }

    /// Lets the relay run until neither peer can move a byte any more.
    void pump_until_stalled(RelayedPair& session) {
        auto last_progress = std::chrono::steady_clock::now();
        ASSERT_TRUE(run_until(
            context_, [&] { return std::chrono::steady_clock::now() - last_progress > 50ms; },
            [&] {
                const bool did_move = session.pump();
                if (did_move)
                    last_progress = std::chrono::steady_clock::now();
                return did_move;
            }));
    }

    boost::asio::io_context context_;
    std::unique_ptr<Relay> relay_;
};

INSTANTIATE_TEST_SUITE_P(Relays, RelayTest, ::testing::Values("uring", "copy", "gated"),
                         [](const auto& of) { return std::string(of.param); });

/// Most behaviours are tested with either side as the one that acts first.
struct Sides {
    Peer& actor;
    Peer& other;
    RelayParty party;
};

Sides guest_acts(RelayedPair& session) {
    return {session.guest, session.upstream, RelayParty::kGuest};
}

Sides upstream_acts(RelayedPair& session) {
    return {session.upstream, session.guest, RelayParty::kUpstream};
}

void expect_reset(const Peer& peer) {
    EXPECT_EQ(peer.error(), ECONNRESET);
    EXPECT_FALSE(peer.has_eof());
    EXPECT_TRUE(peer.is_verbatim());
}

TEST_P(RelayTest, carries_64_mib_each_way_verbatim) {
    const std::size_t descriptors_before = count_descriptors();
    RelayedPair session;
    start(session);
    session.guest.plan(64 * kMiB, true);
    session.upstream.plan(64 * kMiB, true);
    ASSERT_TRUE(pump_until(
        session, [&] { return session.is_over() && session.guest.has_eof() && session.upstream.has_eof(); }));
    EXPECT_EQ(session.guest.received(), 64 * kMiB);
    EXPECT_EQ(session.upstream.received(), 64 * kMiB);
    EXPECT_TRUE(session.guest.is_verbatim());
    EXPECT_TRUE(session.upstream.is_verbatim());
    EXPECT_EQ(session.result->how, RelayEnd::kFinished);
    EXPECT_EQ(session.result->bytes_up, 64 * kMiB);
    EXPECT_EQ(session.result->bytes_down, 64 * kMiB);
    EXPECT_EQ(session.counters.bytes_up, 64 * kMiB);
    EXPECT_EQ(session.counters.bytes_down, 64 * kMiB);
    session.guest = Peer();
    session.upstream = Peer();
    EXPECT_EQ(count_descriptors(), descriptors_before);
}

TEST_P(RelayTest, carries_ipv6) {
    RelayedPair session;
    start(session, {.family = AF_INET6});
    session.guest.plan(kMiB, true);
    session.upstream.plan(kMiB, true);
    ASSERT_TRUE(pump_until(
        session, [&] { return session.is_over() && session.guest.has_eof() && session.upstream.has_eof(); }));
    EXPECT_TRUE(session.guest.is_verbatim() && session.upstream.is_verbatim());
    EXPECT_EQ(session.guest.received(), kMiB);
    EXPECT_EQ(session.upstream.received(), kMiB);
}

TEST_P(RelayTest, counts_bytes_while_the_session_runs) {
    RelayedPair session;
    start(session);
    session.guest.plan(1000, false);
    ASSERT_TRUE(pump_until(session, [&] { return session.upstream.received() == 1000; }));
    EXPECT_EQ(session.counters.bytes_up, 1000U);
    EXPECT_EQ(session.counters.bytes_down, 0U);
    EXPECT_FALSE(session.is_over());
    session.cancel->emit(boost::asio::cancellation_type::terminal);
    ASSERT_TRUE(pump_until(session, [&] { return session.is_over(); }));
}

TEST_P(RelayTest, one_byte_writes_arrive_in_order) {
    RelayedPair session;
    start(session);
    session.guest.plan(20'000, true, 1);
    session.upstream.plan(20'000, true, 1);
    session.upstream.set_appetite(7);
    ASSERT_TRUE(pump_until(
        session, [&] { return session.is_over() && session.guest.has_eof() && session.upstream.has_eof(); }));
    EXPECT_TRUE(session.guest.is_verbatim() && session.upstream.is_verbatim());
    EXPECT_EQ(session.guest.received(), 20'000U);
    EXPECT_EQ(session.upstream.received(), 20'000U);
}

TEST_P(RelayTest, urgent_data_stays_in_the_stream) {
    RelayedPair session;
    start(session);
    session.guest.plan(10, false);
    ASSERT_TRUE(pump_until(session, [&] { return session.upstream.received() == 10; }));
    const auto bytes = stream_bytes(1, 10);
    ASSERT_EQ(::send(session.guest.fd(), bytes.data(), 1, MSG_OOB), 1);
    session.guest.plan(0, true);
    // The peer counts what it has sent itself; the urgent byte comes on top.
    ASSERT_TRUE(pump_until(session, [&] { return session.upstream.has_eof(); }));
    EXPECT_EQ(session.upstream.received(), 11U);
    EXPECT_TRUE(session.upstream.is_verbatim());
    session.upstream.plan(0, true);
    ASSERT_TRUE(pump_until(session, [&] { return session.is_over(); }));
    EXPECT_EQ(session.result->how, RelayEnd::kFinished);
}

TEST_P(RelayTest, a_half_closed_session_carries_the_other_direction) {
    for (const auto sides_of : {guest_acts, upstream_acts}) {
        RelayedPair session;
        start(session);
        const auto [actor, other, party] = sides_of(session);
        actor.plan(3 * kMiB, true);
        ASSERT_TRUE(pump_until(session, [&] { return other.has_eof(); }));
        EXPECT_EQ(other.received(), 3 * kMiB);
        EXPECT_FALSE(session.is_over());
        EXPECT_FALSE(actor.has_eof());
        other.plan(5 * kMiB, true);
        ASSERT_TRUE(pump_until(session, [&] { return session.is_over() && actor.has_eof(); }));
        EXPECT_EQ(actor.received(), 5 * kMiB);
        EXPECT_TRUE(actor.is_verbatim() && other.is_verbatim());
        EXPECT_EQ(session.result->how, RelayEnd::kFinished);
        EXPECT_EQ(session.result->who, party);
    }
}

TEST_P(RelayTest, both_sides_closing_at_once_finish_the_session) {
    RelayedPair session;
    start(session);
    session.guest.plan(100, true);
    session.upstream.plan(100, true);
    while (session.guest.pump() || session.upstream.pump()) {
    } // both FINs are there before the relay looks
    ASSERT_TRUE(pump_until(
        session, [&] { return session.is_over() && session.guest.has_eof() && session.upstream.has_eof(); }));
    EXPECT_EQ(session.guest.received(), 100U);
    EXPECT_EQ(session.upstream.received(), 100U);
    EXPECT_EQ(session.result->how, RelayEnd::kFinished);
}

TEST_P(RelayTest, a_slow_reader_gets_the_tail_after_the_session_is_over) {
    for (const auto sides_of : {guest_acts, upstream_acts}) {
        RelayedPair session;
        start(session);
        const auto [actor, other, party] = sides_of(session);
        other.set_appetite(0);
        other.plan(0, true);
        actor.plan(256 * 1024, true);
        ASSERT_TRUE(pump_until(session, [&] { return session.is_over(); }));
        EXPECT_EQ(session.result->how, RelayEnd::kFinished);
        other.set_appetite(1000);
        ASSERT_TRUE(pump_until(session, [&] { return other.has_eof() || other.error() != 0; }));
        EXPECT_EQ(other.error(), 0);
        EXPECT_EQ(other.received(), 256U * 1024);
        EXPECT_TRUE(other.is_verbatim());
    }
}

TEST_P(RelayTest, a_slow_reader_with_small_buffers_gets_everything) {
    for (const auto sides_of : {guest_acts, upstream_acts}) {
        RelayedPair session;
        start(session, {.buffer_bytes = 8192});
        const auto [actor, other, party] = sides_of(session);
        other.set_appetite(5000);
        actor.plan(2 * kMiB, true);
        other.plan(10, true);
        ASSERT_TRUE(pump_until(session,
                               [&] { return session.is_over() && (other.has_eof() || other.error() != 0); }));
        EXPECT_EQ(other.received(), 2 * kMiB);
        EXPECT_TRUE(other.is_verbatim());
        EXPECT_EQ(session.result->how, RelayEnd::kFinished);
    }
}

TEST_P(RelayTest, a_reset_of_an_idle_session_is_passed_on) {
    for (const auto sides_of : {guest_acts, upstream_acts}) {
        RelayedPair session;
        start(session);
        const auto [actor, other, party] = sides_of(session);
        actor.plan(10, false);
        ASSERT_TRUE(pump_until(session, [&] { return other.received() == 10; }));
        actor.reset();
        ASSERT_TRUE(pump_until(session, [&] { return session.is_over() && other.error() != 0; }));
        expect_reset(other);
        EXPECT_EQ(session.result->how, RelayEnd::kReset);
        EXPECT_EQ(session.result->who, party);
        EXPECT_EQ(session.result->error_number, ECONNRESET);
    }
}

TEST_P(RelayTest, a_reset_of_a_half_closed_session_is_passed_on) {
    for (const auto sides_of : {guest_acts, upstream_acts}) {
        RelayedPair session;
        start(session);
        const auto [actor, other, party] = sides_of(session);
        actor.plan(10, true);
        ASSERT_TRUE(pump_until(session, [&] { return other.has_eof(); }));
        actor.reset();
        ASSERT_TRUE(pump_until(session, [&] { return session.is_over(); }));
        EXPECT_EQ(session.result->how, RelayEnd::kReset);
        EXPECT_EQ(session.result->who, party);
        other.plan(1, false);
        ASSERT_TRUE(pump_until(session, [&] { return other.error() != 0; }));
    }
}

TEST_P(RelayTest, a_sender_that_resets_mid_transfer_cuts_the_other_side_with_a_reset) {
    for (const auto sides_of : {guest_acts, upstream_acts}) {
        RelayedPair session;
        start(session);
        const auto [actor, other, party] = sides_of(session);
        actor.plan(64 * kMiB, true);
        ASSERT_TRUE(pump_until(session, [&] { return other.received() > kMiB; }));
        actor.reset();
        ASSERT_TRUE(pump_until(session,
                               [&] { return session.is_over() && (other.error() != 0 || other.has_eof()); }));
        expect_reset(other);
        EXPECT_LT(other.received(), 64 * kMiB);
        EXPECT_EQ(session.result->how, RelayEnd::kReset);
        EXPECT_EQ(session.result->who, party);
    }
}

TEST_P(RelayTest, a_reader_that_resets_mid_transfer_cuts_the_sender_with_a_reset) {
    for (const auto sides_of : {guest_acts, upstream_acts}) {
        RelayedPair session;
        start(session);
        const auto [actor, other, party] = sides_of(session);
        other.plan(64 * kMiB, true);
        ASSERT_TRUE(pump_until(session, [&] { return actor.received() > kMiB; }));
        actor.reset();
        ASSERT_TRUE(pump_until(session,
                               [&] { return session.is_over() && (other.error() != 0 || other.has_eof()); }));
        EXPECT_FALSE(other.has_eof());
        EXPECT_TRUE(other.error() == ECONNRESET || other.error() == EPIPE) << other.error();
        EXPECT_EQ(session.result->how, RelayEnd::kReset);
        EXPECT_EQ(session.result->who, party);
    }
}

TEST_P(RelayTest, a_sender_that_resets_is_noticed_while_the_reader_takes_nothing) {
    for (const auto sides_of : {guest_acts, upstream_acts}) {
        RelayedPair session;
        start(session);
        const auto [actor, other, party] = sides_of(session);
        other.set_appetite(0);
        actor.plan(1024 * kMiB, false);
        pump_until_stalled(session);
        ASSERT_LT(actor.sent(), 100 * kMiB) << "backpressure is bounded";
        actor.reset();
        ASSERT_TRUE(pump_until(session, [&] { return session.is_over(); }));
        EXPECT_EQ(session.result->how, RelayEnd::kReset);
        EXPECT_EQ(session.result->who, party);
        other.set_appetite(kMiB);
        ASSERT_TRUE(pump_until(session, [&] { return other.error() != 0 || other.has_eof(); }));
        expect_reset(other);
    }
}

TEST_P(RelayTest, a_sender_that_resets_after_urgent_data_is_noticed_while_the_reader_takes_nothing) {
    for (const auto sides_of : {guest_acts, upstream_acts}) {
        RelayedPair session;
        start(session);
        const auto [actor, other, party] = sides_of(session);
        other.set_appetite(0);
        actor.plan(1024 * kMiB, false);
        pump_until_stalled(session);
        (void)::send(actor.fd(), "!", 1, MSG_OOB | MSG_DONTWAIT);
        pump_until_stalled(session);
        actor.reset();
        ASSERT_TRUE(pump_until(session, [&] { return session.is_over(); }));
        EXPECT_EQ(session.result->how, RelayEnd::kReset);
        EXPECT_EQ(session.result->who, party);
    }
}

TEST_P(RelayTest, a_reader_that_takes_nothing_and_resets_cuts_the_sender) {
    for (const auto sides_of : {guest_acts, upstream_acts}) {
        RelayedPair session;
        start(session);
        const auto [actor, other, party] = sides_of(session);
        actor.set_appetite(0);
        other.plan(1024 * kMiB, false);
        pump_until_stalled(session);
        actor.reset();
        ASSERT_TRUE(pump_until(session, [&] { return session.is_over() && other.error() != 0; }));
        EXPECT_EQ(session.result->how, RelayEnd::kReset);
        EXPECT_EQ(session.result->who, party);
    }
}

TEST_P(RelayTest, an_idle_session_is_reset_at_its_timeout) {
    RelayedPair session;
    start(session, {.idle = 50ms});
    const auto begun = std::chrono::steady_clock::now();
    ASSERT_TRUE(pump_until(session, [&] {
        return session.is_over() && session.guest.error() != 0 && session.upstream.error() != 0;
    }));
    EXPECT_GE(std::chrono::steady_clock::now() - begun, 50ms);
    expect_reset(session.guest);
    expect_reset(session.upstream);
    EXPECT_EQ(session.result->how, RelayEnd::kIdle);
    EXPECT_EQ(session.result->who, RelayParty::kDaemon);
}

TEST_P(RelayTest, a_stalled_session_is_reset_at_its_idle_timeout) {
    RelayedPair session;
    start(session, {.idle = 500ms});
    session.upstream.set_appetite(0);
    session.guest.plan(1024 * kMiB, false);
    ASSERT_TRUE(pump_until(session, [&] { return session.is_over() && session.guest.error() != 0; }));
    EXPECT_EQ(session.result->how, RelayEnd::kIdle);
}

TEST_P(RelayTest, traffic_keeps_a_session_alive) {
    RelayedPair session;
    start(session, {.idle = 1s});
    const auto begun = std::chrono::steady_clock::now();
    ASSERT_TRUE(pump_until(session, [&] {
        if (session.upstream.received() == session.guest.sent())
            session.guest.plan(1, false);
        return session.is_over() || std::chrono::steady_clock::now() - begun > 1500ms;
    }));
    EXPECT_FALSE(session.is_over());
    session.cancel->emit(boost::asio::cancellation_type::terminal);
    ASSERT_TRUE(pump_until(session, [&] { return session.is_over(); }));
}

TEST_P(RelayTest, a_half_closed_session_is_reset_at_its_own_timeout) {
    for (const auto sides_of : {guest_acts, upstream_acts}) {
        RelayedPair session;
        start(session, {.half_closed = 50ms});
        const auto [actor, other, party] = sides_of(session);
        actor.plan(10, true);
        ASSERT_TRUE(pump_until(session, [&] { return session.is_over() && actor.error() != 0; }));
        EXPECT_EQ(session.result->how, RelayEnd::kIdle);
        EXPECT_EQ(other.received(), 10U);
        EXPECT_EQ(actor.error(), ECONNRESET);
    }
}

TEST_P(RelayTest, cancelling_resets_both_sides) {
    RelayedPair session;
    start(session);
    session.guest.plan(10, false);
    ASSERT_TRUE(pump_until(session, [&] { return session.upstream.received() == 10; }));
    session.cancel->emit(boost::asio::cancellation_type::terminal);
    ASSERT_TRUE(pump_until(session, [&] {
        return session.is_over() && session.guest.error() != 0 && session.upstream.error() != 0;
    }));
    expect_reset(session.guest);
    expect_reset(session.upstream);
    EXPECT_EQ(session.result->how, RelayEnd::kCancelled);
    EXPECT_EQ(session.result->bytes_up, 10U);
}

TEST_P(RelayTest, cancelling_a_stalled_session_resets_both_sides) {
    RelayedPair session;
    start(session);
    session.guest.set_appetite(0);
    session.upstream.set_appetite(0);
    session.guest.plan(1024 * kMiB, false);
    session.upstream.plan(1024 * kMiB, false);
    pump_until_stalled(session);
    session.cancel->emit(boost::asio::cancellation_type::terminal);
    ASSERT_TRUE(pump_until(session, [&] {
        return session.is_over() && session.guest.error() != 0 && session.upstream.error() != 0;
    }));
    EXPECT_EQ(session.result->how, RelayEnd::kCancelled);
}

TEST_P(RelayTest, destroying_the_relay_resets_running_sessions) {
    const std::size_t descriptors_before = count_descriptors();
    std::deque<RelayedPair> sessions(8);
    for (RelayedPair& session : sessions) {
        start(session);
        session.guest.plan(1024 * kMiB, false);
        session.upstream.plan(1024 * kMiB, false);
    }
    for (std::size_t i = 0; i < sessions.size(); i += 2)
        sessions[i].upstream.set_appetite(0);
    for (RelayedPair& session : sessions)
        ASSERT_TRUE(pump_until(session, [&session] { return session.guest.received() > kMiB; }));
    relay_.reset();
    for (RelayedPair& session : sessions) {
        ASSERT_TRUE(pump_until(session,
                               [&session] {
                                   return session.guest.error() != 0 && session.upstream.error() != 0 &&
                                          session.is_over();
                               }) ||
                    session.upstream.error() == 0);
        ASSERT_TRUE(session.is_over());
        EXPECT_EQ(session.result->how, RelayEnd::kCancelled);
        EXPECT_FALSE(session.guest.has_eof() || session.upstream.has_eof());
        session.guest = Peer();
        session.upstream = Peer();
    }
    EXPECT_LE(count_descriptors(), descriptors_before);
}

TEST_P(RelayTest, destroying_everything_with_sessions_running_leaves_nothing) {
    const std::size_t descriptors_before = count_descriptors();
    {
        std::deque<RelayedPair> sessions(4); // outlives the coroutines that refer to it
        boost::asio::io_context context;
        std::unique_ptr<Relay> relay = make_copy_relay(context);
        if (GetParam() == std::string_view("uring"))
            relay = std::move(*make_uring_relay(context, UringSettings()));
        for (RelayedPair& session : sessions) {
            start_session(context, *relay, session);
            session.guest.plan(1024 * kMiB, false);
            ASSERT_TRUE(run_until(
                context, [&session] { return session.upstream.received() > kMiB; },
                [&session] { return session.pump(); }));
        }
        relay.reset();
    }
    EXPECT_EQ(count_descriptors(), descriptors_before);
}

TEST_P(RelayTest, two_hundred_sessions_each_way_leave_no_descriptor) {
    const std::size_t descriptors_before = count_descriptors();
    std::deque<RelayedPair> sessions(200);
    for (RelayedPair& session : sessions) {
        start(session);
        session.guest.plan(300'000, true);
        session.upstream.plan(300'000, true);
    }
    ASSERT_TRUE(run_until(
        context_,
        [&] {
            return std::ranges::all_of(sessions, [](const RelayedPair& session) {
                return session.is_over() && session.guest.has_eof() && session.upstream.has_eof();
            });
        },
        [&] {
            bool did_move = false;
            for (RelayedPair& session : sessions)
                did_move = session.pump() || did_move;
            return did_move;
        }));
    for (RelayedPair& session : sessions) {
        EXPECT_EQ(session.guest.received(), 300'000U);
        EXPECT_EQ(session.upstream.received(), 300'000U);
        EXPECT_TRUE(session.guest.is_verbatim() && session.upstream.is_verbatim());
        EXPECT_EQ(session.result->how, RelayEnd::kFinished);
    }
    sessions.clear();
    EXPECT_EQ(count_descriptors(), descriptors_before);
}

TEST_P(RelayTest, the_io_context_has_no_work_left_after_the_last_session) {
    RelayedPair session;
    start(session);
    session.guest.plan(10, true);
    session.upstream.plan(10, true);
    ASSERT_TRUE(pump_until(session, [&] { return session.is_over(); }));
    ASSERT_TRUE(run_until(context_, [this] {
        context_.poll();
        return context_.stopped();
    }));
}

TEST(RelayNames, are_stable_words) {
    EXPECT_EQ(relay_end_name(RelayEnd::kFinished), "finished");
    EXPECT_EQ(relay_end_name(RelayEnd::kReset), "reset");
    EXPECT_EQ(relay_end_name(RelayEnd::kIdle), "idle");
    EXPECT_EQ(relay_end_name(RelayEnd::kCancelled), "cancelled");
    EXPECT_EQ(relay_end_name(RelayEnd::kFailed), "failed");
    EXPECT_EQ(relay_party_name(RelayParty::kGuest), "guest");
    EXPECT_EQ(relay_party_name(RelayParty::kUpstream), "upstream");
    EXPECT_EQ(relay_party_name(RelayParty::kDaemon), "daemon");
}

} // namespace
} // namespace tapgate::net
