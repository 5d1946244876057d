// SPDX-License-Identifier: Apache-2.0
#include "datapath/in_flight.hpp"

#include "datapath/abi.hpp"

#include <netinet/in.h>

namespace tapgate::datapath {

namespace {

// A handshake that is not complete by then never will be: five retransmissions of the SYN-ACK take 31 s.
constexpr std::chrono::seconds kHandshakeTime{30};

} // namespace

InFlight::InFlight(int pending_fd, int dns_pending_fd, const GuestTable& guests)
    : pending_(pending_fd), dns_pending_(dns_pending_fd), guests_(guests) {}

void InFlight::recount() const {
    GuestTable::Counts pending;
    GuestTable::Counts questions;
    pending_.for_each([&](const tg_flow&, const tg_pending& entry) { ++pending[entry.guest_id]; });
    dns_pending_.for_each([&](const tg_dns_key& key, const tg_dns_question&) { ++questions[key.guest_id]; });
    guests_.lower(&tg_guest_state::half_open, pending);
    guests_.lower(&tg_guest_state::dns_pending, questions);
}

std::optional<PendingFlow> InFlight::take(const FlowTuple& flow) {
    tg_flow key{};
    key.guest_address = to_abi(flow.guest.address);
    key.peer_address = to_abi(flow.peer.address);
    key.guest_port = htons(flow.guest.port);
    key.peer_port = htons(flow.peer.port);
    key.protocol = IPPROTO_TCP;
    const auto taken = pending_.take(key);
    if (!taken)
        return std::nullopt;
    guests_.release(taken->guest_id, &tg_guest_state::half_open, 1);
    return PendingFlow{taken->guest_id, taken->ifindex, from_abi(taken->judgement)};
}

bool InFlight::set_resolver(const DnsFlow& question, const IpAddress& resolver) {
    tg_dns_key key{};
    key.guest_id = question.guest;
    key.guest_address = to_abi(question.client.address);
    key.server_address = to_abi(question.server);
    key.guest_port = htons(question.client.port);
    key.id = htons(question.id);
    auto entry = dns_pending_.find(key);
    if (!entry)
        return false;
    entry->resolver = to_abi(resolver);
    // A guest that asks something else under the same id just now loses that question.
    return dns_pending_.replace(key, *entry);
}

void InFlight::sweep(BootClock::time_point now) {
    sweep_pending(now);
    sweep_dns(now);
}

void InFlight::sweep_pending(BootClock::time_point now) {
    const auto is_overdue = [now](const tg_pending& entry) {
        return from_abi_time(entry.created_ns) + kHandshakeTime <= now;
    };
    pending_.walk(pending_position_, kSweepBudget, [&](const tg_flow& key, const tg_pending& seen) {
        if (!is_overdue(seen))
            return;
        const auto taken = pending_.take(key);
        if (!taken)
            return;
        // A new SYN on the same ports may have renewed the entry meanwhile. If yet another one has already
        // made a new entry, this one is superfluous.
        if (!is_overdue(*taken) && pending_.insert(key, *taken))
            return;
        guests_.release(taken->guest_id, &tg_guest_state::half_open, 1);
    });
}

void InFlight::sweep_dns(BootClock::time_point now) {
    const auto is_overdue = [now](const tg_dns_question& entry) {
        return from_abi_time(entry.expires_ns) <= now;
    };
    dns_pending_.walk(dns_position_, kSweepBudget, [&](const tg_dns_key& key, const tg_dns_question& seen) {
        if (!is_overdue(seen))
            return;
        const auto taken = dns_pending_.take(key);
        if (!taken || (!is_overdue(*taken) && dns_pending_.insert(key, *taken)))
            return;
        guests_.release(key.guest_id, &tg_guest_state::dns_pending, 1);
    });
}

void InFlight::forget(GuestId guest) {
    pending_.for_each([&](const tg_flow& key, const tg_pending& entry) {
        if (entry.guest_id == guest && pending_.erase(key))
            guests_.release(guest, &tg_guest_state::half_open, 1);
    });
    dns_pending_.for_each([&](const tg_dns_key& key, const tg_dns_question&) {
        if (key.guest_id == guest && dns_pending_.erase(key))
            guests_.release(guest, &tg_guest_state::dns_pending, 1);
    });
}

} // namespace tapgate::datapath
