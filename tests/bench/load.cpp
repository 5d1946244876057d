// SPDX-License-Identifier: Apache-2.0
#include "load.hpp"

#include "netns/world.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <fstream>
#include <functional>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <system_error>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

namespace tapgate::test {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kChunk = 128 * 1024;
constexpr std::size_t kMessage = 64;
/// Nothing here takes longer, unless it hangs.
constexpr timeval kSocketTimeout{10, 0};
constexpr unsigned kAnswerThreads = 64;
/// Until congestion control has found its window.
constexpr std::chrono::milliseconds kRampUp{300};

const std::string& first_flight() {
    static const std::string hello = client_hello(kBenchName);
    return hello;
}

bool send_all(int fd, const char* bytes, std::size_t size) {
    while (size > 0) {
        const ssize_t count = ::send(fd, bytes, size, MSG_NOSIGNAL);
        if (count <= 0)
            return false;
        bytes += count;
        size -= static_cast<std::size_t>(count);
    }
    return true;
}

bool receive_all(int fd, char* bytes, std::size_t size) {
    return ::recv(fd, bytes, size, MSG_WAITALL) == static_cast<ssize_t>(size);
}

void prepare(int fd) {
    const int on = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &kSocketTimeout, sizeof kSocketTimeout);
    ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &kSocketTimeout, sizeof kSocketTimeout);
}

/// Connects from the namespace of the calling thread and sends the first flight; no descriptor if that fails.
UniqueFd open_connection(const Endpoint& to) {
    sockaddr_storage storage{};
    const socklen_t length = to.to_sockaddr(storage);
    UniqueFd fd(::socket(storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!fd)
        return fd;
    prepare(fd.get());
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&storage), length) != 0 ||
        !send_all(fd.get(), first_flight().data(), first_flight().size()))
        fd.reset();
    return fd;
}

UniqueFd must_open_connection(const Carrier& carrier, std::uint16_t port) {
    UniqueFd fd = open_connection(carrier.target(port));
    if (!fd)
        throw std::system_error(errno, std::generic_category(), carrier.name() + ": connect");
    return fd;
}

/// Seconds that all CPUs together have worked.
double busy_seconds() {
    std::ifstream file("/proc/stat");
    std::string word;
    std::array<double, 8> ticks{}; // user nice system idle iowait irq softirq steal
    file >> word;
    for (double& value : ticks)
        file >> value;
    const double busy = ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6];
    return busy / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

double resident_bytes(const std::vector<pid_t>& processes) {
    double pages = 0;
    for (const pid_t pid : processes) {
        std::ifstream file(fmt::format("/proc/{}/statm", pid));
        double total = 0;
        double resident = 0;
        file >> total >> resident;
        pages += resident;
    }
    return pages * static_cast<double>(::sysconf(_SC_PAGESIZE));
}

double at(const std::vector<double>& sorted, double part) {
    return sorted.empty() ? 0
                          : sorted[static_cast<std::size_t>(part * static_cast<double>(sorted.size() - 1))];
}

double micros(Clock::duration duration) {
    return std::chrono::duration<double, std::micro>(duration).count();
}

