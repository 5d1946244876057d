// SPDX-License-Identifier: Apache-2.0
//
// The relay over io_uring. One ring and one buffer pool per worker; per session one Flow per direction, which
// is at each time in one step, and one Watch per side:
//
//     receive ---------> send ---> receive     the kernel picks a buffer when data has arrived: idle flows
//     hold none
//        | no buffer
//        v
//     await data ---> starving ---> receive ready      first come, first served; a flow enters with data at
//     hand, so
//                                                      each buffer granted is used at once
//
// A flow whose sink is stalled holds its buffer until half of the pool is out. From then on stalled flows
// copy what is left into memory of their own: sessions that do not read cannot starve the others (I8). While
// its sink is stalled a flow does not receive, so an RST of the source would go unnoticed: hence the watches.

#include "base/unique_fd.hpp"
#include "net/buffer_pool.hpp"
#include "net/relay_session.hpp"
#include "net/socket_options.hpp"
#include "net/uring.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <new>
#include <optional>
#include <utility>

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

namespace tapgate::net {

namespace asio = boost::asio;
using asio::ip::tcp;

namespace {

class UringSession;

class Flow final : public UringOperation {
  public:
    Flow(UringSession& session, Direction direction) : session_(session), direction_(direction) {}

    void receive();
    /// A buffer is reserved for this flow, which is known to have data.
    void receive_ready();
    /// The session is ending: takes back what the kernel has not seen yet.
    void stop();
    /// Gives the buffer back, if it holds one.
    void drop_buffer();

    /// In the relay's queue for a buffer.
    boost::intrusive::list_member_hook<boost::intrusive::link_mode<boost::intrusive::auto_unlink>>
        starving_hook;

  private:
    enum class Step : std::uint8_t { kReceive, kReceiveReady, kAwaitData, kSend };

    void prepare(io_uring_sqe& entry) override;
    void completed(int result, std::uint32_t flags) override;

    void begin(Step step);
    void received(int result);
    void has_data(int result);
    void sent(int result);
    void starve_again();
    void send();
    bool keep_tail_apart();

    UringSession& session_;
    Direction direction_;
    Step step_ = Step::kReceive;
    bool may_wait_ = true; ///< whether a send waits for room or reports EAGAIN
    std::optional<std::uint16_t> buffer_;
    std::unique_ptr<std::uint8_t[]> tail_;
    const std::uint8_t* data_ = nullptr; ///< what is left to send, in the buffer or in tail_
    std::size_t length_ = 0;
};

/// Reports an RST of one side whatever the flows are doing.
class Watch final : public UringOperation {
  public:
    Watch(UringSession& session, RelayParty party) : session_(session), party_(party) {}

  private:
    void prepare(io_uring_sqe& entry) override;
    void completed(int result, std::uint32_t flags) override;

    UringSession& session_;
    RelayParty party_;
};

/// Takes back everything the kernel has of one side.
class Cancel final : public UringOperation {
  public:
    Cancel(UringSession& session, RelayParty party) : session_(session), party_(party) {}

  private:
    void prepare(io_uring_sqe& entry) override;
    void completed(int result, std::uint32_t flags) override;

    UringSession& session_;
    RelayParty party_;
};

class UringRelay final : public Relay {
  public:
    UringRelay(std::shared_ptr<Uring> ring, std::unique_ptr<BufferPool> pool)
        : ring_(std::move(ring)), pool_(std::move(pool)) {}

    ~UringRelay() override;

    asio::awaitable<RelayResult> run(tcp::socket guest, tcp::socket upstream,
                                     const RelayOptions& options) override;

    [[nodiscard]] std::string_view name() const override { return "uring"; }

    [[nodiscard]] Uring& ring() { return *ring_; }

    [[nodiscard]] BufferPool& pool() { return *pool_; }

    void put_buffer(std::uint16_t id);
    /// Queues `flow`, which has data, for a buffer: at the end, or at the front if it was granted one in
    /// vain.
    void starve(Flow& flow, bool at_front);

    [[nodiscard]] bool has_starving() const { return !starving_.empty(); }

    /// A receive that receive_ready() began is over.
    void grant_used();

    /// True when a stalled flow must not hold a buffer.
    [[nodiscard]] bool is_scarce() const { return pool_->available() * 2 < pool_->size(); }

  private:
    void grant();

    using StarvingFlows = boost::intrusive::list<
        Flow,
        boost::intrusive::member_hook<
            Flow,
            boost::intrusive::list_member_hook<boost::intrusive::link_mode<boost::intrusive::auto_unlink>>,
            &Flow::starving_hook>,
        boost::intrusive::constant_time_size<false>>;

