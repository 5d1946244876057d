// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "datapath/datapath.hpp"
#include "datapath/guest_table.hpp"
#include "datapath/map.hpp"
#include "datapath/programs.hpp"

#include <cstdint>
#include <mutex>
#include <optional>
#include <vector>

namespace tapgate::datapath {

/// The maps `flows` and `upstream_flows`: TCP connections that BPF carries. Any thread may call anything.
class Flows {
  public:
    /// Borrows descriptors and guests.
    Flows(int change_flow_fd, const MapFds& maps, const GuestTable& guests)
        : change_flow_fd_(change_flow_fd), flows_(maps.flows), upstream_flows_(maps.upstream_flows),
          facts_(maps.flow_facts), guests_(guests) {}

    Result<SpliceId> record(const SpliceSpec& spec);
    [[nodiscard]] std::optional<tg_splice> find(const FlowTuple& flow, SpliceId id) const;
    bool change(const FlowTuple& flow, SpliceId id, tg_change change, const SpliceSides& sides);
    bool reroute(const FlowTuple& flow, SpliceId id, unsigned uplink_ifindex, const IpAddress& next_hop);
    void remove(const FlowTuple& flow, SpliceId id);
    void leave(const FlowTuple& flow, SpliceId id);
    void conclude(const FlowTuple& flow, SpliceId id);
    /// Ends and removes the flows of `guest`. Their ends are reset when they send something.
    void forget(GuestId guest);
    /// Those that BPF carries; removes all others. With `is_handed_over` those that were left by leave(),
    /// and nothing is removed.
    std::vector<LeftSplice> left(bool is_handed_over);

  private:
    [[nodiscard]] tg_change_result run(const tg_flow_change& change) const;
    void remove_entry(const tg_flow& key, const tg_splice& splice);

    int change_flow_fd_;
    HashMap<tg_flow, tg_splice, true> flows_;
    HashMap<tg_flow, tg_flow> upstream_flows_;
    HashMap<tg_flow, tg_flow_facts> facts_;
    const GuestTable& guests_;
    std::mutex mutex_; // inserting and removing take several steps
    SpliceId last_id_ = 0;
};

} // namespace tapgate::datapath
