// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "proto/dns_query.hpp"
#include "proxy/dns_upstreams.hpp"
#include "proxy/events.hpp"
#include "proxy/guest.hpp"
#include "proxy/kernel_state.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>

#include <chrono>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace tapgate::proxy {

/// Answers the DNS queries that BPF steers to one worker (DESIGN 7).
///
/// A query is judged by the guest's policy, then a query of our own making goes to a trusted resolver; the
/// answer is checked, held against the rebinding rule and sent to the guest from the address it asked.
/// tap_egress records its addresses on the way out, before the guest can see them.
class DnsForwarder {
  public:
    /// Finds the guest behind an interface; null if there is none.
    using FindGuest = std::function<std::shared_ptr<const Guest>(unsigned ifindex)>;
    using HostAddresses = std::function<std::shared_ptr<const std::vector<IpAddress>>()>;

    /// `dns4` and `dns6` are borrowed sockets (listeners.hpp); duplicates of them are kept. All references
    /// must outlive the io_context's run.
    DnsForwarder(boost::asio::io_context& context, int dns4, int dns6, KernelState& kernel, EventSink& events,
                 FindGuest find_guest, HostAddresses host_addresses, std::chrono::milliseconds timeout);

    /// Starts serving; call once, before the io_context runs.
    void start();
    /// Stops receiving; queries in flight end by their timeouts.
    void stop();

    [[nodiscard]] DnsUpstreams& upstreams() { return upstreams_; }

  private:
    /// One query as it came in, and where its answer goes.
    struct Request {
        int socket = -1;
        unsigned ifindex = 0;
        Endpoint client;
        IpAddress server;
        std::vector<std::uint8_t> bytes;
    };

    /// What a trusted resolver said; empty bytes if none answered.
    struct UpstreamAnswer {
        std::vector<std::uint8_t> bytes;
    };

    boost::asio::awaitable<void> receive(boost::asio::posix::stream_descriptor& socket);
    /// Takes one datagram off `socket`; false when none waits.
    bool receive_one(int socket);
    void admit(Request request);
    boost::asio::awaitable<void> serve(std::shared_ptr<const Guest> guest,
                                       std::shared_ptr<const Request> request,
                                       std::shared_ptr<const CapTicket> ticket);
    boost::asio::awaitable<UpstreamAnswer> ask_upstreams(const proto::DnsQuery& query);
    boost::asio::awaitable<UpstreamAnswer> ask(Endpoint upstream, const proto::DnsQuery& query);
    void send_answer(const Request& request, std::span<const std::uint8_t> answer) const;
    void refuse(const Guest& guest, const Request& request, const proto::DnsQuery& query,
                proto::DnsRcode rcode, Refusal refusal, DnsEvent event);

    boost::asio::io_context& context_;
    boost::asio::posix::stream_descriptor dns4_;
    boost::asio::posix::stream_descriptor dns6_;
    KernelState& kernel_;
    EventSink& events_;
    FindGuest find_guest_;
    HostAddresses host_addresses_;
    std::chrono::milliseconds timeout_;
    DnsUpstreams upstreams_;
};

} // namespace tapgate::proxy
