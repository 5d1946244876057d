// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "net/gated_relay.hpp"
#include "proxy/carriers.hpp"
#include "proxy/dns_resolver.hpp"
#include "proxy/dns_tcp_server.hpp"
#include "proxy/dns_udp_server.hpp"
#include "proxy/events.hpp"
#include "proxy/guest.hpp"
#include "proxy/kernel_state.hpp"
#include "proxy/listeners.hpp"
#include "proxy/session.hpp"
#include "proxy/swap.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <vector>

namespace tapgate::proxy {

struct WorkerSettings {
    /// Which worker this is, and of how many.
    unsigned index = 0;
    unsigned count = 1;
    SessionSettings session;
    std::chrono::milliseconds dns_timeout{2000};
    /// How long a guest's DNS connection may have nothing in flight.
    std::chrono::milliseconds dns_idle{10000};
};

/// One thread with its io_context, listeners, DNS servers and sessions. Everything it owns is touched by
/// its own thread only; the functions below the line in this class may be called from any other thread and
/// return when the worker has done what they ask.
class Worker {
  public:
    /// Opens sockets and carriers (Carriers::open() has `splices` and `raw`); the thread does not run yet.
    /// References outlive the worker.
    static Result<std::unique_ptr<Worker>> create(const WorkerSettings& settings, KernelState& kernel,
                                                  EventSink& events, SpliceTable& splices,
                                                  const Result<net::RawTcp>& raw);
    /// Stops and joins the thread; live sessions are reset.
    ~Worker();
    Worker(const Worker&) = delete;
    Worker& operator=(const Worker&) = delete;

    /// To be registered with the datapath before start().
    [[nodiscard]] const Listeners& listeners() const { return listeners_; }

    [[nodiscard]] const Carriers& carriers() const { return *carriers_; }

    void start();

    // ---- from other threads, only between start() and destruction ----

    /// Adds the guest, or replaces what is known of it, except its policy: that is changed by swap_policy().
    void put_guest(const Guest& guest);
    /// Forgets the guest and resets its sessions.
    void remove_guest(GuestId id);
    /// Makes `policy` the one of every guest whose policy has its name: for new sessions and queries, and for
    /// the live sessions, each of which is judged again (swap.hpp). Returns at once; the swap has happened
    /// here when the future is ready.
    std::future<SwapReport> swap_policy(std::shared_ptr<const PolicyGeneration> policy, LiveFlowsOrder order);
    /// What swap_policy() would report now. Changes nothing.
    std::future<SwapReport> preview_swap(std::shared_ptr<const PolicyGeneration> policy,
                                         LiveFlowsOrder order);
    /// Goes on with a flow that an earlier daemon has left. Only if the worker can splice in the kernel.
    void adopt(SpliceTable::Left left);
    /// Packets have ended or half ended spliced flows, of which some may be this worker's. Returns at once.
    void splices_changed(std::shared_ptr<const std::vector<SpliceTable::Key>> flows);
    /// The host may reach servers by other interfaces now. Returns at once.
    void routes_changed();
    void set_host_addresses(std::shared_ptr<const std::vector<IpAddress>> addresses);
    void set_upstreams(std::vector<Endpoint> upstreams);
    /// Replaces the times and sizes that `settings` has, for what begins from now on. peek_bytes stays: the
    /// sessions that peek share a buffer of that size.
    void set_times(const WorkerSettings& settings);
    /// Ready once the worker has come round to it.
    std::future<void> pulse();
    [[nodiscard]] std::vector<FlowInfo> flows();
    /// Resets the sessions of those ids that are still there; returns how many.
    std::size_t kill_flows(const std::vector<std::uint64_t>& ids);
    [[nodiscard]] std::size_t session_count();
    /// Ends the sessions that BPF can go on with until another daemon adopts them.
    void leave_splices();
    [[nodiscard]] std::vector<DnsUpstreams::Status> upstream_status();

  private:
    Worker(const WorkerSettings& settings, KernelState& kernel, EventSink& events, Listeners listeners);

    boost::asio::awaitable<void> accept(boost::asio::ip::tcp::acceptor& acceptor);
    /// Gives a connection to the DNS server or to a session of its own, by the port that was dialled. An
    /// error: it was reset.
    boost::system::error_code begin(boost::asio::ip::tcp::socket socket, const Endpoint& source);
    void begin(boost::asio::ip::tcp::socket socket, const Endpoint& source, const Endpoint& destination,
               std::optional<SpliceTable::Left> left);
    boost::asio::awaitable<void> run_session(std::shared_ptr<Session> session,
                                             std::optional<SpliceTable::Left> left);
    boost::asio::awaitable<void> stop_when_idle();
    /// Prolongs, now and then, the bindings that live sessions were admitted by.
    boost::asio::awaitable<void> keep_bindings();
    [[nodiscard]] std::shared_ptr<const Guest> find_guest(GuestId id) const;

    /// Replaces the policy of the guests that are under one of its name.
    void give_policy(const std::shared_ptr<const PolicyGeneration>& policy);
    /// Judges the live sessions under the policy of that name again; changes them only if `apply`.
    SwapReport swap_sessions(const std::shared_ptr<const PolicyGeneration>& policy,
                             const LiveFlowsOrder& order, bool apply);

    /// Runs `function` on the worker's thread; the future has what it returns.
    template <typename Function>
    auto post(Function function) -> std::future<decltype(function())>;
    /// The same, and waits for it.
    template <typename Function>
    auto call(Function function) -> decltype(function());

    boost::asio::io_context context_{1};
    Listeners listeners_;
    std::unique_ptr<Carriers> carriers_;
    net::GatedRelay gated_relay_;
    std::shared_ptr<const std::vector<IpAddress>> host_addresses_ =
        std::make_shared<const std::vector<IpAddress>>();
    std::unordered_map<GuestId, std::shared_ptr<const Guest>> guests_;
    std::unordered_map<unsigned, std::shared_ptr<const Guest>> guests_by_ifindex_;
    KernelState& kernel_;
    DnsResolver resolver_;
    DnsUdpServer dns_udp_;
    DnsTcpServer dns_tcp_;
    boost::asio::ip::tcp::acceptor acceptor4_;
    boost::asio::ip::tcp::acceptor acceptor6_;
    std::unique_ptr<SessionContext> session_context_;
    std::unordered_map<std::uint64_t, std::shared_ptr<Session>> sessions_;
    /// Counted up in steps of the number of workers, so that ids are unique among them.
    std::uint64_t next_session_id_;
    std::uint64_t session_id_step_;
    std::thread thread_;
};

} // namespace tapgate::proxy
