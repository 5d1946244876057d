// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "control/event_filter.hpp"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>

namespace tapgate::daemon {

/// The events of the recent past, as `event monitor` would have printed them. Bounded in number and in
/// memory: over either bound the oldest event makes room, but never one of a guest that holds less than half
/// its share, so that one guest's noise does not push out what is known of another. Main thread only.
class EventHistory {
  public:
    using Time = std::chrono::system_clock::time_point;

    struct Limits {
        std::size_t events = 32768;
        /// Of the events' text and what is kept beside it.
        std::size_t bytes = std::size_t{16} << 20U;
    };

    /// What was found, and what can be said of the rest.
    struct Found {
        boost::json::array events; ///< oldest first
        /// Events that made room for later ones: of the guest that was asked for as long as anything is kept
        /// of it, else of all.
        std::uint64_t evicted = 0;
        /// From when on nothing is missing for that reason; empty: from the beginning.
        std::optional<Time> complete_since;
    };

    EventHistory() = default;

    explicit EventHistory(const Limits& limits) : limits_(limits) {}

    void add(const boost::json::object& event, Time time);

    /// The events that `filter` lets pass, not older than `since` if that is given.
    [[nodiscard]] Found find(const control::EventFilter& filter, std::optional<Time> since) const;

    /// How many are kept, and in how many bytes.
    [[nodiscard]] std::size_t events() const { return events_; }

    [[nodiscard]] std::size_t bytes() const { return bytes_; }

    /// How many made room, of all guests.
    [[nodiscard]] std::uint64_t evicted() const { return all_.evicted; }

  private:
    struct Entry {
        std::uint64_t number = 0; ///< in order of arrival, over all guests
        Time time;
        std::string text; ///< JSON

        [[nodiscard]] std::size_t bytes() const { return sizeof(Entry) + text.capacity(); }
    };

    struct Loss {
        std::uint64_t evicted = 0;
        std::optional<Time> last; ///< when the last evicted event happened

        void count(Time time);
    };

    /// The events of one guest; those of none are under the empty name.
    struct Ring {
        std::deque<Entry> entries;
        std::size_t bytes = 0;
        Loss loss;
    };

    using Rings = std::map<std::string, Ring, std::less<>>;

    void evict_from(Rings::iterator ring);
    /// The guest with the oldest event among those that hold at least half of what all do on average.
    [[nodiscard]] Rings::iterator next_to_lose();

    Limits limits_;
    Rings rings_; ///< none is empty
    std::size_t events_ = 0;
    std::size_t bytes_ = 0;
    std::uint64_t next_number_ = 0;
    Loss all_;
};

} // namespace tapgate::daemon
