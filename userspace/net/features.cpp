// SPDX-License-Identifier: Apache-2.0
#include "net/features.hpp"

#include "base/result.hpp"
#include "base/unique_fd.hpp"
#include "net/raw_tcp.hpp"
#include "net/relay.hpp"
#include "net/tcp_state.hpp"

#include <boost/asio/io_context.hpp>

#include <netinet/in.h>
#include <sys/socket.h>

namespace tapgate::net {

namespace {

constexpr const char* kInUserspace = "splice in userspace";

template <typename Value>
Feature probed(const char* name, const char* text, const char* instead, const Result<Value>& found) {
    return {name, text, found.has_value(), instead, found ? "" : found.error().message()};
}

/// The relay itself, as a worker makes it, but small.
Feature probe_uring() {
    UringSettings settings;
    settings.buffer_count = 2;
    settings.queue_entries = 8;
    boost::asio::io_context context;
    return probed("io_uring", "io_uring with provided buffers (Linux 5.19)", "copy",
                  make_uring_relay(context, settings));
}

/// As set on a fresh TCP socket.
Result<void> set_transparent() {
    const int on = 1;
    const UniqueFd socket(::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!socket || ::setsockopt(socket.get(), SOL_IPV6, IPV6_TRANSPARENT, &on, sizeof on) != 0)
        return fail_errno("set the socket option");
    return {};
}

} // namespace

std::vector<Feature> probe_features() {
    return {
        probed("transparent", "transparent sockets (Linux 2.6.37)", "", set_transparent()),
        probe_uring(),
        probed("tcp_repair", "TCP_REPAIR (CONFIG_CHECKPOINT_RESTORE), for the splice in the kernel",
               kInUserspace, check_tcp_repair()),
        probed("raw_tcp", "raw sockets (CAP_NET_RAW), for the splice in the kernel", kInUserspace,
               RawTcp::open()),
    };
}

std::vector<std::string> built_with() {
    return {"uring", "copy"};
}

} // namespace tapgate::net
