// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/clock.hpp"
#include "base/unique_fd.hpp"
#include "net/dialer.hpp"
#include "net/netlink/route.hpp"
#include "net/raw_tcp.hpp"
#include "net/relay.hpp"
#include "net/tcp_state.hpp"
#include "proxy/splice_table.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string_view>
#include <vector>

namespace tapgate::proxy {

/// Hands allowed connections over to BPF, and looks after them until they end. One worker, one thread.
///
/// A flow goes through these steps; each of them may refuse, up to hand_off() without any loss, and then the
/// flow is carried by a relay like any other:
///
///     plan()      which interface and address the connection is to leave from
///     (dial)      the socket is bound, the flow entered as `recording`, then connected: BPF sees the
///     server's
///                 SYN+ACK, and with it that what comes back passes our program, and the server's clock
///     hand_off()  `held`: neither side's packets reach a socket any more, so the numbers of both stand
///     still.
///                 They are read, the flow is set to `forwarding`, the guest's first flight (peeked at, never
///                 taken before) is sent on from a raw socket
///     run()       sends the first flight again until the server has acknowledged it; waits for the end
///
/// What closes the races:
///
/// - A packet that passed tap_ingress just before `held` may still reach the guest's socket after that was
/// read.
///   What the socket says from then on is stopped by tap_egress: for the guest the packet is lost, and sent
///   again.
/// - A packet of the server's is noted by uplink_ingress before it passes. What is noted when the flow is
/// held
///   and is not the SYN+ACK alone makes hand_off() refuse; the socket has it, or gets it again.
/// - After the hand-off the socket to the server stays open and silent in repair mode: it keeps the port from
///   other connections to that server, and says nothing when it is closed, whoever closes it.
class KernelSplice {
  public:
    /// The word of the configuration and of events, as net::Relay::name().
    static constexpr std::string_view kName = "kernel";

    /// A flow on its way through the steps. Removes its entry when it is destroyed before hand_off().
    class Flow;

    /// `table` and `raw` outlive this. Fails if rtnetlink is not to be had.
    static Result<std::unique_ptr<KernelSplice>> create(boost::asio::io_context& context, SpliceTable& table,
                                                        const net::RawTcp& raw);
    KernelSplice(const KernelSplice&) = delete;
    KernelSplice& operator=(const KernelSplice&) = delete;
    /// Resets every flow that is still there and was not left. After all sessions, before the io_context.
    ~KernelSplice();

    /// Null, and counted, if the flow is not to be spliced. `flow.local`, `flow.uplink_ifindex` are filled in
    /// here.
    std::shared_ptr<Flow> plan(SpliceTable::Recording flow);

    /// For dial(): binds, and enters the flow. Valid as long as `flow`.
    static const net::DialSource& source(Flow& flow);

    /// True: the flow is spliced, and both sockets have been taken. False, and counted: it is not, the
    /// sockets are as they were.
    bool hand_off(const std::shared_ptr<Flow>& flow, boost::asio::ip::tcp::socket& guest,
                  boost::asio::ip::tcp::socket& upstream);

    /// Takes over a flow that an earlier daemon has handed off. Null, with its ends reset: it cannot go on.
    std::shared_ptr<Flow> adopt(const SpliceTable::Left& left);

    /// Leaves the flow to BPF and to the daemon that adopts it; run() returns. False: it is over, or still
    /// needs this process.
    bool leave(Flow& flow);

    /// Waits until the flow has ended. Terminal cancellation resets both ends, as in net::Relay::run().
    boost::asio::awaitable<net::RelayResult> run(std::shared_ptr<Flow> flow, net::RelayOptions options);

    /// The flow has ended or half ended, if it is one of ours.
    void changed(const SpliceTable::Key& key);

    /// Lets each flow leave by the interface of its route of now. One that leads nowhere stays as it is.
    void routes_changed();

    /// What a flow that was handed off has carried so far.
    [[nodiscard]] static net::RelayCounters carried(const Flow& flow);

  private:
    using Due = std::multimap<std::chrono::steady_clock::time_point, std::shared_ptr<Flow>>;

    KernelSplice(boost::asio::io_context& context, SpliceTable& table, const net::RawTcp& raw,
                 net::RouteQuery routes);

    void refuse(Flow& flow, SpliceRefusal refusal);
    bool enter(Flow& flow, const Endpoint& local);

    void look_at(const std::shared_ptr<Flow>& flow);
    void look_at_first_flight(Flow& flow, const SpliceTable::Flow& entry);
    /// On the guest's behalf: acknowledges what the guest has, without a sequence number and payload.
    static net::RawSegment segment_to_server(const Flow& flow, const SpliceTable::Flow& entry);
    void send_first_flight(Flow& flow, const SpliceTable::Flow& entry);
    /// Has the server repeat its last acknowledgement.
    void ask_for_acknowledgement(const Flow& flow, const SpliceTable::Flow& entry);
    /// From now on the flow is looked after.
    void begin(const std::shared_ptr<Flow>& flow);
    void forget(const Flow& flow);
    void schedule(const std::shared_ptr<Flow>& flow, std::chrono::steady_clock::time_point when);
    void arm();
    void wake();

    /// The flow has ended by itself: its entry goes a little later, for what TCP sends again.
    void finish(Flow& flow, const SpliceTable::Flow& entry, net::RelayEnd how, net::RelayParty who);
    /// Ends the flow with resets to both sides.
    void kill(Flow& flow, net::RelayEnd how, net::RelayParty who, int error_number = 0);
    void reset_both(const Flow& flow, const SpliceTable::Flow& entry);

    SpliceTable& table_;
    const net::RawTcp& raw_;
    net::RouteQuery routes_;
    boost::asio::io_context& context_;
    boost::asio::steady_timer timer_;
    std::vector<std::uint8_t> scratch_; ///< what first flights are read into
    /// Flows by when they are to be looked at next.
    Due due_;
    std::map<SpliceTable::Key, std::shared_ptr<Flow>> flows_;
};

} // namespace tapgate::proxy
