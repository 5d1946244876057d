// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/ip.hpp"
#include "harness/netns.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <sys/types.h>

namespace tapgate::test {

/// The name that every connection of the benchmark asks for, and the server behind it.
inline constexpr std::string_view kBenchName = "s.bench.test";

/// Ports of the servers, by what they do once they have the first flight.
inline constexpr std::uint16_t kSinkPort = 9001;   ///< takes everything
inline constexpr std::uint16_t kSourcePort = 9002; ///< sends until the connection ends
inline constexpr std::uint16_t kEchoPort = 9003;   ///< sends back what it gets
inline constexpr std::uint16_t kAnswerPort = 9004; ///< sends one byte
/// Of a carrier that cannot tell destinations apart: it refuses what comes here.
inline constexpr std::uint16_t kDeniedPort = 9005;

/// Where the servers listen in every carrier's internet, and an address beside it that no guest may reach.
[[nodiscard]] IpAddress bench_server();
[[nodiscard]] IpAddress bench_denied();

/// One way from a guest to a server: namespaces of its own, and what carries connections between them.
class Carrier {
  public:
    Carrier() = default;
    Carrier(const Carrier&) = delete;
    Carrier& operator=(const Carrier&) = delete;
    virtual ~Carrier() = default;

    [[nodiscard]] virtual std::string name() const = 0;
    [[nodiscard]] virtual const NetNs& guest() const = 0;
    [[nodiscard]] virtual const NetNs& internet() const = 0;
    /// What a guest dials to get to the server's `port`.
    [[nodiscard]] virtual Endpoint target(std::uint16_t port) const = 0;

    /// What a guest dials that it may not reach.
    [[nodiscard]] virtual Endpoint denied_target() const { return {bench_denied(), kAnswerPort}; }

    /// The processes that carry; none where the kernel does it.
    [[nodiscard]] virtual std::vector<pid_t> processes() const = 0;

    /// Throws std::runtime_error if the connections that are open now are not carried in the way meant.
    virtual void check() const {}
};

/// Bare forwarding, tapgate by each of its splices, HAProxy and nginx, ready to carry. Throws
/// std::runtime_error if one does not come up.
[[nodiscard]] std::vector<std::unique_ptr<Carrier>> make_carriers();

} // namespace tapgate::test
