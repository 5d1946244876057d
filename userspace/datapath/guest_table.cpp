// SPDX-License-Identifier: Apache-2.0
#include "datapath/guest_table.hpp"

#include "base/clock.hpp"
#include "datapath/abi.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>

#include <sys/mman.h>

namespace tapgate::datapath {

namespace {

constexpr int kLooks = 20; // of lower()
constexpr std::size_t kStatesBytes = sizeof(tg_guest_state) * TG_GUESTS_MAX;

} // namespace

Result<std::unique_ptr<GuestTable>> GuestTable::open(int guests_fd, int guest_state_fd, bool drains) {
    void* states = ::mmap(nullptr, kStatesBytes, PROT_READ | PROT_WRITE, MAP_SHARED, guest_state_fd, 0);
    if (states == MAP_FAILED)
        return fail_errno("map guest_state into memory");
    std::unique_ptr<GuestTable> table(new GuestTable(guests_fd, static_cast<tg_guest_state*>(states)));
    bool sane = true;
    table->guests_.for_each([&](std::uint32_t ifindex, const tg_guest& guest) {
        sane = sane && guest.slot < TG_GUESTS_MAX;
        table->entries_[ifindex] = guest;
        table->slots_[guest.id] = guest.slot;
        table->last_id_ = std::max<GuestId>(table->last_id_, guest.id);
    });
    if (!sane)
        return fail(ErrorCode::kInvalid, "the pinned guest table is damaged: run `tapgated --cleanup`");
    for (const auto& [ifindex, guest] : table->entries_) {
        if (!drains)
            std::atomic_ref(table->states_[guest.slot].sessions).store(0);
    }
    return table;
}

GuestTable::~GuestTable() {
    ::munmap(states_, kStatesBytes);
}

std::optional<tg_guest> GuestTable::find(unsigned ifindex) const {
    const std::shared_lock lock(mutex_);
    const auto found = entries_.find(ifindex);
    return found == entries_.end() ? std::nullopt : std::optional(found->second);
}

std::optional<tg_guest> GuestTable::find_guest(GuestId id) const {
    const std::shared_lock lock(mutex_);
    const auto found = std::ranges::find(entries_, id, [](const auto& entry) { return entry.second.id; });
    return found == entries_.end() ? std::nullopt : std::optional(found->second);
}

std::vector<unsigned> GuestTable::interfaces() const {
    const std::shared_lock lock(mutex_);
    std::vector<unsigned> found;
    found.reserve(entries_.size());
    for (const auto& [ifindex, guest] : entries_)
        found.push_back(ifindex);
    return found;
}

GuestId GuestTable::new_id() {
    const std::unique_lock lock(mutex_);
    last_id_ = std::max<GuestId>(last_id_ + 1, to_abi_time(BootClock::now()));
    return last_id_;
}

Result<std::uint32_t> GuestTable::new_slot() {
    const std::unique_lock lock(mutex_);
    std::vector<bool> used(TG_GUESTS_MAX);
    for (const auto& [ifindex, guest] : entries_)
        used[guest.slot] = true;
    const auto free = std::ranges::find(used, false);
    if (free == used.end())
        return fail(ErrorCode::kLimit, "there are as many guests as the tables hold");
    const auto slot = static_cast<std::uint32_t>(free - used.begin());
    tg_guest_state& state = states_[slot];
    for (std::uint32_t* counter :
         {&state.half_open, &state.dns_pending, &state.bindings, &state.event_count, &state.names,
          &state.chains, &state.query_count, &state.prohibition_count, &state.sessions})
        std::atomic_ref(*counter).store(0);
    for (__u64* word :
         {&state.mac, &state.event_second, &state.evicted, &state.query_second, &state.prohibition_second})
        std::atomic_ref(*word).store(0);
    return slot;
}

Result<void> GuestTable::put(unsigned ifindex, const tg_guest& guest) {
    const std::unique_lock lock(mutex_);
    if (auto written = guests_.put(ifindex, guest); !written)
        return written;
    if (const auto before = entries_.find(ifindex); before != entries_.end())
        slots_.erase(before->second.id);
    entries_[ifindex] = guest;
    slots_[guest.id] = guest.slot;
    return {};
}

void GuestTable::erase(unsigned ifindex) {
    const std::unique_lock lock(mutex_);
    const auto found = entries_.find(ifindex);
    if (found == entries_.end())
        return;
    guests_.erase(ifindex);
    slots_.erase(found->second.id);
    entries_.erase(found);
}

void GuestTable::release(GuestId id, std::uint32_t tg_guest_state::* counter, std::uint32_t count) const {
    const std::shared_lock lock(mutex_);
    const auto found = slots_.find(id);
    if (found == slots_.end() || count == 0)
        return;
    // Never below zero: a counter that wrapped would lock the guest out for good.
    std::atomic_ref<std::uint32_t> value(states_[found->second].*counter);
    std::uint32_t now = value.load();
    while (!value.compare_exchange_weak(now, now - std::min(now, count))) {
    }
}

void GuestTable::lower(std::uint32_t tg_guest_state::* counter, const Counts& entries) const {
    const std::shared_lock lock(mutex_);
    for (const auto& [id, slot] : slots_) {
        const auto counted = entries.find(id);
        const std::uint32_t real = counted == entries.end() ? 0 : counted->second;
        const std::atomic_ref<std::uint32_t> value(states_[slot].*counter);
        std::uint32_t least = value.load();
        // A SYN that is refused for want of a listener has a unit for less than a microsecond. Given back for
        // it, BPF's own return would let the counter wrap, so that the least of many looks counts.
        for (int look = 0; look < kLooks && least > real; ++look) {
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
            least = std::min(least, value.load());
        }
        if (least > real)
            value.fetch_sub(least - real);
    }
}

bool GuestTable::take(GuestId id, std::uint32_t tg_guest_state::* counter, std::uint32_t most) const {
    const std::shared_lock lock(mutex_);
    const auto found = slots_.find(id);
    if (found == slots_.end())
        return false;
    std::atomic_ref<std::uint32_t> value(states_[found->second].*counter);
    std::uint32_t now = value.load();
    while (now < most) {
        if (value.compare_exchange_weak(now, now + 1))
            return true;
    }
    return false;
}

void GuestTable::add_evicted(GuestId id, std::uint64_t count) const {
    const std::shared_lock lock(mutex_);
    if (const auto found = slots_.find(id); found != slots_.end())
        std::atomic_ref(states_[found->second].evicted).fetch_add(count);
}

GuestUse GuestTable::use(std::uint32_t slot) const {
    tg_guest_state& state = states_[slot];
    GuestUse use;
    use.sessions = std::atomic_ref(state.sessions).load();
    use.half_open = std::atomic_ref(state.half_open).load();
    use.dns_pending = std::atomic_ref(state.dns_pending).load();
    use.bindings = std::atomic_ref(state.bindings).load();
    use.names = std::atomic_ref(state.names).load();
    use.chains = std::atomic_ref(state.chains).load();
    use.evicted = std::atomic_ref(state.evicted).load();
    return use;
}

std::uint64_t GuestTable::learned_mac(std::uint32_t slot) const {
    return std::atomic_ref(states_[slot].mac).load();
}

} // namespace tapgate::datapath