/// Polls `is_so`, which a load that just begins makes true.
void await(const std::function<bool()>& is_so, const std::string& what) {
    const Clock::time_point deadline = Clock::now() + std::chrono::seconds(20);
    while (!is_so()) {
        if (Clock::now() > deadline)
            throw std::runtime_error(what);
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
}

/// As Carrier::check(), a little later if need be: what carries a connection may change once it is answered.
void check_soon(const Carrier& carrier) {
    for (int left = 20;; --left) {
        try {
            carrier.check();
            return;
        } catch (const std::runtime_error&) {
            if (left == 0)
                throw;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
}

} // namespace

Servers::Servers(const Carrier& carrier) : ns_(carrier.internet()) {
    accept_on(kSinkPort, 1);
    accept_on(kSourcePort, 1);
    accept_on(kEchoPort, 1);
    // Each of these serves what it accepts itself: a thread for each connection would be measured with it.
    accept_on(kAnswerPort, kAnswerThreads);
}

Servers::~Servers() {
    is_over_ = true;
    for (const UniqueFd& listener : listeners_)
        ::shutdown(listener.get(), SHUT_RDWR);
    for (std::thread& acceptor : acceptors_)
        acceptor.join();
    {
        const std::lock_guard lock(mutex_);
        for (const int fd : live_)
            ::shutdown(fd, SHUT_RDWR);
    }
    for (unsigned left = serving_; left != 0; left = serving_)
        serving_.wait(left);
}

void Servers::accept_on(std::uint16_t port, unsigned threads) {
    sockaddr_storage storage{};
    const socklen_t length = Endpoint{bench_server(), port}.to_sockaddr(storage);
    UniqueFd listener(ns_.run([&] { return ::socket(storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0); }));
    const int on = 1;
    ::setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (!listener || ::bind(listener.get(), reinterpret_cast<const sockaddr*>(&storage), length) != 0 ||
        ::listen(listener.get(), 8192) != 0)
        throw std::system_error(errno, std::generic_category(), "listen");
    for (unsigned i = 0; i < threads; ++i)
        acceptors_.emplace_back([this, fd = listener.get(), port] { accept_loop(fd, port); });
    listeners_.push_back(std::move(listener));
}

void Servers::accept_loop(int listener, std::uint16_t port) {
    while (!is_over_) {
        const int fd = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
        if (fd < 0)
            continue;
        prepare(fd);
        if (port == kAnswerPort) {
            serve(fd, port);
            ::close(fd);
            continue;
        }
        ++serving_;
        std::thread([this, fd, port] {
            {
                const std::lock_guard lock(mutex_);
                live_.insert(fd);
            }
            serve(fd, port);
            {
                const std::lock_guard lock(mutex_);
                live_.erase(fd);
            }
            ::close(fd);
            --serving_;
            serving_.notify_all();
        }).detach();
    }
}

void Servers::serve(int fd, std::uint16_t port) {
    std::vector<char> buffer(port == kAnswerPort || port == kEchoPort ? 4096 : kChunk);
    if (!receive_all(fd, buffer.data(), first_flight().size()))
        return;
    // What a server answers to a hello decides how tapgate goes on: this is no wish for another one.
    buffer[0] = 0;
    if (port == kAnswerPort) {
        if (send_all(fd, buffer.data(), 1))
            (void)::recv(fd, buffer.data(), 1, 0); // the client's end
        return;
    }
    if (port == kSourcePort) {
        while (send_all(fd, buffer.data(), buffer.size())) {
        }
        return;
    }
    if (port == kEchoPort) {
        // An idle connection is not to end by a time-out of ours.
        const timeval never{};
        ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &never, sizeof never);
        while (receive_all(fd, buffer.data(), kMessage) && send_all(fd, buffer.data(), kMessage)) {
        }
        return;
    }
    if (!send_all(fd, buffer.data(), 1))
        return;
    for (bool has_begun = false;;) {
        const ssize_t count = ::recv(fd, buffer.data(), buffer.size(), 0);
        if (count <= 0)
            return;
        if (!std::exchange(has_begun, true))
            ++uploads_;
        taken_ += static_cast<std::uint64_t>(count);
    }
}

BulkResult measure_bulk(const Carrier& carrier, const Servers& servers, bool up, unsigned streams,
                        std::chrono::milliseconds time) {
    const unsigned uploads_before = servers.uploads();
    std::vector<UniqueFd> connections;
    carrier.guest().run([&] {
        for (unsigned i = 0; i < streams; ++i)
            connections.push_back(must_open_connection(carrier, up ? kSinkPort : kSourcePort));
    });
    std::atomic<std::uint64_t> received{0};
    std::atomic<unsigned> downloads{0};
    std::vector<std::thread> clients;
    for (const UniqueFd& connection : connections) {
        clients.emplace_back([&, fd = connection.get()] {
            std::vector<char> buffer(kChunk);
            if (up && !receive_all(fd, buffer.data(), 1))
                return; // as a client that waits for the server's handshake
            while (up && send_all(fd, buffer.data(), buffer.size())) {
            }
            for (bool has_begun = false; !up;) {
                const ssize_t count = ::recv(fd, buffer.data(), buffer.size(), 0);
                if (count <= 0)
                    return;
                if (!std::exchange(has_begun, true)) {
                    ++downloads;
                    send_all(fd, buffer.data(), 1); // as a client that finishes its handshake
                }
                received += static_cast<std::uint64_t>(count);
            }
        });
    }
    BulkResult result;
    std::string problem;
    try {
        const auto begun = [&] { return up ? servers.uploads() - uploads_before : downloads.load(); };
        await([&] { return begun() == streams; }, carrier.name() + ": a stream does not begin");
        check_soon(carrier);
        std::this_thread::sleep_for(kRampUp);
        const auto bytes = [&] { return up ? servers.taken() : received.load(); };
        const double busy_before = busy_seconds();
        const std::uint64_t bytes_before = bytes();
        const Clock::time_point begin = Clock::now();
        std::this_thread::sleep_for(time);
        const double moved = static_cast<double>(bytes() - bytes_before);
        const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
        result.gigabits_per_second = moved * 8 / 1e9 / seconds;
        result.cpu_seconds_per_gigabyte = (busy_seconds() - busy_before) / (moved / 1e9);
    } catch (const std::exception& error) {
        problem = error.what();
    }
    for (const UniqueFd& connection : connections)
        ::shutdown(connection.get(), SHUT_RDWR);
    for (std::thread& client : clients)
        client.join();
    if (!problem.empty())
        throw std::runtime_error(problem);
    return result;
}

namespace {

/// Does `attempt`, which says whether it went as it should, again and again on each of `clients` threads.
ConnectResult measure_attempts(const Carrier& carrier, unsigned clients, std::chrono::milliseconds time,
                               const std::function<bool()>& attempt) {
    std::vector<std::vector<double>> times(clients);
    std::atomic<std::uint64_t> failed{0};
    const Clock::time_point begin = Clock::now();
    std::vector<std::thread> threads;
    for (std::vector<double>& mine : times) {
        threads.emplace_back([&] {
            carrier.guest().enter();
            for (;;) {
                const Clock::time_point start = Clock::now();
                if (start - begin >= time)
                    return;
                if (attempt())
                    mine.push_back(micros(Clock::now() - start));
                else
                    ++failed;
            }
        });
    }
    for (std::thread& thread : threads)
        thread.join();
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    std::vector<double> all;
    for (const std::vector<double>& mine : times)
        all.insert(all.end(), mine.begin(), mine.end());
    std::ranges::sort(all);
    return {static_cast<double>(all.size()) / seconds, at(all, 0.5), at(all, 0.99), failed};
}

} // namespace

ConnectResult measure_connects(const Carrier& carrier, unsigned clients, std::chrono::milliseconds time) {
    return measure_attempts(carrier, clients, time, [&] {
        const UniqueFd fd = open_connection(carrier.target(kAnswerPort));
        char answer = 0;
        return fd && receive_all(fd.get(), &answer, 1);
    });
}

ConnectResult measure_denials(const Carrier& carrier, unsigned clients, std::chrono::milliseconds time) {
    return measure_attempts(carrier, clients, time, [&] {
        const UniqueFd fd = open_connection(carrier.denied_target());
        if (!fd)
            return errno != ETIMEDOUT && errno != EAGAIN && errno != EINPROGRESS;
        char answer = 0;
        const ssize_t length = ::recv(fd.get(), &answer, 1, 0);
        return length == 0 || (length < 0 && errno != EAGAIN);
    });
}

LatencyResult measure_latency(const Carrier& carrier, std::chrono::milliseconds time) {
    const UniqueFd fd = carrier.guest().run([&] { return must_open_connection(carrier, kEchoPort); });
    std::array<char, kMessage> message{};
    std::vector<double> times;
    const Clock::time_point begin = Clock::now();
    for (Clock::time_point start = begin; start - begin < time; start = Clock::now()) {
        if (!send_all(fd.get(), message.data(), message.size()) ||
            !receive_all(fd.get(), message.data(), message.size()))
            throw std::runtime_error(carrier.name() + ": an echo does not come");
        times.push_back(micros(Clock::now() - start));
    }
    check_soon(carrier);
    std::ranges::sort(times);
    return {at(times, 0.5), at(times, 0.99)};
}

double measure_idle_memory(const Carrier& carrier, unsigned flows) {
    const double before = resident_bytes(carrier.processes());
    std::vector<UniqueFd> connections;
    carrier.guest().run([&] {
        std::array<char, kMessage> message{};
        for (unsigned i = 0; i < flows; ++i) {
            connections.push_back(must_open_connection(carrier, kEchoPort));
            const int fd = connections.back().get();
            if (!send_all(fd, message.data(), message.size()) ||
                !receive_all(fd, message.data(), message.size()))
                throw std::runtime_error(carrier.name() + ": an echo does not come");
        }
    });
    return (resident_bytes(carrier.processes()) - before) / flows;
}

} // namespace tapgate::test
