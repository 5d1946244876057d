// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"
#include "control/metrics_server.hpp"
#include "control/server.hpp"
#include "daemon/config.hpp"
#include "daemon/config_diff.hpp"
#include "daemon/event_history.hpp"
#include "daemon/event_relay.hpp"
#include "daemon/flow_log.hpp"
#include "daemon/guest_registry.hpp"
#include "daemon/hand_over.hpp"
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
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>

#include <chrono>
#include <csignal>
#include <cstddef>
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
    /// What the end takes besides draining: resetting sessions, and the rules and routes.
    static constexpr std::chrono::seconds kStopTime{15};

    /// Starts everything: policies, kernel side, workers, control socket, and last the guests. When this
    /// fails nothing is left attached that was not attached before, and the error is one line that says what
    /// to do.
    /// `config_file` is where `config` was read, for reload(). With `take_over` a daemon that runs hands over
    /// to this one (hand_over.hpp), with the policies that it has in force.
    static Result<std::unique_ptr<Daemon>> start(const Config& config, const std::string& config_file,
                                                 bool take_over);
    ~Daemon();
    Daemon(const Daemon&) = delete;
    Daemon& operator=(const Daemon&) = delete;

    /// Serves until SIGTERM or SIGINT, or until another daemon takes over, and drains then; until the next
    /// signal at most. False: the other one has failed.
    bool run();

    /// Reads the configuration file again and puts in force what of it can change while the daemon runs, its
    /// policies' files included; or fails and has changed nothing. With `dry_run` it only says what differs.
    /// `by` is who asked. Main thread.
    Result<std::vector<SettingChange>> reload(bool dry_run, const std::string& by);

    /// What a daemon that takes over has to know, in the form of a reply (hand_over.cpp).
    [[nodiscard]] boost::json::object in_force() const;
    /// Lets go of all that one daemon alone may have, and begins to drain. On failure nothing has changed:
    /// kUnavailable if `state` is not that of in_force() any more. Main thread.
    Result<void> hand_over(const std::string& state);

    [[nodiscard]] bool is_handed_over() const { return is_handed_over_; }

    // What the control commands (commands.cpp) work on; main thread only.
    [[nodiscard]] const std::string& config_file() const { return config_file_; }

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

    /// Every address of the host itself.
    [[nodiscard]] const std::shared_ptr<const std::vector<IpAddress>>& host_addresses() const {
        return host_addresses_;
    }

    [[nodiscard]] const EventRelay& events() const { return *events_; }

    [[nodiscard]] std::chrono::steady_clock::time_point started() const { return started_; }

    /// When the sessions that are left will be reset; nothing while the daemon serves.
    [[nodiscard]] std::optional<std::chrono::steady_clock::time_point> drain_deadline() const {
        return drain_deadline_;
    }

    [[nodiscard]] std::size_t session_count() const;

    [[nodiscard]] const EventHistory& history() const { return history_; }

    /// Tells monitors of `event`, which happened at `time`, and keeps it in the history.
    void publish(const boost::json::object& event,
                 EventHistory::Time time = std::chrono::system_clock::now());

    /// Records of flows that were not written.
    [[nodiscard]] std::uint64_t flow_log_failures() const;

    /// Events that reached neither history nor monitors, since the maps were made or the daemon started.
    [[nodiscard]] std::uint64_t events_lost() const { return datapath_->events_lost() + events_->lost(); }

  private:
    Daemon(const Config& config, std::string config_file);

    Result<void> start_parts(bool take_over);
    Result<void> open_flow_logs();
    void record_flow(const boost::json::object& record);
    /// Looks the group of the control socket up and takes it as the process's own, which its file will have.
    Result<void> take_control_group();
    Result<void> enter_sandbox_if_wanted() const;
    /// The policies that `predecessor` (null: there is none) has in force, and those that the configuration
    /// has besides; read before the kernel is touched.
    Result<std::vector<PreparedPolicy>> prepare_policies(const Predecessor* predecessor) const;
    Result<void> load_policies(const std::vector<PreparedPolicy>& prepared);
    Result<void> check_interfaces() const;
    [[nodiscard]] proxy::WorkerSettings worker_settings() const;
    Result<void> start_workers();
    /// Hands config_ to the parts that a reload() changes.
    void apply_config(const std::vector<GuestConfig>& guests_before);
    Result<void> attach_guests(const Predecessor* predecessor);
    /// Goes on with what BPF has carried since an earlier daemon.
    void adopt_splices();
    /// Leaves what BPF carries to the next daemon.
    void leave_splices();
    /// Makes the workers' sockets those to which guests are steered.
    Result<void> steer_to_workers();
    Result<void> watch_policies(const Predecessor* predecessor);

    boost::asio::awaitable<void> follow_signals();
    /// Refuses new connections, waits for the sessions to end or the drain time to be over, and stops.
    boost::asio::awaitable<void> drain(std::string reason);
    /// The same when another daemon serves new connections (hand_over.cpp).
    boost::asio::awaitable<void> drain_after_hand_over();
    void end_drain();
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

    Config config_; ///< what is in force
    std::string config_file_;
    std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
    boost::asio::io_context context_{1};
    boost::asio::signal_set signals_{context_, SIGTERM, SIGINT, SIGHUP}; // until all below is cleaned up
    std::unique_ptr<net::LinkMonitor> links_;
    std::shared_ptr<const std::vector<IpAddress>> host_addresses_;
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
    std::optional<std::chrono::steady_clock::time_point> drain_deadline_;
    bool is_handed_over_ = false;
    bool has_failed_ = false;
    ServiceManager service_manager_ = ServiceManager::from_environment();
    std::vector<std::future<void>> pulses_; ///< one per worker, ready once it has answered
    std::vector<Endpoint> upstreams_;
};

/// Level and format of the log, after setup_logging().
void set_log(const LogSettings& settings);

/// Reads and checks a configuration file of at most 4 MiB.
Result<Config> load_config(const std::string& file);

} // namespace tapgate::daemon
