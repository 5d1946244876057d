// SPDX-License-Identifier: Apache-2.0
#include "control/server.hpp"

#include "base/log.hpp"
#include "control/accept.hpp"
#include "control/args.hpp"
#include "control/event_filter.hpp"
#include "control/unix_listener.hpp"
#include "net/async.hpp"

#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <deque>
#include <exception>
#include <map>
#include <optional>
#include <set>
#include <unordered_set>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

// One coroutine per connection reads a request, awaits its handler and writes the reply. A monitor's
// coroutine turns into one that empties a queue; a second one then waits for the client to go away. Each
// connection has one timer, `deadline_`, that closes its socket: whatever is pending then ends with an error,
// and the coroutine with it.
namespace tapgate::control {

namespace asio = boost::asio;
namespace json = boost::json;
using asio::local::stream_protocol;

namespace {

using Clock = asio::steady_timer::clock_type;

/// A longer request is a large one; a buffer that once held one is given back.
constexpr std::size_t kKeptBufferBytes = std::size_t{1} << 20U;
/// The longest request of a client that may only read: none of its commands carries a policy.
constexpr std::size_t kMaxReaderRequestBytes = 65536;
/// How much of a monitor's queue is joined into one write.
constexpr std::size_t kMonitorWriteBytes = 65536;

/// NGROUPS_MAX of linux/limits.h.
constexpr std::size_t kMaxGroups = 65536;

/// What a client may do.
enum class Access : std::uint8_t { kNothing, kRead, kEverything };

/// By the credentials of the process at the other end as they were at connect() (SO_PEERCRED, SO_PEERGROUPS;
/// socket(7)).
Access access_of(int fd, std::optional<gid_t> readers) {
    ucred credentials{};
    socklen_t length = sizeof credentials;
    if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0)
        return Access::kNothing;
    if (credentials.uid == 0)
        return Access::kEverything;
    if (!readers)
        return Access::kNothing;
    if (credentials.gid == *readers)
        return Access::kRead;
    std::vector<gid_t> groups(kMaxGroups);
    length = static_cast<socklen_t>(groups.size() * sizeof(gid_t));
    if (::getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups.data(), &length) != 0)
        return Access::kNothing;
    groups.resize(length / sizeof(gid_t));
    return std::ranges::find(groups, *readers) != groups.end() ? Access::kRead : Access::kNothing;
}

} // namespace

struct Server::State {
    State(asio::io_context& io_context, std::string socket_path, const ServerLimits& server_limits)
        : context(io_context), path(std::move(socket_path)), limits(server_limits), acceptor(io_context),
          accept_pause(io_context) {}

    asio::io_context& context;
    std::string path;
    ServerLimits limits;
    std::map<std::string, Handler, std::less<>> handlers;
    std::optional<UnixListener> listener;
    stream_protocol::acceptor acceptor; // on a duplicate of the listener's descriptor
    asio::steady_timer accept_pause;
    std::unordered_set<std::shared_ptr<Connection>> connections;
    std::size_t monitors = 0;
    std::optional<gid_t> read_group;
    std::set<std::string, std::less<>> readable; ///< commands for read_group
    std::size_t readers = 0;                     ///< connections that may only read
    std::size_t large_requests = 0;              ///< being received
    std::size_t untaken = 0;                     ///< bytes that are being written

    /// Ends the connection that has kept us waiting longest, of those for which `may_go` if it is not null;
    /// false if there is none.
    bool evict(bool (Connection::*may_go)() const);

    static asio::awaitable<void> accept(std::shared_ptr<State> state);
};

class Server::Connection : public std::enable_shared_from_this<Connection> {
  public:
    Connection(std::shared_ptr<State> state, stream_protocol::socket socket)
        : state_(std::move(state)), socket_(std::move(socket)), deadline_(state_->context),
          wake_(state_->context) {}

