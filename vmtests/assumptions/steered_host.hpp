// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/ip.hpp"
#include "base/unique_fd.hpp"
#include "harness/topology.hpp"

#include <cstdint>
#include <memory>

struct steering;

namespace tapgate::assumptions {

/// A guest behind tap0 whose TCP SYNs and UDP datagrams steering.bpf.c assigns to the sockets in its map, and
/// whose marked packets a rule and a local route deliver: the host as the daemon sets it up.
class SteeredHost {
  public:
    SteeredHost();
    ~SteeredHost();

    [[nodiscard]] const test::Topology& topology() const { return topology_; }

    [[nodiscard]] steering& bpf() { return *bpf_; }

    /// A counter of steering.h.
    [[nodiscard]] std::uint64_t count(std::uint32_t what) const;

    /// Puts a socket into slot `kind` of the map (steering.h). Throws std::system_error.
    void set_listener(std::uint32_t kind, int socket) const;

    /// A transparent socket of the host: TCP ones listen on any port, UDP ones are bound to port 53, on an
    /// address that no host has (192.0.0.8 or 100::8). Throws std::system_error.
    [[nodiscard]] UniqueFd open_socket(const test::Family& family, int type) const;

  private:
    struct Unload {
        void operator()(steering* bpf) const;
    };

    test::Topology topology_;
    std::unique_ptr<steering, Unload> bpf_;
};

/// The first connection that `listener` accepts. Throws std::runtime_error if none comes.
UniqueFd accept_one(int listener);

/// A socket's own address, which for an accepted one is what the guest dialled.
Endpoint local_endpoint(int socket);

} // namespace tapgate::assumptions
