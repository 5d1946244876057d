// SPDX-License-Identifier: Apache-2.0
#include "net/features.hpp"

#include "base/result.hpp"
#include "base/unique_fd.hpp"
#include "net/relay.hpp"

#include <boost/asio/io_context.hpp>

#include <cerrno>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

namespace tapgate::net {

namespace {

/// The relay itself, as a worker makes it, but small.
Feature probe_uring() {
    UringSettings settings;
    settings.buffer_count = 2;
    settings.queue_entries = 8;
    boost::asio::io_context context;
    const auto relay = make_uring_relay(context, settings);
    return {"io_uring", "io_uring with provided buffers (Linux 5.19)", relay.has_value(), "copy",
            relay ? "" : relay.error().message()};
}

/// An option that is set on a fresh TCP socket.
Feature probe_tcp_option(int level, int option, Feature feature) {
    const int on = 1;
    const UniqueFd socket(::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
    feature.present = socket && ::setsockopt(socket.get(), level, option, &on, sizeof on) == 0;
    if (!feature.present)
        feature.detail = Error::from_errno(errno, "set the socket option").message();
    return feature;
}

} // namespace

std::vector<Feature> probe_features() {
    return {
        probe_tcp_option(SOL_IPV6, IPV6_TRANSPARENT,
                         {"transparent", "transparent sockets (Linux 2.6.37)", false, "", ""}),
        probe_uring(),
        probe_tcp_option(SOL_TCP, TCP_REPAIR,
                         {"tcp_repair",
                          "TCP_REPAIR (CONFIG_CHECKPOINT_RESTORE), for the splice in the kernel", false,
                          "splice in userspace", ""}),
    };
}

std::vector<std::string> built_with() {
    return {"uring", "copy"};
}

} // namespace tapgate::net