    /// The life of the connection; `self` keeps it alive meanwhile.
    static asio::awaitable<void> run(std::shared_ptr<Connection> self) {
        const Registration registration(*self);
        self->access_ = access_of(self->socket_.native_handle(), self->state_->read_group);
        const bool reads = self->access_ == Access::kRead;
        if (reads && self->state_->readers >= self->state_->limits.clients / 2 &&
            !self->state_->evict(&Connection::is_reader)) {
            // Best effort as in accept(): root's half is not for those who read.
            const Error full(ErrorCode::kLimit, fmt::format("{} clients that may read are connected already",
                                                            self->state_->readers));
            std::string reply = reply_line(error_reply(full));
            co_await self->write(std::move(reply));
        } else if (self->access_ != Access::kNothing) {
            self->state_->readers += reads ? 1 : 0;
            self->counted_ = reads;
            co_await self->serve();
        } else {
            const Error refusal(ErrorCode::kPermission,
                                self->state_->read_group ? "the control socket serves root and a group only"
                                                         : "the control socket serves root only");
            std::string reply = reply_line(error_reply(refusal));
            co_await self->write(std::move(reply));
        }
        self->close();
    }

    void close() {
        boost::system::error_code ignored;
        socket_.close(ignored);
        deadline_.cancel();
        wake_.cancel();
    }

    /// Counts no more. Further calls do nothing.
    void leave() {
        if (monitoring_)
            --state_->monitors;
        monitoring_ = false;
        if (counted_)
            --state_->readers;
        counted_ = false;
        state_->untaken -= std::exchange(untaken_, 0);
        state_->connections.erase(shared_from_this());
    }

    /// Since when nothing goes on because the client does not say or take something.
    [[nodiscard]] std::optional<Clock::time_point> waits_since() const { return waits_since_; }

    [[nodiscard]] bool has_untaken() const { return untaken_ != 0; }

    [[nodiscard]] bool is_reader() const { return counted_; }

    /// Queues `line` if this is a monitor that wants `event`.
    void offer(const json::object& event, const std::shared_ptr<const std::string>& line) {
        if (!monitoring_ || !wants(event))
            return;
        if (queue_.size() >= state_->limits.queued_events) {
            ++lost_;
            return;
        }
        queue_lost();
        queue_.push_back(line);
        wake_.cancel();
    }

  private:
    /// Leaves when run() ends, however that comes about.
    class Registration {
      public:
        explicit Registration(Connection& connection) : connection_(connection) {}

        Registration(const Registration&) = delete;
        Registration& operator=(const Registration&) = delete;

        ~Registration() { connection_.leave(); }

      private:
        Connection& connection_;
    };

    /// A place among State::large_requests.
    class LargeRequest {
      public:
        explicit LargeRequest(State& state) : state_(state) { ++state_.large_requests; }

        LargeRequest(const LargeRequest&) = delete;
        LargeRequest& operator=(const LargeRequest&) = delete;

        ~LargeRequest() { --state_.large_requests; }

      private:
        State& state_;
    };

    /// Requests and replies, in order, until the client goes or one of them ends the connection.
    asio::awaitable<void> serve() {
        const std::size_t most = access_ == Access::kEverything
                                     ? state_->limits.request_bytes
                                     : std::min(state_->limits.request_bytes, kMaxReaderRequestBytes);
        const std::size_t small = std::min(most, kKeptBufferBytes);
        for (;;) {
            close_after(state_->limits.request_timeout);
            auto [error, length] = co_await asio::async_read_until(
                socket_, asio::dynamic_buffer(input_, small), '\n', net::kAsTuple);
            std::optional<LargeRequest> large; // until its answer is known: what it carries lives as long
            const bool has_place = state_->large_requests < state_->limits.large_requests;
            if (error == asio::error::not_found && small < most && has_place) {
                large.emplace(*state_);
                const auto [end, whole] = co_await asio::async_read_until(
                    socket_, asio::dynamic_buffer(input_, most), '\n', net::kAsTuple);
                error = end;
                length = whole;
            }
            keep_open();
            if (error == asio::error::not_found) {
                // The rest of the request cannot be told from a next one: the connection ends.
                const Error refusal(ErrorCode::kLimit,
                                    large || small == most
                                        ? fmt::format("the request has more than {} bytes", most)
                                        : "too many other large requests are being received; try again");
                std::string reply = reply_line(error_reply(refusal));
                co_await write(std::move(reply));
                co_return;
            }
            if (error)
                co_return;
            auto request = parse_request(std::string_view(input_).substr(0, length - 1));
            input_.erase(0, length);
            if (input_.capacity() > kKeptBufferBytes)
                input_.shrink_to_fit();

            if (request && request->command == "event monitor") {
                const auto started = start_monitor(request->args);
                if (started) {
                    co_await monitor();
                    co_return;
                }
                request = fail(started.error());
            }
            std::string reply;
            if (request)
                reply = co_await answer(std::move(*request));
            else
                reply = reply_line(error_reply(request.error()));
            large.reset();
            if (!co_await write(std::move(reply)))
                co_return;
        }
    }

