// SPDX-License-Identifier: Apache-2.0
#include "proxy/worker.hpp"

#include "base/log.hpp"
#include "net/asio_address.hpp"
#include "net/async.hpp"

#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

#include <set>
#include <utility>

#include <pthread.h>
#include <sys/socket.h>

namespace tapgate::proxy {

namespace asio = boost::asio;
using asio::ip::tcp;

namespace {

/// After a failed accept (no descriptors left) the next one waits, instead of spinning.
constexpr std::chrono::milliseconds kAcceptPause{100};
/// How long a stopping worker waits for its sessions to be reset, in steps.
constexpr std::chrono::milliseconds kStopStep{10};
constexpr int kStopSteps = 200;

/// How often bindings in use are prolonged.
constexpr std::chrono::seconds kKeepStep{20};

} // namespace

Worker::Worker(const WorkerSettings& settings, KernelState& kernel, EventSink& events, Listeners listeners)
    : listeners_(std::move(listeners)), kernel_(kernel),
      resolver_(
          context_, kernel, events, [this] { return host_addresses_; }, settings.dns_timeout),
      dns_udp_(context_, listeners_.dns4.get(), listeners_.dns6.get(), kernel, resolver_,
               [this](unsigned ifindex) {
                   const auto found = guests_by_ifindex_.find(ifindex);
                   return found == guests_by_ifindex_.end() ? nullptr : found->second;
               }),
      dns_tcp_(
          context_, kernel, resolver_, [this](GuestId id) { return find_guest(id); }, settings.dns_idle),
      // The acceptors own duplicates, so that `listeners_` stays the owner it says it is.
      acceptor4_(context_, tcp::v4(), ::dup(listeners_.tcp4.get())),
      acceptor6_(context_, tcp::v6(), ::dup(listeners_.tcp6.get())), next_session_id_(settings.index + 1),
      session_id_step_(settings.count) {}

Result<std::unique_ptr<Worker>> Worker::create(const WorkerSettings& settings, KernelState& kernel,
                                               EventSink& events, SpliceTable& splices,
                                               const Result<net::RawTcp>& raw) {
    auto listeners = open_listeners();
    if (!listeners)
        return fail(listeners.error());
    std::unique_ptr<Worker> worker(new Worker(settings, kernel, events, std::move(*listeners)));
    auto carriers = Carriers::open(worker->context_, settings.session.splice, splices, raw);
    if (!carriers)
        return fail(carriers.error());
    worker->carriers_ = std::move(*carriers);
    Worker* self = worker.get();
    worker->session_context_ = std::make_unique<SessionContext>(SessionContext{
        settings.session, kernel, events, *worker->carriers_, worker->gated_relay_,
        [self](GuestId id) { return self->find_guest(id); }, [self] { return self->host_addresses_; }});
    return worker;
}

Worker::~Worker() {
    if (!thread_.joinable())
        return;
    asio::post(context_, [this] {
        boost::system::error_code ignored;
        acceptor4_.close(ignored);
        acceptor6_.close(ignored);
        dns_udp_.stop();
        dns_tcp_.stop();
        for (const auto& [id, session] : sessions_)
            session->cancel();
        net::spawn(context_.get_executor(), "stop", stop_when_idle());
    });
    thread_.join();
}

asio::awaitable<void> Worker::stop_when_idle() {
    for (int step = 0; step < kStopSteps && !sessions_.empty(); ++step) {
        asio::steady_timer pause(context_, kStopStep);
        co_await pause.async_wait(net::kAsTuple);
    }
    context_.stop();
}

void Worker::start() {
    dns_udp_.start();
    // Else Asio, having met a connection that was aborted, waits for a new one although others are queued.
    const tcp::acceptor::enable_connection_aborted tell_aborted(true);
    acceptor4_.set_option(tell_aborted);
    acceptor6_.set_option(tell_aborted);
    net::spawn(context_.get_executor(), "accept (IPv4)", accept(acceptor4_));
    net::spawn(context_.get_executor(), "accept (IPv6)", accept(acceptor6_));
    net::spawn(context_.get_executor(), "bindings in use", keep_bindings());
    thread_ = std::thread([this] {
        // By the thread itself: another one would have to write to /proc, which the sandbox does not let it.
        ::pthread_setname_np(::pthread_self(), "tapgate-worker");
        context_.run();
    });
}

asio::awaitable<void> Worker::accept(tcp::acceptor& acceptor) {
    for (;;) {
        // accept() tells the peer's address of a connection that is reset already, too; getpeername() does
        // not.
        tcp::endpoint peer;
        auto [error, socket] = co_await acceptor.async_accept(peer, net::kAsTuple);
        if (!acceptor.is_open())
            co_return;
        if (!error)
            error = begin(std::move(socket), net::endpoint_of(peer));
        if (!error)
            continue;
        if (error == asio::error::connection_aborted)
            continue;
        // Guest sees: a wait, or RST. Operator sees: this.
        spdlog::error("accept: {}", error.message());
        asio::steady_timer pause(context_, kAcceptPause);
        co_await pause.async_wait(net::kAsTuple);
    }
}

boost::system::error_code Worker::begin(tcp::socket socket, const Endpoint& source) {
    boost::system::error_code error;
    const Endpoint destination = net::endpoint_of(socket.local_endpoint(error));
    if (error)
        return error;
    if (destination.port == kDnsPort) {
        dns_tcp_.serve(std::move(socket), source, destination);
        return {};
    }
    begin(std::move(socket), source, destination, std::nullopt);
    return {};
}

void Worker::begin(tcp::socket socket, const Endpoint& source, const Endpoint& destination,
                   std::optional<SpliceTable::Left> left) {
    const std::uint64_t id = next_session_id_;
    next_session_id_ += session_id_step_;
    auto session = std::make_shared<Session>(*session_context_, std::move(socket), source, destination, id);
    sessions_.emplace(id, session);
    auto cancel = session->cancellation_signal();
    net::spawn(context_.get_executor(), "session", run_session(std::move(session), std::move(left)),
               std::move(cancel));
}

asio::awaitable<void> Worker::run_session(std::shared_ptr<Session> session,
                                          std::optional<SpliceTable::Left> left) {
    // A cancelled coroutine may end by an exception: the table is kept true by a destructor.
    struct Entry {
        Worker& worker;
        std::uint64_t id;

        ~Entry() { worker.sessions_.erase(id); }
    };

    const Entry entry{*this, session->id()};
    if (left)
        co_await session->run_adopted(std::move(*left));
    else
        co_await session->run();
}

asio::awaitable<void> Worker::keep_bindings() {
    for (;;) {
        asio::steady_timer pause(context_, kKeepStep);
        const auto [error] = co_await pause.async_wait(net::kAsTuple);
        if (error)
            co_return;
        // Many sessions of a guest go to the same place: one update for all of them.
        std::set<BindingInUse> in_use;
        for (const auto& [id, session] : sessions_)
            session->add_bindings_in_use(in_use);
        keep(kernel_, in_use);
    }
}

std::shared_ptr<const Guest> Worker::find_guest(GuestId id) const {
    const auto found = guests_.find(id);
    return found == guests_.end() ? nullptr : found->second;
}

template <typename Function>
auto Worker::post(Function function) -> std::future<decltype(function())> {
    std::packaged_task<decltype(function())()> task(std::move(function));
    auto result = task.get_future();
    asio::post(context_, [task = std::move(task)]() mutable { task(); });
    return result;
}

template <typename Function>
auto Worker::call(Function function) -> decltype(function()) {
    return post(std::move(function)).get();
}

void Worker::put_guest(const Guest& guest) {
    auto entry = std::make_shared<const Guest>(guest);
    call([this, entry] {
        guests_[entry->id] = entry;
        guests_by_ifindex_[entry->ifindex] = entry;
    });
}

void Worker::remove_guest(GuestId id) {
    call([this, id] {
        const auto found = guests_.find(id);
        if (found == guests_.end())
            return;
        guests_by_ifindex_.erase(found->second->ifindex);
        guests_.erase(found);
        dns_tcp_.remove_guest(id);
        for (const auto& [session_id, session] : sessions_) {
            if (session->guest_id() == id)
                session->cancel();
        }
    });
}

std::future<SwapReport> Worker::swap_policy(std::shared_ptr<const PolicyGeneration> policy,
                                            LiveFlowsOrder order) {
    return post([this, policy = std::move(policy), order] {
        give_policy(policy);
        return swap_sessions(policy, order, true);
    });
}

std::future<SwapReport> Worker::preview_swap(std::shared_ptr<const PolicyGeneration> policy,
                                             LiveFlowsOrder order) {
    return post([this, policy = std::move(policy), order] { return swap_sessions(policy, order, false); });
}

void Worker::give_policy(const std::shared_ptr<const PolicyGeneration>& policy) {
    for (auto& [id, guest] : guests_) {
        if (guest->policy->name != policy->name)
            continue;
        auto changed = std::make_shared<Guest>(*guest);
        changed->policy = policy;
        guest = std::move(changed);
        guests_by_ifindex_[guest->ifindex] = guest;
    }
}

SwapReport Worker::swap_sessions(const std::shared_ptr<const PolicyGeneration>& policy,
                                 const LiveFlowsOrder& order, bool apply) {
    SwapReport report;
    for (const auto& [id, session] : sessions_) {
        if (!session->is_under(policy->name))
            continue;
        const SwapVerdict verdict = session->under(*policy, order);
        report.count(verdict.fate);
        const bool is_denied = verdict.fate != SwapFate::kNone && verdict.fate != SwapFate::kAllowed;
        if (is_denied && report.denied.size() < SwapReport::kMaxListed)
            report.denied.push_back({session->info(), verdict.fate, verdict.judgement});
        if (apply)
            session->swap(policy, verdict, order);
    }
    return report;
}

void Worker::adopt(SpliceTable::Left left) {
    TAPGATE_ASSERT(carriers_->find_kernel() != nullptr);
    post([this, left = std::move(left)]() mutable {
        const SpliceTable::Key flow = left.recording.flow;
        begin(tcp::socket(context_), flow.guest, flow.destination, std::move(left));
    });
}

void Worker::splices_changed(std::shared_ptr<const std::vector<SpliceTable::Key>> flows) {
    KernelSplice* const kernel = carriers_->find_kernel();
    if (kernel == nullptr)
        return;
    asio::post(context_, [kernel, flows = std::move(flows)] {
        for (const SpliceTable::Key& flow : *flows)
            kernel->changed(flow);
    });
}

void Worker::routes_changed() {
    if (KernelSplice* const kernel = carriers_->find_kernel())
        asio::post(context_, [kernel] { kernel->routes_changed(); });
}

void Worker::set_host_addresses(std::shared_ptr<const std::vector<IpAddress>> addresses) {
    call([this, &addresses] { host_addresses_ = std::move(addresses); });
}

void Worker::set_upstreams(std::vector<Endpoint> upstreams) {
    call([this, &upstreams] { resolver_.upstreams().set(upstreams); });
}

void Worker::set_times(const WorkerSettings& settings) {
    call([this, &settings] {
        const std::size_t peek_bytes = session_context_->settings.peek_bytes;
        session_context_->settings = settings.session;
        session_context_->settings.peek_bytes = peek_bytes;
        resolver_.set_timeout(settings.dns_timeout);
        dns_tcp_.set_idle_timeout(settings.dns_idle);
    });
}

std::future<void> Worker::pulse() {
    return post([] {});
}

std::vector<FlowInfo> Worker::flows() {
    return call([this] {
        std::vector<FlowInfo> flows;
        for (const auto& [id, session] : sessions_)
            flows.push_back(session->info());
        return flows;
    });
}

std::size_t Worker::kill_flows(const std::vector<std::uint64_t>& ids) {
    return call([this, &ids] {
        std::size_t killed = 0;
        for (const std::uint64_t id : ids) {
            if (const auto found = sessions_.find(id); found != sessions_.end()) {
                found->second->kill();
                ++killed;
            }
        }
        return killed;
    });
}

void Worker::leave_splices() {
    call([this] {
        for (const auto& [id, session] : sessions_)
            session->leave();
    });
}

std::size_t Worker::session_count() {
    return call([this] { return sessions_.size(); });
}

std::vector<DnsUpstreams::Status> Worker::upstream_status() {
    return call([this] { return resolver_.upstreams().status(); });
}

} // namespace tapgate::proxy
