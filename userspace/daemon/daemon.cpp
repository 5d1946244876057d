// SPDX-License-Identifier: Apache-2.0
#include "daemon/daemon.hpp"

#include "base/log.hpp"
#include "base/log_sink.hpp"
#include "control/unix_listener.hpp"
#include "daemon/commands.hpp"
#include "daemon/flow_syslog.hpp"
#include "daemon/metrics.hpp"
#include "daemon/sandbox.hpp"
#include "net/async.hpp"
#include "policy/remedy.hpp"
#include "proxy/dns_upstreams.hpp"

#include <algorithm>
#include <cstring>
#include <filesystem>

#include <grp.h>
#include <sys/resource.h>
#include <unistd.h>

namespace tapgate::daemon {

namespace asio = boost::asio;

namespace {

constexpr std::chrono::seconds kTick{1};
/// Routes change in bursts.
constexpr std::chrono::milliseconds kRoutePause{250};
/// Between two looks at what BPF tells, while it does.
constexpr std::chrono::milliseconds kEventPause{1};
/// How often it is looked whether sessions are left, while draining.
constexpr std::chrono::milliseconds kDrainStep{100};
constexpr std::size_t kMaxResolvConfBytes = 65536;
constexpr std::size_t kMaxConfigFileBytes = std::size_t{4} << 20U;

/// As many descriptors as we may have: each session takes two.
void raise_descriptor_limit() {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    if (::setrlimit(RLIMIT_NOFILE, &limit) != 0)
        spdlog::warn("could not raise the limit of open files");
}

/// What the splice in the kernel needs besides the programs. As `tapgate feature probe` has it.
Result<net::RawTcp> open_raw_tcp() {
    if (const auto has_repair = net::check_tcp_repair(); !has_repair)
        return fail(has_repair.error());
    return net::RawTcp::open();
}

} // namespace

void set_log(const LogSettings& settings) {
    spdlog::set_level(spdlog::level::from_str(settings.level));
    spdlog::set_formatter(make_log_formatter(settings.format, stderr_is_journal()));
}

Result<Config> load_config(const std::string& file) {
    const auto text = read_file(file, kMaxConfigFileBytes);
    if (!text)
        return fail(text.error());
    return parse_config(*text, file);
}

Daemon::Daemon(const Config& config, std::string config_file)
    : config_(config), config_file_(std::move(config_file)) {}

Result<std::unique_ptr<Daemon>> Daemon::start(const Config& config, const std::string& config_file,
                                              bool take_over) {
    std::unique_ptr<Daemon> daemon(new Daemon(config, config_file));
    if (const auto started = daemon->start_parts(take_over); !started) {
        if (daemon->guests_)
            daemon->guests_->undo_attachments();
        return fail(started.error());
    }
    return daemon;
}

Daemon::~Daemon() {
    // The loops below hold references to the members; with the context stopped none of them runs again.
    context_.stop();
}

Result<void> Daemon::start_parts(bool take_over) {
    raise_descriptor_limit();
    std::optional<Predecessor> predecessor;
    if (take_over) {
        auto found = Predecessor::find(config_);
        if (!found)
            return fail(found.error());
        predecessor = std::move(*found);
        if (!predecessor)
            spdlog::info("there is no daemon to take over from");
    }
    if (const auto opened = open_flow_logs(); !opened)
        return opened;
    const auto prepared = prepare_policies(predecessor ? &*predecessor : nullptr);
    if (!prepared)
        return fail(prepared.error());
    auto links = net::LinkMonitor::open();
    if (!links)
        return fail(links.error());
    links_ = std::move(*links);
    if (const auto present = check_interfaces(); !present)
        return present;

    datapath::Settings settings;
    settings.pin_dir = config_.daemon.pin_dir;
    settings.mark = config_.daemon.mark;
    settings.workers = config_.daemon.workers;
    settings.min_ttl = config_.dns.min_ttl;
    settings.max_ttl = config_.dns.max_ttl;
    if (predecessor)
        settings.hand_over = [&predecessor] { return predecessor->hand_over(); };
    auto datapath = datapath::Datapath::open(settings);
    if (!datapath)
        return fail(datapath.error());
    datapath_ = std::move(*datapath);
    if (const auto taken = take_control_group(); !taken)
        return taken;
    // Whatever the configuration says: a policy may ask for it later, when that cannot be had any more.
    raw_tcp_ = open_raw_tcp();
    auto routes = net::RouteMonitor::open();
    if (!routes)
        return fail(routes.error());
    routes_.emplace(std::move(*routes));
    // From here on nothing is loaded any more, and there is one thread still.
    if (const auto entered = enter_sandbox_if_wanted(); !entered)
        return entered;
    kernel_ = std::make_unique<KernelAdapter>(context_, *datapath_, config_.dns.min_ttl.count() == 0);
    splices_ = std::make_unique<SpliceAdapter>(*datapath_);
    policies_ = std::make_unique<PolicyStore>(datapath_->last_generation() + 1, *kernel_);
    if (const auto loaded = load_policies(*prepared); !loaded)
        return loaded;

    control_ = std::make_unique<control::Server>(context_, config_.daemon.control_socket);
    events_ = std::make_unique<EventRelay>(
        context_, [this](const proxy::Event& event, EventHistory::Time time) { worker_event(event, time); });
    told_lost_ = events_lost();
    if (const auto workers = start_workers(); !workers)
        return workers;
    auto steering = net::Steering::install(config_.daemon.mark, config_.daemon.route_table);
    if (!steering)
        return fail(steering.error());
    steering_ = std::move(*steering);
    if (const auto attached = attach_guests(predecessor ? &*predecessor : nullptr); !attached)
        return attached;
    adopt_splices();
    // Not before the workers know the guests.
    if (const auto steered = steer_to_workers(); !steered)
        return steered;
    loader_ = std::make_unique<PolicyLoader>(*policies_, *guests_, workers_,
                                             [this](const boost::json::object& event) { publish(event); });
    for (const PreparedPolicy& policy : *prepared)
        loader_->warn(policy);
    if (const auto watching = watch_policies(predecessor ? &*predecessor : nullptr); !watching)
        return watching;
    if (config_.daemon.metrics_listen) {
        auto metrics = control::MetricsServer::start(context_, *config_.daemon.metrics_listen, [this] {
            return control::open_metrics_text(collect_metrics(*this));
        });
        if (!metrics)
            return fail(metrics.error());
        metrics_ = std::move(*metrics);
    }
    // Last, so that whoever finds the socket finds a daemon that serves.
    add_commands(*control_, *this, control_group_);
    return control_->start();
}

Result<void> Daemon::open_flow_logs() {
    if (!config_.log.flows.file.empty()) {
        auto log = FlowFile::open(config_.log.flows);
        if (!log)
            return fail(log.error());
        flow_logs_.push_back(std::move(*log));
    }
    if (!config_.log.flows.syslog.empty()) {
        auto log = FlowSyslog::open(context_, config_.log.flows.syslog);
        if (!log)
            return fail(log.error());
        flow_logs_.push_back(std::move(*log));
    }
    return {};
}

Result<void> Daemon::take_control_group() {
    const std::string& name = config_.daemon.control_group;
    if (name.empty())
        return {};
    const group* found = ::getgrnam(name.c_str()); // one thread runs
    if (found == nullptr)
        return fail(ErrorCode::kNotFound, fmt::format("daemon.control_group: there is no group '{}'", name));
    // Root may not give files away any more once it has no CAP_CHOWN; what it makes has its own group.
    if (::setgid(found->gr_gid) != 0)
        return fail_errno(fmt::format("take the group '{}'", name));
    control_group_ = found->gr_gid;
    return {};
}

Result<void> Daemon::enter_sandbox_if_wanted() const {
    if (!config_.daemon.sandbox) {
        spdlog::warn("sandbox: off, by daemon.sandbox in the configuration");
        return {};
    }
    const auto socket_directory = control::make_socket_directory(config_.daemon.control_socket);
    if (!socket_directory)
        return fail(socket_directory.error());
    std::vector<std::string> writable = {config_.daemon.pin_dir, *socket_directory};
    if (!config_.log.flows.file.empty())
        writable.push_back(std::filesystem::path(config_.log.flows.file).parent_path().string());
    const auto entered = enter_sandbox(writable);
    if (!entered)
        return fail(entered.error().with_context("sandbox"));
    spdlog::info("sandbox: {}", *entered);
    return {};
}

Result<std::vector<PreparedPolicy>> Daemon::prepare_policies(const Predecessor* predecessor) const {
    std::vector<PreparedPolicy> all;
    if (predecessor != nullptr) {
        for (const PolicyInForce& policy : predecessor->policies()) {
            auto prepared = prepare_policy(config_.groups, policy.name,
                                           std::make_shared<const std::string>(policy.text), policy.file);
            if (!prepared)
                return fail(prepared.error());
            all.push_back(std::move(*prepared));
        }
    }
    for (const PolicyConfig& policy : config_.policies) {
        if (std::ranges::find(all, policy.name, &PreparedPolicy::name) != all.end())
            continue;
        auto prepared = prepare_policy_file(config_.groups, policy.name, policy.file);
        if (!prepared)
            return fail(prepared.error());
        all.push_back(std::move(*prepared));
    }
    return all;
}

Result<void> Daemon::load_policies(const std::vector<PreparedPolicy>& prepared) {
    for (const PreparedPolicy& policy : prepared) {
        if (const auto loaded = policies_->commit(policy, PolicyOrigin{}); !loaded)
            return fail(loaded.error());
    }
    return {};
}

Result<void> Daemon::watch_policies(const Predecessor* predecessor) {
    auto watch = FileWatch::open();
    if (!watch)
        return fail(watch.error());
    watcher_ =
        std::make_unique<PolicyWatcher>(context_, std::move(*watch), config_.groups, *policies_, *loader_);
    PolicyWatcher::Contents superseded;
    if (predecessor != nullptr) {
        for (const PolicyInForce& policy : predecessor->policies()) {
            if (policy.superseded)
                superseded[policy.name] = std::make_shared<const std::string>(*policy.superseded);
        }
    }
    watcher_->watch(config_.policies, superseded);
    return {};
}

Result<void> Daemon::check_interfaces() const {
    for (const GuestConfig& guest : config_.guests) {
        if (auto present = check_present(guest, *links_); !present)
            return present;
    }
    return {};
}

proxy::WorkerSettings Daemon::worker_settings() const {
    proxy::WorkerSettings settings;
    settings.count = config_.daemon.workers;
    settings.session.peek_timeout = config_.timers.peek;
    settings.session.peek_bytes = config_.timers.peek_bytes;
    settings.session.server_first = config_.timers.server_first;
    settings.session.connect_timeout = config_.timers.connect;
    settings.session.idle_timeout = config_.timers.idle;
    settings.session.half_closed_timeout = config_.timers.half_closed;
    settings.dns_timeout = config_.dns.timeout;
    settings.dns_idle = config_.timers.dns_idle;
    settings.session.splice = config_.daemon.splice;
    return settings;
}

Result<void> Daemon::start_workers() {
    for (unsigned index = 0; index < config_.daemon.workers; ++index) {
        proxy::WorkerSettings settings = worker_settings();
        settings.index = index;
        auto worker = proxy::Worker::create(settings, *kernel_, *events_, *splices_, raw_tcp_);
        if (!worker)
            return fail(worker.error());
        (*worker)->start();
        workers_.push_back(std::move(*worker));
    }
    refresh_upstreams();
    if (upstreams_.empty())
        spdlog::warn("no DNS upstream: set dns.upstreams or name servers in {}", config_.dns.resolv_conf);
    return {};
}

Result<void> Daemon::steer_to_workers() {
    for (unsigned index = 0; index < workers_.size(); ++index) {
        const proxy::Listeners& listeners = workers_[index]->listeners();
        const std::pair<tg_listener_kind, int> sockets[] = {{TG_LISTENER_TCP4, listeners.tcp4.get()},
                                                            {TG_LISTENER_TCP6, listeners.tcp6.get()},
                                                            {TG_LISTENER_DNS4, listeners.dns4.get()},
                                                            {TG_LISTENER_DNS6, listeners.dns6.get()}};
        for (const auto& [kind, fd] : sockets) {
            if (const auto set = datapath_->set_listener(index, kind, fd); !set)
                return set;
        }
    }
    return {};
}

Result<void> Daemon::attach_guests(const Predecessor* predecessor) {
    guests_ = std::make_unique<GuestRegistry>(config_.limits, *datapath_, *policies_, workers_);
    for (const GuestConfig& guest : config_.guests) {
        if (auto declared = guests_->declare(guest); !declared)
            return declared;
    }
    if (predecessor != nullptr) {
        for (const GuestConfig& guest : predecessor->guests()) {
            if (auto declared = guests_->declare(guest); !declared)
                spdlog::warn("a guest that was added by command is forgotten: {}",
                             declared.error().message());
        }
    }
    if (auto shared = share_host_addresses(); !shared)
        return shared;
    if (auto attached = guests_->reconcile(*links_); !attached)
        return attached;
    datapath_->drop_unused_policies();
    return {};
}

void Daemon::adopt_splices() {
    const bool can_splice = workers_.front()->carriers().find_kernel() != nullptr;
    std::size_t adopted = 0;
    std::size_t ended = 0;
    for (proxy::SpliceTable::Left& left : splices_->left()) {
        if (can_splice && guests_->find(left.recording.guest) != nullptr) {
            workers_[adopted++ % workers_.size()]->adopt(std::move(left));
        } else {
            splices_->remove(left.recording.flow, left.id);
            ++ended;
        }
    }
    for (const auto& worker : workers_)
        worker->routes_changed(); // since then, perhaps
    if (adopted != 0)
        spdlog::info("{} spliced connections of an earlier daemon go on", adopted);
    if (ended != 0)
        spdlog::warn(
            "{} spliced connections of an earlier daemon have ended: their guest is none any more, or the "
            "splice in the kernel is not to be had",
            ended);
}

bool Daemon::run() {
    link_socket_ = std::make_unique<asio::posix::stream_descriptor>(context_, ::dup(links_->fd()));
    drop_events_ = std::make_unique<asio::posix::stream_descriptor>(context_, ::dup(datapath_->event_fd()));
    net::spawn(context_.get_executor(), "signals", follow_signals());
    net::spawn(context_.get_executor(), "links", follow_links());
    net::spawn(context_.get_executor(), "drop events", follow_drops());
    net::spawn(context_.get_executor(), "routes", follow_routes());
    net::spawn(context_.get_executor(), "policy files", watcher_->run());
    net::spawn(context_.get_executor(), "tick", tick());
    spdlog::info("serving: {} workers, splice {}, programs by {}", workers_.size(),
                 workers_.front()->carriers().name(config_.daemon.splice), datapath_->attach_kind());
    service_manager_.ready();
    context_.run();
    if (!is_handed_over_)
        leave_splices();
    // Monitors are told by the close; no command runs any more.
    control_->stop();
    // What is left is reset, and recorded.
    workers_.clear();
    events_->flush();
    return !has_failed_;
}

asio::awaitable<void> Daemon::follow_signals() {
    for (;;) {
        const auto [error, number] = co_await signals_.async_wait(net::kAsTuple);
        if (error)
            co_return;
        if (number == SIGHUP && is_handed_over_)
            continue;
        if (number == SIGHUP) {
            if (const auto reloaded = reload(false, "SIGHUP"); !reloaded)
                spdlog::error("reload: nothing has changed: {}", reloaded.error().message());
            continue;
        }
        if (drain_deadline_) {
            spdlog::info("stopped ({} again): {} sessions are reset", ::strsignal(number), session_count());
            context_.stop();
            co_return;
        }
        net::spawn(context_.get_executor(), "drain", drain(::strsignal(number)));
    }
}

asio::awaitable<void> Daemon::drain(std::string reason) {
    const std::chrono::seconds time = config_.timers.drain;
    drain_deadline_ = std::chrono::steady_clock::now() + time;
    service_manager_.stopping(time + kStopTime);
    // If that fails, new connections are still judged, and reset at the end.
    if (const auto withdrawn = datapath_->withdraw_listeners(); !withdrawn)
        spdlog::error("{}", withdrawn.error().message());
    spdlog::info("stopping ({}): {} sessions have {} s to end", reason, session_count(), time.count());
    asio::steady_timer pause(context_);
    for (;;) {
        // Now, and later those whose first flight was still to be acknowledged.
        leave_splices();
        if (session_count() == 0 || std::chrono::steady_clock::now() >= *drain_deadline_)
            break;
        pause.expires_at(std::min(*drain_deadline_, std::chrono::steady_clock::now() + kDrainStep));
        co_await pause.async_wait(net::kAsTuple);
    }
    end_drain();
}

void Daemon::end_drain() {
    const std::size_t left = session_count();
    spdlog::info("stopped: {}", left == 0
                                    ? "no session is left"
                                    : fmt::format("the drain time is over, {} sessions are reset", left));
    context_.stop();
}

void Daemon::leave_splices() {
    for (const auto& worker : workers_)
        worker->leave_splices();
}

std::size_t Daemon::session_count() const {
    std::size_t count = 0;
    for (const auto& worker : workers_)
        count += worker->session_count();
    return count;
}

asio::awaitable<void> Daemon::follow_links() {
    for (;;) {
        const auto [error] =
            co_await link_socket_->async_wait(asio::posix::stream_descriptor::wait_read, net::kAsTuple);
        if (error)
            co_return;
        const auto read = links_->read_events([this](const net::LinkEvent& event) {
            if (event.change == net::LinkChange::kRemoved) {
                guests_->link_removed(event.link.ifindex);
                splices_->link_removed(event.link.ifindex);
            }
        });
        if (!read) {
            spdlog::error("{}", read.error().message());
            asio::steady_timer pause(context_, kTick);
            co_await pause.async_wait(net::kAsTuple);
            continue;
        }
        apply_links();
    }
}

Result<void> Daemon::share_host_addresses() {
    host_addresses_ = std::make_shared<const std::vector<IpAddress>>(links_->host_addresses());
    for (const auto& worker : workers_)
        worker->set_host_addresses(host_addresses_);
    return datapath_->set_host_addresses(*host_addresses_);
}

void Daemon::apply_links() {
    // With too many addresses for the kernel's table the old ones stay in force there; the guests see nothing
    // of it, the operator this line.
    if (const auto shared = share_host_addresses(); !shared)
        spdlog::error("{}", shared.error().message());
    // Each failure was logged with its guest, and is shown by `guest show`.
    static_cast<void>(guests_->reconcile(*links_));
}

asio::awaitable<void> Daemon::follow_drops() {
    for (;;) {
        const auto [error] =
            co_await drop_events_->async_wait(asio::posix::stream_descriptor::wait_read, net::kAsTuple);
        if (error)
            co_return;
        std::vector<proxy::SpliceTable::Key> changed;
        datapath_->read_events(
            [this](const datapath::DropEvent& event) { tell_drop(event); },
            [&changed](const datapath::FlowTuple& flow) { changed.push_back({flow.guest, flow.peer}); });
        if (!changed.empty()) {
            const auto shared =
                std::make_shared<const std::vector<proxy::SpliceTable::Key>>(std::move(changed));
            for (const auto& worker : workers_)
                worker->splices_changed(shared);
        }
        // Many at a time wake fewer threads.
        asio::steady_timer pause(context_, kEventPause);
        co_await pause.async_wait(net::kAsTuple);
    }
}

asio::awaitable<void> Daemon::follow_routes() {
    asio::posix::stream_descriptor socket(context_, ::dup(routes_->fd()));
    for (;;) {
        const auto [error] =
            co_await socket.async_wait(asio::posix::stream_descriptor::wait_read, net::kAsTuple);
        if (error)
            co_return;
        asio::steady_timer pause(context_, kRoutePause);
        co_await pause.async_wait(net::kAsTuple);
        const auto changed = routes_->take_changes();
        if (!changed)
            spdlog::error("{}", changed.error().message());
        if (!changed || *changed) {
            for (const auto& worker : workers_)
                worker->routes_changed();
        }
    }
}

void Daemon::tell_drop(const datapath::DropEvent& event) {
    const GuestRegistry::Attached* attached = guests_->find(event.guest);
    if (event.question)
        publish(to_json(dns_event(event, attached ? &attached->guest : nullptr),
                        std::chrono::system_clock::now()));
    else if (attached == nullptr)
        publish(to_json(event, "", {}, {}));
    else
        publish(explained(event, *attached));
}

boost::json::object Daemon::explained(const datapath::DropEvent& event,
                                      const GuestRegistry::Attached& attached) {
    const proxy::PolicyGeneration& policy = *attached.guest.policy;
    proxy::DecidingRule rule;
    // Of an older generation only the number is known by now.
    if (event.judgement.verdict == TG_VERDICT_NONE || event.judgement.generation != policy.generation)
        return to_json(event, attached.guest.name, rule, {});
    proxy::SessionFacts facts;
    facts.destination = event.flow.peer;
    if (!facts.learn(*kernel_, attached.guest, host_addresses_))
        return to_json(event, attached.guest.name, rule, {});
    policy::FlowFacts flow = facts.flow();
    flow.protocol = datapath::policy_protocol(event.protocol);
    const auto index = event.judgement.rule_group
                           ? policy::rule_in_group(*policy.compiled, flow, *event.judgement.rule_group)
                           : std::nullopt;
    if (index)
        rule = proxy::deciding_rule(*policy.compiled, {policy::Verdict::kDeny, policy::Basis::kRule, *index});
    // Of what is not forwarded anyway no rule would allow anything.
    std::string to_allow;
    const policy::Decision decision = policy::decide_syn(*policy.compiled, flow);
    if (flow.protocol == policy::Protocol::kTcp && decision.verdict == policy::Verdict::kDeny)
        to_allow =
            policy::remedy_text(policy.compiled->policy(),
                                policy::remedy_for_flow(*policy.compiled, flow, std::nullopt, decision));
    return to_json(event, attached.guest.name, rule, to_allow);
}

asio::awaitable<void> Daemon::tick() {
    for (;;) {
        tick_timer_.expires_after(kTick);
        const auto [error] = co_await tick_timer_.async_wait(net::kAsTuple);
        if (error)
            co_return;
        refresh_upstreams();
        take_pulse();
        if (is_handed_over_)
            continue;
        datapath_->sweep();
        watcher_->restore();
        tell_lost_events();
    }
}

void Daemon::record_flow(const boost::json::object& record) {
    for (const auto& log : flow_logs_)
        log->write(record);
}

std::uint64_t Daemon::flow_log_failures() const {
    std::uint64_t failures = 0;
    for (const auto& log : flow_logs_)
        failures += log->failures();
    return failures;
}

void Daemon::publish(const boost::json::object& event, EventHistory::Time time) {
    history_.add(event, time);
    control_->publish(event);
}

void Daemon::worker_event(const proxy::Event& event, EventHistory::Time time) {
    const boost::json::object object = to_json(event, time);
    if (std::holds_alternative<proxy::FlowEndEvent>(event))
        record_flow(object);
    publish(object, time);
}

void Daemon::tell_lost_events() {
    const std::uint64_t lost = events_lost();
    if (lost == told_lost_)
        return;
    const boost::json::object event = lost_event(lost - told_lost_);
    told_lost_ = lost;
    // There, too, a reader has to know that something may be missing.
    record_flow(event);
    publish(event);
}

void Daemon::take_pulse() {
    const auto answered = [](const std::future<void>& pulse) {
        return pulse.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
    };
    // A worker that hangs is a reason to be killed and started again: its guests have no network.
    if (!std::ranges::all_of(pulses_, answered))
        return;
    service_manager_.alive();
    pulses_.clear();
    for (const auto& worker : workers_)
        pulses_.push_back(worker->pulse());
}

void Daemon::refresh_upstreams() {
    std::vector<Endpoint> upstreams = config_.dns.upstreams;
    if (upstreams.empty()) {
        const auto text = read_file(config_.dns.resolv_conf, kMaxResolvConfBytes);
        if (!text)
            return; // keeps what it had; a file being replaced is missing for a moment
        upstreams = proxy::parse_resolv_conf(*text);
    }
    if (upstreams == upstreams_)
        return;
    for (const auto& worker : workers_)
        worker->set_upstreams(upstreams);
    upstreams_ = std::move(upstreams);
}

} // namespace tapgate::daemon
