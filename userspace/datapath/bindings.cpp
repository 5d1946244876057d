// SPDX-License-Identifier: Apache-2.0
#include "datapath/bindings.hpp"

#include "datapath/abi.hpp"

#include <algorithm>
#include <iterator>

namespace tapgate::datapath {

namespace {

// Entries looked at per sweep; full tables take 32 sweeps.
constexpr std::size_t kSweepBudget = 16384;
// BPF can come between taking a binding out and putting it back only once per DNS answer for that address.
constexpr int kPutBackAttempts = 16;

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

/// Adds the names of `from` to `into`, the later expiry of each. Returns how many places that saved, which is
/// also how many units of the guest's counter are now one too many.
std::uint32_t merge(tg_binding& into, const tg_binding& from) {
    std::uint32_t saved = 0;
    for (const tg_bound_name& name : from.names) {
        if (!is_used(name))
            continue;
        auto place = std::ranges::find(into.names, name.name_id, &tg_bound_name::name_id);
        const bool known = place != std::end(into.names);
        if (!known)
            place = std::ranges::find(into.names, 0U, &tg_bound_name::name_id);
        if (known || place == std::end(into.names))
            ++saved;
        // With no place left the name is forgotten: the guest is refused and asks again.
        if (place != std::end(into.names) && (!known || place->expires_ns < name.expires_ns))
            *place = name;
    }
    return saved;
}

} // namespace

Bindings::Bindings(int bindings_fd, int names_fd, const GuestTable& guests)
    : bindings_(bindings_fd), names_(names_fd), guests_(guests) {}

std::optional<std::string> Bindings::text_of(GuestId guest, std::uint64_t name_id) const {
    tg_name_key key{};
    key.guest_id = guest;
    key.name_id = name_id;
    const auto name = names_.find(key);
    if (!name)
        return std::nullopt;
    return std::string(name->text, std::min<std::size_t>(name->length, TG_NAME_TEXT_MAX - 1));
}

std::vector<std::string> Bindings::bound_names(GuestId guest, const IpAddress& address,
                                               BootClock::time_point now) const {
    std::vector<std::string> names;
    tg_binding_key key{};
    key.guest_id = guest;
    key.address = to_abi(address);
    const auto binding = bindings_.find(key);
    if (!binding)
        return names;
    for (const tg_bound_name& name : binding->names) {
        if (!is_live(name, now))
            continue;
        if (auto text = text_of(guest, name.name_id))
            names.push_back(std::move(*text));
    }
    return names;
}

std::vector<Binding> Bindings::list(std::optional<GuestId> guest, BootClock::time_point now) const {
    std::vector<Binding> found;
    bindings_.for_each([&](const tg_binding_key& key, const tg_binding& binding) {
        if (guest && key.guest_id != *guest)
            return;
        for (const tg_bound_name& name : binding.names) {
            if (!is_live(name, now))
                continue;
            if (auto text = text_of(key.guest_id, name.name_id))
                found.push_back(
                    {key.guest_id, from_abi(key.address), std::move(*text), from_abi_time(name.expires_ns)});
        }
    });
    return found;
}

template <typename Predicate>
std::vector<tg_bound_name> Bindings::prune(const tg_binding_key& key, Predicate is_unwanted) {
    std::vector<tg_bound_name> dropped;
    auto binding = bindings_.take(key);
    if (!binding)
        return dropped;
    for (tg_bound_name& name : binding->names) {
        if (!is_used(name) || !is_unwanted(name))
            continue;
        dropped.push_back(name);
        name = tg_bound_name{};
    }
    std::uint32_t released = static_cast<std::uint32_t>(dropped.size());
    bool left = std::ranges::any_of(binding->names, is_used);
    for (int attempt = 0; left && attempt < kPutBackAttempts; ++attempt) {
        if (bindings_.insert(key, *binding)) {
            left = false;
        } else if (const auto newer = bindings_.take(key)) {
            released += merge(*binding, *newer);
        }
    }
    if (left) {
        // The table is full: the guest forgets this address, is refused and asks again.
        released += static_cast<std::uint32_t>(std::ranges::count_if(binding->names, is_used));
    }
    guests_.release(key.guest_id, &tg_guest_state::bindings, released);
    return dropped;
}

std::size_t Bindings::flush(GuestId guest, std::optional<std::string_view> name, BootClock::time_point now) {
    std::size_t live = 0;
    const auto is_meant = [&](const tg_bound_name& bound) {
        return is_used(bound) && (!name || text_of(guest, bound.name_id) == *name);
    };
    bindings_.for_each([&](const tg_binding_key& key, const tg_binding& seen) {
        if (key.guest_id != guest || std::ranges::none_of(seen.names, is_meant))
            return;
        const auto dropped = prune(key, is_meant);
        live += static_cast<std::size_t>(std::ranges::count_if(
            dropped, [now](const tg_bound_name& bound) { return is_live(bound, now); }));
    });
    return live;
}

void Bindings::forget(GuestId guest) {
    bindings_.for_each([&](const tg_binding_key& key, const tg_binding&) {
        if (key.guest_id == guest)
            prune(key, [](const tg_bound_name&) { return true; });
    });
    names_.for_each([&](const tg_name_key& key, const tg_name&) {
        if (key.guest_id == guest)
            names_.erase(key);
    });
}

void Bindings::sweep(BootClock::time_point now) {
    sweep_bindings(now);
    sweep_names(now);
}

void Bindings::sweep_bindings(BootClock::time_point now) {
    bindings_.walk(bindings_position_, kSweepBudget, [&](const tg_binding_key& key, const tg_binding& seen) {
        // Whatever BPF has prolonged since is put back.
        if (!has_live(seen, now))
            prune(key, [now](const tg_bound_name& name) { return !is_live(name, now); });
    });
}

void Bindings::sweep_names(BootClock::time_point now) {
    const auto is_over = [now](const tg_name& name) { return from_abi_time(name.expires_ns) <= now; };
    names_.walk(names_position_, kSweepBudget, [&](const tg_name_key& key, const tg_name& seen) {
        if (!is_over(seen))
            return;
        // BPF may prolong it at any moment: looked at once more, and put back if it did so while it was taken
        // out.
        const auto again = names_.find(key);
        if (!again || !is_over(*again))
            return;
        if (const auto taken = names_.take(key); taken && !is_over(*taken))
            names_.insert(key, *taken);
    });
}

} // namespace tapgate::datapath
