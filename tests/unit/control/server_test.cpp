// SPDX-License-Identifier: Apache-2.0
#include "control/client.hpp"
#include "control/server.hpp"
#include "control/unix_listener.hpp"
#include "deadline.hpp"
#include "temp_dir.hpp"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/json/serialize.hpp>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <future>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <grp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

namespace tapgate::control {
namespace {

using namespace std::chrono_literals;
namespace asio = boost::asio;
namespace json = boost::json;

asio::awaitable<Result<json::object>> echo(json::object args) {
    json::object reply;
    reply["args"] = std::move(args);
    co_return reply;
}

asio::awaitable<Result<json::object>> refuse(json::object) {
    co_return fail(ErrorCode::kNotFound, "there is no such thing");
}

asio::awaitable<Result<json::object>> crash(json::object) {
    throw std::runtime_error("a bug");
    co_return json::object();
}

/// A server on a thread of its own.
class ServerTest : public testing::Test {
  protected:
    ~ServerTest() override {
        stop();
        work_.reset();
        if (thread_.joinable())
            thread_.join();
    }

    void start(const ServerLimits& limits = ServerLimits(), std::optional<gid_t> readers = std::nullopt) {
        server_.emplace(context_, path_, limits);
        if (readers)
            server_->open_for_reading(*readers, {"echo"});
        server_->add("echo", echo);
        server_->add("refuse", refuse);
        server_->add("crash", crash);
        server_->add("wait", [this](json::object args) { return wait_for_release(std::move(args)); });
        const auto started = server_->start();
        ASSERT_TRUE(started) << started.error().message();
        thread_ = std::thread([this] { context_.run(); });
    }

    /// Runs `function` on the server's thread and waits for it.
    template <typename Function>
    auto on_server(Function function) {
        std::packaged_task<decltype(function())()> task(std::move(function));
        auto result = task.get_future();
        asio::post(context_, [&task] { task(); });
        return result.get();
    }

    void stop() {
        if (thread_.joinable())
            on_server([this] {
                release_.cancel();
                server_.reset();
            });
    }

    /// Waits until `condition`, asked on the server's thread, holds.
    template <typename Condition>
    bool eventually(Condition condition) {
        const auto end = std::chrono::steady_clock::now() + kDeadline;
        while (std::chrono::steady_clock::now() < end) {
            if (on_server(condition))
                return true;
            std::this_thread::yield();
        }
        return false;
    }

    /// What a process of uid 65534 and these groups hears when it sends `request`.
    [[nodiscard]] std::string told_to_a_user(gid_t group, const std::vector<gid_t>& more,
                                             const std::string& request) const {
        std::array<int, 2> channel{};
        EXPECT_EQ(::pipe(channel.data()), 0);
        const auto address = unix_address(path_).value();
        const std::string line = request + "\n";
        const pid_t child = ::fork();
        if (child == 0) {
            // Only async-signal-safe calls: the process has threads.
            const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
            if (::setgroups(more.size(), more.data()) == 0 && ::setgid(group) == 0 && ::setuid(65534) == 0 &&
                ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
                static_cast<void>(::send(fd, line.data(), line.size(), MSG_NOSIGNAL));
                std::array<char, 512> text{};
                const ssize_t n = ::recv(fd, text.data(), text.size(), 0);
                if (n > 0 && ::write(channel[1], text.data(), static_cast<std::size_t>(n)) == n)
                    ::_exit(0);
            }
            ::_exit(1);
        }
        ::close(channel[1]);
        int status = -1;
        EXPECT_EQ(::waitpid(child, &status, 0), child);
        EXPECT_EQ(status, 0);
        std::array<char, 512> text{};
        const ssize_t n = ::read(channel[0], text.data(), text.size());
        ::close(channel[0]);
        return {text.data(), static_cast<std::size_t>(std::max<ssize_t>(n, 0))};
    }

    [[nodiscard]] Client connect() const { return Client::connect(path_).value(); }

    /// A connection that says what the client class would not.
    [[nodiscard]] UniqueFd connect_raw() const {
        UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
        const auto address = unix_address(path_).value();
        EXPECT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
        return fd;
    }

