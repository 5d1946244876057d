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
        GuestConfig declaration; ///< by which it was attached, as were `limits`
        LimitSettings limits;
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

    /// Whether redeclare() is possible: kExists if a guest would collide with one that was declared besides,
    /// kNotFound if a new one names an interface that is not there.
    [[nodiscard]] Result<void> check_redeclare(const std::vector<GuestConfig>& before,
                                               const std::vector<GuestConfig>& after,
                                               const net::LinkMonitor& links) const;
    /// Puts the declarations `after` in the place of `before`, those of the configuration; what was declared
    /// besides stays. Attachments follow with the next reconcile().
    void redeclare(const std::vector<GuestConfig>& before, const std::vector<GuestConfig>& after,
                   const LimitSettings& limits);

    /// Brings attachments in line with the declarations, and with the links and addresses that exist now:
    /// attaches declared guests whose interface is there, detaches those that are declared no more or whose
    /// interface is gone or was renamed, and follows changes of declarations, limits and gateway addresses. A
    /// guest that gets another policy loses its connections. The first failure is returned after everything
    /// was tried; each is kept in Declared::error until it is gone.
    Result<void> reconcile(const net::LinkMonitor& links);

    /// The link of that index is gone, even if another one has its index by now: its guest is detached.
    void link_removed(unsigned ifindex) { detach(ifindex); }

    /// Forgets the guests that the kernel judges by another generation than the one they have here, or not at
    /// all any more, and resets their sessions; for when another daemon rules.
    void drop_outdated();

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
    class Index;

    LimitSettings limits_;
    datapath::Datapath& datapath_;
    const PolicyStore& policies_;
    const Workers& workers_;
    std::vector<Declared> declared_;
    std::map<unsigned, Attached> attached_;
    std::vector<unsigned> fresh_; // attached by this process, not adopted
};

/// kNotFound, with what to do, for a guest on one interface that is not there.
[[nodiscard]] Result<void> check_present(const GuestConfig& guest, const net::LinkMonitor& links);

} // namespace tapgate::daemon