    /// The reply line to a request.
    asio::awaitable<std::string> answer(Request request) {
        if (access_ != Access::kEverything && !state_->readable.contains(request.command)) {
            const Error refusal(ErrorCode::kPermission,
                                fmt::format("'{}' is for root; the group of the control socket may only read",
                                            printable(request.command, 64)));
            co_return reply_line(error_reply(refusal));
        }
        const auto found = state_->handlers.find(request.command);
        if (found == state_->handlers.end()) {
            const Error unknown(ErrorCode::kUnsupported,
                                fmt::format("unknown command '{}'", printable(request.command, 64)));
            co_return reply_line(error_reply(unknown));
        }
        try {
            auto running = found->second(std::move(request.args));
            const Result<json::object> result = co_await std::move(running);
            co_return reply_line(result ? *result : error_reply(result.error()));
        } catch (const std::exception& exception) {
            // A bug in the handler. It must not end the daemon; the operator finds it in the log.
            spdlog::error("control: '{}' failed: {}", request.command, exception.what());
        }
        const Error internal(ErrorCode::kIo, "internal error; the daemon's log has more");
        co_return reply_line(error_reply(internal));
    }

    Result<void> start_monitor(const json::object& args) {
        if (auto known = only_args(args, {"guest", "name", "address", "verdict", "reason"}); !known)
            return known;
        auto filter = EventFilter::parse(args);
        if (!filter)
            return fail(filter.error());
        filter_ = std::move(*filter);
        monitoring_ = true;
        ++state_->monitors;
        return {};
    }

    asio::awaitable<void> monitor() {
        json::object first;
        first["monitoring"] = true;
        std::string line = reply_line(first);
        if (!co_await write(std::move(line)))
            co_return;
        net::spawn(state_->context.get_executor(), "control monitor hang-up",
                   wait_hangup(shared_from_this()));
        while (socket_.is_open()) {
            if (queue_.empty())
                queue_lost();
            if (queue_.empty()) {
                wake_.expires_at(asio::steady_timer::time_point::max());
                co_await wake_.async_wait(net::kAsTuple);
                continue;
            }
            std::string lines;
            while (!queue_.empty() && lines.size() < kMonitorWriteBytes) {
                lines += *queue_.front();
                queue_.pop_front();
            }
            if (!co_await write(std::move(lines)))
                co_return;
        }
    }

    /// Closes the connection once the client has closed its end. What it still says is not listened to.
    static asio::awaitable<void> wait_hangup(std::shared_ptr<Connection> self) {
        std::array<char, 512> ignored{};
        for (;;) {
            auto [error, length] =
                co_await self->socket_.async_read_some(asio::buffer(ignored), net::kAsTuple);
            if (error)
                break;
        }
        self->close();
    }

    /// False if the client did not take it; the connection is closed then.
    asio::awaitable<bool> write(std::string bytes) {
        while (state_->untaken + bytes.size() > state_->limits.untaken_bytes &&
               state_->evict(&Connection::has_untaken)) {
        }
        untaken_ = bytes.size();
        state_->untaken += untaken_;
        close_after(state_->limits.write_timeout);
        auto [error, length] = co_await asio::async_write(socket_, asio::buffer(bytes), net::kAsTuple);
        keep_open();
        state_->untaken -= std::exchange(untaken_, 0);
        if (error)
            close();
        co_return !error;
    }

    void close_after(std::chrono::milliseconds time) {
        waits_since_ = Clock::now();
        deadline_.expires_after(time);
        deadline_.async_wait([weak = weak_from_this()](const boost::system::error_code& error) {
            const auto self = weak.lock();
            // A wait that had ended already when the deadline moved reports success late.
            if (error || !self || self->deadline_.expiry() > Clock::now())
                return;
            spdlog::debug("control: a client was too slow");
            self->close();
        });
    }

    void keep_open() {
        waits_since_.reset();
        deadline_.expires_at(asio::steady_timer::time_point::max());
    }

    [[nodiscard]] bool wants(const json::object& event) const { return filter_.matches(event); }

