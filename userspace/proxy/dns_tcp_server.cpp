// SPDX-License-Identifier: Apache-2.0
#include "proxy/dns_tcp_server.hpp"

#include "net/async.hpp"
#include "net/socket_options.hpp"
#include "proxy/dns_stream.hpp"

#include <boost/asio/steady_timer.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <deque>
#include <optional>
#include <utility>

#include <sys/socket.h>

namespace tapgate::proxy {

namespace asio = boost::asio;
using asio::ip::tcp;
using Clock = std::chrono::steady_clock;

namespace {

/// Queries of one connection in flight. With answers of at most 64 KiB this is also what bounds its memory.
constexpr unsigned kMaxInFlight = 16;
/// Answers that wait for the guest to take them; over it no query is read.
constexpr std::size_t kMaxQueuedBytes = 65536;
/// A guest over its rate or number of queries is not read from for so long, and its TCP slows down.
constexpr std::chrono::milliseconds kCapPause{100};

std::uint32_t current_second() {
    const auto now = Clock::now().time_since_epoch();
    return static_cast<std::uint32_t>(std::chrono::duration_cast<std::chrono::seconds>(now).count());
}

} // namespace

/// One connection: a coroutine that reads queries, one that writes answers, and a coroutine for each query in
/// flight between them. All run on the worker's thread; each keeps the connection alive.
///
///     open ── FIN, idle, malformed length ──► draining ── last answer written ──► closed, with a FIN
///       └──── error, guest removed, stop ───────┴─────────────────────────────► closed, with a RST
class DnsTcpServer::Connection : public std::enable_shared_from_this<Connection> {
  public:
    Connection(DnsTcpServer& server, tcp::socket socket, const Guest& guest, CapTicket ticket)
        : server_(server), socket_(std::move(socket)), guest_(guest.id), ifindex_(guest.ifindex),
          ticket_(std::move(ticket)), reader_wake_(server.context_), writer_wake_(server.context_) {}

    // The coroutines hold the connection; Asio may begin them later.
    static asio::awaitable<void> run_reader(std::shared_ptr<Connection> connection) {
        co_await connection->read();
    }

    static asio::awaitable<void> run_writer(std::shared_ptr<Connection> connection) {
        co_await connection->write();
    }

    /// Queues a framed answer; false if the connection is gone.
    bool enqueue(std::vector<std::uint8_t> frame);
    void query_ended();
    void reset();

    [[nodiscard]] GuestId guest() const { return guest_; }

    [[nodiscard]] unsigned ifindex() const { return ifindex_; }

    [[nodiscard]] KernelState& kernel() const { return server_.kernel_; }

  private:
    [[nodiscard]] bool may_read() const {
        return in_flight_ < kMaxInFlight && queued_bytes_ <= kMaxQueuedBytes;
    }

    asio::awaitable<void> read();
    asio::awaitable<void> write();
    /// Waits for bytes and takes some; false when reading is over.
    asio::awaitable<bool> read_some();
    /// Gives `message` to the resolver, once the guest's caps admit it.
    asio::awaitable<void> admit(std::vector<std::uint8_t> message);
    asio::awaitable<CapTicket> wait_for_place();
    /// Sends the frontmost answer; false if the guest does not take it.
    asio::awaitable<bool> write_front();
    /// Sleeps until `timer` is cancelled.
    static asio::awaitable<void> sleep(asio::steady_timer& timer);

    DnsTcpServer& server_;
    tcp::socket socket_;
    GuestId guest_;
    unsigned ifindex_;
    CapTicket ticket_;
    DnsStreamReader reader_;
    /// When a query last began or ended: what the idle time counts from.
    Clock::time_point active_ = Clock::now();
    unsigned in_flight_ = 0;
    std::deque<std::vector<std::uint8_t>> queue_; // framed answers, the front one being sent
    std::size_t queued_bytes_ = 0;
    bool is_draining_ = false;
    asio::steady_timer reader_wake_;
    asio::steady_timer writer_wake_;
};

/// The way back of one query on a connection.
class DnsTcpServer::Channel final : public DnsChannel {
  public:
    Channel(std::shared_ptr<Connection> connection, CapTicket ticket)
        : connection_(std::move(connection)), ticket_(std::move(ticket)) {}

