// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <boost/json/object.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

namespace tapgate::cli {

/// What `tapgate top` shows: made of replies and events of the daemon, as lines of text for any size of
/// screen.
class TopScreen {
  public:
    using Clock = std::chrono::steady_clock;

    /// Takes the replies to `status show`, `guest show` and `flow show`, asked for at about `now`. Rates are
    /// over the time since the call before; bytes per second are those of live flows.
    void sample(const boost::json::object& status, const boost::json::object& guests,
                const boost::json::object& flows, Clock::time_point now);

    /// Takes an event of `event monitor`; denials are shown, the newest kDenialsKept of them.
    void event(const boost::json::object& event);

    /// Exactly `rows` lines of at most `columns` printable ASCII characters: a head, then guests and flows,
    /// the busiest first, then the latest denials, then the keys.
    [[nodiscard]] std::vector<std::string> lines(std::size_t rows, std::size_t columns) const;

  private:
    static constexpr std::size_t kDenialsKept = 200;

    /// A row and what it is sorted by.
    struct Row {
        std::uint64_t weight = 0;
        std::vector<std::string> cells;
    };

    struct Bytes {
        std::uint64_t up = 0;
        std::uint64_t down = 0;
    };

    std::string head_;
    std::vector<Row> guests_;
    std::vector<Row> flows_;
    std::deque<std::vector<std::string>> denials_; // newest first
    std::uint64_t lost_ = 0;

    std::map<std::int64_t, Bytes> flow_bytes_;         // of the sample before, by flow
    std::map<std::string, std::uint64_t> guest_drops_; // likewise, by guest
    Clock::time_point sampled_;
};

} // namespace tapgate::cli
