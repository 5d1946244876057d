// SPDX-License-Identifier: Apache-2.0
#include "harness/sandbox.hpp"
#include "harness/wait.hpp"
#include "netns/world.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <map>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

// What many sessions cost, and whether anything of them is left. See README.md.
namespace tapgate::test {
namespace {

using Clock = std::chrono::steady_clock;
using Micros = std::chrono::duration<double, std::micro>;

constexpr std::uint16_t kPort = 7000;   // admitted by its SYN
constexpr std::uint16_t kPeeked = 7443; // the name in the first flight decides, and silence is no answer
constexpr unsigned kNamed = 10;
constexpr unsigned kServers = 200; // addresses, so that source ports do not run out
constexpr unsigned kClients = 4;   // threads
constexpr unsigned kProbes = 2000; // at a time
constexpr unsigned kRounds = 5;
constexpr std::chrono::milliseconds kServerFirst{300};

/// Echoes on every address of the internet, with one thread, until it is destroyed.
class EchoServer {
  public:
    EchoServer(const NetNs& ns, std::uint16_t port) {
        listener_ =
            UniqueFd(ns.run([] { return ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0); }));
        sockaddr_in any{};
        any.sin_family = AF_INET;
        any.sin_port = htons(port);
        const int on = 1;
        epoll_ = UniqueFd(::epoll_create1(EPOLL_CLOEXEC));
        if (::setsockopt(listener_.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
            ::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&any), sizeof any) != 0 ||
            ::listen(listener_.get(), 4096) != 0 || !watch(listener_.get()))
            throw std::system_error(errno, std::generic_category(), "echo server");
        thread_ = std::thread([this] { serve(); });
    }

    EchoServer(const EchoServer&) = delete;
    EchoServer& operator=(const EchoServer&) = delete;

    ~EchoServer() {
        is_over_ = true;
        thread_.join();
    }

  private:
    [[nodiscard]] bool watch(int fd) const {
        epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
        return ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0;
    }

    void serve() const {
        std::array<epoll_event, 64> events{};
        while (!is_over_) {
            const int count = ::epoll_wait(epoll_.get(), events.data(), events.size(), 100);
            for (int i = 0; i < count; ++i) {
                if (events[static_cast<std::size_t>(i)].data.fd == listener_.get())
                    accept_all();
                else
                    echo_once(events[static_cast<std::size_t>(i)].data.fd);
            }
        }
    }

    void accept_all() const {
        for (;;) {
            const int fd = ::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
            if (fd < 0)
                return;
            if (!watch(fd))
                ::close(fd);
        }
    }

    static void echo_once(int fd) {
        std::array<char, 4096> buffer{};
        const ssize_t length = ::recv(fd, buffer.data(), buffer.size(), 0);
        if (length <= 0 ||
            ::send(fd, buffer.data(), static_cast<std::size_t>(length), MSG_NOSIGNAL) != length)
            ::close(fd);
    }

    UniqueFd listener_;
    UniqueFd epoll_;
    std::atomic<bool> is_over_{false};
    std::thread thread_;
};

/// A connection on which one octet has come back; nothing if that failed.
std::optional<TcpStream> connect_and_echo(const NetNs& guest, const Endpoint& to) {
    auto stream = TcpStream::connect(guest, to);
    if (!stream || stream->send("x") != 0 || stream->receive(1).bytes != "x")
        return std::nullopt;
    return std::move(*stream);
}

Endpoint server(unsigned number) {
    return {ipv4().server(number % kServers + 1), kPort};
}

/// What is left when nothing should be.
void print_rest(const World& world, std::string_view when) {
    const boost::json::object guest = world.daemon.guest();
    fmt::print("{:34} {:5} descriptors {:6.1f} MiB {:5} sessions {:5} pending\n", when,
               world.daemon.descriptors(), static_cast<double>(world.daemon.resident_bytes()) / (1024 * 1024),
               guest.at("sessions").to_number<unsigned>(), world.daemon.map_entries("pending"));
}

void wait_for_rest(const World& world) {
    if (!wait_until([&] { return world.daemon.guest().at("sessions").to_number<unsigned>() == 0; },
                    std::chrono::minutes(2)))
        fmt::print("sessions are left\n");
}

DaemonConfig config_of(std::string_view splice, unsigned sessions) {
    DaemonConfig config;
    config.daemon = fmt::format("splice = \"{}\"", splice);
    config.policy = policy_text(
        {"allow@dns", "allow@public:tcp:7000", "deny@shadow.test:tcp:7443", "allow@named.test:tcp:7443"});
    config.limits = fmt::format("sessions = {}\nhalf_open = 4096", sessions);
    config.timers =
        fmt::format("peek_ms = 60000\nserver_first_ms = {}\nidle_s = 86400", kServerFirst.count());
    config.guests.push_back({"vm1", "tap1", Topology::guest_addresses(1)});
    return config;
}

