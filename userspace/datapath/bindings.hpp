// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/clock.hpp"
#include "datapath/datapath.hpp"
#include "datapath/guest_table.hpp"
#include "datapath/map.hpp"

#include <cstddef>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tapgate::datapath {

/// The maps `bindings` and `names`: which names trusted resolvers gave which addresses, per guest.
///
/// bound_names() is for any thread; the rest for one at a time.
class Bindings {
  public:
    /// The descriptors are borrowed; `guests` outlives this.
    Bindings(int bindings_fd, int names_fd, const GuestTable& guests);

    [[nodiscard]] std::vector<std::string> bound_names(GuestId guest, const IpAddress& address,
                                                       BootClock::time_point now) const;
    [[nodiscard]] std::vector<Binding> list(std::optional<GuestId> guest, BootClock::time_point now) const;

    /// Removes the bindings of `guest` to `name`, or all; returns how many of them were live.
    std::size_t flush(GuestId guest, std::optional<std::string_view> name, BootClock::time_point now);
    /// Removes bindings and names of `guest`.
    void forget(GuestId guest);
    /// Removes bindings that are expired as a whole, and names that have no binding; a bounded part of one of
    /// the tables a call, in turn. In a binding that still has a live name expired ones stay: BPF reuses
    /// their places.
    void sweep(BootClock::time_point now);

  private:
    using BindingMap = HashMap<tg_binding_key, tg_binding, true>;
    using NameMap = HashMap<tg_name_key, tg_name>;
    using NameKey = std::pair<GuestId, std::uint64_t>;

    [[nodiscard]] std::optional<std::string> text_of(GuestId guest, std::uint64_t name_id) const;
    /// Takes the binding out, drops what `is_unwanted` says, and puts back what is left, merged with what BPF
    /// may have written meanwhile. Returns the names dropped.
    template <typename Predicate>
    std::vector<tg_bound_name> prune(const tg_binding_key& key, Predicate is_unwanted);
    void sweep_bindings(BootClock::time_point now);
    void sweep_names();
    void settle_removed();

    struct RemovedName {
        tg_name name;
        std::uint64_t round;
    };

    BindingMap bindings_;
    NameMap names_;
    const GuestTable& guests_;

    // Sweeping goes in rounds: through all bindings, noting the names met, then through all names, removing
    // those not met. A binding that BPF wrote behind the round's back would lose its name; so a removed name
    // is remembered for one more round, found there by text_of(), and put back if that round does meet it.
    bool sweeping_names_ = false;
    std::uint64_t round_ = 0;
    BindingMap::Position bindings_position_;
    NameMap::Position names_position_;
    std::set<NameKey> met_;
    mutable std::mutex removed_mutex_;
    std::map<NameKey, RemovedName> removed_;
};

} // namespace tapgate::datapath
