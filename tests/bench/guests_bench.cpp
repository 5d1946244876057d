// SPDX-License-Identifier: Apache-2.0
#include "harness/sandbox.hpp"
#include "harness/wait.hpp"
#include "netns/many_guests.hpp"
#include "netns/world.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

// What many guests on one host cost. See README.md.
namespace tapgate::test {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::uint16_t kPort = 7000;
constexpr unsigned kNames = 2000;
constexpr unsigned kFlows = 500;
constexpr unsigned kRepeats = 5;
constexpr std::chrono::seconds kIdle{10};

double milliseconds_since(Clock::time_point begin) {
    return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
}

void print(std::string_view what, double milliseconds, std::string_view note = {}) {
    fmt::print("{:44} {:9.1f} ms   {}\n", what, milliseconds, note);
    std::fflush(stdout);
}

template <typename Work>
double timed(Work work) {
    const Clock::time_point begin = Clock::now();
    work();
    return milliseconds_since(begin);
}

void print_process(const Daemon& daemon) {
    fmt::print("{:44} {:9.1f} MiB  {} descriptors\n", "the daemon",
               static_cast<double>(daemon.resident_bytes()) / (1024 * 1024), daemon.descriptors());
}

/// The command as an operator runs it: the median of a few runs, and of the daemon's CPU time for one.
void time_command(const Daemon& daemon, const std::vector<std::string>& words) {
    std::vector<std::string> argv = {cli_program(), "-s", daemon.control_socket()};
    argv.insert(argv.end(), words.begin(), words.end());
    std::vector<double> times;
    std::size_t bytes = 0;
    const double cpu = daemon.cpu_milliseconds();
    for (unsigned i = 0; i < kRepeats; ++i)
        times.push_back(timed([&] { bytes = must_run(argv).size(); }));
    const double each = (daemon.cpu_milliseconds() - cpu) / kRepeats;
    std::ranges::sort(times);
    std::string command;
    for (const std::string& word : words)
        command += (command.empty() ? "" : " ") + word;
    print(command, times.at(kRepeats / 2),
          fmt::format("{:.0f} ms of the daemon's CPU time, {} octets", each, bytes));
}

/// Bindings and sessions of guest 0, the one with somebody behind it.
std::vector<TcpStream> fill(const World& world) {
    for (unsigned i = 0; i < kNames; ++i) {
        if (!ask(world.topology.guest().ns, {ipv4().gateway, 53}, fmt::format("n{}.many.test", i), "A",
                 kPatience))
            throw std::runtime_error("no answer");
    }
    std::vector<TcpStream> held;
    for (unsigned i = 0; i < kFlows; ++i) {
        auto stream = TcpStream::connect(world.topology.guest().ns, {ipv4().server(10), kPort});
        if (!stream || stream->send("x") != 0 || stream->receive(1).bytes != "x")
            throw std::runtime_error("a connection failed");
        held.push_back(std::move(*stream));
    }
    return held;
}

void measure(World& world, unsigned count) {
    Daemon& daemon = world.daemon;
    const std::vector<TcpStream> held = fill(world);
    print_process(daemon);
    for (const std::vector<std::string>& words :
         std::vector<std::vector<std::string>>{{"guest", "show"},
                                               {"guest", "show", many_guest(count / 2).name},
                                               {"status", "show"},
                                               {"metric", "show"},
                                               {"flow", "show"},
                                               {"dns", "show"},
                                               {"dns", "show", "--stats"},
                                               {"policy", "show"},
                                               {"policy", "load", "main", daemon.policy_file()},
                                               {"why", "vm0", "n1.many.test"}})
        time_command(daemon, words);

    const double before = daemon.cpu_milliseconds();
    std::this_thread::sleep_for(kIdle);
    print("CPU time while nothing happens, a second", (daemon.cpu_milliseconds() - before) / kIdle.count());
}

int run(unsigned count) {
    const std::vector<GuestEntry> guests = many_guests(count);
    DaemonConfig config;
    config.policy = policy_text({"allow@public:tcp:7000", "allow@*.many.test:tcp:443"});
    config.limits = "dns_qps = 100000";
    std::vector<std::string> zone;
    for (unsigned i = 0; i < kNames; ++i)
        zone.push_back(dual_stack(fmt::format("n{}.many.test", i), i % 250 + 1));
    World world(config, zone);
    const TcpServer server(world.topology.internet(), {ipv4().server(10), kPort}, echo);

    print(fmt::format("{} taps, made by ip", count), timed([&] { add_taps(world.topology.host(), count); }));
    // The daemon follows the links; a guest added now waits for it.
    print("until the daemon has seen them", timed([&] { world.daemon.ask({"status", "show"}); }));
    std::vector<double> times;
    const double cpu = world.daemon.cpu_milliseconds();
    const double all = timed([&] {
        for (const GuestEntry& guest : guests)
            times.push_back(timed([&] { world.daemon.ask(guest_add_words(guest)); }));
    });
    std::ranges::sort(times);
    print(fmt::format("{} times `guest add`", count), all,
          fmt::format("one: median {:.1f}, most {:.1f} ms; {:.0f} ms of the daemon's CPU time",
                      times.at(count / 2), times.back(), world.daemon.cpu_milliseconds() - cpu));
    measure(world, count);
    times.clear();
    print(fmt::format("{} times `guest del`", count), timed([&] {
              for (const GuestEntry& guest : guests)
                  times.push_back(timed([&] { world.daemon.ask({"guest", "del", guest.name}); }));
          }));
    world.daemon.stop();

    config.guests.insert(config.guests.end(), guests.begin(), guests.end());
    fmt::print("\nall of them in the configuration:\n");
    std::optional<Daemon> daemon;
    print("the first start, until all are attached", timed([&] { daemon.emplace(world.topology, config); }));
    print("a restart, until all are attached", timed([&] {
              daemon->kill();
              daemon->start();
          }));
    print("a stop", timed([&] { daemon->stop(); }));
    return 0;
}

} // namespace
} // namespace tapgate::test

int main(int argc, char** argv) {
    const unsigned count = argc > 1 ? static_cast<unsigned>(std::strtoul(argv[1], nullptr, 10)) : 1000;
    if (argc > 2 || count == 0 || count > 4000) {
        fmt::print(stderr, "usage: guests_bench [COUNT], at most 4000\n");
        return 2;
    }
    try {
        tapgate::test::enter_sandbox("nameserver 192.0.2.1\n");
        return tapgate::test::run(count);
    } catch (const std::exception& error) {
        fmt::print(stderr, "guests_bench: {}\n", error.what());
        return 1;
    }
}
