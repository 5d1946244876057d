// SPDX-License-Identifier: Apache-2.0
#include "harness/dns.hpp"
#include "harness/sandbox.hpp"
#include "harness/wait.hpp"
#include "netns/world.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <thread>
#include <vector>

// What a DNS lookup takes through tapgate, beside the same resolver reached directly and through dnsmasq, and
// what one guest notices of another one's flood. See README.md.

namespace tapgate::test {
namespace {

using Clock = std::chrono::steady_clock;
using Micros = std::chrono::duration<double, std::micro>;

constexpr unsigned kNames = 1000;
constexpr unsigned kServers = 200;
constexpr unsigned kDefaultRounds = 5000;
constexpr unsigned kFloodPerSecond = 5000;
constexpr unsigned kTapgateGuest = 0;
constexpr unsigned kDirectGuest = 1;
constexpr unsigned kDnsmasqGuest = 2;
constexpr unsigned kOtherGuest = 3;

std::string name_of(unsigned number) {
    return fmt::format("n{}.many.test", number % kNames);
}

Endpoint gateway_of(unsigned guest) {
    return {IpAddress::from_v4(0xc0000201U + 16 * guest), 53};
}

/// A client that asks one server.
class Lookups {
  public:
    Lookups(const NetNs& ns, const Endpoint& server)
        : socket_(ns, {IpAddress::from_v4(0), 0}), server_(server) {}

    /// Asks for the `number`th name once.
    void measure(unsigned number) {
        const auto id = static_cast<std::uint16_t>(number);
        const Bytes query = make_query(id, name_of(number), "A");
        const Clock::time_point begin = Clock::now();
        socket_.send(server_, query);
        const auto reply = socket_.receive(std::chrono::seconds(2));
        const Clock::time_point end = Clock::now();
        if (reply && reply->bytes.size() > query.size() && reply->bytes[0] == query[0] &&
            reply->bytes[1] == query[1])
            times_.push_back(Micros(end - begin).count());
        else
            ++failures_;
    }

    void print(const char* what) {
        std::ranges::sort(times_);
        const auto at = [&](double part) {
            return times_.empty()
                       ? 0.0
                       : times_[static_cast<std::size_t>(part * static_cast<double>(times_.size() - 1))];
        };
        fmt::print("{:44} {:8.1f} {:8.1f} {:8.1f} us {:8} failed\n", what, at(0.5), at(0.9), at(0.99),
                   failures_);
        times_.clear();
        failures_ = 0;
    }

  private:
    UdpSocket socket_;
    Endpoint server_;
    std::vector<double> times_;
    unsigned failures_ = 0;
};

/// Sends queries at an even rate and takes no answers, until it is destroyed.
class Flood {
  public:
    Flood(const NetNs& ns, const Endpoint& server, unsigned per_second)
        : socket_(ns, {IpAddress::from_v4(0), 0}), thread_([this, server, per_second] {
              const auto step = std::chrono::nanoseconds(1'000'000'000 / per_second);
              Clock::time_point next = Clock::now();
              for (unsigned i = 0; !is_over_; ++i) {
                  socket_.send(server, make_query(static_cast<std::uint16_t>(i), name_of(i), "A"));
                  ++sent_;
                  next += step;
                  std::this_thread::sleep_until(next);
              }
          }) {}

    Flood(const Flood&) = delete;
    Flood& operator=(const Flood&) = delete;

    ~Flood() {
        is_over_ = true;
        thread_.join();
    }

    [[nodiscard]] unsigned sent() const { return sent_; }

  private:
    UdpSocket socket_;
    std::atomic<bool> is_over_{false};
    std::atomic<unsigned> sent_{0};
    std::thread thread_;
};

int run(unsigned rounds) {
    DaemonConfig config;
    config.policy = policy_text({"allow@*.many.test:tcp:443"});
    config.limits = "dns_qps = 100000";
    config.guests.push_back({"vm3", "tap3", Topology::guest_addresses(kOtherGuest)});
    std::vector<std::string> zone;
    for (unsigned i = 0; i < kNames; ++i)
        zone.push_back(dual_stack(name_of(i), i % kServers + 1));
    World world(config, zone, 4);
    const NetNs& host = world.topology.host();

    // Guest 1 reaches the resolver as on an ordinary host: forwarded, its address translated.
    must_run({"sysctl", "-qw", "net.ipv4.ip_forward=1"}, &host);
    must_run({"nft", "add table ip nat; add chain ip nat out { type nat hook postrouting priority 100; }; "
                     "add rule ip nat out oifname wan0 masquerade"},
             &host);
    // No cache: what counts is what forwarding takes.
    Process dnsmasq({"dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
                     "--cache-size=0", "--user=root", "--pid-file=", "--bind-interfaces",
                     "--listen-address=" + gateway_of(kDnsmasqGuest).address.to_string(),
                     "--server=" + ipv4().resolver.to_string()},
                    &host);
    Lookups direct(world.topology.guest(kDirectGuest).ns, {ipv4().resolver, 53});
    Lookups tapgate(world.topology.guest(kTapgateGuest).ns, gateway_of(kTapgateGuest));
    Lookups through_dnsmasq(world.topology.guest(kDnsmasqGuest).ns, gateway_of(kDnsmasqGuest));
    if (!wait_until([&] {
            return ask(world.topology.guest(kDnsmasqGuest).ns, gateway_of(kDnsmasqGuest), name_of(0), "A",
                       std::chrono::milliseconds(200))
                .has_value();
        }))
        throw std::runtime_error("dnsmasq does not answer: " + dnsmasq.err());

    fmt::print("{:44} {:>8} {:>8} {:>8}\n", "one lookup", "median", "90 %", "99 %");
    for (unsigned i = 0; i < rounds; ++i) {
        direct.measure(i);
        tapgate.measure(i);
        through_dnsmasq.measure(i);
    }
    direct.print("unbound directly");
    tapgate.print("unbound through tapgate");
    through_dnsmasq.print("unbound through dnsmasq, no cache");

    Lookups other(world.topology.guest(kOtherGuest).ns, gateway_of(kOtherGuest));
    for (unsigned i = 0; i < rounds; ++i)
        other.measure(i);
    other.print("another guest, nothing else going on");
    const Clock::time_point begin = Clock::now();
    const Flood flood(world.topology.guest(kTapgateGuest).ns, gateway_of(kTapgateGuest), kFloodPerSecond);
    for (unsigned i = 0; i < rounds; ++i)
        other.measure(i);
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    other.print("another guest, while one floods");
    fmt::print("the flood: {:.0f} queries a second\n", flood.sent() / seconds);
    return 0;
}

} // namespace
} // namespace tapgate::test

int main(int argc, char** argv) {
    const unsigned rounds =
        argc > 1 ? static_cast<unsigned>(std::strtoul(argv[1], nullptr, 10)) : tapgate::test::kDefaultRounds;
    try {
        tapgate::test::enter_sandbox("nameserver 192.0.2.1\n");
        return tapgate::test::run(rounds);
    } catch (const std::exception& error) {
        fmt::print(stderr, "dns_bench: {}\n", error.what());
        return 1;
    }
}
