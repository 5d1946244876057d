// SPDX-License-Identifier: Apache-2.0
#include "harness/syscalls.hpp"
#include "harness/wait.hpp"
#include "netns/events.hpp"
#include "netns/world.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

// Every system call that the daemon makes for a session is made to fail once with each error that it may
// have. The calls are not listed here but counted: one conversation is watched, then it is repeated with its
// first call failing, its second, and so on. Whatever fails, the guest sees the whole answer or a reset,
// nothing is sent that the policy denies, the reason is recorded, nothing is left behind and the next
// connection is served.
namespace tapgate::test {
namespace {

/// How a call may fail. The first row whose `call` is the beginning of what strace prints and that has
/// `within` in it counts. A call without a row fails the test: say here how it can fail.
struct Row {
    std::string_view call;
    std::string_view within; ///< occurs in the call
    std::vector<std::string_view> errors;
};

/// Of ENOMEM, EPERM and EACCES: a call of sockets or BPF may meet a cgroup's BPF program or a security
/// module, which refuse, and for which the kernel copies its arguments.
const std::vector<Row>& rows() {
    static const std::vector<Row> table = {
        {"accept(",
         "",
         {"EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "ECONNABORTED", "EPROTO", "EPERM", "EINTR"}},
        {"socket(", "", {"EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EACCES"}},
        {"connect(",
         "",
         {"ECONNREFUSED", "ENETUNREACH", "EADDRNOTAVAIL", "EACCES", "EPERM", "ENOBUFS", "ENOMEM",
          "ETIMEDOUT"}},
        {"getsockname(", "", {"ENOBUFS", "EPERM"}},
        {"setsockopt(", "", {"ENOMEM", "EPERM"}},
        {"getsockopt(", "", {"ENOMEM", "EPERM"}},
        {"ioctl(", "FIONBIO", {"EACCES"}},
        {"fcntl(", "", {"EACCES"}},
        {"recvfrom(", "", {"ECONNRESET", "ETIMEDOUT", "EINTR", "ENOMEM"}},
        {"sendto(", "", {"ECONNRESET", "EPIPE", "EINTR", "ENOBUFS", "ENOMEM", "EPERM"}},
        {"shutdown(", "", {"ENOTCONN", "EACCES"}},
        {"bpf(", "", {"ENOMEM", "EPERM"}},
        {"io_uring_enter(", "", {"EAGAIN", "EBUSY", "EINTR", "ENOMEM"}},
        {"poll(", "", {"ENOMEM"}},
        {"epoll_wait(", "", {"EINTR"}},
        {"epoll_ctl(", "EPOLL_CTL_ADD", {"ENOMEM", "ENOSPC"}},
        // What is registered already costs no memory to change or to remove.
        {"epoll_ctl(", "EPOLL_CTL_MOD", {}},
        {"epoll_ctl(", "EPOLL_CTL_DEL", {}},
        // On valid arguments these fail for nobody; close() has closed whatever it returns.
        {"timerfd_settime(", "", {}},
        {"futex(", "", {}},
        {"close(", "", {}},
        // The allocator's. A daemon without memory of its own ends, and its guests have no way out (I5).
        {"mmap(", "", {}},
        {"munmap(", "", {}},
        {"mprotect(", "", {}},
        {"madvise(", "", {}},
        {"brk(", "", {}},
#ifdef __SANITIZE_ADDRESS__
        // UBSan tries by a pipe whether an address can be read.
        {"pipe2(", "", {}},
        {"write(", "", {}},
#endif
    };
    return table;
}

const Row* row_of(const Syscall& call) {
    for (const Row& row : rows()) {
        if (call.text.starts_with(row.call) && call.text.find(row.within) != std::string::npos)
            return &row;
    }
    return nullptr;
}

/// Errors of the host, for which neither the guest nor the server is to be blamed.
bool is_local(std::string_view error) {
    static const std::set<std::string_view> local = {"EMFILE", "ENFILE", "ENOBUFS", "ENOMEM",
                                                     "ENOSPC", "EACCES", "EPERM",   "EADDRNOTAVAIL"};
    return local.contains(error);
}

constexpr unsigned kServer = 10;
constexpr unsigned kShadowed = 11;
constexpr unsigned kTtl = 86400; // outlasts the slowest run

struct Conversation {
    std::string name;
    std::string splice;
    unsigned server;
    std::uint16_t port;
    std::string says;
    bool is_allowed;
    /// Every error for every call; else one, and those that no call has had yet.
    bool is_thorough = false;
};

/// Each in one IP version, in turn: calls are the same for both.
std::vector<std::tuple<Conversation, const Family*>> conversations() {
    const std::string request = "GET / HTTP/1.1\r\nHost: named.test\r\nConnection: close\r\n\r\n";
    const std::vector<Conversation> all = {
        {"a_peeked_one_over_uring", "uring", kServer, 443, client_hello("named.test"), true, true},
        {"a_peeked_one_by_copy", "copy", kServer, 443, client_hello("named.test"), true, true},
        {"one_that_its_syn_admits", "uring", kServer, 7000, "hello", true},
        {"one_whose_requests_are_judged", "uring", kServer, 80, request, true},
        {"one_that_is_denied_by_its_name", "copy", kServer, 443, client_hello("other.test"), false},
        {"one_that_is_denied_by_its_request", "uring", kServer, 80,
         "GET / HTTP/1.1\r\nHost: other.test\r\n\r\n", false},
        {"one_that_only_its_binding_denies", "uring", kShadowed, 7001, std::string(1, '\0'), false},
    };
    std::vector<std::tuple<Conversation, const Family*>> tested;
    for (const Conversation& conversation : all)
        tested.emplace_back(conversation, tested.size() % 2 == 0 ? &ipv4() : &ipv6());
    return tested;
}

class Fault : public testing::TestWithParam<std::tuple<Conversation, const Family*>> {
  protected:
    /// One daemon for each way of carrying a session.
    struct Scene {
        explicit Scene(const std::string& splice)
            : world(config(splice),
                    {dual_stack("named.test", kServer, kTtl), dual_stack("shadowed.test", kShadowed, kTtl)}),
              events(world.daemon), worker(thread_named(world.daemon.pid(), "tapgate-worker")) {
            for (const Family* family : {&ipv4(), &ipv6()}) {
                resolve(world, *family, "named.test");
                resolve(world, *family, "shadowed.test");
                for (const std::uint16_t port : {443, 80, 7000, 7001}) {
                    for (const unsigned number : {kServer, kShadowed})
                        servers.push_back(std::make_unique<CaptureServer>(
                            world.topology.internet(), Endpoint{family->server(number), port}));
                }
            }
        }

        static DaemonConfig config(const std::string& splice) {
            DaemonConfig config;
            // strace keeps a call from being made by making it number -1, which the sandbox's filter takes
            // for a bug of the daemon's.
            config.daemon = fmt::format("workers = 1\nsplice = \"{}\"\nsandbox = false", splice);
            config.timers = "peek_ms = 2000\nserver_first_ms = 50";
            config.policy = policy_text({"allow@dns", "deny@shadowed.test:tcp:7001",
                                         "allow@named.test:tcp:443,80", "allow@public:tcp:7000-7001"});
            return config;
        }

        World world;
        EventMonitor events;
        pid_t worker;
        std::vector<std::unique_ptr<CaptureServer>> servers;
        /// Where conversations came from that went well; their events may be late.
        std::set<std::string> good;
        std::uint64_t no_pending = 0; ///< as last seen
    };

    static void TearDownTestSuite() {
        for (const auto& [splice, scene] : scenes_) {
            // Of a connection that could not be accepted the entry goes when its handshake is overdue.
            const auto is_gone = [&scene] { return scene->world.daemon.map_entries("pending") == 0; };
            EXPECT_TRUE(wait_until(is_gone, std::chrono::seconds(60))) << splice;
        }
        scenes_.clear();
        for (const std::string& what : missed_) {
            // Whether the look at a socket comes before its session's end is chance.
            EXPECT_TRUE(tried_.contains(what) || what.starts_with("poll ")) << what << " was not tried";
        }
    }

    void SetUp() override {
        auto& scene = scenes_[conversation().splice];
        if (!scene)
            scene = std::make_unique<Scene>(conversation().splice);
        scene_ = scene.get();
    }

    void TearDown() override {
        if (HasFailure())
            std::cerr << "the daemon's log:\n" << daemon().log();
    }

    static const Conversation& conversation() { return std::get<0>(GetParam()); }

    [[nodiscard]] Daemon& daemon() const { return scene_->world.daemon; }

    /// Has the conversation once.
    [[nodiscard]] Outcome converse() const {
        const Endpoint to{std::get<1>(GetParam())->server(conversation().server), conversation().port};
        auto stream = TcpStream::connect(scene_->world.topology.guest().ns, to);
        if (!stream)
            return {.connect_error = stream.error(), .answer = {}, .end = End::kNone};
        const std::string source = stream->local().to_string();
        scene_->good.erase(source); // the guest may have had this port before
        const int send_error = stream->send(conversation().says);
        stream->finish();
        Received received = stream->receive_to_end();
        Outcome outcome{.connect_error = 0, .answer = std::move(received.bytes), .end = received.end};
        if (send_error == ECONNRESET)
            outcome.end = End::kReset;
        if (is_good(outcome))
            scene_->good.insert(source);
        return outcome;
    }

    [[nodiscard]] static bool is_refusal(const Outcome& outcome) {
        return was_denied_by_alert(outcome) || was_reset(outcome) ||
               (outcome.answer.starts_with("HTTP/1.1 403 ") && outcome.end != End::kNone);
    }

    /// As it goes when nothing fails.
    [[nodiscard]] static bool is_good(const Outcome& outcome) {
        return conversation().is_allowed ? was_served(outcome) : is_refusal(outcome);
    }

    /// How many connections the servers have got.
    [[nodiscard]] unsigned accepted() const {
        unsigned count = 0;
        for (const auto& server : scene_->servers)
            count += server->accepted();
        return count;
    }

    /// What was told when a conversation began.
    struct Told {
        std::size_t events;
        std::size_t log;
    };

    /// What the operator is told of a conversation that `fault` has ended: the event of its end or, if it
    /// never became a session, a line in the log or a count.
    void expect_recorded(const CallFault& fault, const Told& before) const {
        std::optional<boost::json::object> end;
        const bool is_told = wait_until([&] {
            std::vector<boost::json::object> events = scene_->events.events();
            for (std::size_t i = before.events; i < events.size(); ++i) {
                if (is(events[i], "type", "flow-end") &&
                    !scene_->good.contains(std::string(events[i].at("source").as_string())))
                    end = std::move(events[i]);
            }
            return end.has_value() || daemon().log().size() > before.log || no_pending() > scene_->no_pending;
        });
        scene_->no_pending = no_pending();
        EXPECT_TRUE(is_told) << "nothing tells of it";
        if (!end || !conversation().is_allowed)
            return;
        EXPECT_FALSE(is(*end, "how", "finished")) << boost::json::serialize(*end);
        if (is_local(fault.error)) {
            EXPECT_TRUE(is(*end, "who", "daemon")) << boost::json::serialize(*end);
        }
    }

    /// Connections refused since nothing tells whose they are; they are counted for no guest.
    [[nodiscard]] std::uint64_t no_pending() const {
        std::uint64_t count = 0;
        const boost::json::object status = daemon().ask({"status", "show"});
        for (const boost::json::value& row : status.at("drops").as_array()) {
            if (row.at("reason").as_string() == "no-pending")
                count += row.at("packets").to_number<std::uint64_t>();
        }
        return count;
    }

    /// Nothing is left of any session.
    [[nodiscard]] bool is_at_rest() const {
        return daemon().flows().empty() && daemon().descriptors() <= descriptors_;
    }

    Scene* scene_ = nullptr;
    std::size_t descriptors_ = 0;
    /// "CALL ERROR" for each error that some call has had, and for those whose call did not come again.
    static inline std::set<std::string> tried_;
    static inline std::set<std::string> missed_;

    /// Has the conversation with one call failing, and expects what must hold. False if there was no such
    /// call this time: how often a thread waits is a matter of timing.
    bool fail_once(const CallFault& fault) const {
        SCOPED_TRACE(fmt::format("call {} of {} fails with {}", fault.occurrence, fault.name, fault.error));
        const unsigned accepted_before = accepted();
        const Told before{scene_->events.events().size(), daemon().log().size()};
        SyscallTrace trace(scene_->worker, fault);
        const Outcome outcome = converse();
        const std::vector<Syscall> calls = trace.stop();

        if (!is_good(outcome)) {
            // Whatever arrived before: a transfer that was cut never looks complete. A request on whose
            // connection nothing can be judged any more is denied in words.
            EXPECT_TRUE(outcome.end == End::kReset || is_refusal(outcome)) << outcome;
            expect_recorded(fault, before);
        }
        if (!conversation().is_allowed) {
            EXPECT_TRUE(is_refusal(outcome)) << outcome;
            EXPECT_EQ(accepted(), accepted_before) << "the server was reached";
        }
        EXPECT_TRUE(wait_until([this] { return is_at_rest(); }))
            << daemon().descriptors() << " descriptors, " << descriptors_ << " before; "
            << boost::json::serialize(daemon().flows());
        EXPECT_PRED1(is_good, converse()) << "the next connection";
        return std::ranges::any_of(calls, &Syscall::is_injected);
    }

  private:
    static inline std::map<std::string, std::unique_ptr<Scene>> scenes_;
};

TEST_P(Fault, every_call_of_a_session_may_fail) {
    EXPECT_PRED1(is_good, converse()); // whatever is made once is made now
    EXPECT_TRUE(wait_until([this] { return daemon().flows().empty(); }));
    descriptors_ = daemon().descriptors();

    SyscallTrace trace(scene_->worker);
    const Outcome outcome = converse();
    EXPECT_TRUE(wait_until([this] { return daemon().descriptors() <= descriptors_; }));
    const std::vector<Syscall> calls = trace.stop();
    EXPECT_PRED1(is_good, outcome);

    std::map<std::string, unsigned> occurrences;
    for (const Syscall& call : calls) {
        const unsigned occurrence = ++occurrences[call.name];
        const Row* row = row_of(call);
        if (row == nullptr) {
            ADD_FAILURE() << "no row says how this can fail: " << call.text;
            continue;
        }
        for (const std::string_view error : row->errors) {
            const CallFault fault{call.name, std::string(error), occurrence};
            const std::string what = fmt::format("{} {}", call.name, error);
            if (!conversation().is_thorough && error != row->errors.front() && tried_.contains(what))
                continue;
            // Those that come only when a thread has to wait are waited for a little longer.
            int attempts = tried_.contains(what) ? 2 : 20;
            bool is_tried = false;
            while (attempts-- > 0 && !is_tried)
                is_tried = fail_once(fault);
            (is_tried ? tried_ : missed_).insert(what);
        }
        if (!std::filesystem::exists(fmt::format("/proc/{}", scene_->worker)))
            FAIL() << "the worker is gone";
    }
    EXPECT_EQ(daemon().guest().at("sessions").to_number<int>(), 0);
}

INSTANTIATE_TEST_SUITE_P(Conversation, Fault, testing::ValuesIn(conversations()), [](const auto& tested) {
    return std::get<0>(tested.param).name + "_" + std::get<1>(tested.param)->name;
});

/// What is told of a denial while no map of BPF's can be read: that it was one, but nothing that would have
/// to be known of bindings.
class UnreadBindings : public WorldTest<UnreadBindings> {
  public:
    static std::unique_ptr<World> make_world() {
        DaemonConfig config;
        config.daemon = "workers = 1\nsandbox = false"; // strace's calls that are not made are number -1
        config.policy = policy_text({"deny@public:tcp:7002", "allow@named.test:tcp:80"});
        return std::make_unique<World>(config, std::vector<std::string>{dual_stack("named.test", kServer)});
    }

  protected:
    static SyscallTrace without_maps(pid_t thread) {
        return SyscallTrace(thread, CallFault{"bpf", "ENOMEM", 1, true});
    }

    EventMonitor monitor_{world().daemon};
};

TEST_P(UnreadBindings, a_drop_is_told_without_its_rule) {
    const auto told = [this](std::string_view source) {
        return monitor_.wait_for([&](const boost::json::object& event) {
            return is(event, "type", "drop") && is(event, "verdict", "deny") && !is(event, "source", source);
        });
    };
    std::optional<boost::json::object> event;
    {
        SyscallTrace trace = without_maps(world().daemon.pid());
        EXPECT_EQ(exchange(guest(), server(kServer, 7002), "hello").connect_error, ECONNREFUSED);
        event = told("");
        EXPECT_TRUE(std::ranges::any_of(trace.stop(), &Syscall::is_injected));
    }
    ASSERT_TRUE(event.has_value());
    EXPECT_TRUE(is(*event, "guest", "vm0")) << boost::json::serialize(*event);
    EXPECT_TRUE(is(*event, "reason", "policy-first-packet"));
    EXPECT_TRUE(is(*event, "destination", server(kServer, 7002).to_string()));
    EXPECT_TRUE(is(*event, "rule", ""));
    EXPECT_TRUE(is(*event, "to_allow", ""));

    EXPECT_EQ(exchange(guest(), server(kServer, 7002), "hello").connect_error, ECONNREFUSED);
    event = told(event->at("source").as_string());
    ASSERT_TRUE(event.has_value());
    EXPECT_TRUE(is(*event, "rule", "deny@public:tcp:7002")) << boost::json::serialize(*event);
    EXPECT_FALSE(is(*event, "to_allow", ""));
}

TEST_P(UnreadBindings, a_request_is_denied_for_that_and_with_no_advice) {
    resolve(world(), family(), "named.test");
    const TcpServer site(world().topology.internet(), server(kServer, 80), [](TcpStream& stream) {
        while (!stream.receive_some(4096).bytes.empty())
            stream.send("HTTP/1.1 204 No Content\r\n\r\n");
    });
    auto stream = TcpStream::connect(guest(), site.endpoint());
    ASSERT_TRUE(stream.has_value());
    stream->send("GET / HTTP/1.1\r\nHost: named.test\r\n\r\n");
    EXPECT_EQ(stream->receive(27).bytes, "HTTP/1.1 204 No Content\r\n\r\n");
    SyscallTrace trace = without_maps(thread_named(world().daemon.pid(), "tapgate-worker"));
    stream->send("GET / HTTP/1.1\r\nHost: other.test\r\n\r\n");
    EXPECT_TRUE(stream->receive_to_end().bytes.starts_with("HTTP/1.1 403 "));
    trace.stop();
    const auto event = monitor_.wait_for([](const boost::json::object& seen) {
        return is(seen, "type", "verdict") && is(seen, "verdict", "deny");
    });
    ASSERT_TRUE(event.has_value());
    EXPECT_TRUE(event->at("basis").as_string().starts_with("failed: ")) << boost::json::serialize(*event);
    EXPECT_TRUE(is(*event, "to_allow", ""));
}

INSTANTIATE_TEST_SUITE_P(Families, UnreadBindings, families(), family_name);

} // namespace
} // namespace tapgate::test
