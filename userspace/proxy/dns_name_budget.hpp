// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "policy/name.hpp"

#include <chrono>
#include <cstddef>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <string>

namespace tapgate::proxy {

/// How many distinct names one guest has asked below each registrable domain within a minute: what bounds a
/// tunnel that puts its data into question names (B15).
///
/// A name counts for a minute from when it was first asked; asked again within it, it costs nothing. Shared
/// by the workers.
class DnsNameBudget {
  public:
    using Clock = std::chrono::steady_clock;

    static constexpr std::chrono::seconds kWindow{60};
    /// Names of one guest in a window, over all domains. At 253 octets each that is the memory a guest can
    /// take: about 2 MiB. Over it new names are refused whatever their domain.
    static constexpr std::size_t kMaxNames = 4096;

    /// Counts a question for `name`; false if it would be one distinct name more than `per_zone` of its
    /// registrable domain, or than kMaxNames. What is refused is not counted.
    [[nodiscard]] bool admit(const policy::Name& name, unsigned per_zone, Clock::time_point now);

  private:
    struct Entry {
        Clock::time_point asked;
        const std::string* name; // in names_
        std::string zone;
    };

    void forget_until(Clock::time_point now);

    std::mutex mutex_; // guards everything below
    std::deque<Entry> order_;
    // Trees: guests choose the names, and could make hashes collide.
    std::set<std::string> names_;
    std::map<std::string, unsigned> per_zone_;
};

} // namespace tapgate::proxy
