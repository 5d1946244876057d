// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/clock.hpp"
#include "datapath/datapath.hpp"
#include "datapath/guest_table.hpp"
#include "datapath/map.hpp"

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
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
    /// Removes bindings that are expired as a whole, and names that no binding can have any more; a bounded
    /// part of each table a call. In a binding that still has a live name expired ones stay: BPF reuses their
    /// places.
    void sweep(BootClock::time_point now);

  private:
    using BindingMap = HashMap<tg_binding_key, tg_binding, true>;
    using NameMap = HashMap<tg_name_key, tg_name>;

    [[nodiscard]] std::optional<std::string> text_of(GuestId guest, std::uint64_t name_id) const;
    /// Takes the binding out, drops what `is_unwanted` says, and puts back what is left, merged with what BPF
    /// may have written meanwhile. Returns the names dropped.
    template <typename Predicate>
    std::vector<tg_bound_name> prune(const tg_binding_key& key, Predicate is_unwanted);
    void sweep_bindings(BootClock::time_point now);
    void sweep_names(BootClock::time_point now);

    BindingMap bindings_;
    NameMap names_;
    const GuestTable& guests_;

    BindingMap::Position bindings_position_;
    NameMap::Position names_position_;
};

} // namespace tapgate::datapath
