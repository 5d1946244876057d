// SPDX-License-Identifier: Apache-2.0
#include "proxy/kernel_splice.hpp"

#include "base/log.hpp"
#include "net/async.hpp"

#include <boost/asio/this_coro.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>
#include <utility>

#include <sys/socket.h>

namespace tapgate::proxy {

namespace asio = boost::asio;
using asio::ip::tcp;
using net::RelayEnd;
using net::RelayParty;
using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

namespace {

/// The most that is kept of a guest for sending again. A window clamp bounds what it can send only roughly.
constexpr std::size_t kFirstFlightBytes = 128UL * 1024;
/// While segments reach a socket the numbers may move on between two readings; then the flow is refused.
constexpr int kReadings = 4;

/// An event tells of a flow that has ended or half ended; what else there is to see grows rarer with its age,
/// which doubles until the next look, within these bounds.
constexpr milliseconds kShortestLook{50};
constexpr seconds kLongestLook{600};
/// The first retransmission of a first flight; the time doubles with each (RFC 6298 5).
constexpr milliseconds kFirstResend{200};
constexpr milliseconds kLongestResend{5000};
/// The server has not acknowledged the first flight by then: the flow is reset.
constexpr seconds kFirstFlightTime{30};
/// How long the entry of a flow that has ended stays, for the last ACK to be asked for again.
constexpr seconds kLinger{3};

constexpr std::uint8_t kAck = 0x10;
constexpr std::uint8_t kPush = 0x08;
constexpr std::uint8_t kReset = 0x04;
/// What a segment of the first flight says the guest can take, before its scale: the initial window of Linux.
/// The guest's own segments say better.
constexpr std::uint32_t kWindow = 64240;

/// True if a is before b, modulo 2^32 (RFC 9293 3.4).
bool is_before(std::uint32_t a, std::uint32_t b) {
    return static_cast<std::int32_t>(a - b) < 0;
}

/// Whether the daemon need not send it again.
bool has_first_flight_arrived(const SpliceTable::Flow& entry) {
    const SpliceTable::Side& guest = entry.sides[SpliceTable::kGuest];
    return !is_before(guest.acked, guest.floor);
}

RelayParty party_of(SpliceTable::End end) {
    return end == SpliceTable::kGuest ? RelayParty::kGuest : RelayParty::kUpstream;
}

} // namespace

std::string_view splice_refusal_name(SpliceRefusal refusal) {
    switch (refusal) {
    case SpliceRefusal::kHostAlias:
        return "host-alias";
    case SpliceRefusal::kJudged:
        return "judged";
    case SpliceRefusal::kNoRoute:
        return "no-route";
    case SpliceRefusal::kNoUplink:
        return "no-uplink";
    case SpliceRefusal::kTableFull:
        return "table-full";
    case SpliceRefusal::kOptions:
        return "options";
    case SpliceRefusal::kSegmentSize:
        return "segment-size";
    case SpliceRefusal::kServerSpoke:
        return "server-spoke";
    case SpliceRefusal::kEnding:
        return "ending";
    case SpliceRefusal::kFirstFlight:
        return "first-flight";
    case SpliceRefusal::kFailed:
        return "failed";
    case SpliceRefusal::kUnavailable:
        return "unavailable";
    }
    return "failed";
}

class KernelSplice::Flow {
  public:
    Flow(SpliceTable& flow_table, const SpliceTable::Recording& what, asio::io_context& context)
        : table(flow_table), recording(what), wake(context) {}

    Flow(const Flow&) = delete;
    Flow& operator=(const Flow&) = delete;

    ~Flow() {
        if (id != 0)
            table.remove(recording.flow, id);
    }

    [[nodiscard]] std::optional<SpliceTable::Flow> find() const { return table.find(recording.flow, id); }

    SpliceTable& table;
    SpliceTable::Recording recording;
    net::DialSource source;
    SpliceTable::Id id = 0; ///< 0: no entry

