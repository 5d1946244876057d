// SPDX-License-Identifier: Apache-2.0
// What only the io_uring relay can run short of: buffers and queue entries.
#include "relay_fixture.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>

namespace tapgate::net {
namespace {

UringSettings tiny(unsigned buffers, unsigned queue_entries) {
    UringSettings settings;
    settings.buffer_bytes = 4096;
    settings.buffer_count = buffers;
    settings.queue_entries = queue_entries;
    return settings;
}

class UringShortageTest : public ::testing::TestWithParam<unsigned> {
  protected:
    void SetUp() override {
        auto made = make_uring_relay(context_, tiny(GetParam(), 2));
        ASSERT_TRUE(made.has_value()) << made.error().message();
        relay_ = std::move(*made);
    }

    boost::asio::io_context context_;
    std::unique_ptr<Relay> relay_;
};

INSTANTIATE_TEST_SUITE_P(Buffers, UringShortageTest, ::testing::Values(1U, 2U, 4U));

bool pump_all(std::deque<RelayedPair>& sessions) {
    bool did_move = false;
    for (RelayedPair& session : sessions)
        did_move = session.pump() || did_move;
    return did_move;
}

TEST_P(UringShortageTest, all_sessions_complete) {
    std::deque<RelayedPair> sessions(64);
    for (RelayedPair& session : sessions) {
        start_session(context_, *relay_, session);
        session.guest.plan(100'000, true);
        session.upstream.plan(100'000, true);
    }
    ASSERT_TRUE(run_until(
        context_,
        [&] {
            return std::ranges::all_of(sessions, [](const RelayedPair& session) {
                return session.is_over() && session.guest.has_eof() && session.upstream.has_eof();
            });
        },
        [&] { return pump_all(sessions); }));
    for (const RelayedPair& session : sessions) {
        EXPECT_EQ(session.guest.received(), 100'000U);
        EXPECT_EQ(session.upstream.received(), 100'000U);
        EXPECT_TRUE(session.guest.is_verbatim() && session.upstream.is_verbatim());
    }
}

TEST_P(UringShortageTest, sessions_that_do_not_read_starve_nobody) {
    std::deque<RelayedPair> stuck(16);
    for (RelayedPair& session : stuck) {
        start_session(context_, *relay_, session);
        session.guest.set_appetite(0);
        session.upstream.plan(1024 * kMiB, false);
    }
    std::deque<RelayedPair> idle(16);
    for (RelayedPair& session : idle)
        start_session(context_, *relay_, session);
    // One pass over more than the kernel's buffers leaves all of them stuck.
    auto last_progress = std::chrono::steady_clock::now();
    ASSERT_TRUE(run_until(
        context_,
        [&] { return std::chrono::steady_clock::now() - last_progress > std::chrono::milliseconds(50); },
        [&] {
            const bool did_move = pump_all(stuck);
            if (did_move)
                last_progress = std::chrono::steady_clock::now();
            return did_move;
        }));

    std::deque<RelayedPair> live(4);
    for (RelayedPair& session : live) {
        start_session(context_, *relay_, session);
        session.guest.plan(kMiB, true);
        session.upstream.plan(kMiB, true);
    }
    ASSERT_TRUE(run_until(
        context_,
        [&] {
            return std::ranges::all_of(live, [](const RelayedPair& session) { return session.is_over(); });
        },
        [&] { return pump_all(live); }));

    for (RelayedPair& session : stuck) {
        EXPECT_FALSE(session.is_over());
        session.guest.set_appetite(kMiB);
        session.cancel->emit(boost::asio::cancellation_type::terminal);
    }
    for (RelayedPair& session : idle)
        session.cancel->emit(boost::asio::cancellation_type::terminal);
    ASSERT_TRUE(run_until(context_, [&] {
        const auto is_over = [](const RelayedPair& session) { return session.is_over(); };
        return std::ranges::all_of(stuck, is_over) && std::ranges::all_of(idle, is_over);
    }));
}

/// With buffers short, each of many equal transfers gets its share: none is finished long before another
/// begins.
TEST_P(UringShortageTest, buffers_go_round) {
    constexpr std::uint64_t kBytes = 4 * kMiB;
    std::deque<RelayedPair> sessions(8);
    for (RelayedPair& session : sessions) {
        start_session(context_, *relay_, session);
        session.guest.plan(kBytes, true);
    }
    ASSERT_TRUE(run_until(
        context_,
        [&] {
            return std::ranges::any_of(sessions, [](const RelayedPair& session) {
                return session.upstream.received() >= kBytes / 2;
            });
        },
        [&] { return pump_all(sessions); }));
    for (const RelayedPair& session : sessions)
        EXPECT_GT(session.upstream.received(), kBytes / 16);
    for (RelayedPair& session : sessions)
        session.cancel->emit(boost::asio::cancellation_type::terminal);
    ASSERT_TRUE(run_until(context_, [&] {
        return std::ranges::all_of(sessions, [](const RelayedPair& session) { return session.is_over(); });
    }));
}

TEST(UringRelay, settings_out_of_bounds_are_refused) {
    boost::asio::io_context context;
    for (const UringSettings& settings :
         {tiny(0, 64), tiny(3, 64), tiny(65536, 64), tiny(16, 0), tiny(16, 48), tiny(16, 16384)}) {
        const auto made = make_uring_relay(context, settings);
        ASSERT_FALSE(made.has_value());
        EXPECT_EQ(made.error().code(), ErrorCode::kInvalid);
    }
}

TEST(UringRelay, a_relay_that_carried_nothing_leaves_no_descriptor) {
    const std::size_t descriptors_before = count_descriptors();
    {
        boost::asio::io_context context;
        const auto made = make_uring_relay(context, UringSettings());
        ASSERT_TRUE(made.has_value()) << made.error().message();
        EXPECT_GT(count_descriptors(), descriptors_before);
    }
    EXPECT_EQ(count_descriptors(), descriptors_before);
}

} // namespace
} // namespace tapgate::net