    ~Channel() override { connection_->query_ended(); }

    [[nodiscard]] policy::Protocol transport() const override { return policy::Protocol::kTcp; }

    Delivery deliver(const DnsReply& reply) override {
        if (reply.recording) {
            const auto recorded =
                connection_->kernel().record_answer(connection_->ifindex(), *reply.recording);
            if (!recorded)
                return recorded.error().code() == ErrorCode::kLimit ? Delivery::kNoRoom
                                                                    : Delivery::kUnrecorded;
        }
        return connection_->enqueue(dns_frame(reply.bytes)) ? Delivery::kDelivered : Delivery::kLost;
    }

  private:
    std::shared_ptr<Connection> connection_;
    CapTicket ticket_; // held while the query is in flight
};

asio::awaitable<void> DnsTcpServer::Connection::sleep(asio::steady_timer& timer) {
    timer.expires_at(Clock::time_point::max());
    co_await timer.async_wait(net::kAsTuple);
}

asio::awaitable<void> DnsTcpServer::Connection::read() {
    for (;;) {
        if (auto message = reader_.next()) {
            std::vector<std::uint8_t> bytes = std::move(*message);
            co_await admit(std::move(bytes));
        } else if (!socket_.is_open()) {
            break;
        } else if (!may_read()) {
            co_await sleep(reader_wake_);
        } else if (!co_await read_some()) {
            break;
        }
    }
    is_draining_ = true;
    writer_wake_.cancel();
}

asio::awaitable<bool> DnsTcpServer::Connection::read_some() {
    std::array<std::uint8_t, kStreamReadSize> buffer{};
    const std::size_t size = std::min(buffer.size(), reader_.wanted());
    const ssize_t length = ::recv(socket_.native_handle(), buffer.data(), size, MSG_DONTWAIT);
    if (length > 0) {
        reader_.add(ByteView(buffer).first(static_cast<std::size_t>(length)));
        co_return true;
    }
    if (length == 0)
        co_return false;
    if (errno == EINTR)
        co_return true;
    if (errno != EAGAIN) {
        reset();
        co_return false;
    }
    const Clock::time_point deadline = active_ + server_.idle_timeout_;
    const boost::system::error_code error = co_await net::wait_readable_until(socket_, deadline);
    if (error != asio::error::timed_out)
        co_return true; // or closed, which the next turn finds out
    // A query in flight keeps the connection, bytes of one that never gets complete do not.
    if (in_flight_ == 0)
        co_return false;
    active_ = Clock::now();
    co_return true;
}

asio::awaitable<void> DnsTcpServer::Connection::admit(std::vector<std::uint8_t> message) {
    CapTicket ticket = co_await wait_for_place();
    std::shared_ptr<const Guest> guest = server_.find_guest_(guest_);
    if (!ticket || !guest)
        co_return;
    ++in_flight_;
    active_ = Clock::now();
    auto channel = std::make_shared<Channel>(shared_from_this(), std::move(ticket));
    net::spawn(server_.context_.get_executor(), "dns query",
               server_.resolver_.serve(std::move(guest), std::move(message), std::move(channel)));
}

asio::awaitable<CapTicket> DnsTcpServer::Connection::wait_for_place() {
    for (bool is_counted = false;; is_counted = true) {
        const std::shared_ptr<const Guest> guest = server_.find_guest_(guest_);
        if (!guest || !socket_.is_open())
            co_return CapTicket();
        CapTicket ticket = take_query_place(*guest);
        if (ticket && guest->counters->admit_query(current_second(), guest->limits.dns_queries_per_second))
            co_return ticket;
        // Guest sees: its answers come later. Operator sees: dns-rate, raised by [limits] dns_qps.
        if (!is_counted)
            kernel().count_refusal(ifindex_, Refusal::kDnsRate);
        asio::steady_timer pause(server_.context_, kCapPause);
        co_await pause.async_wait(net::kAsTuple);
    }
}

asio::awaitable<void> DnsTcpServer::Connection::write() {
    while (socket_.is_open()) {
        if (!queue_.empty()) {
            if (!co_await write_front())
                reset();
        } else if (is_draining_ && in_flight_ == 0) {
            (void)net::finish_on_close(socket_.native_handle()); // else it is reset
            boost::system::error_code ignored;
            socket_.close(ignored);
        } else {
            co_await sleep(writer_wake_);
        }
    }
    reader_wake_.cancel();
}

asio::awaitable<bool> DnsTcpServer::Connection::write_front() {
    const std::vector<std::uint8_t> frame = std::move(queue_.front());
    queue_.pop_front();
    ByteView rest = frame;
    while (!rest.empty()) {
        const ssize_t sent =
            ::send(socket_.native_handle(), rest.data(), rest.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent > 0) {
            rest = rest.subspan(static_cast<std::size_t>(sent));
        } else if (sent < 0 && errno != EAGAIN && errno != EINTR) {
            co_return false;
        } else {
            const Clock::time_point deadline = Clock::now() + server_.idle_timeout_;
            if (co_await net::wait_writable_until(socket_, deadline))
                co_return false;
        }
    }
    queued_bytes_ -= frame.size();
    reader_wake_.cancel();
    co_return true;
}

bool DnsTcpServer::Connection::enqueue(std::vector<std::uint8_t> frame) {
    if (!socket_.is_open())
        return false;
    queued_bytes_ += frame.size();
    queue_.push_back(std::move(frame));
    writer_wake_.cancel();
    return true;
}

void DnsTcpServer::Connection::query_ended() {
    --in_flight_;
    active_ = Clock::now();
    reader_wake_.cancel();
    writer_wake_.cancel();
}

void DnsTcpServer::Connection::reset() {
    boost::system::error_code ignored;
    socket_.close(ignored); // serve() has seen to it that this resets
    reader_wake_.cancel();
    writer_wake_.cancel();
}

DnsTcpServer::DnsTcpServer(asio::io_context& context, KernelState& kernel, DnsResolver& resolver,
                           FindGuest find_guest, std::chrono::milliseconds idle_timeout)
    : context_(context), kernel_(kernel), resolver_(resolver), find_guest_(std::move(find_guest)),
      idle_timeout_(idle_timeout) {}

DnsTcpServer::~DnsTcpServer() = default;

void DnsTcpServer::serve(tcp::socket socket, const Endpoint& source, const Endpoint& destination) {
    const auto pending = kernel_.take_pending(source, destination);
    const std::shared_ptr<const Guest> guest = pending ? find_guest_(pending->guest) : nullptr;
    if (!guest) {
        // Nobody but a guest whose SYN was seen on its tap is served. Guest sees: RST.
        kernel_.count_refusal(pending ? pending->ifindex : 0, Refusal::kNoPending);
        return;
    }
    CapTicket ticket =
        CapTicket::take(guest->counters, &GuestCounters::dns_connections, guest->limits.dns_connections);
    if (!ticket) {
        // Guest sees: RST. Operator sees: dns-connection-cap.
        kernel_.count_refusal(guest->ifindex, Refusal::kDnsConnectionCap);
        return;
    }
    auto connection = std::make_shared<Connection>(*this, std::move(socket), *guest, std::move(ticket));
    forget_closed();
    connections_.push_back(connection);
    net::spawn(context_.get_executor(), "dns connection", Connection::run_reader(connection));
    net::spawn(context_.get_executor(), "dns connection", Connection::run_writer(connection));
}

void DnsTcpServer::forget_closed() {
    std::erase_if(connections_, [](const std::weak_ptr<Connection>& weak) { return weak.expired(); });
}

void DnsTcpServer::remove_guest(GuestId id) {
    for (const std::weak_ptr<Connection>& weak : connections_) {
        const auto connection = weak.lock();
        if (connection && connection->guest() == id)
            connection->reset();
    }
}

void DnsTcpServer::stop() {
    for (const std::weak_ptr<Connection>& weak : connections_) {
        if (const auto connection = weak.lock())
            connection->reset();
    }
}

} // namespace tapgate::proxy
