// SPDX-License-Identifier: Apache-2.0
#include "harness/topology.hpp"

#include "harness/process.hpp"
#include "harness/sandbox.hpp"
#include "harness/wait.hpp"

#include <fmt/format.h>

#include <atomic>
#include <fstream>
#include <stdexcept>

namespace tapgate::test {

namespace {

IpAddress address(const std::string& text) {
    return IpAddress::parse(text).value();
}

void set_sysctl(const NetNs& ns, const std::string& name, const std::string& value) {
    ns.run([&] {
        // /proc/sys/net shows the namespace of the thread that opens it.
        std::ofstream file("/proc/sys/net/" + name);
        file << value << std::flush;
        if (!file)
            throw std::runtime_error("cannot set " + name);
    });
}

/// Duplicate address detection would hold up every IPv6 address for a second.
void disable_dad(const NetNs& ns) {
    set_sysctl(ns, "ipv6/conf/default/accept_dad", "0");
}

} // namespace

IpAddress Family::server(unsigned number) const {
    return address(fmt::format("{}{}", name == "IPv4" ? "203.0.113." : "2001:db8:3::", number));
}

const Family& ipv4() {
    static const Family family{"IPv4",
                               address("192.0.2.2"),
                               address("192.0.2.1"),
                               address("198.51.100.1"),
                               address("198.51.100.2"),
                               address("203.0.113.53"),
                               "A"};
    return family;
}

const Family& ipv6() {
    static const Family family{"IPv6",
                               address("2001:db8:1::2"),
                               address("2001:db8:1::1"),
                               address("2001:db8:2::1"),
                               address("2001:db8:2::2"),
                               address("2001:db8:3::53"),
                               "AAAA"};
    return family;
}

void wait_for_ipv6(const NetNs& ns, const std::string& link) {
    must_run({"ip", "link", "show", "dev", link}, &ns);
    const bool is_ready = wait_until([&] {
        return ns.run([&] {
            std::ifstream routes("/proc/thread-self/net/ipv6_route");
            for (std::string line; std::getline(routes, line);) {
                if (line.starts_with("ff") && line.ends_with(" " + link))
                    return true;
            }
            return false;
        });
    });
    if (!is_ready)
        throw std::runtime_error("no IPv6 on " + link);
}

Topology::Topology(unsigned guests) {
    disable_dad(host_);
    disable_dad(internet_);
    // IPv4 lets servers bind to any address of a local route; IPv6 has to be told.
    set_sysctl(internet_, "ipv6/ip_nonlocal_bind", "1");
    ip_batch(host_, fmt::format("link add wan0 type veth peer name eth0 netns {}\n"
                                "address add 198.51.100.1/24 dev wan0\n"
                                "address add 2001:db8:2::1/64 dev wan0 nodad\n"
                                "link set wan0 up\n",
                                internet_.path()));
    ip_batch(internet_, "address add 198.51.100.2/24 dev eth0\n"
                        "address add 2001:db8:2::2/64 dev eth0 nodad\n"
                        "link set eth0 up\n"
                        "route add local 203.0.113.0/24 dev lo\n"
                        "route add local 2001:db8:3::/64 dev lo\n");
    wait_for_ipv6(host_, "wan0");
    wait_for_ipv6(internet_, "eth0");
    ip_batch(host_, "route add default via 198.51.100.2\n"
                    "route add default via 2001:db8:2::2\n");
    for (unsigned number = 0; number < guests; ++number)
        add_guest(number);
}

const GuestNet& Topology::add_guest(unsigned number) {
    while (guests_.size() <= number)
        guests_.push_back(nullptr);
    if (!guests_[number]) {
        guests_[number] = std::make_unique<GuestNet>();
        guests_[number]->tap = fmt::format("tap{}", number);
        disable_dad(guests_[number]->ns);
    }
    const GuestNet& guest = *guests_[number];
    ip_batch(guest.ns, fmt::format("link add eth0 address 02:00:00:00:00:{:02x} type veth peer name {} "
                                   "address 02:00:00:00:01:{:02x} netns {}\n"
                                   "address add 192.0.2.{}/28 dev eth0\n"
                                   "address add 2001:db8:1:{}::2/64 dev eth0 nodad\n"
                                   "link set eth0 up\n",
                                   number + 2, guest.tap, number + 1, host_.path(), 16 * number + 2, number));
    ip_batch(host_, fmt::format("address add 192.0.2.{1}/28 dev {0}\n"
                                "address add 2001:db8:1:{2}::1/64 dev {0} nodad\n"
                                "link set {0} up\n",
                                guest.tap, 16 * number + 1, number));
    wait_for_ipv6(guest.ns, "eth0");
    wait_for_ipv6(host_, guest.tap);
    ip_batch(guest.ns, fmt::format("route add default via 192.0.2.{}\n"
                                   "route add default via 2001:db8:1:{}::1\n",
                                   16 * number + 1, number));
    return guest;
}

void Topology::remove_guest_link(unsigned number) {
    ip_batch(host_, fmt::format("link delete {}\n", guest(number).tap));
}

std::vector<std::string> Topology::guest_addresses(unsigned number) {
    return {fmt::format("192.0.2.{}", 16 * number + 2), fmt::format("2001:db8:1:{}::2", number)};
}

void ip_batch(const NetNs& ns, const std::string& script) {
    static std::atomic<unsigned> count{0};
    must_run({"ip", "-batch", write_scratch(fmt::format("ip-{}.batch", ++count), script)}, &ns);
}

} // namespace tapgate::test