/// `count` sessions at once.
std::vector<TcpStream> open_sessions(const World& world, unsigned count) {
    std::vector<TcpStream> held;
    held.reserve(count);
    for (unsigned i = 0; i < count; ++i) {
        auto stream = connect_and_echo(world.topology.guest().ns, server(i));
        if (!stream)
            throw std::runtime_error(fmt::format("connection {} failed", i));
        held.push_back(std::move(*stream));
    }
    return held;
}

unsigned count_alive(std::vector<TcpStream>& held) {
    unsigned alive = 0;
    for (TcpStream& stream : held)
        alive += stream.send("y") == 0 && stream.receive(1).bytes == "y" ? 1 : 0;
    return alive;
}

void hold(World& world, unsigned count) {
    const Clock::time_point begin = Clock::now();
    std::vector<TcpStream> held = open_sessions(world, count);
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    print_rest(world, fmt::format("{} sessions", count));
    const unsigned alive = count_alive(held);
    fmt::print("{} of {} carry another octet; set up in {:.1f} s\n", alive, count, seconds);
}

/// `count` sessions that BPF carries, for so long, each of which says an octet at some moment meanwhile or
/// not at all.
void be_idle(World& world, unsigned count, std::chrono::minutes time) {
    std::vector<TcpStream> held = open_sessions(world, count);
    std::mt19937 random(count);
    std::multimap<Clock::time_point, TcpStream*> turns;
    for (TcpStream& stream : held) {
        const Clock::duration moment = Clock::duration(
            std::uniform_int_distribution<Clock::rep>(0, 2 * Clock::duration(time).count())(random));
        turns.emplace(Clock::now() + moment, &stream);
    }
    unsigned spoke = 0;
    unsigned answered = 0;
    auto turn = turns.begin();
    double cpu = world.daemon.cpu_milliseconds();
    for (int minute = 1; minute <= time.count(); ++minute) {
        const Clock::time_point end = Clock::now() + std::chrono::minutes(1);
        for (; turn != turns.end() && turn->first < end; ++turn) {
            std::this_thread::sleep_until(turn->first);
            ++spoke;
            answered += turn->second->send("z") == 0 && turn->second->receive(1).bytes == "z" ? 1 : 0;
        }
        std::this_thread::sleep_until(end);
        const double before = std::exchange(cpu, world.daemon.cpu_milliseconds());
        fmt::print("minute {}: {:.0f} ms of the daemon's CPU time, {} of {} octets came back\n", minute,
                   cpu - before, answered, spoke);
        if (minute == 1 || minute == time.count())
            print_rest(world, fmt::format("{} sessions", count));
        std::fflush(stdout);
        cpu = world.daemon.cpu_milliseconds();
    }
    fmt::print("{} of {} carry another octet\n", count_alive(held), count);
}

/// `count` connections one after the other, on each of a few threads.
void come_and_go(World& world, unsigned count) {
    std::atomic<unsigned> next{0};
    std::atomic<unsigned> failed{0};
    const Clock::time_point begin = Clock::now();
    std::vector<std::jthread> clients;
    for (unsigned i = 0; i < kClients; ++i) {
        clients.emplace_back([&] {
            const NetNs& guest = world.topology.guest().ns;
            guest.enter();
            for (unsigned number = next++; number < count; number = next++) {
                sockaddr_storage storage{};
                const socklen_t length = server(number).to_sockaddr(storage);
                TcpStream stream(UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)));
                if (::connect(stream.fd(), reinterpret_cast<const sockaddr*>(&storage), length) != 0 &&
                    errno != EINPROGRESS) {
                    ++failed;
                    continue;
                }
                pollfd writable{stream.fd(), POLLOUT, 0};
                static_cast<void>(::poll(&writable, 1, poll_timeout(in(kPatience))));
                const bool is_good = stream.send("x") == 0 && stream.receive(1).bytes == "x";
                stream.finish(); // the guest closes first, and keeps the port
                if (!is_good || stream.receive_to_end().end != End::kFin)
                    ++failed;
            }
        });
    }
    clients.clear();
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    fmt::print("{} connections in {:.0f} s, {:.0f} a second, {} failed\n", count, seconds, count / seconds,
               failed.load());
}

/// How long connections of the other guest took, to the first octet back.
struct Times {
    std::vector<double> us; ///< sorted
    unsigned failed = 0;

    [[nodiscard]] double at(double part) const {
        return us.empty() ? 0.0 : us[static_cast<std::size_t>(part * static_cast<double>(us.size() - 1))];
    }

    void add(const Times& other) {
        us.insert(us.end(), other.us.begin(), other.us.end());
        std::ranges::sort(us);
        failed += other.failed;
    }

