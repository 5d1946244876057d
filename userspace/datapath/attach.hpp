// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"
#include "datapath/datapath.hpp"

#include <string>

namespace tapgate::datapath {

/// True if the kernel has tcx links (Linux 6.6), asked once of the loopback interface without changing it.
[[nodiscard]] bool has_tcx();

/// Puts the two tap programs on guests' interfaces and uplink_ingress on uplinks: as tcx links pinned below
/// `links_path`, ahead of whatever else is attached, or as clsact filters of a fixed handle and priority.
/// Both outlive the daemon, and are replaced in place, so that there is no moment without a program.
class Attacher {
  public:
    /// The descriptors are borrowed.
    Attacher(std::string links_path, AttachKind kind, int ingress_fd, int egress_fd, int uplink_fd);

    [[nodiscard]] AttachKind kind() const { return kind_; }

    /// True if both programs, of this or an earlier daemon, are on this very interface; false also when it is
    /// a new interface that got the index of one that is gone.
    [[nodiscard]] bool is_attached(unsigned ifindex) const;

    /// Attaches or replaces. On failure an interface that had both programs keeps those it has; any other is
    /// left with none.
    Result<void> attach(unsigned ifindex) const;

    /// Puts uplink_ingress on the interface, which is no guest's, in place of the one of an earlier daemon.
    Result<void> attach_uplink(unsigned ifindex) const;

    /// Takes all programs off, in whatever way they were attached. No error if there are none or the
    /// interface is gone. The clsact qdisc stays: others may have put filters there.
    static Result<void> detach(const std::string& links_path, unsigned ifindex);

    Result<void> detach(unsigned ifindex) const { return detach(links_path_, ifindex); }

    /// The interfaces that have links pinned below `links_path`, existing or not.
    [[nodiscard]] static std::vector<unsigned> linked_interfaces(const std::string& links_path);

  private:
    std::string links_path_;
    AttachKind kind_;
    int ingress_fd_;
    int egress_fd_;
    int uplink_fd_;
};

} // namespace tapgate::datapath