    std::shared_ptr<Uring> ring_;
    std::unique_ptr<BufferPool> pool_;
    RelaySessions sessions_;
    StarvingFlows starving_;
    unsigned granted_ = 0; ///< buffers reserved for receives under way
};

/// Holds itself for as long as the kernel has operations of it; does not touch the relay afterwards.
class UringSession final : public RelaySession, public std::enable_shared_from_this<UringSession> {
  public:
    UringSession(UringRelay& relay, const asio::any_io_executor& executor, const RelayOptions& options)
        : RelaySession(executor, options), relay_(relay),
          flows_{{{*this, Direction::kUp}, {*this, Direction::kDown}}},
          watches_{{{*this, RelayParty::kGuest}, {*this, RelayParty::kUpstream}}},
          cancels_{{{*this, RelayParty::kGuest}, {*this, RelayParty::kUpstream}}} {}

    void start(tcp::socket guest, tcp::socket upstream);

    [[nodiscard]] UringRelay& relay() { return relay_; }

    [[nodiscard]] int fd(RelayParty party) const { return fds_[party == RelayParty::kGuest ? 0 : 1].get(); }

    using RelaySession::carried;
    using RelaySession::source_finished;

    /// To be called last by each operation that has completed: the session may be destroyed by it.
    void operation_completed();

  private:
    bool adopt(UniqueFd& fd, tcp::socket& socket);
    void release() override;
    void close_sockets();

