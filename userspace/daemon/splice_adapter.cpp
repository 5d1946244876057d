// SPDX-License-Identifier: Apache-2.0
#include "daemon/splice_adapter.hpp"

#include "base/log.hpp"

#include <chrono>
#include <utility>

namespace tapgate::daemon {

namespace {

proxy::SpliceTable::State state_of(std::uint32_t state) {
    switch (static_cast<tg_splice_state>(state)) {
    case TG_SPLICE_ENDED:
        return proxy::SpliceTable::State::kEnded;
    case TG_SPLICE_RECORDING:
        return proxy::SpliceTable::State::kRecording;
    case TG_SPLICE_HELD:
        return proxy::SpliceTable::State::kHeld;
    case TG_SPLICE_FORWARDING:
        return proxy::SpliceTable::State::kForwarding;
    case TG_SPLICE_CLOSED:
        return proxy::SpliceTable::State::kClosed;
    }
    return proxy::SpliceTable::State::kEnded;
}

proxy::SpliceTable::Side side_of(const tg_splice_side& side) {
    proxy::SpliceTable::Side out;
    out.bytes = side.bytes;
    out.last = BootClock::time_point(std::chrono::nanoseconds(static_cast<std::int64_t>(side.last_ns)));
    out.delta = side.delta;
    out.floor = side.floor;
    out.end = side.end;
    out.acked = side.acked;
    out.replays = side.replays;
    out.clock = side.ts_last;
    out.clock_delta = side.ts_delta;
    out.shown_scale = side.shown_scale;
    out.has_clock = (side.flags & TG_SPLICE_SEEN) != 0;
    out.has_clock_delta = (side.flags & TG_SPLICE_CLOCK) != 0;
    out.has_finished = (side.flags & TG_SPLICE_FIN) != 0;
    out.has_reset = (side.flags & (TG_SPLICE_RESET | TG_SPLICE_REUSED)) != 0;
    return out;
}

datapath::FlowTuple tuple_of(const proxy::SpliceTable::Key& key) {
    return {key.guest, key.destination};
}

} // namespace

bool SpliceAdapter::has_uplink(unsigned ifindex) {
    const std::lock_guard lock(uplinks_mutex_);
    const auto [entry, is_new] = uplinks_.try_emplace(ifindex, false);
    if (is_new) {
        const auto attached = datapath_.attach_uplink(ifindex);
        entry->second = attached.has_value();
        if (!attached)
            spdlog::warn("connections through interface {} are not spliced in the kernel: {}", ifindex,
                         attached.error().message());
    }
    return entry->second;
}

void SpliceAdapter::link_removed(unsigned ifindex) {
    const std::lock_guard lock(uplinks_mutex_);
    uplinks_.erase(ifindex);
}

Result<proxy::SpliceTable::Id> SpliceAdapter::record(const Recording& recording) {
    datapath::SpliceSpec spec;
    spec.flow = tuple_of(recording.flow);
    spec.local = recording.local;
    spec.guest = recording.guest;
    spec.guest_ifindex = recording.guest_ifindex;
    spec.uplink_ifindex = recording.uplink_ifindex;
    spec.next_hop = recording.next_hop;
    spec.flight = recording.flight;
    spec.bound = recording.bound;
    return datapath_.record_splice(spec);
}

std::optional<proxy::SpliceTable::Flow> SpliceAdapter::find(const Key& key, Id id) {
    const auto splice = datapath_.find_splice(tuple_of(key), id);
    if (!splice)
        return std::nullopt;
    Flow flow;
    flow.state = state_of(splice->state);
    flow.sides[kGuest] = side_of(splice->sides[TG_SPLICE_GUEST]);
    flow.sides[kServer] = side_of(splice->sides[TG_SPLICE_SERVER]);
    return flow;
}

bool SpliceAdapter::hold(const Key& key, Id id) {
    return datapath_.change_splice(tuple_of(key), id, TG_CHANGE_HOLD, {});
}

bool SpliceAdapter::forward(const Key& key, Id id, const std::array<NewSide, 2>& sides) {
    datapath::SpliceSides out{};
    for (const auto& [from, to] :
         {std::pair{kGuest, TG_SPLICE_GUEST}, std::pair{kServer, TG_SPLICE_SERVER}}) {
        const NewSide& side = sides.at(from);
        tg_new_side& target = out.at(to);
        target.next = side.next;
        target.acked = side.acked;
        target.delta = side.delta;
        target.ts_base = side.clock_base;
        target.scale = side.scale;
        target.shown_scale = side.shown_scale;
    }
    return datapath_.change_splice(tuple_of(key), id, TG_CHANGE_FORWARD, out);
}

bool SpliceAdapter::reroute(const Key& key, Id id, unsigned uplink_ifindex, const IpAddress& next_hop) {
    return datapath_.reroute_splice(tuple_of(key), id, uplink_ifindex, next_hop);
}

void SpliceAdapter::remove(const Key& key, Id id) {
    datapath_.remove_splice(tuple_of(key), id);
}

void SpliceAdapter::leave(const Key& key, Id id) {
    datapath_.leave_splice(tuple_of(key), id);
}

void SpliceAdapter::conclude(const Key& key, Id id) {
    datapath_.conclude_splice(tuple_of(key), id);
}

std::vector<proxy::SpliceTable::Left> SpliceAdapter::left() {
    std::vector<Left> all;
    for (datapath::LeftSplice& found : datapath_.left_splices()) {
        datapath::SpliceSpec& spec = found.spec;
        Recording recording{{spec.flow.guest, spec.flow.peer},
                            spec.guest,
                            spec.guest_ifindex,
                            spec.uplink_ifindex,
                            spec.next_hop,
                            spec.local,
                            std::move(spec.flight),
                            std::move(spec.bound)};
        all.push_back({std::move(recording), found.id, found.since});
    }
    return all;
}

void SpliceAdapter::count(proxy::SpliceRefusal refusal) {
    refusals_.at(static_cast<std::size_t>(refusal)).fetch_add(1, std::memory_order_relaxed);
}

} // namespace tapgate::daemon
