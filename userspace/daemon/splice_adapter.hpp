// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "datapath/datapath.hpp"
#include "proxy/splice_table.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <vector>

namespace tapgate::daemon {

/// Lets the proxy see the datapath's spliced flows without knowing it. Any thread.
class SpliceAdapter final : public proxy::SpliceTable {
  public:
    /// `datapath` outlives this.
    explicit SpliceAdapter(datapath::Datapath& datapath) : datapath_(datapath) {}

    bool has_uplink(unsigned ifindex) override;
    Result<Id> record(const Recording& recording) override;
    [[nodiscard]] std::optional<Flow> find(const Key& key, Id id) override;
    bool hold(const Key& key, Id id) override;
    bool forward(const Key& key, Id id, const std::array<NewSide, 2>& sides) override;
    bool reroute(const Key& key, Id id, unsigned uplink_ifindex, const IpAddress& next_hop) override;
    void remove(const Key& key, Id id) override;
    void leave(const Key& key, Id id) override;
    void conclude(const Key& key, Id id) override;
    void count(proxy::SpliceRefusal refusal) override;

    /// See Datapath::left_splices().
    std::vector<Left> left();

    /// The interface is gone; another one may have its index one day.
    void link_removed(unsigned ifindex);

    /// Flows that were refused since the daemon started.
    [[nodiscard]] std::uint64_t refusals(proxy::SpliceRefusal refusal) const {
        return refusals_.at(static_cast<std::size_t>(refusal)).load(std::memory_order_relaxed);
    }

  private:
    datapath::Datapath& datapath_;
    std::mutex uplinks_mutex_;
    std::map<unsigned, bool> uplinks_; // true: our program is on it; false: it cannot be
    std::array<std::atomic<std::uint64_t>, proxy::kSpliceRefusals> refusals_{};
};

} // namespace tapgate::daemon
