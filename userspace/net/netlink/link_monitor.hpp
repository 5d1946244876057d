// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/ip.hpp"
#include "base/result.hpp"
#include "net/netlink/netlink_socket.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace tapgate::net {

struct Link {
    unsigned ifindex = 0;
    std::string name;
    bool up = false; ///< administratively

    bool operator==(const Link&) const = default;
};

struct InterfaceAddress {
    unsigned ifindex = 0;
    IpAddress address;

    auto operator<=>(const InterfaceAddress&) const = default;
};

enum class LinkChange : std::uint8_t {
    kAdded,
    kRemoved,
    kRenamed,
    kUp,
    kDown,
    kAddresses, ///< an address came or went
};

struct LinkEvent {
    LinkChange change = LinkChange::kAdded;
    /// As it is after the change; for kRemoved as it was.
    Link link;
};

/// The interfaces of the current network namespace and the addresses of the host, kept up to date. One
/// thread.
class LinkMonitor {
  public:
    using Sink = std::function<void(const LinkEvent&)>;

    /// Returns with the state of now in links() and addresses().
    static Result<std::unique_ptr<LinkMonitor>> open();

    LinkMonitor(const LinkMonitor&) = delete;
    LinkMonitor& operator=(const LinkMonitor&) = delete;

    /// Polls readable when read_events() has something to do.
    [[nodiscard]] int fd() const { return notifications_.fd(); }

    /// Takes in what the kernel has reported, a bounded amount a call, and tells `sink` (may be empty) what
    /// changed, after links() and addresses() show it. When reports were lost it reads the whole state again
    /// and reports the differences. On failure the state is as it was, to be read again at the next call.
    Result<void> read_events(const Sink& sink = {});

    /// By interface index.
    [[nodiscard]] const std::vector<Link>& links() const { return links_; }

    /// Sorted by interface and address, each once.
    [[nodiscard]] const std::vector<InterfaceAddress>& addresses() const { return addresses_; }

    /// The addresses of all interfaces together, sorted, each once.
    [[nodiscard]] std::vector<IpAddress> host_addresses() const;
    /// The link of that index, or null. Valid until the next read_events().
    [[nodiscard]] const Link* find(unsigned ifindex) const;

  private:
    struct State {
        std::vector<Link> links;
        std::vector<InterfaceAddress> addresses;
    };

    explicit LinkMonitor(NetlinkSocket notifications) : notifications_(std::move(notifications)) {}

    static Result<State> read_state();
    Result<void> read_again(const Sink& sink);
    void apply(const NetlinkMessage& message, const Sink& sink);
    void put_link(const Link& link, const Sink& sink);
    void remove_link(unsigned ifindex, const Sink& sink);
    void put_address(const InterfaceAddress& address, const Sink& sink);
    void remove_address(const InterfaceAddress& address, const Sink& sink);
    void tell(const Sink& sink, LinkChange change, unsigned ifindex) const;

    NetlinkSocket notifications_;
    std::vector<Link> links_;
    std::vector<InterfaceAddress> addresses_;
    bool stale_ = false; // the whole state has to be read again
};

} // namespace tapgate::net
