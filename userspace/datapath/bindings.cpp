// SPDX-License-Identifier: Apache-2.0
#include "datapath/bindings.hpp"

#include "datapath/abi.hpp"

#include <algorithm>
#include <iterator>
#include <unordered_set>
#include <utility>

namespace tapgate::datapath {

namespace {

// Far longer than BPF takes from a name to its bindings.
constexpr std::chrono::seconds kSettled{1};
constexpr BootClock::time_point kForever = BootClock::time_point::max();

bool is_used(const tg_bound_name& name) {
    return name.name_id != 0;
}

bool is_live(const tg_bound_name& name, BootClock::time_point now) {
    return is_used(name) && from_abi_time(name.expires_ns) > now;
}

bool has_live(const tg_binding& binding, BootClock::time_point now) {
    return std::ranges::any_of(binding.names,
                               [now](const tg_bound_name& name) { return is_live(name, now); });
}

bool has_expired(const tg_binding& binding, BootClock::time_point now) {
    return std::ranges::any_of(
        binding.names, [now](const tg_bound_name& name) { return is_used(name) && !is_live(name, now); });
}

tg_name_key name_key(GuestId guest, std::uint64_t name_id) {
    return {guest, name_id};
}

std::span<const __u64> alias_ids(const tg_chain& chain) {
    return std::span(chain.alias_ids).first(std::min<std::size_t>(chain.alias_count, TG_DNS_ALIASES_MAX));
}

std::optional<IpAddress> resolver_of(const tg_name& name) {
    const IpAddress resolver = from_abi(name.resolver);
    return resolver == IpAddress(IpAddress::Bytes{}) ? std::nullopt : std::optional(resolver);
}

std::string text_in(const tg_name& name) {
    return {name.text, std::min<std::size_t>(name.length, TG_NAME_TEXT_MAX - 1)};
}

} // namespace

Bindings::Bindings(int bindings_fd, int names_fd, int chains_fd, BindingWriter& writer,
                   const GuestTable& guests)
    : bindings_(bindings_fd), names_(names_fd), chains_(chains_fd), writer_(writer), guests_(guests) {}

Result<std::optional<std::string>> Bindings::text_of(GuestId guest, std::uint64_t name_id) const {
    const auto name = names_.read(name_key(guest, name_id));
    if (!name)
        return fail(name.error());
    return *name ? std::optional(text_in(**name)) : std::nullopt;
}

Result<std::optional<std::vector<std::string>>> Bindings::aliases_of(GuestId guest,
                                                                     std::uint64_t chain_id) const {
    std::vector<std::string> aliases;
    if (chain_id == 0)
        return aliases;
    const auto chain = chains_.read(tg_chain_key{guest, chain_id});
    if (!chain)
        return fail(chain.error());
    if (!*chain)
        return std::nullopt;
    for (const std::uint64_t id : alias_ids(**chain)) {
        auto text = text_of(guest, id);
        if (!text)
            return fail(std::move(text.error()));
        if (!*text)
            return std::nullopt;
        aliases.push_back(std::move(**text));
    }
    return aliases;
}

Result<std::vector<BoundName>> Bindings::bound_names(GuestId guest, const IpAddress& address,
                                                     BootClock::time_point now) const {
    std::vector<BoundName> names;
    const auto binding = bindings_.read(tg_binding_key{guest, to_abi(address)});
    if (!binding)
        return fail(binding.error());
    if (!*binding)
        return names;
    for (const tg_bound_name& slot : (*binding)->names) {
        if (!is_live(slot, now))
            continue;
        auto text = text_of(guest, slot.name_id);
        if (!text)
            return fail(std::move(text.error()));
        auto aliases = aliases_of(guest, slot.chain_id);
        if (!aliases)
            return fail(std::move(aliases.error()));
        if (*text && *aliases)
            names.push_back({std::move(**text), std::move(**aliases)});
    }
    return names;
}

std::vector<Binding> Bindings::list(std::optional<GuestId> guest, BootClock::time_point now) const {
    std::vector<Binding> found;
    bindings_.for_each([&](const tg_binding_key& key, const tg_binding& binding) {
        if (guest && key.guest_id != *guest)
            return;
        for (const tg_bound_name& slot : binding.names) {
            if (!is_live(slot, now))
                continue;
            const auto name = names_.find(name_key(key.guest_id, slot.name_id));
            auto aliases = aliases_of(key.guest_id, slot.chain_id);
            if (!name || !aliases || !*aliases)
                continue;
            Binding& out = found.emplace_back();
            out.guest = key.guest_id;
            out.address = from_abi(key.address);
            out.name = text_in(*name);
            out.aliases = std::move(**aliases);
            out.resolver = resolver_of(*name);
            out.told = from_abi_time(slot.told_ns);
            out.expires = from_abi_time(slot.expires_ns);
        }
    });
    return found;
}

void Bindings::keep(GuestId guest, const IpAddress& address, std::string_view name,
                    BootClock::time_point until, BootClock::time_point now) {
    const auto entry = guests_.find_guest(guest);
    const auto binding = bindings_.find(tg_binding_key{guest, to_abi(address)});
    if (!entry || !binding)
        return;
    for (const tg_bound_name& slot : binding->names) {
        if (!is_live(slot, now) || from_abi_time(slot.expires_ns) >= until ||
            text_of(guest, slot.name_id) != name)
            continue;
        std::vector<std::uint64_t> ids{slot.name_id};
        if (slot.chain_id != 0) {
            const auto chain = chains_.find(tg_chain_key{guest, slot.chain_id});
            if (!chain)
                continue;
            const auto aliases = alias_ids(*chain);
            ids.insert(ids.end(), aliases.begin(), aliases.end());
        }
        writer_.keep(*entry, address, ids, until);
    }
}

BindingWriter::Forgotten Bindings::free_slots(const tg_binding_key& key, BootClock::time_point until,
                                              std::uint64_t name_id) {
    const auto forgotten = writer_.forget(key, until, name_id);
    guests_.release(key.guest_id, &tg_guest_state::bindings, forgotten.freed);
    return forgotten;
}

std::size_t Bindings::flush(GuestId guest, std::optional<std::string_view> name, BootClock::time_point now) {
    std::size_t live = 0;
    bindings_.for_each([&](const tg_binding_key& key, const tg_binding& seen) {
        if (key.guest_id != guest)
            return;
        if (!name) {
            live += free_slots(key, kForever).live;
            return;
        }
        for (const tg_bound_name& slot : seen.names) {
            if (is_used(slot) && text_of(guest, slot.name_id) == *name)
                live += free_slots(key, kForever, slot.name_id).live;
        }
    });
    remove_unused(guest, now);
    return live;
}

std::size_t Bindings::evict(GuestId guest, std::size_t count, BootClock::time_point now) {
    struct Candidate {
        std::uint64_t used_ns;
        tg_binding_key key;
    };

    std::vector<Candidate> candidates;
    bindings_.for_each([&](const tg_binding_key& key, const tg_binding& seen) {
        if (key.guest_id == guest)
            candidates.push_back({has_live(seen, now) ? seen.used_ns : 0, key});
    });
    std::ranges::sort(candidates, {}, &Candidate::used_ns);
    std::size_t freed = 0;
    std::size_t live = 0;
    for (const Candidate& candidate : candidates) {
        if (freed >= count)
            break;
        const auto forgotten = free_slots(candidate.key, kForever);
        freed += forgotten.freed;
        live += forgotten.live;
    }
    guests_.add_evicted(guest, live);
    remove_unused(guest, now);
    return freed;
}

template <typename Map, typename Key, typename Predicate>
void Bindings::remove_if(Map& map, const Key& key, std::uint32_t tg_guest_state::* counter,
                         Predicate is_over) {
    // BPF may renew the entry at any moment: looked at once more, and put back if it did so while it was
    // taken out. If BPF has made a new one meanwhile, this one is superfluous.
    const auto again = map.find(key);
    if (!again || !is_over(*again))
        return;
    const auto taken = map.take(key);
    if (!taken || (!is_over(*taken) && map.insert(key, *taken)))
        return;
    guests_.release(key.guest_id, counter, 1);
}

void Bindings::remove_unused(GuestId guest, BootClock::time_point now) {
    std::unordered_set<std::uint64_t> used_names;
    std::unordered_set<std::uint64_t> used_chains;
    bindings_.for_each([&](const tg_binding_key& key, const tg_binding& seen) {
        if (key.guest_id != guest)
            return;
        for (const tg_bound_name& slot : seen.names) {
            if (!is_live(slot, now))
                continue;
            used_names.insert(slot.name_id);
            used_chains.insert(slot.chain_id);
        }
    });
    const auto is_settled = [now](const auto& entry) {
        return from_abi_time(entry.told_ns) + kSettled <= now;
    };
    chains_.for_each([&](const tg_chain_key& key, const tg_chain& seen) {
        if (key.guest_id != guest)
            return;
        if (used_chains.contains(key.chain_id) || !is_settled(seen)) {
            const auto aliases = alias_ids(seen);
            used_names.insert(aliases.begin(), aliases.end());
            return;
        }
        remove_if(chains_, key, &tg_guest_state::chains, is_settled);
    });
    names_.for_each([&](const tg_name_key& key, const tg_name& seen) {
        if (key.guest_id == guest && !used_names.contains(key.name_id) && is_settled(seen))
            remove_if(names_, key, &tg_guest_state::names, is_settled);
    });
}

void Bindings::forget(GuestId guest) {
    writer_.settle();
    bindings_.for_each([&](const tg_binding_key& key, const tg_binding&) {
        if (key.guest_id == guest)
            free_slots(key, kForever);
    });
    chains_.for_each([&](const tg_chain_key& key, const tg_chain&) {
        if (key.guest_id == guest)
            chains_.erase(key);
    });
    names_.for_each([&](const tg_name_key& key, const tg_name&) {
        if (key.guest_id == guest)
            names_.erase(key);
    });
}

void Bindings::sweep(BootClock::time_point now) {
    const auto visit = [&](const tg_binding_key& key, const tg_binding& seen) {
        ++seen_;
        if (has_expired(seen, now))
            free_slots(key, now);
    };
    if (bindings_.walk(bindings_position_, kSweepBudget, visit))
        entries_ = std::exchange(seen_, 0);
    const auto is_over = [now](const auto& entry) { return from_abi_time(entry.expires_ns) <= now; };
    chains_.walk(chains_position_, kSweepBudget, [&](const tg_chain_key& key, const tg_chain& seen) {
        if (is_over(seen))
            remove_if(chains_, key, &tg_guest_state::chains, is_over);
    });
    names_.walk(names_position_, kSweepBudget, [&](const tg_name_key& key, const tg_name& seen) {
        if (is_over(seen))
            remove_if(names_, key, &tg_guest_state::names, is_over);
    });
}

} // namespace tapgate::datapath
