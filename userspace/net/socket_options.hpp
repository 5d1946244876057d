// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>

namespace tapgate::net {

// Each function takes a TCP socket, borrowed. False, with errno, if the option could not be set: the kernel
// may be short of memory, or a BPF program or security module of the host may refuse.

/// Makes close() send an RST and discard unsent data (SO_LINGER with 0 seconds).
///
/// In force for as long as a connection is not at its orderly end: should the process die, its sockets are
/// closed by the kernel, and a transfer that was cut must not end in a FIN.
[[nodiscard]] bool reset_on_close(int fd);

/// Takes reset_on_close() back: close() ends the connection in order and delivers what is unsent.
[[nodiscard]] bool finish_on_close(int fd);

/// What every connection has in force that a relay carries: reset_on_close(); small segments are sent at once
/// (TCP_NODELAY); urgent data is left in the byte stream (SO_OOBINLINE), since recv() would skip the urgent
/// byte. Accepted sockets inherit all three from their listener.
[[nodiscard]] bool prepare_to_relay(int fd);

/// Probes a silent peer after `idle`, then every `interval`, and gives it up (ETIMEDOUT) after `probes` of
/// them. Whole seconds, at least 1.
[[nodiscard]] bool set_keepalive(int fd, std::chrono::seconds idle, std::chrono::seconds interval,
                                 int probes);

} // namespace tapgate::net