    void print(std::string_view when) const {
        fmt::print("{:34} {:8.1f} {:8.1f} {:8.1f} us, {} of them, {} failed\n", when, at(0.5), at(0.9),
                   at(0.99), us.size(), failed);
    }
};

/// As many as kProbes, or less if it is over before.
Times probe(const World& world, const std::function<bool()>& is_over = [] { return false; }) {
    Times times;
    for (unsigned i = 0; i < kProbes && !is_over(); ++i) {
        const Clock::time_point begin = Clock::now();
        const auto stream = connect_and_echo(world.topology.guest(1).ns, server(i));
        if (stream)
            times.us.push_back(Micros(Clock::now() - begin).count());
        else
            ++times.failed;
    }
    std::ranges::sort(times.us);
    return times;
}

/// `count` connections that say nothing; what cannot be had is left out.
std::vector<TcpStream> open_silent(const World& world, unsigned count) {
    std::vector<TcpStream> silent;
    silent.reserve(count);
    for (unsigned i = 0; i < count; ++i) {
        auto stream = TcpStream::connect(world.topology.guest().ns, {ipv4().server(kNamed), kPeeked});
        if (stream)
            silent.push_back(std::move(*stream));
    }
    return silent;
}

/// `count` connections of one guest that say nothing, beside another guest: while they come, and once each of
/// them is a session that has been judged for its silence and only waits.
void be_silent(World& world, unsigned count) {
    Times quiet;
    Times coming;
    Times beside;
    for (unsigned round = 0; round < kRounds; ++round) {
        // The address has a name that is denied, too, or the silent ones would be admitted by their binding.
        resolve(world, ipv4(), "named.test");
        resolve(world, ipv4(), "shadow.test");
        quiet.add(probe(world));
        std::atomic<bool> is_over{false};
        std::vector<TcpStream> silent;
        {
            const std::jthread guest([&] {
                silent = open_silent(world, count);
                is_over = true;
            });
            coming.add(probe(world, [&] { return is_over.load(); }));
        }
        if (!wait_until([&] {
                return world.daemon.guest().at("sessions").to_number<std::size_t>() == silent.size();
            }))
            fmt::print("not all of them are sessions\n");
        std::this_thread::sleep_for(2 * kServerFirst);
        print_rest(world, fmt::format("{} silent connections", silent.size()));
        beside.add(probe(world));
        silent.clear();
        wait_for_rest(world);
    }
    fmt::print("{:34} {:>8} {:>8} {:>8}\n", "another guest: connect and echo", "median", "90 %", "99 %");
    quiet.print("nothing else going on");
    coming.print("while they come");
    beside.print("beside them");
}

int run(std::string_view what, unsigned count, std::chrono::minutes time) {
    World world(config_of(what == "idle" ? "kernel" : "auto", what == "short" ? 2048 : count + 100),
                {dual_stack("named.test", kNamed), dual_stack("shadow.test", kNamed)}, 2);
    for (const NetNs* ns : {&world.topology.host(), &world.topology.internet(), &world.topology.guest().ns,
                            &world.topology.guest(1).ns})
        must_run({"sysctl", "-qw", "net.ipv4.ip_local_port_range=1024 65535", "net.ipv4.tcp_tw_reuse=1"}, ns);
    const EchoServer echo(world.topology.internet(), kPort);
    if (!connect_and_echo(world.topology.guest().ns, server(0)))
        throw std::runtime_error("nothing works");
    wait_for_rest(world);
    print_rest(world, "before");
    if (what == "held")
        hold(world, count);
    else if (what == "idle")
        be_idle(world, count, time);
    else if (what == "short")
        come_and_go(world, count);
    else
        be_silent(world, count);
    wait_for_rest(world);
    print_rest(world, "after");
    return 0;
}

} // namespace
} // namespace tapgate::test

int main(int argc, char** argv) {
    const std::string_view what = argc > 1 ? argv[1] : "";
    const auto number = [&](int index, unsigned otherwise) {
        return argc > index ? static_cast<unsigned>(std::strtoul(argv[index], nullptr, 10)) : otherwise;
    };
    const unsigned count = number(2, 0);
    const std::chrono::minutes time(number(3, 60));
    if ((what != "held" && what != "idle" && what != "short" && what != "silent") || count == 0) {
        fmt::print(stderr, "usage: session_bench held|short|silent COUNT\n"
                           "       session_bench idle COUNT [MINUTES]\n");
        return 2;
    }
    try {
        tapgate::test::enter_sandbox("nameserver 192.0.2.1\n");
        return tapgate::test::run(what, count, time);
    } catch (const std::exception& error) {
        fmt::print(stderr, "session_bench: {}\n", error.what());
        return 1;
    }
}
