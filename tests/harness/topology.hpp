// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/ip.hpp"
#include "harness/netns.hpp"

#include <memory>
#include <string>
#include <vector>

namespace tapgate::test {

/// What a test of one IP version has to know of the topology; tests are written once and run for both.
struct Family {
    std::string name;   ///< "IPv4" or "IPv6"
    IpAddress guest;    ///< of guest 0
    IpAddress gateway;  ///< of guest 0: the host as guest 0 sees it
    IpAddress uplink;   ///< the host's address towards the internet
    IpAddress internet; ///< the internet's own address on the uplink
    IpAddress resolver; ///< the trusted resolver
    std::string record; ///< DNS record type of its addresses, "A" or "AAAA"

    /// The `number`th address of the internet, 1 to 250; .53 is the resolver.
    [[nodiscard]] IpAddress server(unsigned number) const;
};

[[nodiscard]] const Family& ipv4();
[[nodiscard]] const Family& ipv6();

/// A guest's namespace and its end of the wire.
struct GuestNet {
    NetNs ns;
    std::string interface = "eth0"; ///< inside the guest
    std::string tap;                ///< the host's end
};

/// Three kinds of namespaces, wired up as on a real host:
///
///     guest N                        host                                   internet
///     eth0 192.0.2.(16N+2)/28 ------ tapN 192.0.2.(16N+1)/28
///          2001:db8:1:N::2/64             2001:db8:1:N::1/64
///                                    wan0 198.51.100.1/24 ----------------- eth0 198.51.100.2/24
///                                         2001:db8:2::1/64                       2001:db8:2::2/64
///                                                                           lo   203.0.113.0/24,
///                                                                           2001:db8:3::/64
///
/// Default routes point right; nothing routes back to guests; forwarding stays off everywhere. The MAC of
/// guest N is 02:00:00:00:00:(N+2), that of tapN is 02:00:00:00:01:(N+1).
class Topology {
  public:
    explicit Topology(unsigned guests = 1);

    [[nodiscard]] const NetNs& host() const { return host_; }

    [[nodiscard]] const NetNs& internet() const { return internet_; }

    [[nodiscard]] const GuestNet& guest(unsigned number = 0) const { return *guests_.at(number); }

    /// Adds the link of guest `number` (and its namespace, if new).
    const GuestNet& add_guest(unsigned number);
    /// Deletes the link of guest `number`, as a hypervisor does when the guest ends.
    void remove_guest_link(unsigned number);

    /// Addresses of guest `number`.
    static std::vector<std::string> guest_addresses(unsigned number);

  private:
    NetNs host_;
    NetNs internet_;
    std::vector<std::unique_ptr<GuestNet>> guests_;
};

/// Waits until the kernel's link watch has seen `link` up: before, it has no multicast route, so that nobody
/// can solicit its IPv6 address. The link watch may wait for a second, unless someone asks for the link.
void wait_for_ipv6(const NetNs& ns, const std::string& link);

/// Runs the lines of `script` through `ip -batch` in `ns`; throws std::runtime_error if one fails.
void ip_batch(const NetNs& ns, const std::string& script);

} // namespace tapgate::test
