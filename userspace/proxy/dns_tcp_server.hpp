// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "proxy/dns_resolver.hpp"
#include "proxy/guest.hpp"
#include "proxy/kernel_state.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>

#include <chrono>
#include <functional>
#include <memory>
#include <vector>

namespace tapgate::proxy {

/// Serves the connections of guests to port 53 of any address (RFC 7766): queries may be pipelined, and each
/// is answered as soon as its answer is there.
///
/// What a connection may hold is bounded: queries in flight, answers that the guest does not take (nothing
/// more is read then), the time without a complete query.
class DnsTcpServer {
  public:
    using FindGuest = std::function<std::shared_ptr<const Guest>(GuestId)>;

    /// A connection that has nothing in flight for `idle_timeout` is closed; so is one whose guest takes no
    /// byte of an answer for as long. All references outlive the io_context's run.
    DnsTcpServer(boost::asio::io_context& context, KernelState& kernel, DnsResolver& resolver,
                 FindGuest find_guest, std::chrono::milliseconds idle_timeout);
    ~DnsTcpServer();
    DnsTcpServer(const DnsTcpServer&) = delete;
    DnsTcpServer& operator=(const DnsTcpServer&) = delete;

    /// Takes over an accepted connection from `source` to `destination`; one that no guest's SYN announced is
    /// reset.
    void serve(boost::asio::ip::tcp::socket socket, const Endpoint& source, const Endpoint& destination);

    void set_idle_timeout(std::chrono::milliseconds timeout) { idle_timeout_ = timeout; }

    /// Resets the connections of that guest.
    void remove_guest(GuestId id);
    /// Resets all connections.
    void stop();

  private:
    class Connection;
    class Channel;

    void forget_closed();

    boost::asio::io_context& context_;
    KernelState& kernel_;
    DnsResolver& resolver_;
    FindGuest find_guest_;
    std::chrono::milliseconds idle_timeout_;
    std::vector<std::weak_ptr<Connection>> connections_;
};

} // namespace tapgate::proxy
