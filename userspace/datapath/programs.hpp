// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"
#include "datapath/datapath.hpp"
#include "datapath/pin_dir.hpp"

#include <memory>
#include <string_view>

struct tapgate_skeleton; // the skeleton

namespace tapgate::datapath {

/// Descriptors of the maps of the ABI, all pinned but `recordings`; owned by the Programs they come from.
struct MapFds {
    int guests = -1;
    int guest_state = -1;
    int pending = -1;
    int flows = -1;
    int upstream_flows = -1;
    int flow_facts = -1;
    int dns_pending = -1;
    int names = -1;
    int chains = -1;
    int bindings = -1;
    int recordings = -1;
    int policies = -1;
    int generations = -1;
    int host_addresses = -1;
    int listeners = -1;
    int owned_sockets = -1;
    int drops = -1;
    int guest_drops = -1;
    int events = -1;
    int events_lost = -1;
    int hash_key = -1;
};

/// Why the BPF object could not be loaded, as one line that says what to do. `warnings` is what libbpf said.
[[nodiscard]] Error load_error(int error, std::string_view operation, std::string_view warnings);

/// The key of name ids in the map `hash_key`, made if nobody has yet: all zero means that, since names hashed
/// under a known key could be made to collide.
Result<tg_hash_key> ensure_hash_key(int fd);

/// The programs in the kernel and their maps.
class Programs {
  public:
    /// Adopts the maps pinned in `pins`, or creates and pins them, and loads the programs. kInvalid: the
    /// pinned maps are of another ABI or another network namespace. On failure `pins` may hold new pins,
    /// which its destructor removes.
    static Result<std::unique_ptr<Programs>> load(const Settings& settings, const PinDir& pins);

    Programs(const Programs&) = delete;
    Programs& operator=(const Programs&) = delete;
    ~Programs();

    [[nodiscard]] const MapFds& maps() const { return maps_; }

    [[nodiscard]] const tg_hash_key& hash_key() const { return hash_key_; }

    [[nodiscard]] int tap_ingress_fd() const;
    [[nodiscard]] int tap_egress_fd() const;
    [[nodiscard]] int record_answer_fd() const;
    [[nodiscard]] int uplink_ingress_fd() const;
    [[nodiscard]] int forget_binding_fd() const;
    [[nodiscard]] int judge_flow_fd() const;
    [[nodiscard]] int change_flow_fd() const;

  private:
    Programs() = default;
    Result<void> load_object(const Settings& settings, const PinDir& pins);

    ::tapgate_skeleton* skeleton_ = nullptr;
    MapFds maps_;
    tg_hash_key hash_key_{};
};

} // namespace tapgate::datapath
