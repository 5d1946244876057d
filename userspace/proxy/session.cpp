// SPDX-License-Identifier: Apache-2.0
#include "proxy/session.hpp"

#include "base/log.hpp"
#include "net/async.hpp"
#include "net/dialer.hpp"
#include "net/socket_options.hpp"
#include "policy/remedy.hpp"
#include "proxy/denial.hpp"

#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <iterator>
#include <system_error>

#include <poll.h>
#include <sys/socket.h>

namespace tapgate::proxy {

namespace asio = boost::asio;
using asio::ip::tcp;
using policy::FirstFlightKind;

namespace {

/// How long, and for how many bytes, a guest that was refused may go on talking before it is reset.
constexpr std::chrono::seconds kLingerTime{2};
constexpr std::size_t kLingerBytes = 256UL * 1024;

/// Wakes readers of `socket` only when more than `seen` bytes wait in it: MSG_PEEK leaves what was seen in
/// place, so without this every wait would return at once. False, with errno, if that cannot be had.
bool wake_after(tcp::socket& socket, std::size_t seen) {
    const int low_water = static_cast<int>(seen + 1);
    return ::setsockopt(socket.native_handle(), SOL_SOCKET, SO_RCVLOWAT, &low_water, sizeof low_water) == 0;
}

bool peer_has_finished(tcp::socket& socket) {
    pollfd poll{socket.native_handle(), POLLRDHUP, 0};
    return ::poll(&poll, 1, 0) == 1 && (poll.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

/// The name that a session goes by: the one on the wire, else one that is bound to its destination.
std::string name_of(const SessionFacts& facts) {
    if (facts.flight && facts.flight->name)
        return facts.flight->name->text();
    return facts.bound.empty() ? std::string() : facts.bound.front().name.text();
}

/// Where that name came from.
std::string_view source_of_name(const SessionFacts& facts) {
    if (facts.flight && facts.flight->name)
        return facts.flight->kind == FirstFlightKind::kHttp ? "host" : "sni";
    return facts.bound.empty() ? "" : "bindings";
}

} // namespace

Session::Session(SessionContext& context, tcp::socket guest_socket, const Endpoint& source,
                 const Endpoint& destination, std::uint64_t id)
    : context_(context), socket_(std::move(guest_socket)), id_(id), source_(source),
      drain_timer_(socket_.get_executor()) {
    facts_.destination = destination;
}

/// The one place where a session ends: a cancelled coroutine may leave by an exception.
struct Session::Record {
    Session& session;

    ~Record() {
        if (!session.is_left_)
            session.publish_end();
        session.context_.kernel.give_back_session(session.guest_->id);
    }
};

asio::awaitable<void> Session::run() {
    if (!admit()) {
        reset_guest();
        co_return;
    }
    const Record record{*this};
    co_await live();
}

asio::awaitable<void> Session::run_adopted(SpliceTable::Left left) {
    // Else a session that is cancelled below would leave its flow behind at the next co_await.
    co_await asio::this_coro::throw_if_cancelled(false);
    kernel_flow_ = context_.carriers.find_kernel()->adopt(left);
    if (!kernel_flow_)
        co_return;
    guest_ = context_.find_guest(left.recording.guest);
    if (!guest_ || !context_.kernel.take_session(guest_->id, guest_->limits.sessions)) {
        cancel(); // the guest was removed, or may have fewer now
        co_await run_spliced();
        co_return;
    }
    const Record record{*this};
    state_ = State::kRelay;
    policy_ = guest_->policy;
    started_ -=
        std::chrono::duration_cast<std::chrono::steady_clock::duration>(BootClock::now() - left.since);
    facts_.flight = std::move(left.recording.flight);
    const Result<void> learned = facts_.learn(context_.kernel, *guest_, context_.host_addresses());
    // A binding that expired since does not change a session that was admitted by it.
    if (left.recording.bound && std::ranges::find(facts_.bound, *left.recording.bound,
                                                  &policy::BoundName::name) == facts_.bound.end())
        facts_.bound.push_back({*left.recording.bound, {}});
    if (learned) {
        const LiveFlowsOrder cut;
        swap(policy_, under(*policy_, cut), cut);
    } else {
        cancel();
    }
    co_await run_spliced();
    if (!learned)
        fail(learned.error().message());
}

asio::awaitable<void> Session::live() {
    const std::optional<policy::Decision> decision = co_await judge();
    if (!decision) {
        reset_guest(); // it left, or the session was cancelled, before there was a verdict
        co_return;
    }
    judgement_ = judgement_of(*policy_, *decision);
    publish_verdict(decision);
    if (decision->verdict != policy::Verdict::kAllow) {
        refuse();
        co_await deny_readably();
        co_return;
    }

    state_ = State::kDial;
    std::set<BindingInUse> in_use;
    add_bindings_in_use(in_use);
    keep(context_.kernel, in_use);
    Result<tcp::socket> upstream = co_await dial();
    if (is_cut_ || !upstream) {
        if (!upstream && upstream.error().errno_value() != ECANCELED)
            ending_ = {"dial-failed: " + upstream.error().message(),
                       net::is_local_failure(upstream.error().errno_value()) ? "daemon" : "upstream"};
        reset_guest();
        co_return;
    }
    co_await relay(std::move(*upstream));
}

bool Session::admit() {
    const auto pending = context_.kernel.take_pending(source_, facts_.destination);
    if (!pending || pending->verdict == policy::Verdict::kDeny) {
        // Nobody but a guest whose SYN was seen on its tap may use the proxy.
        context_.kernel.count_refusal(0, Refusal::kNoPending);
        return false;
    }
    guest_ = context_.find_guest(pending->guest);
    if (!guest_) {
        context_.kernel.count_refusal(pending->ifindex, Refusal::kNoPending);
        return false; // detached since
    }
    at_syn_ = *pending;
    policy_ = guest_->policy;
    if (!context_.kernel.take_session(guest_->id, guest_->limits.sessions)) {
        context_.kernel.count_refusal(guest_->ifindex, Refusal::kSessionCap);
        VerdictEvent event;
        event.guest = guest_->name;
        event.source = source_;
        event.destination = facts_.destination;
        event.basis = "session-cap";
        event.generation = policy_->generation;
        context_.events.publish(std::move(event));
        return false;
    }
    return true;
}

asio::awaitable<std::optional<policy::Decision>> Session::judge() {
    // The kernel has judged by what there is to learn, unless the policy has changed since.
    const bool is_deferred =
        at_syn_.verdict == policy::Verdict::kDefer && at_syn_.generation == policy_->generation;
    if (!is_deferred) {
        if (!learn())
            co_return std::nullopt;
        const policy::Decision at_syn = decision_at_syn();
        if (at_syn.verdict != policy::Verdict::kDefer)
            co_return at_syn;
    }

    state_ = State::kPeek;
    FirstFlightReader reader(context_.settings.peek_bytes);
    const Peeked peeked = co_await peek(reader);
    switch (peeked) {
    case Peeked::kGone:
        co_return std::nullopt;
    case Peeked::kSwapped:
        co_return swap_verdict_;
    case Peeked::kSilent:
        is_unheard_ = true;
        co_return decide_silence();
    case Peeked::kSettled:
        break;
    }
    facts_.flight = reader.flight();
    flight_reason_ = reader.reason();
    // Peeking takes time: what counts are the bindings at the moment of the verdict.
    if (!learn())
        co_return std::nullopt;
    co_return policy::decide_first_flight(*policy_->compiled, facts_.flow(), *facts_.flight);
}

bool Session::learn() {
    const Result<void> learned = facts_.learn(context_.kernel, *guest_, context_.host_addresses());
    if (!learned)
        fail(learned.error().message());
    return learned.has_value();
}

void Session::fail(std::string_view what) {
    ending_ = {fmt::format("failed: {}", what), "daemon"};
}

std::optional<policy::Decision> Session::decide_silence() {
    if (!learn())
        return std::nullopt;
    facts_.flight = policy::FirstFlight{};
    return policy::decide_first_flight(*policy_->compiled, facts_.flow(), *facts_.flight);
}

policy::Decision Session::decision_at_syn() const {
    // The policy was swapped between SYN and accept: the new one judges, as it does all live sessions.
    if (at_syn_.generation != policy_->generation)
        return policy::decide_syn(*policy_->compiled, facts_.flow());
    policy::Decision decision{at_syn_.verdict, policy::Basis::kDefault, std::nullopt};
    if (at_syn_.rule_group)
        decision.rule = policy::rule_in_group(*policy_->compiled, facts_.flow(), *at_syn_.rule_group);
    if (decision.rule)
        decision.basis = policy::Basis::kRule;
    return decision;
}

asio::awaitable<Session::Peeked> Session::peek(FirstFlightReader& reader) {
    const auto deadline = started_ + context_.settings.peek_timeout;
    auto window_end = std::min(deadline, started_ + context_.settings.server_first);
    std::vector<std::uint8_t>& buffer = context_.peek_buffer;
    buffer.resize(context_.settings.peek_bytes);
    std::size_t seen = 0;
    bool has_waited = false;
    while (!swap_verdict_) {
        // Before the first wait, too: most guests have spoken by the time they are accepted.
        const ssize_t length =
            ::recv(socket_.native_handle(), buffer.data(), buffer.size(), MSG_PEEK | MSG_DONTWAIT);
        if (length < 0 && errno != EAGAIN && errno != EINTR) {
            cannot_read_first_flight(errno);
            co_return Peeked::kGone;
        }
        if (length >= 0) {
            const auto size = static_cast<std::size_t>(length);
            if (reader.update(ByteView(buffer).first(size)))
                break;
            if (size == seen) {
                // Woken without a new byte: by a FIN, by a kernel short of memory, or by bytes behind urgent
                // data, where a peek ends. For the last the socket is readable for ever, so the deadline is
                // looked at here.
                if (peer_has_finished(socket_) || std::chrono::steady_clock::now() >= deadline) {
                    reader.finish();
                    break;
                }
                asio::steady_timer pause(socket_.get_executor(), std::chrono::milliseconds(10));
                co_await pause.async_wait(net::kAsTuple);
            }
            seen = size;
            if (!wake_after(socket_, seen)) {
                fail(Error::from_errno(errno, "set SO_RCVLOWAT").message());
                co_return Peeked::kGone;
            }
        }
        // While it waits others look at it: a swap, a listing.
        if (!std::exchange(has_waited, true) && !learn())
            co_return Peeked::kGone;
        const boost::system::error_code error =
            co_await net::wait_readable_until(socket_, seen == 0 ? window_end : deadline);
        if (error == asio::error::timed_out && seen == 0 && window_end < deadline) {
            const std::optional<policy::Decision> silence = decide_silence();
            if (!silence)
                co_return Peeked::kGone;
            if (silence->verdict == policy::Verdict::kAllow)
                co_return Peeked::kSilent;
            // What it may yet say could be allowed where silence is not.
            facts_.flight.reset();
            window_end = deadline;
            continue;
        }
        if (error == asio::error::timed_out) {
            reader.finish();
            break;
        }
        const asio::cancellation_state state = co_await asio::this_coro::cancellation_state;
        if (state.cancelled() != asio::cancellation_type::none)
            co_return Peeked::kGone;
        // Else woken by a policy swap.
        if (error && error != asio::error::operation_aborted) {
            cannot_read_first_flight(error.value());
            co_return Peeked::kGone;
        }
    }
    if (seen != 0 && !wake_after(socket_, 0)) {
        fail(Error::from_errno(errno, "set SO_RCVLOWAT").message());
        co_return Peeked::kGone;
    }
    co_return swap_verdict_ ? Peeked::kSwapped : Peeked::kSettled;
}

void Session::cannot_read_first_flight(int error_number) {
    if (net::is_local_failure(error_number))
        fail(Error::from_errno(error_number, "read the first flight").message());
    else
        ending_ = {"reset", "guest"};
}

asio::awaitable<void> Session::deny_readably() {
    const std::optional<policy::FirstFlight>& flight = facts_.flight;
    const policy::Policy& policy = policy_->compiled->policy();
    if (!flight || policy.deny_style == policy::DenyStyle::kReset) {
        reset_guest();
        co_return;
    }
    switch (flight->kind) {
    case FirstFlightKind::kTls:
    case FirstFlightKind::kTlsNoSni:
    case FirstFlightKind::kTlsBad: {
        const std::string alert(kTlsAccessDenied.begin(), kTlsAccessDenied.end());
        co_await say_and_close(alert);
        co_return;
    }
    case FirstFlightKind::kHttp:
    case FirstFlightKind::kHttpBad: {
        const std::string host = flight->name ? flight->name->text() : facts_.destination.to_string();
        const std::string ground =
            judgement_.rule.text.empty() ? judgement_.basis : "rule " + judgement_.rule.text;
        const std::string page = http_forbidden(host, ground, policy.deny_text);
        co_await say_and_close(page);
        co_return;
    }
    case FirstFlightKind::kPlain:
        break;
    }
    reset_guest();
}

asio::awaitable<void> Session::say_and_close(std::string_view bytes) {
    // What the guest sent is read first, and its end awaited after: closing a socket with unread bytes makes
    // the kernel send a reset, which can overtake the message.
    const auto deadline = std::chrono::steady_clock::now() + kLingerTime;
    const int fd = socket_.native_handle();
    std::array<char, 4096> sink{};
    std::size_t drained = 0;
    const auto drain = [&] {
        const ssize_t length = ::recv(fd, sink.data(), sink.size(), MSG_DONTWAIT);
        drained += length > 0 ? static_cast<std::size_t>(length) : 0;
        return length;
    };
    while (drained < kLingerBytes && drain() > 0) {
    }
    const bool is_said =
        ::send(fd, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL) == std::ssize(bytes) &&
        ::shutdown(fd, SHUT_WR) == 0;
    bool is_heard = false;
    while (is_said && !is_heard && drained < kLingerBytes) {
        const boost::system::error_code error = co_await net::wait_readable_until(socket_, deadline);
        const ssize_t length = error ? -1 : drain();
        if (error || (length < 0 && errno != EAGAIN && errno != EINTR))
            break;
        is_heard = length == 0;
    }
    if (is_heard)
        (void)net::finish_on_close(fd); // else it is reset
    boost::system::error_code ignored;
    socket_.close(ignored);
}

asio::awaitable<Result<tcp::socket>> Session::dial() {
    const Endpoint destination = facts_.destination;
    if (!guest_->has_gateway(destination.address))
        co_return co_await dial_to_splice();
    if (wanted_splice() == policy::Splice::kKernel)
        context_.carriers.decline(SpliceRefusal::kHostAlias);
    // The gateway address means the host itself: its loopback, in the other family if refused there.
    const IpAddress v4 = IpAddress::from_v4(0x7f000001);
    const IpAddress v6 = *IpAddress::parse("::1");
    const bool is_v4 = destination.address.is_v4();
    const Endpoint first{is_v4 ? v4 : v6, destination.port};
    const Endpoint second{is_v4 ? v6 : v4, destination.port};
    Result<tcp::socket> upstream = co_await net::dial(first, context_.settings.connect_timeout);
    if (!upstream && upstream.error().errno_value() == ECONNREFUSED && !is_cut_)
        upstream = co_await net::dial(second, context_.settings.connect_timeout);
    co_return upstream;
}

asio::awaitable<Result<tcp::socket>> Session::dial_to_splice() {
    // A CONNECT is about another server, which is more than the next daemon would know of the flow.
    const bool is_tunnel = facts_.flight && facts_.flight->connect_port;
    if (wanted_splice() == policy::Splice::kKernel && (is_tunnel || gate_stage())) {
        context_.carriers.decline(SpliceRefusal::kJudged);
    } else if (wanted_splice() == policy::Splice::kKernel) {
        SpliceTable::Recording flow;
        flow.flow = {source_, facts_.destination};
        flow.guest = guest_->id;
        flow.guest_ifindex = guest_->ifindex;
        flow.flight = facts_.flight;
        for (const policy::BoundName& bound : facts_.bound) {
            if (!flow.bound && (!facts_.flight || !facts_.flight->name || *facts_.flight->name == bound.name))
                flow.bound = bound.name;
        }
        if (KernelSplice* const kernel = context_.carriers.kernel())
            kernel_flow_ = kernel->plan(std::move(flow));
    }
    if (kernel_flow_) {
        const net::DialSource& source = KernelSplice::source(*kernel_flow_);
        Result<tcp::socket> upstream =
            co_await net::dial(facts_.destination, context_.settings.connect_timeout, &source);
        const int error_number = upstream ? 0 : upstream.error().errno_value();
        if (error_number != EADDRINUSE && error_number != EADDRNOTAVAIL)
            co_return upstream;
        kernel_flow_.reset(); // no port is left for it: the kernel may find one that serves several
    }
    co_return co_await net::dial(facts_.destination, context_.settings.connect_timeout);
}

policy::Splice Session::wanted_splice() const {
    return policy_->compiled->policy().splice.value_or(context_.settings.splice);
}

asio::awaitable<void> Session::relay(tcp::socket upstream) {
    state_ = State::kRelay;
    auto stage = gate_stage();
    if (!stage && kernel_flow_ &&
        context_.carriers.find_kernel()->hand_off(kernel_flow_, socket_, upstream)) {
        co_await run_spliced();
        co_return;
    }
    kernel_flow_.reset();
    // The guest's has them from its listener.
    if (!net::prepare_to_relay(upstream.native_handle())) {
        fail(Error::from_errno(errno, "set options of the connection to the server").message());
        reset_guest();
        co_return;
    }
    // A hello can be followed by another one, of which only userspace would know (B54).
    const bool is_tls = facts_.flight && (facts_.flight->kind == FirstFlightKind::kTls ||
                                          facts_.flight->kind == FirstFlightKind::kTlsNoSni);
    if (!stage && is_tls)
        stage = FlightGate::Stage::kHello;
    if (stage)
        co_await relay_gated(std::move(upstream), *stage);
    else
        co_await relay_ungated(std::move(upstream));
}

asio::awaitable<void> Session::relay_ungated(tcp::socket upstream) {
    net::Relay& relay = context_.carriers.relay(wanted_splice());
    splice_ = relay.name();
    const net::RelayOptions options(context_.settings.idle_timeout, context_.settings.half_closed_timeout,
                                    &counters_);
    tcp::socket guest_socket = std::move(socket_);
    const net::RelayResult result = co_await relay.run(std::move(guest_socket), std::move(upstream), options);
    ending_ = ending_of(result);
}

asio::awaitable<void> Session::run_spliced() {
    splice_ = KernelSplice::kName;
    const net::RelayOptions limits(context_.settings.idle_timeout, context_.settings.half_closed_timeout,
                                   nullptr);
    ending_ = ending_of(co_await context_.carriers.find_kernel()->run(kernel_flow_, limits));
}

void Session::kill() {
    is_killed_ = true;
    cancel();
}

void Session::leave() {
    is_left_ = is_left_ || (state_ == State::kRelay && kernel_flow_ && splice_ == KernelSplice::kName &&
                            context_.carriers.find_kernel()->leave(*kernel_flow_));
}

asio::awaitable<void> Session::relay_gated(tcp::socket upstream, FlightGate::Stage stage) {
    splice_ = "copy";
    const net::RelayOptions options(context_.settings.idle_timeout, context_.settings.half_closed_timeout,
                                    &counters_);
    const FlightGate::Limits limits{context_.settings.peek_bytes, context_.settings.peek_timeout};
    FlightGate gate(*this, stage, limits);
    net::GatedResult result = co_await context_.gated_relay.run(socket_, std::move(upstream), options, gate);
    if (result.upstream) {
        co_await relay_ungated(std::move(*result.upstream));
        co_return;
    }
    if (result.relay.how == net::RelayEnd::kRefused) {
        // Guest sees: the denial in the language it speaks, or a reset where that could be taken for a part
        // of what the server has sent. Operator sees: a verdict event for what was denied, and this end.
        refuse();
        if (gate.may_speak() && !result.guest_is_owed)
            co_await deny_readably();
        else
            reset_guest();
        co_return;
    }
    ending_ = ending_of(result.relay);
}

Session::Ending Session::ending_of(const net::RelayResult& result) {
    std::string how(net::relay_end_name(result.how));
    if (result.how == net::RelayEnd::kFailed)
        how += ": " + std::generic_category().message(result.error_number);
    return {std::move(how), net::relay_party_name(result.who)};
}

void Session::refuse() {
    state_ = State::kRefused;
    context_.kernel.count_refusal(guest_->ifindex, Refusal::kPolicy);
    ending_ = {"denied", "daemon"};
}

std::optional<FlightGate::Stage> Session::gate_stage() const {
    if (is_unheard_)
        return FlightGate::Stage::kFirstFlight;
    if (facts_.flight && facts_.flight->kind == FirstFlightKind::kHttp && judges_every_request())
        return FlightGate::Stage::kHttp;
    return std::nullopt;
}

bool Session::admits(const policy::FirstFlight& flight, std::string_view reason) {
    const std::string name_before = name_of(facts_);
    const std::string_view source_before = source_of_name(facts_);
    const Result<void> learned = facts_.learn_more(context_.kernel, *guest_, context_.host_addresses());
    facts_.flight = flight;
    flight_reason_ = reason;
    std::optional<policy::Decision> decision;
    if (learned)
        decision = policy::decide_first_flight(*policy_->compiled, facts_.flow(), flight);
    judgement_ = decision ? judgement_of(*policy_, *decision)
                          : Judgement{policy_->generation, false, {}, "failed: " + learned.error().message()};
    // One event for each name that a connection goes by, not one for each request.
    if (!judgement_.allowed || name_of(facts_) != name_before || source_of_name(facts_) != source_before)
        publish_verdict(decision);
    return judgement_.allowed;
}

bool Session::judges_every_request() const {
    return policy_->compiled->policy().http_host == policy::HttpHost::kEvery;
}

void Session::publish_verdict(const std::optional<policy::Decision>& decision) {
    VerdictEvent event;
    event.guest = guest_->name;
    event.source = source_;
    event.destination = facts_.destination;
    event.name = name_of(facts_);
    event.name_source = source_of_name(facts_);
    event.allowed = judgement_.allowed;
    event.rule = judgement_.rule;
    event.basis = event.allowed ? judgement_.basis : judged_basis();
    event.generation = judgement_.generation;
    if (decision && decision->verdict == policy::Verdict::kDeny) {
        const policy::CompiledPolicy& compiled = *policy_->compiled;
        event.to_allow = policy::remedy_text(
            compiled.policy(), policy::remedy_for_flow(compiled, facts_.flow(), facts_.flight, *decision));
    }
    context_.events.publish(std::move(event));
}

void Session::publish_end() {
    FlowEndEvent event;
    event.guest = guest_->name;
    event.source = source_;
    event.destination = facts_.destination;
    event.name = name_of(facts_);
    event.name_source = source_of_name(facts_);
    event.verdict = verdict();
    event.splice = splice_;
    const net::RelayCounters bytes = carried();
    event.bytes_up = bytes.bytes_up;
    event.bytes_down = bytes.bytes_down;
    event.duration =
        std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - started_);
    event.how = ending_.how;
    event.who = ending_.who;
    event.generation = judgement_.generation;
    event.rule = judgement_.rule;
    if (state_ == State::kRefused)
        event.reason = judged_basis();
    else if (is_cut_ && ending_.how == "cancelled")
        tell_cut(event);
    else if (is_killed_ && ending_.how == "cancelled") {
        event.how = "killed";
        event.who = "operator";
    }
    context_.events.publish(std::move(event));
}

std::string Session::judged_basis() const {
    return flight_reason_.empty() ? judgement_.basis
                                  : fmt::format("{} ({})", judgement_.basis, flight_reason_);
}

std::string_view Session::verdict() const {
    switch (state_) {
    case State::kAccepted:
    case State::kPeek:
        return "defer";
    case State::kRefused:
        return "deny";
    case State::kDial:
    case State::kRelay:
        break;
    }
    return "allow";
}

net::RelayCounters Session::carried() const {
    return kernel_flow_ && state_ == State::kRelay ? KernelSplice::carried(*kernel_flow_) : counters_;
}

void Session::reset_guest() {
    boost::system::error_code ignored;
    socket_.close(ignored); // admit() has seen to it that this resets
}

void Session::add_bindings_in_use(std::set<BindingInUse>& in_use) const {
    if ((state_ != State::kDial && state_ != State::kRelay) || judgement_.rule.number == 0 ||
        judgement_.generation != policy_->generation)
        return;
    const std::vector<policy::Rule>& rules = policy_->compiled->policy().rules;
    const std::size_t rule = judgement_.rule.number - 1;
    if (rule >= rules.size() || !std::holds_alternative<policy::DomainTarget>(rules[rule].target))
        return;
    for (const policy::BoundName& bound : facts_.bound) {
        // The name on the wire is the one that counts; without one every name of the address may be it.
        if (!facts_.flight || !facts_.flight->name || *facts_.flight->name == bound.name)
            in_use.insert({guest_->id, facts_.destination.address, bound.name.text()});
    }
}

FlowInfo Session::info() const {
    FlowInfo info;
    info.id = id_;
    info.guest = guest_ ? guest_->name : "";
    info.source = source_;
    info.destination = facts_.destination;
    info.verdict = verdict();
    info.generation = judgement_.generation;
    switch (state_) {
    case State::kAccepted:
    case State::kPeek:
        info.state = "peek";
        info.generation = policy_ ? policy_->generation : 0;
        break;
    case State::kRefused:
        info.state = "refused";
        break;
    case State::kDial:
        info.state = "dial";
        break;
    case State::kRelay:
        info.state = "relay";
        info.splice = splice_;
        break;
    }
    info.name = name_of(facts_);
    info.name_source = source_of_name(facts_);
    info.rule = judgement_.rule;
    const net::RelayCounters bytes = carried();
    info.bytes_up = bytes.bytes_up;
    info.bytes_down = bytes.bytes_down;
    info.age = std::chrono::steady_clock::now() - started_;
    info.denied_by = denied_by_;
    if (drain_deadline_) {
        info.state = "drain";
        info.drain_left = *drain_deadline_ - std::chrono::steady_clock::now();
    }
    info.facts = facts_;
    return info;
}

} // namespace tapgate::proxy
