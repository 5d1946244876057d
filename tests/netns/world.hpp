// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "harness/daemon.hpp"
#include "harness/dns.hpp"
#include "harness/packets.hpp"
#include "harness/services.hpp"
#include "harness/tcp_server.hpp"
#include "harness/topology.hpp"

#include <gtest/gtest.h>

#include <iostream>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace tapgate::test {

/// Everything a test of the whole needs: namespaces, the trusted resolver, the daemon with guest "vm0".
struct World {
    World(const DaemonConfig& config, const std::vector<std::string>& zone, unsigned guests = 1)
        : topology(guests), resolver(topology.internet(), zone), daemon(topology, config) {}

    Topology topology;
    Resolver resolver;
    Daemon daemon;
};

/// What a guest got for its trouble.
struct Outcome {
    int connect_error = 0; ///< errno, 0 if the handshake completed
    std::string answer;
    End end = End::kNone;
};

std::ostream& operator<<(std::ostream& stream, const Outcome& outcome);

/// The connection was reset, at the handshake or later, without a byte.
[[nodiscard]] bool was_reset(const Outcome& outcome);
/// A fatal access_denied alert and then the end.
[[nodiscard]] bool was_denied_by_alert(const Outcome& outcome);
[[nodiscard]] bool was_served(const Outcome& outcome);

/// A TCP server that keeps what it gets and answers "served\n" once the client has sent FIN.
class CaptureServer {
  public:
    CaptureServer(const NetNs& ns, const Endpoint& endpoint);

    [[nodiscard]] unsigned accepted() const { return server_.accepted(); }

    /// What finished connections have sent, oldest first.
    [[nodiscard]] std::vector<std::string> captured();

    [[nodiscard]] const Endpoint& endpoint() const { return server_.endpoint(); }

  private:
    std::mutex mutex_;
    std::vector<std::string> captured_; // guarded by mutex_
    TcpServer server_;
};

/// Connects from `guest`, sends `pieces` as a segment each, then FIN, and reads to the end.
Outcome exchange(const NetNs& guest, const Endpoint& to, const std::vector<std::string>& pieces);
Outcome exchange(const NetNs& guest, const Endpoint& to, const std::string& bytes);

/// A ClientHello with this server name.
[[nodiscard]] std::string client_hello(std::string_view name);

/// The bytes one by one.
[[nodiscard]] std::vector<std::string> one_by_one(const std::string& bytes);

/// Asks guest 0's gateway for the family's record of `name`. A test failure unless it resolves; the
/// addresses.
std::vector<std::string> resolve(const World& world, const Family& family, const std::string& name);

/// Watches the uplink while in scope. What the guest tried must not be seen there.
class UplinkWatch {
  public:
    explicit UplinkWatch(const World& world);

    /// Everything that left the host for one of `forbidden`, or carries a guest's address. Call after an
    /// exchange that was allowed, so that what was sent before it has passed.
    [[nodiscard]] std::vector<std::string> leaks(const std::vector<Endpoint>& forbidden);

  private:
    PacketTap tap_;
};

/// Fixture of suites that run for IPv4 and IPv6 over one world, which `Suite::make_world()` builds.
template <typename Suite>
class WorldTest : public testing::TestWithParam<const Family*> {
  protected:
    static void SetUpTestSuite() { world_ = Suite::make_world(); }

    static void TearDownTestSuite() { world_.reset(); }

    void SetUp() override { world().daemon.ask({"dns", "flush", "--guest", "vm0"}); }

    void TearDown() override {
        if (HasFailure())
            std::cerr << "the daemon's log:\n" << world().daemon.log();
    }

    [[nodiscard]] static World& world() {
        if (!world_)
            throw std::runtime_error("the world of this suite could not be built");
        return *world_;
    }

    [[nodiscard]] static const Family& family() { return *GetParam(); }

    [[nodiscard]] static const NetNs& guest() { return world().topology.guest().ns; }

    [[nodiscard]] static Endpoint server(unsigned number, std::uint16_t port) {
        return {family().server(number), port};
    }

  private:
    static inline std::unique_ptr<World> world_;
};

/// For INSTANTIATE_TEST_SUITE_P: tests are named ".../IPv4" and ".../IPv6".
inline auto families() {
    return testing::Values(&ipv4(), &ipv6());
}

inline std::string family_name(const testing::TestParamInfo<const Family*>& info) {
    return info.param->name;
}

} // namespace tapgate::test