    /// Everything up to the next newline or the end, "(nothing)" at the deadline.
    static std::string read_line(int fd) {
        std::string line;
        for (;;) {
            pollfd ready{.fd = fd, .events = POLLIN, .revents = 0};
            if (::poll(&ready, 1, static_cast<int>(kDeadline.count())) != 1)
                return "(nothing)";
            char c = 0;
            const ssize_t n = ::recv(fd, &c, 1, 0);
            if (n != 1 || c == '\n')
                return line;
            line += c;
        }
    }

    static void write_all(int fd, std::string_view text) {
        while (!text.empty()) {
            const ssize_t n = ::send(fd, text.data(), text.size(), MSG_NOSIGNAL);
            if (n <= 0)
                return;
            text.remove_prefix(static_cast<std::size_t>(n));
        }
    }

    asio::awaitable<Result<json::object>> wait_for_release(json::object) {
        boost::system::error_code ignored;
        co_await release_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
        co_return json::object();
    }

    TempDir dir_;
    std::string path_ = dir_.file("control.sock");
    asio::io_context context_;
    std::optional<asio::executor_work_guard<asio::io_context::executor_type>> work_{context_.get_executor()};
    asio::steady_timer release_{context_, asio::steady_timer::time_point::max()};
    std::optional<Server> server_;
    std::thread thread_;
};

TEST_F(ServerTest, answers_requests_in_order) {
    start();
    Client client = connect();
    for (int i = 0; i < 100; ++i) {
        json::object args;
        args["i"] = i;
        const auto reply = client.call("echo", args);
        ASSERT_TRUE(reply) << reply.error().message();
        EXPECT_EQ(reply->at("schema").as_int64(), 1);
        EXPECT_EQ(reply->at("args").as_object(), args);
    }
}

TEST_F(ServerTest, pipelined_requests_are_answered_in_order) {
    start();
    const UniqueFd fd = connect_raw();
    write_all(fd.get(), request_line("echo", {{"i", 1}}) + request_line("refuse", {}) +
                            request_line("echo", {{"i", 2}}));
    EXPECT_EQ(read_line(fd.get()), R"({"schema":1,"args":{"i":1}})");
    EXPECT_EQ(read_line(fd.get()),
              R"({"schema":1,"error":{"code":"not-found","message":"there is no such thing"}})");
    EXPECT_EQ(read_line(fd.get()), R"({"schema":1,"args":{"i":2}})");
}

TEST_F(ServerTest, a_request_may_come_one_byte_at_a_time) {
    start();
    const UniqueFd fd = connect_raw();
    for (const char c : request_line("echo", {}))
        write_all(fd.get(), std::string_view(&c, 1));
    EXPECT_EQ(read_line(fd.get()), R"({"schema":1,"args":{}})");
}

TEST_F(ServerTest, a_refusal_and_a_bug_end_neither_connection_nor_server) {
    start();
    Client client = connect();
    EXPECT_EQ(client.call("refuse", {}).error().code(), ErrorCode::kNotFound);
    EXPECT_EQ(client.call("crash", {}).error().code(), ErrorCode::kIo);
    EXPECT_EQ(client.call("nonsense", {}).error().message(), "unknown command 'nonsense'");
    EXPECT_TRUE(client.call("echo", {}));
}

TEST_F(ServerTest, malformed_input_is_answered_and_disturbs_nobody) {
    start();
    Client other = connect();
    const UniqueFd fd = connect_raw();
    for (const auto* line :
         {"\n", "garbage\n", "{}\n", "[[[[[[\n", "{\"schema\":1,\"command\":\"\xff\"}\n"}) {
        write_all(fd.get(), line);
        EXPECT_NE(read_line(fd.get()).find(R"("error":{"code":)"), std::string::npos) << line;
    }
    write_all(fd.get(), request_line("echo", {}));
    EXPECT_EQ(read_line(fd.get()), R"({"schema":1,"args":{}})");
    EXPECT_TRUE(other.call("echo", {}));
}

TEST_F(ServerTest, a_request_at_the_limit_is_served_and_one_above_is_refused) {
    ServerLimits limits;
    limits.request_bytes = 1U << 20U;
    start(limits);
    json::object args;
    args["text"] = "";
    const std::size_t rest = limits.request_bytes - request_line("echo", args).size();
    args["text"] = std::string(rest, 'x');
    ASSERT_EQ(request_line("echo", args).size(), limits.request_bytes);
    Client client = connect();
    EXPECT_TRUE(client.call("echo", args));
    args["text"] = std::string(rest + 1, 'x');
    EXPECT_EQ(client.call("echo", args).error().code(), ErrorCode::kLimit);
    EXPECT_TRUE(connect().call("echo", {}));
}

TEST_F(ServerTest, input_without_end_is_refused_at_the_limit) {
    ServerLimits limits;
    limits.request_bytes = 65536;
    start(limits);
    const UniqueFd fd = connect_raw();
    write_all(fd.get(), std::string(10U << 20U, 'x'));
    EXPECT_EQ(read_line(fd.get()),
              R"({"schema":1,"error":{"code":"limit","message":"the request has more than 65536 bytes"}})");
    EXPECT_EQ(read_line(fd.get()), "");
}

TEST_F(ServerTest, a_client_that_says_nothing_is_closed) {
    ServerLimits limits;
    limits.request_timeout = 50ms;
    start(limits);
    const UniqueFd silent = connect_raw();
    const UniqueFd unfinished = connect_raw();
    write_all(unfinished.get(), "{\"schema\":1,");
    EXPECT_EQ(read_line(silent.get()), "");
    EXPECT_EQ(read_line(unfinished.get()), "");
    EXPECT_TRUE(connect().call("echo", {}));
}

TEST_F(ServerTest, a_client_that_does_not_take_its_reply_is_closed) {
    ServerLimits limits;
    limits.write_timeout = 50ms;
    start(limits);
    const UniqueFd fd = connect_raw();
    json::object args;
    args["text"] = std::string(8U << 20U, 'x'); // more than the socket buffers hold
    write_all(fd.get(), request_line("echo", args));
    pollfd closed{.fd = fd.get(), .events = 0, .revents = 0};
    EXPECT_EQ(::poll(&closed, 1, static_cast<int>(kDeadline.count())), 1);
    EXPECT_TRUE(connect().call("echo", {}));
}

TEST_F(ServerTest, a_handler_that_waits_holds_up_nobody) {
    start();
    const UniqueFd waiting = connect_raw();
    write_all(waiting.get(), request_line("wait", {}));
    EXPECT_TRUE(connect().call("echo", {}));
    on_server([this] { release_.cancel(); });
    EXPECT_EQ(read_line(waiting.get()), R"({"schema":1})");
}

TEST_F(ServerTest, one_client_too_many_takes_the_place_of_the_one_that_says_nothing_longest) {
    ServerLimits limits;
    limits.clients = 8;
    start(limits);
    const UniqueFd unfinished = connect_raw();
    write_all(unfinished.get(), "{\"schema\":1,");
    std::vector<Client> clients;
    for (std::size_t i = 1; i < limits.clients; ++i) {
        clients.push_back(connect());
        ASSERT_TRUE(clients.back().call("echo", {}));
    }
    Client late = connect();
    EXPECT_TRUE(late.call("echo", {}));
    EXPECT_EQ(read_line(unfinished.get()), "");
    for (Client& client : clients)
        EXPECT_TRUE(client.call("echo", {}));
    EXPECT_TRUE(late.call("echo", {}));
}

TEST_F(ServerTest, one_client_too_many_is_told_so_when_all_others_are_being_served) {
    ServerLimits limits;
    limits.clients = 4;
    start(limits);
    std::vector<UniqueFd> waiting;
    for (std::size_t i = 0; i < limits.clients - 1; ++i) {
        waiting.push_back(connect_raw());
        write_all(waiting.back().get(), request_line("wait", {}));
    }
    std::optional<Client> monitor(connect());
    ASSERT_TRUE(monitor->call("event monitor", {}));
    EXPECT_EQ(connect().call("echo", {}).error().message(), "4 control clients are connected already");
    // The place of one that leaves is free once the server has seen it go.
    monitor.reset();
    const auto end = std::chrono::steady_clock::now() + kDeadline;
    bool served = false;
    while (!served && std::chrono::steady_clock::now() < end)
        served = connect().call("echo", {}).has_value();
    EXPECT_TRUE(served);
    on_server([this] { release_.cancel(); });
    for (const UniqueFd& fd : waiting)
        EXPECT_EQ(read_line(fd.get()), R"({"schema":1})");
}

TEST_F(ServerTest, large_requests_are_received_a_few_at_a_time) {
    ServerLimits limits;
    limits.large_requests = 1;
    limits.request_timeout = 1h;
    start(limits);
    const std::string large = request_line("echo", {{"text", std::string(2U << 20U, 'x')}});
    const UniqueFd unfinished = connect_raw();
    write_all(unfinished.get(), std::string_view(large).substr(0, large.size() - 1));
    std::string told;
    const auto end = std::chrono::steady_clock::now() + kDeadline;
    while (told.find("too many other large requests") == std::string::npos &&
           std::chrono::steady_clock::now() < end) {
        const UniqueFd second = connect_raw();
        std::thread writer([&] { write_all(second.get(), large); });
        std::array<char, 256> text{};
        const ssize_t n = ::recv(second.get(), text.data(), text.size(), 0);
        told.assign(text.data(), static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
        ::shutdown(second.get(), SHUT_RDWR);
        writer.join();
    }
    EXPECT_NE(told.find("too many other large requests"), std::string::npos) << told;
    // The first one still has its place, and gives it back.
    write_all(unfinished.get(), "\n");
    std::string reply(16, '\0');
    EXPECT_EQ(::recv(unfinished.get(), reply.data(), reply.size(), MSG_WAITALL), std::ssize(reply));
    EXPECT_EQ(reply, R"({"schema":1,"arg)");
    EXPECT_TRUE(connect().call("echo", {{"text", std::string(2U << 20U, 'x')}}));
}

TEST_F(ServerTest, replies_that_nobody_takes_make_room_for_those_that_are_taken) {
    ServerLimits limits;
    limits.untaken_bytes = 1U << 20U;
    start(limits);
    const std::string request = request_line("echo", {{"text", std::string(900U << 10U, 'x')}});
    std::vector<UniqueFd> lazy;
    for (int i = 0; i < 4; ++i) {
        lazy.push_back(connect_raw());
        write_all(lazy.back().get(), request);
    }
    Client honest = connect();
    for (int i = 0; i < 4; ++i)
        EXPECT_TRUE(honest.call("echo", {{"text", std::string(900U << 10U, 'x')}}));
    for (const UniqueFd& fd : lazy) {
        pollfd closed{.fd = fd.get(), .events = 0, .revents = 0};
        EXPECT_EQ(::poll(&closed, 1, static_cast<int>(kDeadline.count())), 1);
    }
}

TEST_F(ServerTest, only_root_is_served) {
    if (::getuid() != 0)
        GTEST_SKIP() << "needs root to become somebody else";
    start();
    // The file would keep others out; the credentials must do so too.
    ASSERT_EQ(::chmod(path_.c_str(), 0666), 0);
    ASSERT_EQ(::chmod(dir_.file("").c_str(), 0755), 0);
    EXPECT_EQ(told_to_a_user(65534, {}, "{}"),
              "{\"schema\":1,\"error\":{\"code\":\"permission\",\"message\":\"the control socket serves root "
              "only\"}}\n");
    EXPECT_TRUE(connect().call("echo", {}));
}

TEST_F(ServerTest, a_group_may_read_and_nothing_else) {
    if (::getuid() != 0)
        GTEST_SKIP() << "needs root to become somebody else";
    constexpr gid_t kReaders = 4242;
    ASSERT_EQ(::setegid(kReaders), 0); // as the daemon does
    start(ServerLimits(), kReaders);
    ASSERT_EQ(::setegid(0), 0);
    ASSERT_EQ(::chmod(dir_.file("").c_str(), 0755), 0);
    struct stat file{};
    ASSERT_EQ(::stat(path_.c_str(), &file), 0);
    EXPECT_EQ(file.st_gid, kReaders);
    EXPECT_EQ(file.st_mode & 0777U, 0660U);

    const std::string echo = R"({"schema":1,"command":"echo","args":{}})";
    const std::string monitor = R"({"schema":1,"command":"event monitor","args":{}})";
    const std::string refuse_it = R"({"schema":1,"command":"refuse","args":{}})";
    EXPECT_EQ(told_to_a_user(kReaders, {}, echo), "{\"schema\":1,\"args\":{}}\n");
    EXPECT_EQ(told_to_a_user(65534, {1, kReaders}, echo), "{\"schema\":1,\"args\":{}}\n");
    EXPECT_EQ(told_to_a_user(kReaders, {}, monitor), "{\"schema\":1,\"monitoring\":true}\n");
    EXPECT_NE(told_to_a_user(kReaders, {}, refuse_it).find("'refuse' is for root"), std::string::npos);
    // The file keeps the others out, and the credentials if it does not.
    ASSERT_EQ(::chmod(path_.c_str(), 0666), 0);
    EXPECT_NE(told_to_a_user(65534, {1}, echo).find("\"permission\""), std::string::npos);
    EXPECT_EQ(connect().call("refuse", {}).error().code(), ErrorCode::kNotFound);
}

TEST_F(ServerTest, a_socket_file_of_another_group_is_not_served) {
    Server server(context_, path_);
    server.open_for_reading(4242, {});
    EXPECT_EQ(server.start().error().code(), ErrorCode::kInvalid);
    EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(ServerTest, those_who_read_leave_half_of_the_connections_to_root) {
    if (::getuid() != 0)
        GTEST_SKIP() << "needs root to become somebody else";
    constexpr gid_t kReaders = 4242;
    ASSERT_EQ(::setegid(kReaders), 0);
    ServerLimits limits;
    limits.clients = 1; // half of it is none
    start(limits, kReaders);
    ASSERT_EQ(::setegid(0), 0);
    ASSERT_EQ(::chmod(dir_.file("").c_str(), 0755), 0);
    EXPECT_NE(told_to_a_user(kReaders, {}, "{}").find("\"limit\""), std::string::npos);
    EXPECT_TRUE(connect().call("echo", {}));
}

TEST_F(ServerTest, a_second_server_is_refused_and_the_socket_goes_with_the_first) {
    start();
    asio::io_context other_context;
    Server other(other_context, path_);
    EXPECT_EQ(other.start().error().code(), ErrorCode::kExists);
    other.stop();
    EXPECT_TRUE(connect().call("echo", {}));
    stop();
    EXPECT_FALSE(std::filesystem::exists(path_));
    EXPECT_EQ(Client::connect(path_).error().code(), ErrorCode::kUnavailable);
}

TEST_F(ServerTest, stopping_closes_the_connections) {
    start();
    Client idle = connect();
    ASSERT_TRUE(idle.call("echo", {}));
    const UniqueFd waiting = connect_raw();
    write_all(waiting.get(), request_line("wait", {}));
    Client monitor = connect();
    ASSERT_TRUE(monitor.call("event monitor", {}));
    stop();
    EXPECT_FALSE(idle.receive(kDeadline).value().has_value());
    EXPECT_FALSE(monitor.receive(kDeadline).value().has_value());
    EXPECT_EQ(read_line(waiting.get()), "");
}

TEST_F(ServerTest, a_context_destroyed_with_live_connections_leaks_nothing) {
    auto context = std::make_unique<asio::io_context>();
    Server server(*context, path_);
    ASSERT_TRUE(server.start());
    const UniqueFd fd = connect_raw();
    context->poll();
    write_all(fd.get(), request_line("event monitor", {}));
    context->poll();
    server.stop();
}

TEST_F(ServerTest, monitors_get_events_of_their_guest) {
    start();
    EXPECT_FALSE(on_server([this] { return server_->has_monitors(); }));
    Client all = connect();
    Client one = connect();
    ASSERT_EQ(all.call("event monitor", {}).value().at("monitoring"), json::value(true));
    ASSERT_TRUE(one.call("event monitor", {{"guest", "vm2"}}));
    on_server([this] {
        server_->publish({{"type", "dns"}, {"guest", "vm1"}});
        server_->publish({{"type", "policy"}});
        server_->publish({{"type", "dns"}, {"guest", "vm2"}});
    });
    EXPECT_EQ(json::serialize(*all.receive(kDeadline).value()), R"({"schema":1,"type":"dns","guest":"vm1"})");
    EXPECT_EQ(json::serialize(*all.receive(kDeadline).value()), R"({"schema":1,"type":"policy"})");
    EXPECT_EQ(json::serialize(*all.receive(kDeadline).value()), R"({"schema":1,"type":"dns","guest":"vm2"})");
    EXPECT_EQ(json::serialize(*one.receive(kDeadline).value()), R"({"schema":1,"type":"dns","guest":"vm2"})");
}

TEST_F(ServerTest, a_monitor_with_a_misspelt_argument_is_refused) {
    start();
    Client client = connect();
    EXPECT_EQ(client.call("event monitor", {{"gest", "vm1"}}).error().message(), "unknown argument \"gest\"");
    EXPECT_TRUE(client.call("echo", {}));
}

TEST_F(ServerTest, a_monitor_that_goes_away_is_forgotten) {
    start();
    {
        Client client = connect();
        ASSERT_TRUE(client.call("event monitor", {}));
        EXPECT_TRUE(on_server([this] { return server_->has_monitors(); }));
    }
    EXPECT_TRUE(eventually([this] { return !server_->has_monitors(); }));
}

TEST_F(ServerTest, a_slow_monitor_is_told_how_many_events_it_lost) {
    ServerLimits limits;
    limits.queued_events = 4;
    start(limits);
    Client slow = connect();
    Client other = connect();
    ASSERT_TRUE(slow.call("event monitor", {}));
    ASSERT_TRUE(other.call("event monitor", {{"guest", "other"}}));
    // All in one go: the monitor's coroutine does not get to write in between.
    on_server([this] {
        for (int i = 0; i < 10; ++i)
            server_->publish({{"guest", "vm1"}, {"i", i}});
        server_->publish({{"guest", "other"}, {"i", 0}});
    });
    for (int i = 0; i < 4; ++i)
        EXPECT_EQ(slow.receive(kDeadline).value().value().at("i").as_int64(), i);
    const auto lost = slow.receive(kDeadline).value().value();
    EXPECT_EQ(json::serialize(lost), R"({"schema":1,"type":"lost","count":7})");
    // Nobody else lost anything, and the slow one goes on.
    EXPECT_EQ(other.receive(kDeadline).value().value().at("guest").as_string(), "other");
    on_server([this] { server_->publish({{"i", 11}}); });
    EXPECT_EQ(slow.receive(kDeadline).value().value().at("i").as_int64(), 11);
}

TEST_F(ServerTest, a_monitor_that_takes_nothing_is_closed_and_holds_no_memory) {
    ServerLimits limits;
    limits.queued_events = 64;
    limits.write_timeout = 50ms;
    start(limits);
    const UniqueFd fd = connect_raw();
    write_all(fd.get(), request_line("event monitor", {}));
    ASSERT_EQ(read_line(fd.get()), R"({"schema":1,"monitoring":true})");
    EXPECT_TRUE(eventually([this] {
        server_->publish({{"text", std::string(65536, 'x')}});
        return !server_->has_monitors();
    }));
    EXPECT_TRUE(connect().call("echo", {}));
}

TEST(Client, a_missing_socket_says_what_to_do) {
    const TempDir dir;
    const auto client = Client::connect(dir.file("none.sock"));
    ASSERT_FALSE(client);
    EXPECT_EQ(client.error().code(), ErrorCode::kUnavailable);
    EXPECT_NE(client.error().message().find("is tapgated running?"), std::string::npos);
}

} // namespace
} // namespace tapgate::control
