// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"
#include "base/unique_fd.hpp"

#include <cstdint>

namespace tapgate::proxy {

constexpr std::uint16_t kDnsPort = 53; // RFC 1035 4.2

/// The sockets of one worker to which BPF steers what guests send.
struct Listeners {
    UniqueFd tcp4;
    UniqueFd tcp6;
    UniqueFd dns4;
    UniqueFd dns6;
};

/// Opens the transparent sockets of a worker in the current network namespace; non-blocking.
///
/// They are bound to addresses that no host has (192.0.0.8, the dummy address of RFC 7600, and 100::8 from
/// the discard prefix of RFC 6666): nothing but bpf_sk_assign can reach them, and port 53 stays free for a
/// resolver of the host. Answers leave from port 53 since that is the DNS sockets' own port.
/// kPermission without CAP_NET_ADMIN and CAP_NET_BIND_SERVICE.
Result<Listeners> open_listeners();

} // namespace tapgate::proxy
