// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/unique_fd.hpp"
#include "carriers.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_set>
#include <vector>

// Traffic through a carrier, and what is measured of it. Plain blocking sockets and a thread each: the same
// work at both ends whatever carries it.
namespace tapgate::test {

/// The servers of one carrier's internet, until it is destroyed.
class Servers {
  public:
    explicit Servers(const Carrier& carrier);
    Servers(const Servers&) = delete;
    Servers& operator=(const Servers&) = delete;
    ~Servers();

    /// Bytes that the sink has taken.
    [[nodiscard]] std::uint64_t taken() const { return taken_; }

    /// Connections that the sink has had something of since it was made.
    [[nodiscard]] unsigned uploads() const { return uploads_; }

  private:
    void accept_on(std::uint16_t port, unsigned threads);
    void accept_loop(int listener, std::uint16_t port);
    void serve(int fd, std::uint16_t port);

    const NetNs& ns_;
    std::vector<UniqueFd> listeners_;
    std::vector<std::thread> acceptors_;
    std::atomic<std::uint64_t> taken_{0};
    std::atomic<unsigned> uploads_{0};
    std::atomic<bool> is_over_{false};
    std::mutex mutex_;
    std::unordered_set<int> live_; // guarded by mutex_
    std::atomic<unsigned> serving_{0};
};

struct BulkResult {
    double gigabits_per_second = 0;
    /// Of all CPUs, whoever used it.
    double cpu_seconds_per_gigabyte = 0;
};

/// Sends through `streams` connections at once, to the server if `up`, for `time`.
BulkResult measure_bulk(const Carrier& carrier, const Servers& servers, bool up, unsigned streams,
                        std::chrono::milliseconds time);

struct ConnectResult {
    double per_second = 0;
    double median_us = 0; ///< from the SYN to the server's first byte, or to the refusal
    double p99_us = 0;
    std::uint64_t failed = 0; ///< what was to be carried was not, or what was to be refused was carried
};

/// Opens connections one after the other on each of `clients` threads for `time`: a first flight out, a byte
/// back, the end.
ConnectResult measure_connects(const Carrier& carrier, unsigned clients, std::chrono::milliseconds time);

/// The same to what the guest may not reach, each until it is refused: a reset, or an end without a byte.
ConnectResult measure_denials(const Carrier& carrier, unsigned clients, std::chrono::milliseconds time);

struct LatencyResult {
    double median_us = 0;
    double p99_us = 0;
};

/// Sends 64 bytes to and fro on one connection for `time`.
LatencyResult measure_latency(const Carrier& carrier, std::chrono::milliseconds time);

/// What the carrier's processes grow by for each of `flows` connections that say nothing, in bytes.
double measure_idle_memory(const Carrier& carrier, unsigned flows);

} // namespace tapgate::test
