// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"
#include "datapath/datapath.hpp"

#include <cstdint>
#include <mutex>
#include <optional>
#include <vector>

namespace tapgate::datapath {

/// The maps `drops`, `guest_drops` and `events_lost`. Any thread may call anything.
class DropCounters {
  public:
    /// The descriptors are borrowed.
    DropCounters(int drops_fd, int guest_drops_fd, int events_lost_fd);

    /// Of all interfaces, or of one guest's slot; zeros left out.
    [[nodiscard]] std::vector<DropCount> read(std::optional<std::uint32_t> slot) const;
    /// Counts a refusal made in userspace. `reason` is one that BPF never counts (100 and above).
    void count(std::optional<std::uint32_t> slot, tg_drop_reason reason);
    /// Zeroes the counters of a slot, for its next guest.
    void reset(std::uint32_t slot);
    [[nodiscard]] std::uint64_t events_lost() const;

  private:
    [[nodiscard]] std::uint64_t sum(int fd, std::uint32_t index) const;
    void add_one(int fd, std::uint32_t index);

    int drops_fd_;
    int guest_drops_fd_;
    int events_lost_fd_;
    // Possible ones: a per-CPU value has a place for each; of guest_drops, which is not per CPU, the first is
    // used.
    std::size_t cpus_;
    std::mutex mutex_; // makes add_one() one step
};

} // namespace tapgate::datapath
