// SPDX-License-Identifier: Apache-2.0
#include "net/gated_relay.hpp"

#include "base/result.hpp"
#include "net/async.hpp"

#include <boost/asio/post.hpp>

#include <algorithm>
#include <utility>
#include <vector>

namespace tapgate::net {

namespace asio = boost::asio;
using asio::ip::tcp;
using std::chrono::steady_clock;

namespace {

/// Reads before the other sessions of the worker get their turn.
constexpr unsigned kReadsPerTurn = 8;

/// The direction down is that of a copy session, with the gate looking on. The direction up:
///
///     read --> held --offer()--> pass: to the upstream
///      ^                 |------ kMore: read, until the deadline
///      |                 |------ kAnswer: wait for the upstream
///      +-----------------+       kOpen: flush, then as a copy session until it can be
///                                 given back; kRefuse: end
class GatedSession final : public CopySession {
  public:
    GatedSession(tcp::socket guest, tcp::socket upstream, std::shared_ptr<CopyBuffer> scratch,
                 const RelayOptions& options, RelayGate& gate)
        : CopySession(std::move(guest), std::move(upstream), std::move(scratch), options), gate_(gate),
          answer_wait_(socket(RelayParty::kGuest).get_executor(), steady_clock::time_point::max()) {}

    /// The guest's only after kRefused and kOpened, the upstream's only after kOpened.
    tcp::socket take(RelayParty party) { return std::move(socket(party)); }

    [[nodiscard]] bool guest_is_owed() const { return is_sending(Direction::kDown); }

  private:
    asio::awaitable<void> carry(Direction direction) override;
    void between_buffers() override;
    void passing(Direction direction, ByteView bytes) override;
    void passing_end(Direction direction) override;
    void release() override;

    asio::awaitable<void> carry_offers();
    asio::awaitable<GateCue> read_more(std::optional<steady_clock::time_point> deadline);
    asio::awaitable<void> send_held(std::size_t length);
    void wake_offers();

    RelayGate& gate_;
    bool is_open_ = false;
    bool has_end_ = false; ///< of either direction
    std::vector<std::uint8_t> held_;
    asio::steady_timer answer_wait_; ///< never expires; cancelled when there is an answer
    std::uint64_t answers_ = 0;      ///< by which an answer that came before the wait is noticed
};

asio::awaitable<void> GatedSession::carry(Direction direction) {
    if (direction == Direction::kDown)
        co_await CopySession::carry(direction);
    else
        co_await carry_offers();
}

asio::awaitable<void> GatedSession::carry_offers() {
    GateCue cue = GateCue::kBytes;
    for (unsigned offers = 1; !is_ending(); ++offers) {
        const std::uint64_t answers = answers_;
        const GateStep step = gate_.offer(held_, cue);
        if (step.then == GateStep::Then::kOpen)
            is_open_ = true;
        co_await send_held(step.pass);
        if (is_ending())
            co_return;
        switch (step.then) {
        case GateStep::Then::kMore:
            if (cue == GateCue::kEnd) {
                TAPGATE_ASSERT(held_.empty());
                source_ended(Direction::kUp);
                co_return;
            }
            cue = co_await read_more(step.deadline);
            break;
        case GateStep::Then::kAnswer:
            if (answers == answers_)
                co_await answer_wait_.async_wait(kAsTuple);
            if (cue == GateCue::kLate)
                cue = GateCue::kBytes;
            break;
        case GateStep::Then::kOpen:
            co_await send_held(held_.size());
            if (is_ending())
                co_return;
            if (cue == GateCue::kEnd) {
                has_end_ = true;
                source_ended(Direction::kUp);
            } else {
                co_await CopySession::carry(Direction::kUp);
            }
            co_return;
        case GateStep::Then::kRefuse:
            end(RelayEnd::kRefused, RelayParty::kGuest);
            co_return;
        }
        if (offers % kReadsPerTurn == 0)
            co_await asio::post(socket(RelayParty::kGuest).get_executor(), asio::use_awaitable);
    }
}

asio::awaitable<GateCue> GatedSession::read_more(std::optional<steady_clock::time_point> deadline) {
    TAPGATE_ASSERT(held_.size() < gate_.capacity());
    while (!is_ending()) {
        const std::size_t room = std::min(scratch().size(), gate_.capacity() - held_.size());
        const std::ptrdiff_t received = receive(Direction::kUp, room);
        if (received > 0) {
            held_.insert(held_.end(), scratch().begin(), scratch().begin() + received);
            co_return GateCue::kBytes;
        }
        if (received == 0)
            co_return GateCue::kEnd;
        if (is_ending())
            break;
        if (held_.empty())
            std::vector<std::uint8_t>().swap(held_); // an idle session holds no buffer
        const auto error = co_await wait_readable_until(socket(RelayParty::kGuest),
                                                        deadline.value_or(steady_clock::time_point::max()));
        if (error == asio::error::timed_out)
            co_return GateCue::kLate;
    }
    co_return GateCue::kLate;
}

/// Sends the front of what is held, unless the session ends.
asio::awaitable<void> GatedSession::send_held(std::size_t length) {
    const bool is_sent = co_await send_all(Direction::kUp, held_.data(), length);
    if (is_sent)
        held_.erase(held_.begin(), held_.begin() + static_cast<std::ptrdiff_t>(length));
}

void GatedSession::between_buffers() {
    // Neither direction holds anything: whoever carries on begins with what the sockets hold.
    if (is_open_ && !has_end_ && !is_sending(Direction::kUp) && !is_sending(Direction::kDown))
        end(RelayEnd::kOpened, RelayParty::kDaemon);
}

void GatedSession::passing(Direction direction, ByteView bytes) {
    if (direction != Direction::kDown || is_open_)
        return;
    gate_.answered(bytes);
    wake_offers();
}

void GatedSession::passing_end(Direction direction) {
    has_end_ = true;
    if (direction != Direction::kDown || is_open_)
        return;
    gate_.answer_ended();
    wake_offers();
}

void GatedSession::wake_offers() {
    ++answers_;
    answer_wait_.cancel();
}

void GatedSession::release() {
    answer_wait_.cancel();
    boost::system::error_code ignored;
    switch (result().how) {
    case RelayEnd::kRefused:
        socket(RelayParty::kUpstream).close(ignored);
        break;
    case RelayEnd::kOpened:
        socket(RelayParty::kUpstream).cancel(ignored);
        break;
    default:
        CopySession::release();
        return;
    }
    socket(RelayParty::kGuest).cancel(ignored);
    stop_watching();
    released();
}

} // namespace

GatedRelay::~GatedRelay() {
    cancel_all(sessions_);
}

asio::awaitable<GatedResult> GatedRelay::run(tcp::socket& guest, tcp::socket upstream,
                                             const RelayOptions& options, RelayGate& gate) {
    const auto session =
        std::make_shared<GatedSession>(std::move(guest), std::move(upstream), scratch_, options, gate);
    sessions_.push_back(*session);
    session->start();
    GatedResult result;
    result.relay = co_await supervise(session);
    if (result.relay.how == RelayEnd::kRefused) {
        result.guest_is_owed = session->guest_is_owed();
        guest = session->take(RelayParty::kGuest);
    } else if (result.relay.how == RelayEnd::kOpened) {
        guest = session->take(RelayParty::kGuest);
        result.upstream = session->take(RelayParty::kUpstream);
    }
    co_return result;
}

} // namespace tapgate::net