    UringRelay& relay_;
    std::array<UniqueFd, 2> fds_;
    std::array<Flow, 2> flows_;
    std::array<Watch, 2> watches_;
    std::array<Cancel, 2> cancels_;
    std::shared_ptr<UringSession> self_;
};

// --- Flow ------------------------------------------------------------------------------------------

void Flow::begin(Step step) {
    step_ = step;
    session_.relay().ring().start(*this);
}

void Flow::receive() {
    // While others are starving nobody takes a buffer out of turn.
    begin(session_.relay().has_starving() ? Step::kAwaitData : Step::kReceive);
}

void Flow::receive_ready() {
    begin(Step::kReceiveReady);
}

void Flow::send() {
    may_wait_ = tail_ != nullptr || !session_.relay().is_scarce();
    begin(Step::kSend);
}

void Flow::prepare(io_uring_sqe& entry) {
    const int source = session_.fd(source_of(direction_));
    switch (step_) {
    case Step::kReceive:
    case Step::kReceiveReady:
        io_uring_prep_recv(&entry, source, nullptr, session_.relay().pool().buffer_bytes(),
                           step_ == Step::kReceiveReady ? MSG_DONTWAIT : 0);
        io_uring_sqe_set_flags(&entry, IOSQE_BUFFER_SELECT);
        entry.buf_group = BufferPool::kGroup;
        return;
    case Step::kAwaitData:
        io_uring_prep_poll_add(&entry, source, POLLIN | POLLRDHUP);
        return;
    case Step::kSend:
        io_uring_prep_send(&entry, session_.fd(sink_of(direction_)), data_, length_,
                           MSG_NOSIGNAL | (may_wait_ ? 0 : MSG_DONTWAIT));
        return;
    }
}

void Flow::completed(int result, std::uint32_t flags) {
    if ((flags & IORING_CQE_F_BUFFER) != 0) {
        buffer_ = static_cast<std::uint16_t>(flags >> IORING_CQE_BUFFER_SHIFT);
        data_ = session_.relay().pool().take(*buffer_);
    }
    const Step step = step_;
    if (!session_.is_ending()) {
        switch (step) {
        case Step::kReceive:
        case Step::kReceiveReady:
            received(result);
            break;
        case Step::kAwaitData:
            has_data(result);
            break;
        case Step::kSend:
            sent(result);
            break;
        }
    }
    if (step == Step::kReceiveReady)
        session_.relay().grant_used();
    session_.operation_completed();
}

void Flow::received(int result) {
    if (result > 0) {
        length_ = static_cast<std::size_t>(result);
        send();
        return;
    }
    drop_buffer();
    switch (-result) {
    case 0:
        session_.source_finished(direction_, session_.fd(sink_of(direction_)));
        return;
    case ENOBUFS:
        if (step_ == Step::kReceiveReady)
            session_.relay().starve(*this, true); // a receive begun before the shortage has taken it
        else
            begin(Step::kAwaitData);
        return;
    case EAGAIN:
        begin(Step::kAwaitData);
        return;
    case EINTR:
        begin(Step::kReceive);
        return;
    default:
        session_.end_by_error(source_of(direction_), -result);
    }
}

void Flow::has_data(int result) {
    if (result < 0)
        session_.end_by_error(source_of(direction_), -result);
    else
        session_.relay().starve(*this, false);
}

void Flow::sent(int result) {
    if (result >= 0) {
        const auto bytes = static_cast<std::size_t>(result);
        session_.carried(direction_, bytes);
        data_ += bytes;
        length_ -= bytes;
        if (length_ == 0) {
            tail_.reset();
            drop_buffer();
            receive();
            return;
        }
    } else if (result != -EAGAIN && result != -EINTR) {
        session_.end_by_error(sink_of(direction_), -result);
        return;
    }
    if (session_.relay().is_scarce() && !keep_tail_apart()) {
        session_.end(RelayEnd::kFailed, RelayParty::kDaemon, ENOMEM);
        return;
    }
    send();
}

/// Copies what is left to send into memory of the flow's own and gives the buffer back; false without memory.
bool Flow::keep_tail_apart() {
    if (tail_)
        return true;
    tail_.reset(new (std::nothrow) std::uint8_t[length_]);
    if (!tail_)
        return false;
    std::copy_n(data_, length_, tail_.get());
    data_ = tail_.get();
    drop_buffer();
    return true;
}

void Flow::drop_buffer() {
    if (!buffer_)
        return;
    session_.relay().put_buffer(*buffer_);
    buffer_.reset();
}

void Flow::stop() {
    starving_hook.unlink();
    const bool was_busy = is_busy();
    if (session_.relay().ring().withdraw(*this) && was_busy && step_ == Step::kReceiveReady)
        session_.relay().grant_used();
}

// --- Watch, Cancel ---------------------------------------------------------------------------------

void Watch::prepare(io_uring_sqe& entry) {
    // Always reports POLLRDHUP too, asked for or not, and that stays after a FIN. Multishot reports changes
    // only, so it neither fires for ever nor misses the RST that may follow the FIN.
    io_uring_prep_poll_multishot(&entry, session_.fd(party_), POLLERR | POLLHUP);
}

void Watch::completed(int result, std::uint32_t /*flags*/) {
    if (!session_.is_ending()) {
        if (result < 0)
            session_.end(RelayEnd::kFailed, RelayParty::kDaemon, -result);
        else if ((result & POLLERR) != 0)
            session_.end_by_pending_error(party_, session_.fd(party_));
        else if (!is_busy())
            session_.relay().ring().start(*this); // the kernel ran out of room for completions
    }
    session_.operation_completed();
}

void Cancel::prepare(io_uring_sqe& entry) {
    io_uring_prep_cancel_fd(&entry, session_.fd(party_), IORING_ASYNC_CANCEL_ALL);
}

void Cancel::completed(int /*result*/, std::uint32_t /*flags*/) {
    session_.operation_completed();
}

// --- UringSession ----------------------------------------------------------------------------------

/// Takes the descriptor out of the reactor, where each segment would cause a wake-up, and makes it blocking:
/// on a non-blocking one io_uring reports EAGAIN instead of waiting.
bool UringSession::adopt(UniqueFd& fd, tcp::socket& socket) {
    boost::system::error_code error;
    fd.reset(socket.release(error));
    if (error) {
        end(RelayEnd::kFailed, RelayParty::kDaemon, error.value());
        return false;
    }
    int off = 0;
    if (::ioctl(fd.get(), FIONBIO, &off) != 0) {
        end(RelayEnd::kFailed, RelayParty::kDaemon, errno);
        return false;
    }
    return true;
}

void UringSession::start(tcp::socket guest, tcp::socket upstream) {
    if (!adopt(fds_[0], guest) || !adopt(fds_[1], upstream))
        return;
    self_ = shared_from_this();
    for (Watch& watch : watches_)
        relay_.ring().start(watch);
    for (Flow& flow : flows_)
        flow.receive();
}

void UringSession::release() {
    if (!self_) {
        close_sockets();
        released();
        return;
    }
    for (Flow& flow : flows_)
        flow.stop();
    for (Watch& watch : watches_)
        (void)relay_.ring().withdraw(watch);
    // Requests hold the socket open: it is closed, and an RST sent, when the last one has come back.
    for (Cancel& cancel : cancels_)
        relay_.ring().start(cancel);
}

void UringSession::operation_completed() {
    if (!is_ending())
        return;
    const auto is_busy = [](const UringOperation& operation) { return operation.is_busy(); };
    if (std::ranges::any_of(flows_, is_busy) || std::ranges::any_of(watches_, is_busy) ||
        std::ranges::any_of(cancels_, is_busy))
        return;
    for (Flow& flow : flows_)
        flow.drop_buffer();
    close_sockets();
    const auto last_hold = std::move(self_);
    released();
}

void UringSession::close_sockets() {
    for (UniqueFd& fd : fds_) {
        if (fd)
            before_close(fd.get());
        fd.reset();
    }
}

// --- UringRelay ------------------------------------------------------------------------------------

UringRelay::~UringRelay() {
    cancel_all(sessions_);
    ring_->drain();
}

asio::awaitable<RelayResult> UringRelay::run(tcp::socket guest, tcp::socket upstream,
                                             const RelayOptions& options) {
    const auto session = std::make_shared<UringSession>(*this, guest.get_executor(), options);
    sessions_.push_back(*session);
    session->start(std::move(guest), std::move(upstream));
    co_return co_await supervise(session);
}

void UringRelay::put_buffer(std::uint16_t id) {
    pool_->put(id);
    grant();
}

void UringRelay::starve(Flow& flow, bool at_front) {
    if (at_front)
        starving_.push_front(flow);
    else
        starving_.push_back(flow);
    grant();
}

void UringRelay::grant_used() {
    --granted_;
    grant();
}

void UringRelay::grant() {
    while (!starving_.empty() && granted_ < pool_->available()) {
        Flow& flow = starving_.front();
        starving_.pop_front();
        ++granted_;
        flow.receive_ready();
    }
}

// --- set-up ----------------------------------------------------------------------------------------

struct Completion {
    std::uint64_t request = 0;
    int result = 0;
    std::uint32_t flags = 0;
};

/// One completion of `ring`, waited for; nothing on failure.
std::optional<Completion> next_completion(io_uring& ring) {
    io_uring_cqe* entry = nullptr;
    if (io_uring_wait_cqe(&ring, &entry) != 0)
        return std::nullopt;
    const Completion completion{.request = entry->user_data, .result = entry->res, .flags = entry->flags};
    io_uring_cqe_seen(&ring, entry);
    return completion;
}

/// Tries what sessions rely on: that the kernel picks a buffer, and that everything of a descriptor can be
/// cancelled.
bool works(io_uring& ring, BufferPool& pool) {
    constexpr std::uint64_t kPoll = 1;
    constexpr std::uint64_t kCancel = 2;
    std::array<int, 2> pair{};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) != 0)
        return false;
    const UniqueFd reader(pair[0]);
    const UniqueFd writer(pair[1]);
    if (::send(writer.get(), "?", 1, MSG_NOSIGNAL) != 1)
        return false;

