// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"
#include "control/metrics_server.hpp"
#include "control/server.hpp"
#include "daemon/config.hpp"
#include "daemon/event_history.hpp"
#include "daemon/event_relay.hpp"
#include "daemon/flow_log.hpp"
#include "daemon/guest_registry.hpp"
#include "daemon/kernel_adapter.hpp"
#include "daemon/policy_loader.hpp"
#include "daemon/policy_store.hpp"
#include "daemon/policy_watcher.hpp"
#include "daemon/service_manager.hpp"
#include "daemon/splice_adapter.hpp"
#include "datapath/datapath.hpp"
#include "net/netlink/link_monitor.hpp"
#include "net/netlink/route.hpp"
#include "net/netlink/steering.hpp"
#include "net/raw_tcp.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>

#include <chrono>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace tapgate::daemon {

/// The running daemon: everything main() wires together, in the order in which it starts. The members'
/// destructors undo it in the reverse order; programs and maps stay, so that guests stay confined.
class Daemon {
  public:
    /// Starts everything: policies, kernel side, workers, control socket, and last the guests. When this
    /// fails nothing is left attached that was not attached before, and the error is one line that says what
    /// to do.
    static Result<std::unique_ptr<Daemon>> start(const Config& config);
    ~Daemon();
    Daemon(const Daemon&) = delete;
    Daemon& operator=(const Daemon&) = delete;

    /// Serves until SIGTERM or SIGINT.
    void run();

    // What the control commands (commands.cpp) work on; main thread only.
    [[nodiscard]] const Config& config() const { return config_; }

    [[nodiscard]] datapath::Datapath& datapath() { return *datapath_; }

    [[nodiscard]] KernelAdapter& kernel() { return *kernel_; }

    [[nodiscard]] const SpliceAdapter& splices() const { return *splices_; }

    [[nodiscard]] const PolicyStore& policies() const { return *policies_; }

    [[nodiscard]] PolicyLoader& loader() { return *loader_; }

    [[nodiscard]] const PolicyWatcher& watcher() const { return *watcher_; }

    [[nodiscard]] GuestRegistry& guests() { return *guests_; }

    [[nodiscard]] const Workers& workers() const { return workers_; }

    [[nodiscard]] const net::LinkMonitor& links() const { return *links_; }

    [[nodiscard]] const EventRelay& events() const { return *events_; }

    [[nodiscard]] std::chrono::steady_clock::time_point started() const { return started_; }

    [[nodiscard]] const EventHistory& history() const { return history_; }

    /// Tells monitors of `event`, which happened at `time`, and keeps it in the history.
    void publish(const boost::json::object& event,
                 EventHistory::Time time = std::chrono::system_clock::now());

    /// Records of flows that were not written.
    [[nodiscard]] std::uint64_t flow_log_failures() const;

    /// Events that reached neither history nor monitors, since the maps were made or the daemon started.
    [[nodiscard]] std::uint64_t events_lost() const { return datapath_->events_lost() + events_->lost(); }

  private:
    explicit Daemon(const Config& config);

    Result<void> start_parts();
    Result<void> open_flow_logs();
    void record_flow(const boost::json::object& record);
    /// Looks the group of the control socket up and takes it as the process's own, which its file will have.
    Result<void> take_control_group();
    Result<void> enter_sandbox_if_wanted() const;
    /// The policies of the configuration, read before the kernel is touched.
    Result<std::vector<PreparedPolicy>> prepare_policies() const;
    Result<void> load_policies(const std::vector<PreparedPolicy>& prepared);
    Result<void> check_interfaces() const;
    Result<void> start_workers();
    Result<void> attach_guests();
    /// Goes on with what BPF has carried since an earlier daemon.
    void adopt_splices();
    Result<void> watch_policies();

    boost::asio::awaitable<void> follow_links();
    boost::asio::awaitable<void> follow_drops();
    boost::asio::awaitable<void> follow_routes();
    void tell_drop(const datapath::DropEvent& event);
    boost::asio::awaitable<void> tick();
    /// Tells the service manager that the daemon lives, if every worker has done what it was asked last time.
    void take_pulse();
    void apply_links();
    Result<void> share_host_addresses();
    /// The event of a packet that tap_ingress refused, with the rule by which it did and what would allow it.
    [[nodiscard]] boost::json::object explained(const datapath::DropEvent& event,
                                                const GuestRegistry::Attached& attached);
    void worker_event(const proxy::Event& event, EventHistory::Time time);
    void refresh_upstreams();
    /// Says in the stream of events itself that some were lost since the last call.
    void tell_lost_events();

    Config config_;
    std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
    boost::asio::io_context context_{1};
    std::unique_ptr<net::LinkMonitor> links_;
    std::unique_ptr<datapath::Datapath> datapath_;
    std::unique_ptr<KernelAdapter> kernel_;
    std::unique_ptr<SpliceAdapter> splices_;
    Result<net::RawTcp> raw_tcp_ = fail(ErrorCode::kUnsupported, "not opened yet");
    std::optional<net::RouteMonitor> routes_;
    std::unique_ptr<PolicyStore> policies_;
    std::optional<gid_t> control_group_;
    std::unique_ptr<control::Server> control_;
    std::unique_ptr<control::MetricsServer> metrics_;
    std::unique_ptr<EventRelay> events_;
    EventHistory history_;
    std::vector<std::unique_ptr<FlowLog>> flow_logs_;
    std::uint64_t told_lost_ = 0; ///< of events_lost()
    Workers workers_;
    std::unique_ptr<net::Steering> steering_;
    std::unique_ptr<GuestRegistry> guests_;
    std::unique_ptr<PolicyLoader> loader_;
    std::unique_ptr<PolicyWatcher> watcher_;
    std::unique_ptr<boost::asio::posix::stream_descriptor> link_socket_;
    std::unique_ptr<boost::asio::posix::stream_descriptor> drop_events_;
    boost::asio::steady_timer tick_timer_{context_};
    ServiceManager service_manager_ = ServiceManager::from_environment();
    std::vector<std::future<void>> pulses_; ///< one per worker, ready once it has answered
    std::vector<Endpoint> upstreams_;
};

} // namespace tapgate::daemon
