// SPDX-License-Identifier: Apache-2.0
#include "daemon/event_history.hpp"

#include <gtest/gtest.h>

namespace tapgate::daemon {
namespace {

namespace json = boost::json;
using namespace std::chrono_literals;

EventHistory::Time at(std::chrono::seconds second) {
    return EventHistory::Time(second);
}

json::object event(std::string_view guest, int number) {
    json::object object;
    object["type"] = "dns";
    object["guest"] = guest;
    object["number"] = number;
    return object;
}

control::EventFilter of_guest(std::string_view guest) {
    json::object args;
    args["guest"] = guest;
    return control::EventFilter::parse(args).value();
}

std::vector<std::int64_t> numbers(const EventHistory::Found& found) {
    std::vector<std::int64_t> result;
    for (const json::value& entry : found.events)
        result.push_back(entry.at("number").as_int64());
    return result;
}

TEST(EventHistory, events_of_all_guests_come_in_the_order_of_their_arrival) {
    EventHistory history;
    history.add(event("b", 1), at(1s));
    history.add(event("a", 2), at(1s));
    history.add(event("b", 3), at(1s));
    history.add(event("", 4), at(0s));
    EXPECT_EQ(numbers(history.find({}, {})), (std::vector<std::int64_t>{1, 2, 3, 4}));
    EXPECT_EQ(numbers(history.find(of_guest("b"), {})), (std::vector<std::int64_t>{1, 3}));
    EXPECT_EQ(numbers(history.find(of_guest("c"), {})), std::vector<std::int64_t>{});
}

TEST(EventHistory, only_what_is_recent_enough_is_found) {
    EventHistory history;
    for (int i = 0; i < 10; ++i)
        history.add(event("a", i), at(std::chrono::seconds(i)));
    EXPECT_EQ(numbers(history.find({}, at(8s))), (std::vector<std::int64_t>{8, 9}));
    EXPECT_EQ(numbers(history.find({}, at(10s))), std::vector<std::int64_t>{});
}

TEST(EventHistory, over_its_number_the_loudest_guest_alone_loses_its_oldest_and_that_is_told) {
    EventHistory history({.events = 6, .bytes = 1U << 20U});
    history.add(event("quiet", 100), at(1s));
    for (int i = 0; i < 50; ++i)
        history.add(event("loud", i), at(std::chrono::seconds(2 + i)));
    EXPECT_EQ(history.events(), 6U);
    EXPECT_EQ(numbers(history.find({}, {})), (std::vector<std::int64_t>{100, 45, 46, 47, 48, 49}));
    const EventHistory::Found loud = history.find(of_guest("loud"), {});
    EXPECT_EQ(loud.evicted, 45U);
    EXPECT_EQ(loud.complete_since, at(2s + 44s));
    const EventHistory::Found quiet = history.find(of_guest("quiet"), {});
    EXPECT_EQ(quiet.evicted, 0U);
    EXPECT_FALSE(quiet.complete_since.has_value());
    EXPECT_EQ(history.find({}, {}).evicted, 45U);
}

TEST(EventHistory, memory_is_bounded_however_long_the_events_are) {
    constexpr std::size_t kBytes = 100'000;
    EventHistory history({.events = 1'000'000, .bytes = kBytes});
    for (int i = 0; i < 1000; ++i) {
        json::object long_one = event("a", i);
        long_one["name"] = std::string(1000, 'x');
        history.add(long_one, at(1s));
        ASSERT_LE(history.bytes(), kBytes);
    }
    EXPECT_GT(history.events(), 80U);
    EXPECT_EQ(history.events() + history.evicted(), 1000U);
    // One that is larger than all there may be takes everything with it, itself included.
    json::object huge = event("b", 0);
    huge["name"] = std::string(kBytes, 'x');
    history.add(huge, at(1s));
    EXPECT_LE(history.bytes(), kBytes);
}

TEST(EventHistory, guests_that_nothing_is_kept_of_cost_nothing) {
    EventHistory history({.events = 10, .bytes = 1U << 20U});
    for (int i = 0; i < 1000; ++i)
        history.add(event("guest-" + std::to_string(i), i), at(1s));
    EXPECT_EQ(history.events(), 10U);
    EXPECT_EQ(numbers(history.find({}, {})).front(), 990);
    // Nothing of it is left, so that what is told is what made room in all.
    EXPECT_EQ(history.find(of_guest("guest-0"), {}).evicted, 990U);
}

} // namespace
} // namespace tapgate::daemon
