// SPDX-License-Identifier: Apache-2.0
#include "datapath/flows.hpp"

#include "datapath/abi.hpp"
#include "datapath/program_run.hpp"

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include <netinet/in.h>

namespace tapgate::datapath {

namespace {

constexpr std::pair<tg_first_flight, policy::FirstFlightKind> kFirstFlights[] = {
    {TG_FIRST_FLIGHT_TLS, policy::FirstFlightKind::kTls},
    {TG_FIRST_FLIGHT_TLS_NO_SNI, policy::FirstFlightKind::kTlsNoSni},
    {TG_FIRST_FLIGHT_HTTP, policy::FirstFlightKind::kHttp},
    {TG_FIRST_FLIGHT_PLAIN, policy::FirstFlightKind::kPlain}};

tg_flow key_of(const Endpoint& near, const Endpoint& far) {
    tg_flow key{};
    key.guest_address = to_abi(near.address);
    key.peer_address = to_abi(far.address);
    key.guest_port = htons(near.port);
    key.peer_port = htons(far.port);
    key.protocol = IPPROTO_TCP;
    return key;
}

tg_flow_change change_of(const tg_flow& flow, SpliceId id, tg_change change) {
    tg_flow_change what{};
    what.flow = flow;
    what.id = id;
    what.change = change;
    return what;
}

tg_flow_facts facts_of(const SpliceSpec& spec, SpliceId id) {
    tg_flow_facts facts{};
    facts.id = id;
    if (const auto& flight = spec.flight) {
        const auto kind = std::ranges::find(kFirstFlights, flight->kind,
                                            &std::pair<tg_first_flight, policy::FirstFlightKind>::second);
        TAPGATE_ASSERT(kind != std::end(kFirstFlights)); // the others are never allowed
        facts.first_flight = kind->first;
        facts.flags |= flight->ech ? TG_FACTS_ECH : 0;
        facts.flags |= flight->name ? TG_FACTS_ON_WIRE : 0;
    }
    facts.flags |= spec.bound ? TG_FACTS_BOUND : 0;
    const bool is_named = spec.flight && spec.flight->name;
    TAPGATE_ASSERT(!is_named || !spec.bound || *spec.bound == *spec.flight->name);
    const std::string name = is_named ? spec.flight->name->text() : spec.bound ? spec.bound->text() : "";
    facts.name_length = static_cast<std::uint16_t>(name.copy(facts.name, sizeof facts.name - 1));
    return facts;
}

/// Puts what facts_of() has kept into `spec`; false: it is none of ours.
bool recall(const tg_flow_facts& facts, SpliceSpec& spec) {
    std::optional<policy::Name> name;
    if (facts.name_length != 0) {
        if (facts.name_length >= sizeof facts.name)
            return false;
        name = policy::Name::from_wire({facts.name, facts.name_length});
        if (!name)
            return false;
    }
    if (facts.first_flight != TG_FIRST_FLIGHT_NONE) {
        const auto kind = std::ranges::find(kFirstFlights, facts.first_flight,
                                            &std::pair<tg_first_flight, policy::FirstFlightKind>::first);
        if (kind == std::end(kFirstFlights))
            return false;
        policy::FirstFlight& flight = spec.flight.emplace();
        flight.kind = kind->second;
        if ((facts.flags & TG_FACTS_ON_WIRE) != 0)
            flight.name = name;
        flight.ech = (facts.flags & TG_FACTS_ECH) != 0;
    }
    if ((facts.flags & TG_FACTS_BOUND) != 0)
        spec.bound = name;
    return true;
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
    splice.next_hop = to_abi(spec.next_hop);

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
    if (!facts_.put(splice.flow, facts_of(spec, splice.id)))
        return fail(ErrorCode::kLimit, "the table of spliced flows is full");
    if (!flows_.insert(splice.flow, splice)) {
        facts_.erase(splice.flow);
        return fail(ErrorCode::kLimit, "the table of spliced flows is full");
    }
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
    tg_flow_change what = change_of(key_of(flow.guest, flow.peer), id, change);
    std::ranges::copy(sides, what.sides);
    return run(what) == TG_CHANGED;
}

bool Flows::reroute(const FlowTuple& flow, SpliceId id, unsigned uplink_ifindex, const IpAddress& next_hop) {
    tg_flow_change what = change_of(key_of(flow.guest, flow.peer), id, TG_CHANGE_ROUTE);
    what.uplink_ifindex = uplink_ifindex;
    what.next_hop = to_abi(next_hop);
    return run(what) == TG_CHANGED;
}

tg_change_result Flows::run(const tg_flow_change& change) const {
    const auto result = run_program(change_flow_fd_, packet_of(change));
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
    static_cast<void>(run(change_of(key, splice.id, TG_CHANGE_END)));
    if (const auto user = upstream_flows_.find(splice.upstream); user && is_same(*user, key))
        upstream_flows_.erase(splice.upstream);
    flows_.erase(key);
    facts_.erase(key);
}

void Flows::leave(const FlowTuple& flow, SpliceId id) {
    const tg_flow key = key_of(flow.guest, flow.peer);
    const std::lock_guard lock(mutex_);
    if (auto facts = facts_.find(key); facts && facts->id == id) {
        facts->flags |= TG_FACTS_LEFT;
        static_cast<void>(facts_.put(key, *facts)); // if that fails nobody adopts it before this process ends
    }
}

void Flows::conclude(const FlowTuple& flow, SpliceId id) {
    const tg_flow key = key_of(flow.guest, flow.peer);
    const std::lock_guard lock(mutex_);
    if (const auto facts = facts_.find(key); facts && facts->id == id)
        facts_.erase(key);
}

void Flows::forget(GuestId guest) {
    const std::lock_guard lock(mutex_);
    std::vector<std::pair<tg_flow, tg_splice>> gone;
    flows_.for_each([&](const tg_flow& key, const tg_splice& splice) {
        if (splice.guest_id == guest)
            gone.emplace_back(key, splice);
    });
    for (const auto& [key, splice] : gone)
        remove_entry(key, splice);
}

std::vector<LeftSplice> Flows::left(bool is_handed_over) {
    const std::lock_guard lock(mutex_);
    std::vector<LeftSplice> left;
    std::vector<std::pair<tg_flow, tg_splice>> rest;
    flows_.for_each([&](const tg_flow& key, const tg_splice& splice) {
        LeftSplice found;
        found.spec.flow = from_abi(splice.flow);
        found.spec.local = from_abi(splice.upstream).guest;
        found.spec.guest = splice.guest_id;
        found.spec.guest_ifindex = splice.guest_ifindex;
        found.spec.uplink_ifindex = splice.uplink_ifindex;
        found.spec.next_hop = from_abi(splice.next_hop);
        found.id = splice.id;
        found.since = from_abi_time(splice.created_ns);
        auto facts = facts_.find(key);
        if (is_handed_over && (!facts || (facts->flags & TG_FACTS_LEFT) == 0))
            return;
        const bool is_carried = splice.state == TG_SPLICE_FORWARDING || splice.state == TG_SPLICE_CLOSED;
        if (is_carried && facts && facts->id == splice.id && recall(*facts, found.spec))
            left.push_back(std::move(found));
        else
            rest.emplace_back(key, splice);
        if (facts && (facts->flags & TG_FACTS_LEFT) != 0) {
            facts->flags &= static_cast<__u8>(~TG_FACTS_LEFT); // it is ours now
            static_cast<void>(facts_.put(key, *facts));
        }
    });
    if (is_handed_over)
        return left;
    for (const auto& [key, splice] : rest)
        remove_entry(key, splice);
    std::vector<tg_flow> orphans; // a daemon was killed between the two
    facts_.for_each([&](const tg_flow& key, const tg_flow_facts&) {
        if (!flows_.find(key))
            orphans.push_back(key);
    });
    for (const tg_flow& key : orphans)
        facts_.erase(key);
    return left;
}

} // namespace tapgate::datapath
