// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/clock.hpp"
#include "datapath/binding_writer.hpp"
#include "datapath/datapath.hpp"
#include "datapath/guest_table.hpp"
#include "datapath/map.hpp"

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tapgate::datapath {

/// The maps `bindings`, `names` and `chains`: which names, by which aliases, trusted resolvers gave which
/// addresses, per guest.
///
/// A slot whose name, alias or chain is missing binds nothing, here as in BPF. bound_names() and keep() are
/// for any thread; the rest for one at a time.
class Bindings {
  public:
    /// The descriptors are borrowed; `writer` and `guests` outlive this.
    Bindings(int bindings_fd, int names_fd, int chains_fd, BindingWriter& writer, const GuestTable& guests);

    [[nodiscard]] Result<std::vector<BoundName>> bound_names(GuestId guest, const IpAddress& address,
                                                             BootClock::time_point now) const;
    [[nodiscard]] std::vector<Binding> list(std::optional<GuestId> guest, BootClock::time_point now) const;

    void keep(GuestId guest, const IpAddress& address, std::string_view name, BootClock::time_point until,
              BootClock::time_point now);
    /// Removes the bindings of `guest` to `name`, or all; returns how many of them were live.
    std::size_t flush(GuestId guest, std::optional<std::string_view> name, BootClock::time_point now);
    /// Frees at least `count` slots of `guest`, if it has them: whole addresses, dead ones first, then by the
    /// time of their last use. Returns how many it freed. The names that nothing is bound to any more go,
    /// too.
    std::size_t evict(GuestId guest, std::size_t count, BootClock::time_point now);
    /// Removes bindings, chains and names of `guest`.
    void forget(GuestId guest);
    /// Frees slots that are expired, and removes names and chains that no binding can have any more; a
    /// bounded part of each table a call.
    void sweep(BootClock::time_point now);

    /// Addresses that have names, of all guests: as many as sweep() saw on its last whole way.
    [[nodiscard]] std::size_t entries() const { return entries_; }

  private:
    using BindingMap = HashMap<tg_binding_key, tg_binding, true>;
    using NameMap = HashMap<tg_name_key, tg_name>;
    using ChainMap = HashMap<tg_chain_key, tg_chain>;

    /// Nothing if the name is missing.
    [[nodiscard]] Result<std::optional<std::string>> text_of(GuestId guest, std::uint64_t name_id) const;
    /// The aliases of a slot; nothing if one of them, or the chain, is missing.
    [[nodiscard]] Result<std::optional<std::vector<std::string>>> aliases_of(GuestId guest,
                                                                             std::uint64_t chain_id) const;
    BindingWriter::Forgotten free_slots(const tg_binding_key& key, BootClock::time_point until,
                                        std::uint64_t name_id = 0);
    /// Removes the names and chains of `guest` that no live slot refers to, but for those told just now,
    /// whose slots may be about to be written.
    void remove_unused(GuestId guest, BootClock::time_point now);
    template <typename Map, typename Key, typename Predicate>
    void remove_if(Map& map, const Key& key, std::uint32_t tg_guest_state::* counter, Predicate is_over);

    BindingMap bindings_;
    NameMap names_;
    ChainMap chains_;
    BindingWriter& writer_;
    const GuestTable& guests_;

    BindingMap::Position bindings_position_;
    std::size_t entries_ = 0;
    std::size_t seen_ = 0; ///< since `bindings_position_` was at the beginning
    NameMap::Position names_position_;
    ChainMap::Position chains_position_;
};

} // namespace tapgate::datapath
