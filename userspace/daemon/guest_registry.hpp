// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "daemon/config.hpp"
#include "daemon/policy_store.hpp"
#include "datapath/datapath.hpp"
#include "net/netlink/link_monitor.hpp"
#include "proxy/worker.hpp"

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tapgate::daemon {

using Workers = std::vector<std::unique_ptr<proxy::Worker>>;

/// Which guests are declared, and which of them are attached to an interface that is there. Main thread only.
///
/// Each guest stands alone: one that cannot be attached does not disturb the others.
class GuestRegistry {
  public:
    /// A guest on an interface that exists.
    struct Attached {
        unsigned ifindex = 0;
        std::string interface;
        proxy::Guest guest;
    };

    struct Declared {
        GuestConfig config;
        std::string error; ///< why it is not attached although its interface is there; else empty
    };

    /// All references outlive the registry.
    GuestRegistry(const LimitSettings& limits, datapath::Datapath& datapath, const PolicyStore& policies,
                  const Workers& workers);

    /// Adds a declaration without attaching anything. kExists when it collides with another one.
    Result<void> declare(const GuestConfig& config);
    /// Detaches what belongs to the declaration of that name and forgets it. kNotFound.
    Result<void> remove(const std::string& name);

    /// Brings attachments in line with the links and addresses that exist now: attaches declared guests whose
    /// interface is there, detaches those whose interface is gone or was renamed, and follows changes of
    /// gateway addresses. The first failure is returned after everything was tried; each is kept in
    /// Declared::error until it is gone.
    Result<void> reconcile(const net::LinkMonitor& links);

    /// The link of that index is gone, even if another one has its index by now: its guest is detached.
    void link_removed(unsigned ifindex) { detach(ifindex); }

    /// Takes note of the generation in force of policy `name` for every guest that uses it. The workers are
    /// told by PolicyLoader.
    void policy_changed(const std::string& name);

    /// Detaches the guests that this process attached and that were not under tapgate before it started; for
    /// a start that failed half-way.
    void undo_attachments();

    [[nodiscard]] const std::vector<Declared>& declared() const { return declared_; }

    [[nodiscard]] const std::map<unsigned, Attached>& attached() const { return attached_; }

    [[nodiscard]] const Attached* find(std::string_view name) const;
    [[nodiscard]] const Attached* find(proxy::GuestId id) const;

  private:
    Result<void> attach(const net::Link& link, const GuestConfig& config, std::vector<IpAddress> gateways);
    void detach(unsigned ifindex);
    Declared* declaration_for(std::string_view interface);

    LimitSettings limits_;
    datapath::Datapath& datapath_;
    const PolicyStore& policies_;
    const Workers& workers_;
    std::vector<Declared> declared_;
    std::map<unsigned, Attached> attached_;
    std::vector<unsigned> fresh_; // attached by this process, not adopted
};

} // namespace tapgate::daemon
