// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"
#include "datapath/datapath.hpp"
#include "datapath/guest_table.hpp"
#include "tapgate/bpf_abi.h"

#include <cstdint>
#include <mutex>
#include <span>

namespace tapgate::datapath {

/// The BPF programs through which the daemon changes `names`, `chains` and `bindings`: record_answer is the
/// code that tap_egress records with, forget_binding the only one that removes bindings. Both work under the
/// lock of the entry, so that nothing is lost between them and the traffic. Any thread.
class BindingWriter {
  public:
    /// The descriptors are borrowed; `guests` outlives this.
    BindingWriter(int record_answer_fd, int forget_binding_fd, int recordings_fd, const GuestTable& guests);

    /// Records an answer for the guest on `ifindex`. kNotFound: that is not `recording.guest` (any more);
    /// kInvalid: more aliases or addresses than the ABI holds, or a name that is none; kLimit: the guest's
    /// cap, or a full map. What the program refuses it counts, as tap_egress does.
    Result<void> record(unsigned ifindex, const Recording& recording);

    /// Lets the binding of a name to `address` last until `until` at least, if it is live. `name_ids`: the
    /// name, then its aliases.
    void keep(const tg_guest& guest, const IpAddress& address, std::span<const std::uint64_t> name_ids,
              BootClock::time_point until);

    struct Forgotten {
        std::uint32_t freed = 0; ///< slots, to be given back to the guest's quota
        std::uint32_t live = 0;  ///< how many of them were live
    };

    /// Frees the slots of one binding that live no longer than `until`; of one name, unless `name_id` is 0.
    Forgotten forget(const tg_binding_key& key, BootClock::time_point until, std::uint64_t name_id);

    /// Returns when what was being recorded as it was called is written.
    void settle();

  private:
    Result<tg_drop_reason> write(const tg_recording& recording);

    int record_answer_fd_;
    int forget_binding_fd_;
    int recordings_fd_;
    const GuestTable& guests_;
    std::mutex recording_mutex_; // one recording at a time; held while the guest is looked up, too
};

} // namespace tapgate::datapath