    io_uring_sqe* entry = io_uring_get_sqe(&ring);
    io_uring_prep_recv(entry, reader.get(), nullptr, pool.buffer_bytes(), 0);
    io_uring_sqe_set_flags(entry, IOSQE_BUFFER_SELECT);
    entry->buf_group = BufferPool::kGroup;
    if (io_uring_submit(&ring) != 1)
        return false;
    const auto received = next_completion(ring);
    if (!received || received->result != 1 || (received->flags & IORING_CQE_F_BUFFER) == 0)
        return false;
    const auto id = static_cast<std::uint16_t>(received->flags >> IORING_CQE_BUFFER_SHIFT);
    if (*pool.take(id) != '?')
        return false;
    pool.put(id);

    entry = io_uring_get_sqe(&ring);
    io_uring_prep_poll_add(entry, reader.get(), POLLERR);
    io_uring_sqe_set_data64(entry, kPoll);
    entry = io_uring_get_sqe(&ring);
    io_uring_prep_cancel_fd(entry, reader.get(), IORING_ASYNC_CANCEL_ALL);
    io_uring_sqe_set_data64(entry, kCancel);
    if (io_uring_submit(&ring) != 2)
        return false;
    for (int i = 0; i < 2; ++i) {
        const auto done = next_completion(ring);
        if (!done || (done->request == kCancel && done->result < 0))
            return false;
    }
    return true;
}

} // namespace

Result<std::unique_ptr<Relay>> make_uring_relay(asio::io_context& context, const UringSettings& settings) {
    if (!std::has_single_bit(settings.buffer_count) || settings.buffer_count > 32768 ||
        !std::has_single_bit(settings.queue_entries) || settings.queue_entries < 2 ||
        settings.queue_entries > 8192 || settings.buffer_bytes < 1 || settings.buffer_bytes > (1U << 30U))
        return fail(
            ErrorCode::kInvalid,
            "uring relay: buffers must be a power of two up to 32768 of at most 1 GiB, queue entries a "
            "power of two of 2 to 8192");
    auto ring = Uring::open(context, settings.queue_entries);
    if (!ring)
        return fail(std::move(ring.error()));
    auto pool = BufferPool::open(*ring, settings.buffer_count, settings.buffer_bytes);
    if (!pool)
        return fail(std::move(pool.error()));
    if (!works((*ring)->native(), **pool))
        return fail(ErrorCode::kUnsupported,
                    "set up io_uring: picking buffers or cancelling does not work (needs Linux 5.19)");
    return std::make_unique<UringRelay>(std::move(*ring), std::move(*pool));
}

} // namespace tapgate::net