    /// Queues the line about events that were dropped, in the place where they are missing.
    void queue_lost() {
        if (lost_ == 0)
            return;
        json::object lost;
        lost["type"] = "lost";
        lost["count"] = std::exchange(lost_, 0);
        queue_.push_back(std::make_shared<const std::string>(reply_line(lost)));
    }

    std::shared_ptr<State> state_;
    stream_protocol::socket socket_;
    asio::steady_timer deadline_;
    std::string input_; // received, not yet parsed

    Access access_ = Access::kNothing;
    bool counted_ = false; ///< in State::readers
    std::optional<Clock::time_point> waits_since_;
    std::size_t untaken_ = 0; ///< of what is being written
    bool monitoring_ = false;
    EventFilter filter_; // what a monitor asked for
    std::deque<std::shared_ptr<const std::string>> queue_;
    std::uint64_t lost_ = 0;
    asio::steady_timer wake_; // cancelled when the queue has something
};

bool Server::State::evict(bool (Connection::*may_go)() const) {
    std::shared_ptr<Connection> longest;
    for (const auto& connection : connections) {
        if (connection->waits_since() && (may_go == nullptr || (*connection.*may_go)()) &&
            (!longest || connection->waits_since() < longest->waits_since()))
            longest = connection;
    }
    if (!longest)
        return false;
    spdlog::debug("control: a client that kept us waiting makes room");
    longest->leave();
    longest->close();
    return true;
}

asio::awaitable<void> Server::State::accept(std::shared_ptr<State> state) {
    const auto take = [&state](stream_protocol::socket socket) {
        // Those who may only read make room first, also for each other: root is not to suffer from them.
        if (state->connections.size() >= state->limits.clients && !state->evict(&Connection::is_reader) &&
            !state->evict(nullptr)) {
            // Best effort: the line fits an empty socket buffer.
            const Error full(ErrorCode::kLimit,
                             fmt::format("{} control clients are connected already", state->limits.clients));
            const std::string line = reply_line(error_reply(full));
            [[maybe_unused]] const ssize_t sent =
                ::send(socket.native_handle(), line.data(), line.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
            return;
        }
        auto connection = std::make_shared<Connection>(state, std::move(socket));
        state->connections.insert(connection);
        net::spawn(state->context.get_executor(), "control client", Connection::run(std::move(connection)));
    };
    co_await accept_clients(state->acceptor, state->accept_pause, "control", take);
}

Server::Server(asio::io_context& context, std::string path, const ServerLimits& limits)
    : state_(std::make_shared<State>(context, std::move(path), limits)) {}

Server::~Server() {
    stop();
}

void Server::add(std::string command, Handler handler) {
    TAPGATE_ASSERT(!state_->listener);
    const bool added = state_->handlers.emplace(std::move(command), std::move(handler)).second;
    TAPGATE_ASSERT(added);
}

void Server::open_for_reading(gid_t group, std::vector<std::string> commands) {
    TAPGATE_ASSERT(!state_->listener);
    state_->read_group = group;
    state_->readable.insert(commands.begin(), commands.end());
}

Result<void> Server::start() {
    TAPGATE_ASSERT(!state_->listener);
    auto listener = UnixListener::open(state_->path, state_->read_group);
    if (!listener)
        return fail(listener.error());
    const int fd = ::fcntl(listener->fd(), F_DUPFD_CLOEXEC, 0);
    if (fd < 0)
        return fail_errno("duplicate the control socket");
    boost::system::error_code error;
    state_->acceptor.assign(stream_protocol(), fd, error);
    if (error) {
        ::close(fd);
        return fail(ErrorCode::kIo, fmt::format("watch the control socket: {}", error.message()));
    }
    state_->listener.emplace(std::move(*listener));
    net::spawn(state_->context.get_executor(), "control accept", State::accept(state_));
    return {};
}

bool Server::has_monitors() const {
    return state_->monitors > 0;
}

void Server::publish(const json::object& event) {
    if (!has_monitors())
        return;
    const auto line = std::make_shared<const std::string>(reply_line(event));
    for (const auto& connection : state_->connections)
        connection->offer(event, line);
}

void Server::stop_accepting() {
    boost::system::error_code ignored;
    state_->acceptor.close(ignored);
    state_->accept_pause.cancel();
    state_->listener.reset();
}

void Server::stop() {
    stop_accepting();
    for (const auto& connection : state_->connections)
        connection->close();
    state_->connections.clear();
}

} // namespace tapgate::control
