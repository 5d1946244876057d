// SPDX-License-Identifier: Apache-2.0
#include "datapath/flows.hpp"

#include "datapath/abi.hpp"
#include "datapath/program_run.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include <netinet/in.h>

namespace tapgate::datapath {

namespace {

tg_flow key_of(const Endpoint& near, const Endpoint& far) {
    tg_flow key{};
    key.guest_address = to_abi(near.address);
    key.peer_address = to_abi(far.address);
    key.guest_port = htons(near.port);
    key.peer_port = htons(far.port);
    key.protocol = IPPROTO_TCP;
    return key;
}

bool is_same(const tg_flow& a, const tg_flow& b) {
    return from_abi(a.guest_address) == from_abi(b.guest_address) &&
           from_abi(a.peer_address) == from_abi(b.peer_address) && a.guest_port == b.guest_port &&
           a.peer_port == b.peer_port && a.protocol == b.protocol;
}

} // namespace

Result<SpliceId> Flows::record(const SpliceSpec& spec) {
    const auto guest = guests_.find(spec.guest_ifindex);
    if (!guest || guest->id != spec.guest)
        return fail(ErrorCode::kNotFound, "the guest is gone");
    const std::uint64_t now = to_abi_time(BootClock::now());
    tg_splice splice{};
    splice.state = TG_SPLICE_RECORDING;
    splice.flow = key_of(spec.flow.guest, spec.flow.peer);
    splice.upstream = key_of(spec.local, spec.flow.peer);
    splice.guest_id = spec.guest;
    splice.created_ns = now;
    splice.changed_ns = now;
    splice.slot = guest->slot;
    splice.guest_ifindex = spec.guest_ifindex;
    splice.uplink_ifindex = spec.uplink_ifindex;

    const std::lock_guard lock(mutex_);
    // The boot clock goes on over restarts of the daemon, and with it the maps do.
    last_id_ = std::max(last_id_ + 1, now);
    splice.id = last_id_;
    if (const auto key = upstream_flows_.find(splice.upstream)) {
        const auto user = flows_.find(*key);
        const bool is_live = user && is_same(user->upstream, splice.upstream) &&
                             user->state != TG_SPLICE_ENDED && user->state != TG_SPLICE_CLOSED;
        if (is_live && !is_same(*key, splice.flow))
            return fail(ErrorCode::kExists, "the port is in use by another flow to this destination");
        if (user)
            remove_entry(*key, *user);
    }
    // The guest's new connection on the same ports is the proof that the old one is over.
    if (const auto old = flows_.find(splice.flow))
        remove_entry(splice.flow, *old);
    if (!flows_.insert(splice.flow, splice))
        return fail(ErrorCode::kLimit, "the table of spliced flows is full");
    if (const auto written = upstream_flows_.put(splice.upstream, splice.flow); !written) {
        remove_entry(splice.flow, splice);
        return fail(ErrorCode::kLimit, "the table of spliced flows is full");
    }
    return splice.id;
}

std::optional<tg_splice> Flows::find(const FlowTuple& flow, SpliceId id) const {
    auto splice = flows_.find(key_of(flow.guest, flow.peer));
    if (splice && splice->id != id)
        return std::nullopt;
    return splice;
}

bool Flows::change(const FlowTuple& flow, SpliceId id, tg_change change, const SpliceSides& sides) {
    return run(key_of(flow.guest, flow.peer), id, change, sides) == TG_CHANGED;
}

tg_change_result Flows::run(const tg_flow& key, SpliceId id, tg_change change,
                            const SpliceSides& sides) const {
    tg_flow_change what{};
    what.flow = key;
    what.id = id;
    what.change = change;
    std::ranges::copy(sides, what.sides);
    const auto result = run_program(change_flow_fd_, packet_of(what));
    return result ? static_cast<tg_change_result>(*result) : TG_CHANGE_NO_FLOW;
}

void Flows::remove(const FlowTuple& flow, SpliceId id) {
    const tg_flow key = key_of(flow.guest, flow.peer);
    const std::lock_guard lock(mutex_);
    if (const auto splice = flows_.find(key); splice && splice->id == id)
        remove_entry(key, *splice);
}

void Flows::remove_entry(const tg_flow& key, const tg_splice& splice) {
    // Ended first: who has looked the entry up already does nothing more to it (bpf_abi.h).
    static_cast<void>(run(key, splice.id, TG_CHANGE_END, {}));
    if (const auto user = upstream_flows_.find(splice.upstream); user && is_same(*user, key))
        upstream_flows_.erase(splice.upstream);
    flows_.erase(key);
}

void Flows::forget(std::optional<GuestId> guest) {
    const std::lock_guard lock(mutex_);
    std::vector<std::pair<tg_flow, tg_splice>> gone;
    flows_.for_each([&](const tg_flow& key, const tg_splice& splice) {
        if (!guest || splice.guest_id == *guest)
            gone.emplace_back(key, splice);
    });
    for (const auto& [key, splice] : gone)
        remove_entry(key, splice);
}

} // namespace tapgate::datapath
