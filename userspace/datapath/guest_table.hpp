// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"
#include "datapath/datapath.hpp"
#include "datapath/map.hpp"

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <shared_mutex>
#include <unordered_map>

namespace tapgate::datapath {

/// The maps `guests` and `guest_state`: who is on which interface, under which id and slot, and the guest's
/// counters. Any thread may call anything; put() and erase() are for one thread at a time.
class GuestTable {
  public:
    /// Takes over what an earlier daemon left. Its sessions ended with it, unless it still drains and gives
    /// their places back itself. The descriptors are borrowed.
    static Result<std::unique_ptr<GuestTable>> open(int guests_fd, int guest_state_fd, bool drains);

    GuestTable(const GuestTable&) = delete;
    GuestTable& operator=(const GuestTable&) = delete;
    ~GuestTable();

    [[nodiscard]] std::optional<tg_guest> find(unsigned ifindex) const;
    [[nodiscard]] std::optional<tg_guest> find_guest(GuestId id) const;
    [[nodiscard]] std::vector<unsigned> interfaces() const;

    /// An id that no guest has had since the host came up: the boot clock in nanoseconds, made unique.
    [[nodiscard]] GuestId new_id();
    /// A slot that no entry uses, its state zeroed. kLimit when there is none.
    Result<std::uint32_t> new_slot();

    Result<void> put(unsigned ifindex, const tg_guest& guest);
    void erase(unsigned ifindex);

    /// Gives back `count` units of a counter of guest `id`, for entries that were removed from a map. Nothing
    /// happens if the guest is gone: its slot may be another's by now.
    void release(GuestId id, std::uint32_t tg_guest_state::* counter, std::uint32_t count) const;
    using Counts = std::unordered_map<GuestId, std::uint32_t>;

    /// Gives back the units of a counter that no entry stands for, by the entries of each guest, counted
    /// before. Entries that come and go meanwhile do not matter, those that come and stay would.
    void lower(std::uint32_t tg_guest_state::* counter, const Counts& entries) const;
    /// Takes one of the `most` units of a counter of guest `id`; false if none is left, or the guest is gone.
    bool take(GuestId id, std::uint32_t tg_guest_state::* counter, std::uint32_t most) const;
    /// Counts live bindings that were removed to make room.
    void add_evicted(GuestId id, std::uint64_t count) const;
    [[nodiscard]] GuestUse use(std::uint32_t slot) const;
    /// The MAC learned by BPF, in the form of tg_guest_state; 0 if none.
    [[nodiscard]] std::uint64_t learned_mac(std::uint32_t slot) const;

  private:
    GuestTable(int guests_fd, tg_guest_state* states) : guests_(guests_fd), states_(states) {}

    HashMap<std::uint32_t, tg_guest> guests_;
    tg_guest_state* states_; // TG_GUESTS_MAX of them, shared with BPF
    GuestId last_id_ = 0;

    mutable std::shared_mutex mutex_;      // guards entries_ and slots_
    std::map<unsigned, tg_guest> entries_; // what `guests` holds
    std::unordered_map<GuestId, std::uint32_t> slots_;
};

} // namespace tapgate::datapath
