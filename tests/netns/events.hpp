// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "harness/daemon.hpp"
#include "harness/process.hpp"

#include <boost/json.hpp>

#include <chrono>
#include <functional>
#include <optional>
#include <vector>

namespace tapgate::test {

/// `tapgate -j event monitor` beside a test.
class EventMonitor {
  public:
    /// Returns once the daemon sends its events. Throws std::runtime_error if it does not.
    explicit EventMonitor(const Daemon& daemon);

    /// Every event so far, oldest first.
    [[nodiscard]] std::vector<boost::json::object> events() const;

    using Condition = std::function<bool(const boost::json::object& event)>;
    /// The first event that satisfies `condition`, waited for; nothing if none comes.
    [[nodiscard]] std::optional<boost::json::object> wait_for(const Condition& condition) const;

  private:
    Process process_;
};

/// The "time" of an event.
[[nodiscard]] std::chrono::milliseconds time_of(const boost::json::object& event);

/// True if the event's member `key` is the text `value`.
[[nodiscard]] bool is(const boost::json::object& event, std::string_view key, std::string_view value);

} // namespace tapgate::test
