// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"
#include "datapath/datapath.hpp"

#include <functional>
#include <memory>

struct ring_buffer;

namespace tapgate::datapath {

/// The consumer of the ring buffer `events`. One thread.
class Events {
  public:
    /// What events are handed to; what is empty gets none.
    struct Sinks {
        std::function<void(const DropEvent&)> dropped;
        std::function<void(const FlowTuple&)> splice_changed;
    };

    static Result<std::unique_ptr<Events>> open(int events_fd);

    Events(const Events&) = delete;
    Events& operator=(const Events&) = delete;
    ~Events();

    /// Polls readable while events wait.
    [[nodiscard]] int fd() const;
    /// Hands on what waits, at most a fixed number of events a call; what is left keeps fd() readable.
    /// Records that are too short or of an unknown type are skipped.
    void read(const Sinks& sinks);

  private:
    Events() = default;
    static int on_record(void* context, void* data, std::size_t size);

    ::ring_buffer* ring_ = nullptr;
    const Sinks* sinks_ = nullptr; // during read()
    unsigned seen_ = 0;
};

} // namespace tapgate::datapath
