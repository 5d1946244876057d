// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/clock.hpp"
#include "datapath/datapath.hpp"
#include "datapath/guest_table.hpp"
#include "datapath/map.hpp"

#include <optional>

namespace tapgate::datapath {

/// The maps `pending` and `dns_pending`: what guests began and nobody has answered yet. take() and
/// set_resolver() are for any thread, the rest for one at a time.
class InFlight {
  public:
    /// The descriptors are borrowed; `guests` outlives this.
    InFlight(int pending_fd, int dns_pending_fd, const GuestTable& guests);

    /// Gives back the units of entries that a killed process had removed, but not yet given back. To be
    /// called before there are listeners: only then no guest adds an entry that stays.
    void recount() const;

    std::optional<PendingFlow> take(const FlowTuple& flow);

    /// Notes who answered; false if the question is not in flight.
    bool set_resolver(const DnsFlow& question, const IpAddress& resolver);

    /// Removes what is overdue at `now`, a bounded part of the tables a call.
    void sweep(BootClock::time_point now);
    /// Removes everything of `guest`.
    void forget(GuestId guest);

  private:
    using PendingMap = HashMap<tg_flow, tg_pending>;
    using DnsPendingMap = HashMap<tg_dns_key, tg_dns_question>;

    void sweep_pending(BootClock::time_point now);
    void sweep_dns(BootClock::time_point now);

    PendingMap pending_;
    DnsPendingMap dns_pending_;
    const GuestTable& guests_;
    PendingMap::Position pending_position_;
    DnsPendingMap::Position dns_position_;
};

} // namespace tapgate::datapath