    // From the hand-off on.
    UniqueFd upstream;                ///< silent, keeps the port
    std::vector<std::uint8_t> flight; ///< empty once it is acknowledged
    std::uint32_t flight_begin = 0;   ///< the guest's sequence number of its first octet
    std::uint32_t upstream_begin = 0; ///< the same in the connection to the server
    std::size_t flight_sent = 0;      ///< octets of it, since it was last begun again
    std::uint32_t mss = 0;
    std::uint32_t peer_window = 0;      ///< what the server had offered at the hand-off
    std::uint32_t replays = 0;          ///< of the guest, when they were last looked at
    std::optional<std::uint32_t> clock; ///< of the socket to the server at the hand-off, with timestamps
    milliseconds resend = kFirstResend;
    steady_clock::time_point since = steady_clock::now(); ///< when it was handed off or adopted
    steady_clock::time_point resend_at;
    steady_clock::time_point give_up_at;

    net::RelayOptions options;
    bool is_over = false;
    std::optional<Due::iterator> due; ///< its place there
    net::RelayResult result;
    asio::steady_timer wake; ///< what run() sleeps on
};

namespace {

/// What both sockets have at one moment while the flow is held.
struct Numbers {
    net::TcpState guest;
    net::TcpState upstream;
    std::size_t flight = 0; ///< octets of it at the beginning of the buffer
};

/// Reads them, and leaves the flight where it is; false: they do not stand still, or the flight is none that
/// can be handed on.
Result<bool> read_numbers(int guest, int upstream, Numbers& numbers, std::vector<std::uint8_t>& buffer) {
    for (int reading = 0; reading < kReadings; ++reading) {
        const auto guest_state = net::read_tcp_state(guest);
        if (!guest_state)
            return fail(guest_state.error());
        const auto upstream_state = net::read_tcp_state(upstream);
        if (!upstream_state)
            return fail(upstream_state.error());
        numbers.guest = *guest_state;
        numbers.upstream = *upstream_state;
        const ssize_t length = ::recv(guest, buffer.data(), buffer.size(), MSG_PEEK | MSG_DONTWAIT);
        if (length < 0 && errno != EAGAIN)
            return fail_errno("read a first flight");
        numbers.flight = static_cast<std::size_t>(std::max<ssize_t>(length, 0));
        if (numbers.flight == buffer.size())
            return false; // and perhaps more
        // Nothing has been taken from that socket, so what it has is what it has ever received.
        if (numbers.flight == numbers.guest.bytes_received)
            return true;
    }
    return false; // urgent data, or a guest that sends faster than we read
}

std::optional<SpliceRefusal> refusal_of(const SpliceTable::Flow& entry, const net::TcpState& guest,
                                        const net::TcpState& upstream) {
    const SpliceTable::Side& server = entry.sides[SpliceTable::kServer];
    for (const SpliceTable::Side& side : entry.sides) {
        if (side.has_finished || side.has_reset)
            return SpliceRefusal::kEnding;
    }
    if (!guest.is_established || !upstream.is_established)
        return SpliceRefusal::kEnding;
    if (server.last == BootClock::time_point{})
        return SpliceRefusal::kNoUplink;
    // Also what was dropped since the flow is held, or is still on its way to the socket.
    if (upstream.bytes_received != 0 || server.end != upstream.receive_next)
        return SpliceRefusal::kServerSpoke;
    if (guest.bytes_sent != 0 || upstream.bytes_sent != 0)
        return SpliceRefusal::kFailed;
    if (guest.options != upstream.options || guest.has_timestamps() != server.has_clock)
        return SpliceRefusal::kOptions;
    if (upstream.send_mss_with_options() < guest.own_mss || guest.send_mss_with_options() < upstream.own_mss)
        return SpliceRefusal::kSegmentSize;
    return std::nullopt;
}

} // namespace

KernelSplice::KernelSplice(asio::io_context& context, SpliceTable& table, const net::RawTcp& raw,
                           net::RouteQuery routes)
    : table_(table), raw_(raw), routes_(std::move(routes)), context_(context), timer_(context),
      scratch_(kFirstFlightBytes + 1) {}

Result<std::unique_ptr<KernelSplice>> KernelSplice::create(asio::io_context& context, SpliceTable& table,
                                                           const net::RawTcp& raw) {
    auto routes = net::RouteQuery::open();
    if (!routes)
        return fail(routes.error());
    return std::unique_ptr<KernelSplice>(new KernelSplice(context, table, raw, std::move(*routes)));
}

KernelSplice::~KernelSplice() {
    for (const auto& [when, flow] : due_) {
        if (!flow->is_over)
            kill(*flow, RelayEnd::kCancelled, RelayParty::kDaemon);
    }
}

std::shared_ptr<KernelSplice::Flow> KernelSplice::plan(SpliceTable::Recording recording) {
    const auto route = routes_.to(recording.flow.destination.address);
    if (!route || !route->is_forwarded_out) {
        table_.count(SpliceRefusal::kNoRoute);
        return nullptr;
    }
    if (!table_.has_uplink(route->ifindex)) {
        table_.count(SpliceRefusal::kNoUplink);
        return nullptr;
    }
    recording.uplink_ifindex = route->ifindex;
    recording.next_hop = route->next_hop;
    recording.local = {route->source, 0};
    auto flow = std::make_shared<Flow>(table_, recording, context_);
    Flow* borrowed = flow.get();
    flow->source = net::DialSource(
        recording.local, [this, borrowed](const Endpoint& local) { return enter(*borrowed, local); });
    return flow;
}

const net::DialSource& KernelSplice::source(Flow& flow) {
    return flow.source;
}

bool KernelSplice::enter(Flow& flow, const Endpoint& local) {
    if (flow.id != 0)
        table_.remove(flow.recording.flow, std::exchange(flow.id, 0));
    flow.recording.local = local;
    const auto id = table_.record(flow.recording);
    if (id) {
        flow.id = *id;
        return true;
    }
    if (id.error().code() == ErrorCode::kExists)
        return false;
    refuse(flow, SpliceRefusal::kTableFull);
    return true; // the connection itself can be had
}

void KernelSplice::refuse(Flow& flow, SpliceRefusal refusal) {
    table_.count(refusal);
    if (flow.id != 0)
        table_.remove(flow.recording.flow, std::exchange(flow.id, 0));
}

bool KernelSplice::hand_off(const std::shared_ptr<Flow>& flow, tcp::socket& guest, tcp::socket& upstream) {
    if (flow->id == 0)
        return false; // counted when it was not entered
    const SpliceTable::Key& key = flow->recording.flow;
    if (!table_.hold(key, flow->id)) {
        refuse(*flow, SpliceRefusal::kEnding);
        return false;
    }
    Numbers numbers;
    const auto are_read = read_numbers(guest.native_handle(), upstream.native_handle(), numbers, scratch_);
    const auto entry = flow->find();
    if (!are_read || !entry || !*are_read) {
        refuse(*flow, are_read && entry ? SpliceRefusal::kFirstFlight : SpliceRefusal::kFailed);
        return false;
    }
    if (const auto refusal = refusal_of(*entry, numbers.guest, numbers.upstream)) {
        refuse(*flow, *refusal);
        return false;
    }

    const auto length = static_cast<std::uint32_t>(numbers.flight);
    flow->flight_begin = numbers.guest.receive_next - length;
    flow->upstream_begin = numbers.upstream.send_next;
    std::array<SpliceTable::NewSide, 2> sides;
    // What the server is to acknowledge first is the first flight, which the guest has acknowledgements of.
    sides[SpliceTable::kGuest] = {
        numbers.guest.receive_next, flow->flight_begin,       flow->upstream_begin - flow->flight_begin,
        numbers.upstream.clock,     numbers.guest.peer_scale, numbers.upstream.own_scale};
    sides[SpliceTable::kServer] = {numbers.upstream.receive_next,
                                   numbers.upstream.receive_next,
                                   numbers.guest.send_next - numbers.upstream.receive_next,
                                   numbers.guest.clock,
                                   numbers.upstream.peer_scale,
                                   numbers.guest.own_scale};
    if (!table_.forward(key, flow->id, sides)) {
        refuse(*flow, SpliceRefusal::kEnding);
        return false;
    }

    boost::system::error_code error;
    flow->upstream.reset(upstream.release(error));
    static_cast<void>(net::close_silently(flow->upstream.get()));
    static_cast<void>(net::close_silently(guest.native_handle()));
    guest.close(error);
    flow->flight.assign(scratch_.begin(), scratch_.begin() + length);
    flow->mss = std::max(numbers.upstream.send_mss, 1U);
    flow->peer_window = std::max(numbers.upstream.send_window, flow->mss);
    if (numbers.upstream.has_timestamps())
        flow->clock = numbers.upstream.clock;
    flow->since = steady_clock::now();
    flow->resend_at = flow->since + flow->resend;
    flow->give_up_at = flow->since + kFirstFlightTime;
    if (const auto forwarded = flow->find())
        send_first_flight(*flow, *forwarded);
    begin(flow);
    return true;
}

std::shared_ptr<KernelSplice::Flow> KernelSplice::adopt(const SpliceTable::Left& left) {
    auto flow = std::make_shared<Flow>(table_, left.recording, context_);
    flow->id = left.id;
    const auto entry = flow->find();
    if (!entry)
        return nullptr;
    // Else it is lost with the daemon that had it, and the guest will not send it again.
    if (!has_first_flight_arrived(*entry) || !table_.has_uplink(left.recording.uplink_ifindex)) {
        kill(*flow, RelayEnd::kCancelled, RelayParty::kDaemon);
        return nullptr;
    }
    // Without it the flow still goes on; but a socket of the host may take its port.
    if (auto port = net::hold_port(left.recording.local))
        flow->upstream = std::move(*port);
    else
        spdlog::warn("{}", port.error().message());
    flow->replays = entry->sides[SpliceTable::kGuest].replays;
    begin(flow);
    return flow;
}

bool KernelSplice::leave(Flow& flow) {
    const auto entry = flow.is_over ? std::nullopt : flow.find();
    if (!entry || !has_first_flight_arrived(*entry))
        return false;
    table_.leave(flow.recording.flow, std::exchange(flow.id, 0));
    flow.is_over = true;
    forget(flow);
    flow.wake.cancel();
    return true;
}

asio::awaitable<net::RelayResult> KernelSplice::run(std::shared_ptr<Flow> flow, net::RelayOptions options) {
    flow->options = options;
    const bool caller_throws = co_await asio::this_coro::throw_if_cancelled();
    co_await asio::this_coro::throw_if_cancelled(false);
    while (!flow->is_over) {
        const auto state = co_await asio::this_coro::cancellation_state;
        if (state.cancelled() != asio::cancellation_type::none) {
            kill(*flow, RelayEnd::kCancelled, RelayParty::kDaemon);
            break;
        }
        flow->wake.expires_at(asio::steady_timer::time_point::max());
        co_await flow->wake.async_wait(net::kAsTuple);
    }
    co_await asio::this_coro::throw_if_cancelled(caller_throws);
    co_return flow->result;
}

net::RelayCounters KernelSplice::carried(const Flow& flow) {
    const auto entry = flow.is_over ? std::nullopt : flow.find();
    if (!entry)
        return {flow.result.bytes_up, flow.result.bytes_down};
    return {entry->sides[SpliceTable::kGuest].bytes, entry->sides[SpliceTable::kServer].bytes};
}

void KernelSplice::begin(const std::shared_ptr<Flow>& flow) {
    flows_[flow->recording.flow] = flow;
    schedule(flow, steady_clock::now() + kShortestLook);
}

void KernelSplice::forget(const Flow& flow) {
    // Another one may have its key by now.
    const auto found = flows_.find(flow.recording.flow);
    if (found != flows_.end() && found->second.get() == &flow)
        flows_.erase(found);
}

void KernelSplice::changed(const SpliceTable::Key& key) {
    if (const auto found = flows_.find(key); found != flows_.end())
        look_at(std::shared_ptr(found->second));
}

void KernelSplice::routes_changed() {
    std::map<IpAddress, std::optional<net::Route>> routes; // nothing: there is none
    const auto route_to = [&](const IpAddress& destination) {
        const auto [known, is_new] = routes.try_emplace(destination, std::nullopt);
        if (is_new) {
            if (const auto route = routes_.to(destination); route && route->is_forwarded_out)
                known->second = *route;
        }
        return known->second;
    };
    std::vector<std::shared_ptr<Flow>> stranded;
    for (const auto& [key, flow] : flows_) {
        const auto route = route_to(key.destination.address);
        SpliceTable::Recording& recording = flow->recording;
        // Without a route, what the guest sends ends at the kernel's search for one, until there is one
        // again.
        const unsigned uplink = route ? route->ifindex : recording.uplink_ifindex;
        const IpAddress next_hop = route ? route->next_hop : IpAddress();
        if (uplink == recording.uplink_ifindex && next_hop == recording.next_hop)
            continue;
        // What comes back by an interface without our program would be the host's.
        if (!table_.has_uplink(uplink)) {
            stranded.push_back(flow);
        } else if (table_.reroute(key, flow->id, uplink, next_hop)) {
            recording.uplink_ifindex = uplink;
            recording.next_hop = next_hop;
        }
    }
    for (const auto& flow : stranded)
        kill(*flow, RelayEnd::kCancelled, RelayParty::kDaemon);
}

void KernelSplice::schedule(const std::shared_ptr<Flow>& flow, steady_clock::time_point when) {
    if (flow->due)
        due_.erase(*flow->due);
    const bool is_first = due_.empty() || when < due_.begin()->first;
    flow->due = due_.emplace(when, flow);
    if (is_first)
        arm();
}

void KernelSplice::arm() {
    timer_.expires_at(due_.begin()->first);
    timer_.async_wait([this](const boost::system::error_code& error) {
        if (!error)
            wake();
    });
}

void KernelSplice::wake() {
    const auto now = steady_clock::now();
    while (!due_.empty() && due_.begin()->first <= now) {
        const std::shared_ptr<Flow> flow = std::move(due_.begin()->second);
        due_.erase(due_.begin());
        flow->due.reset();
        // A flow that is over was kept for its entry alone, which goes with it.
        if (!flow->is_over)
            look_at(flow);
    }
    if (!due_.empty())
        arm();
}

void KernelSplice::look_at(const std::shared_ptr<Flow>& flow) {
    const auto entry = flow->find();
    const auto now = steady_clock::now();
    if (!entry || entry->state == SpliceTable::State::kEnded) {
        // A new SYN has ended it: a side that knows nothing of the connection any more.
        const bool by_server = entry && entry->sides[SpliceTable::kServer].has_reset;
        finish(*flow, entry.value_or(SpliceTable::Flow{}), RelayEnd::kReset,
               by_server ? RelayParty::kUpstream : RelayParty::kGuest);
        return;
    }
    if (entry->state == SpliceTable::State::kClosed) {
        for (const SpliceTable::End end : {SpliceTable::kGuest, SpliceTable::kServer}) {
            if (entry->sides[end].has_reset) {
                finish(*flow, *entry, RelayEnd::kReset, party_of(end));
                schedule(flow, now + kLinger);
                return;
            }
        }
        finish(*flow, *entry, RelayEnd::kFinished, RelayParty::kGuest);
        schedule(flow, now + kLinger);
        return;
    }
    if (!flow->flight.empty()) {
        look_at_first_flight(*flow, *entry);
        if (flow->is_over)
            return;
    } else if (entry->sides[SpliceTable::kGuest].replays != flow->replays) {
        // It has missed that the server has the first flight, and its own copy must not get there.
        flow->replays = entry->sides[SpliceTable::kGuest].replays;
        ask_for_acknowledgement(*flow, *entry);
    }
    const BootClock::time_point last =
        std::max(entry->sides[SpliceTable::kGuest].last, entry->sides[SpliceTable::kServer].last);
    const auto silence = std::chrono::duration_cast<milliseconds>(BootClock::now() - last);
    const bool has_fin = std::ranges::any_of(entry->sides, &SpliceTable::Side::has_finished);
    const milliseconds limit = has_fin ? flow->options.half_closed_timeout : flow->options.idle_timeout;
    if (silence >= limit) {
        kill(*flow, RelayEnd::kIdle, RelayParty::kDaemon);
        return;
    }
    const auto age = std::chrono::duration_cast<milliseconds>(now - flow->since);
    const milliseconds next =
        !flow->flight.empty() ? kShortestLook : std::clamp<milliseconds>(age, kShortestLook, kLongestLook);
    schedule(flow, now + std::min(next, limit - silence));
}

void KernelSplice::look_at_first_flight(Flow& flow, const SpliceTable::Flow& entry) {
    const auto now = steady_clock::now();
    if (now >= flow.give_up_at) {
        // Guest sees: a reset, as from a server that is gone. Operator sees: the flow ended by a reset of the
        // upstream.
        kill(flow, RelayEnd::kReset, RelayParty::kUpstream, ETIMEDOUT);
        return;
    }
    if (has_first_flight_arrived(entry)) {
        flow.flight = std::vector<std::uint8_t>(); // {} would keep the memory
        return;
    }
    if (now >= flow.resend_at) {
        flow.resend = std::min(flow.resend * 2, kLongestResend);
        flow.resend_at = now + flow.resend;
        flow.flight_sent = 0;
    }
    send_first_flight(flow, entry);
}

net::RawSegment KernelSplice::segment_to_server(const Flow& flow, const SpliceTable::Flow& entry) {
    const auto& [guest, server] = entry.sides;
    net::RawSegment segment;
    segment.from = flow.recording.local;
    segment.to = flow.recording.flow.destination;
    segment.flags = kAck;
    // Nothing older: a server that has sent more since drops it unread (RFC 5961 5.2).
    segment.acknowledgement = server.acked;
    segment.window = static_cast<std::uint16_t>(kWindow >> guest.shown_scale);
    // Nor is this older than what the server has seen of the guest meanwhile (RFC 7323 5).
    if (guest.has_clock_delta)
        segment.timestamps = net::RawSegment::Timestamps{guest.clock + guest.clock_delta, server.clock};
    else if (flow.clock)
        segment.timestamps = net::RawSegment::Timestamps{*flow.clock, server.clock};
    return segment;
}

void KernelSplice::send_first_flight(Flow& flow, const SpliceTable::Flow& entry) {
    const std::size_t acked = entry.sides[SpliceTable::kGuest].acked - flow.flight_begin;
    const std::size_t end = std::min(acked + flow.peer_window, flow.flight.size());
    net::RawSegment segment = segment_to_server(flow, entry);
    segment.flags |= kPush;
    std::size_t& sent = flow.flight_sent;
    for (sent = std::max(sent, acked); sent < end; sent += segment.payload.size()) {
        segment.sequence = flow.upstream_begin + static_cast<std::uint32_t>(sent);
        segment.payload = ByteView(flow.flight).subspan(sent, std::min<std::size_t>(flow.mss, end - sent));
        // What is not taken is as good as lost on the way, and sent again.
        static_cast<void>(raw_.send(segment));
    }
}

void KernelSplice::ask_for_acknowledgement(const Flow& flow, const SpliceTable::Flow& entry) {
    // As a keep-alive does: what lies before the server's window (RFC 9293 3.10.7.4 and 3.8.4).
    const SpliceTable::Side& guest = entry.sides[SpliceTable::kGuest];
    net::RawSegment segment = segment_to_server(flow, entry);
    segment.sequence = guest.acked + guest.delta - 1;
    static_cast<void>(raw_.send(segment));
}

void KernelSplice::finish(Flow& flow, const SpliceTable::Flow& entry, RelayEnd how, RelayParty who) {
    flow.result.bytes_up = entry.sides[SpliceTable::kGuest].bytes;
    flow.result.bytes_down = entry.sides[SpliceTable::kServer].bytes;
    flow.result.how = how;
    flow.result.who = who;
    if (how == RelayEnd::kReset)
        flow.result.error_number = ECONNRESET;
    flow.is_over = true;
    forget(flow);
    table_.conclude(flow.recording.flow, flow.id);
    flow.upstream.reset();
    flow.flight = std::vector<std::uint8_t>(); // {} would keep the memory
    flow.wake.cancel();
}

void KernelSplice::kill(Flow& flow, RelayEnd how, RelayParty who, int error_number) {
    const auto entry = flow.find();
    table_.remove(flow.recording.flow, std::exchange(flow.id, 0));
    finish(flow, entry.value_or(SpliceTable::Flow{}), how, who);
    if (error_number != 0)
        flow.result.error_number = error_number;
    if (entry)
        reset_both(flow, *entry);
}

void KernelSplice::reset_both(const Flow& flow, const SpliceTable::Flow& entry) {
    // A reset counts only with just the number that its receiver expects next (RFC 5961 3.2). That is what it
    // has acknowledged, or if nothing is under way what was sent last. Whoever is missed by both finds out by
    // what it sends next: there is no flow any more, and it is answered with a reset.
    const auto& [guest, server] = entry.sides;
    net::RawSegment segment;
    segment.flags = kReset | kAck;
    segment.from = flow.recording.local;
    segment.to = flow.recording.flow.destination;
    segment.acknowledgement = server.end;
    for (const std::uint32_t sequence : {guest.acked, guest.end}) {
        segment.sequence = sequence + guest.delta;
        static_cast<void>(raw_.send(segment));
    }
    segment.from = flow.recording.flow.destination;
    segment.to = flow.recording.flow.guest;
    segment.acknowledgement = guest.end;
    for (const std::uint32_t sequence : {server.acked, server.end}) {
        segment.sequence = sequence + server.delta;
        static_cast<void>(raw_.send(segment));
    }
}

} // namespace tapgate::proxy
