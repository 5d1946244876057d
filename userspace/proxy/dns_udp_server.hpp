// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/ip.hpp"
#include "proxy/dns_resolver.hpp"
#include "proxy/guest.hpp"
#include "proxy/kernel_state.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

namespace tapgate::proxy {

/// Takes the DNS queries that BPF steers to one worker off its UDP sockets, and sends the answers from the
/// address that the guest asked.
///
/// tap_egress records the addresses of an answer on its way out. It drops what it cannot record; the socket
/// then tells so (IP_RECVERR, see listeners.cpp), and the guest gets an error instead.
class DnsUdpServer {
  public:
    /// Finds the guest behind an interface; null if there is none.
    using FindGuest = std::function<std::shared_ptr<const Guest>(unsigned ifindex)>;

    /// `dns4` and `dns6` are borrowed sockets (listeners.hpp); duplicates of them are kept. All references
    /// must outlive the io_context's run.
    DnsUdpServer(boost::asio::io_context& context, int dns4, int dns6, KernelState& kernel,
                 DnsResolver& resolver, FindGuest find_guest);

    /// Starts serving; call once, before the io_context runs.
    void start();
    /// Stops receiving; queries in flight end by their timeouts.
    void stop();

  private:
    /// One query as it came in.
    struct Datagram {
        unsigned ifindex = 0;
        Endpoint client;
        IpAddress server;
        std::vector<std::uint8_t> bytes;
    };

    boost::asio::awaitable<void> receive(boost::asio::posix::stream_descriptor& socket);
    /// Takes one datagram off `socket`; false when none waits.
    bool receive_one(int socket);
    void admit(int socket, Datagram datagram);

    boost::asio::io_context& context_;
    boost::asio::posix::stream_descriptor dns4_;
    boost::asio::posix::stream_descriptor dns6_;
    KernelState& kernel_;
    DnsResolver& resolver_;
    FindGuest find_guest_;
};

} // namespace tapgate::proxy
