// SPDX-License-Identifier: Apache-2.0
#include "harness/wait.hpp"
#include "netns/pattern.hpp"
#include "netns/world.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <system_error>
#include <thread>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

// Clients of the control socket and of the metrics port that are malformed, huge, slow or many: guests do not
// notice, the daemon's memory stays bounded, and an honest client is answered beside them.
namespace tapgate::test {
namespace {

constexpr unsigned kNamed = 10; ///< www.open.test
constexpr unsigned kBulk = 20;
constexpr std::uint16_t kPort = 7000;
constexpr std::uint64_t kBulkBytes = 4 * 1024 * 1024;
constexpr unsigned kClients = 64; ///< that the daemon serves at a time
constexpr std::size_t kMebibyte = std::size_t{1} << 20U;
const Endpoint kMetrics = Endpoint{IpAddress::parse("127.0.0.1").value(), 9664};

/// A guest at work, of which nothing may fail.
class BusyGuest {
  public:
    explicit BusyGuest(const World& world)
        : world_(world), named_(world.topology.internet(), {ipv4().server(kNamed), kPort}),
          bulk_(world.topology.internet(), {ipv6().server(kBulk), kPort},
                [](TcpStream& stream) { send_pattern(stream, kBulkBytes); }) {
        start(connections_, [this] { return was_served(exchange(guest(), named_.endpoint(), "\x01")); });
        start(downloads_, [this] {
            auto stream = TcpStream::connect(guest(), bulk_.endpoint());
            if (!stream)
                return false;
            const PatternResult got = receive_pattern(*stream);
            return got.intact && got.verified == kBulkBytes && got.end == End::kFin;
        });
        start(answers_, [this] {
            const auto reply = ask(guest(), {ipv4().gateway, 53}, "www.open.test", "A", kPatience);
            return reply && reply->rcode == kNoError && !reply->addresses.empty();
        });
    }

    /// Each kind of work was done a few times more.
    void expect_undisturbed() const {
        for (const Work* work : {&connections_, &downloads_, &answers_}) {
            const unsigned before = work->done;
            EXPECT_TRUE(wait_until([&] { return work->done >= before + 3 || work->failed != 0; }));
            EXPECT_EQ(work->failed, 0U);
        }
    }

  private:
    struct Work {
        std::atomic<unsigned> done{0};
        std::atomic<unsigned> failed{0};
    };

    template <typename Step>
    void start(Work& work, Step step) {
        threads_.emplace_back([&work, step](const std::stop_token& stop) {
            while (!stop.stop_requested())
                ++(step() ? work.done : work.failed);
        });
    }

    [[nodiscard]] const NetNs& guest() const { return world_.topology.guest().ns; }

    const World& world_;
    CaptureServer named_;
    TcpServer bulk_;
    Work connections_;
    Work downloads_;
    Work answers_;
    std::vector<std::jthread> threads_; // end first
};

class ControlLoad : public testing::Test {
  protected:
    static void SetUpTestSuite() {
        DaemonConfig config;
        config.daemon = fmt::format("workers = 2\nmetrics_listen = \"{}\"", kMetrics.to_string());
        config.limits = "dns_qps = 100000"; // the guest asks as fast as it can
        config.policy = policy();
        world_ =
            std::make_unique<World>(config, std::vector<std::string>{dual_stack("www.open.test", kNamed)});
        resolve(*world_, ipv4(), "www.open.test");
        busy_ = std::make_unique<BusyGuest>(*world_);
    }

    static void TearDownTestSuite() {
        busy_.reset();
        world_.reset();
    }

    void SetUp() override {
        ASSERT_TRUE(busy_);
        busy_->expect_undisturbed();
        highest_ = resident_peak();
    }

    /// What has to hold beside every kind of client, and after it.
    void TearDown() override {
        busy_->expect_undisturbed();
        expect_answer();
        if (HasFailure())
            std::cerr << "the daemon's log:\n" << daemon().log();
    }

    static std::string policy() {
        return policy_text({"allow@www.open.test:tcp:7000",
                            fmt::format("allow@[{}]:tcp:7000", ipv6().server(kBulk).to_string())});
    }

    static const World& world() { return *world_; }

    static Daemon& daemon() { return world_->daemon; }

    static void expect_undisturbed() { busy_->expect_undisturbed(); }

    /// An honest client gets what it asks for.
    static void expect_answer() { daemon().ask({"status", "show"}); }

    /// A connection to the control socket that does not block.
    static UniqueFd connect() {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        const std::string path = daemon().control_socket();
        std::memcpy(address.sun_path, path.data(), std::min(path.size(), sizeof address.sun_path - 1));
        UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
        if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
            throw std::system_error(errno, std::generic_category(), "connect to the control socket");
        ::fcntl(fd.get(), F_SETFL, O_NONBLOCK);
        return fd;
    }

    /// Writes as much as is taken without waiting; false once the daemon has closed.
    static bool offer(const UniqueFd& fd, std::string_view bytes) {
        return ::send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) >= 0 || errno == EAGAIN;
    }

    static bool is_closed(const UniqueFd& fd) {
        pollfd entry{.fd = fd.get(), .events = POLLRDHUP, .revents = 0};
        return ::poll(&entry, 1, 0) == 1 && (entry.revents & (POLLHUP | POLLRDHUP | POLLERR)) != 0;
    }

    /// The most memory that the daemon has had so far (proc(5), VmHWM).
    static std::size_t resident_peak() {
        std::ifstream status(fmt::format("/proc/{}/status", daemon().pid()));
        std::string word;
        std::size_t kibibytes = 0;
        while (status >> word && word != "VmHWM:") {
        }
        status >> kibibytes;
        return kibibytes * 1024;
    }

    /// Since the test began. The kernel counts for each CPU, so that the peak may seem to sink a little.
    [[nodiscard]] std::size_t peak_growth() const { return std::max(resident_peak(), highest_) - highest_; }

    std::size_t highest_ = 0;

  private:
    static inline std::unique_ptr<World> world_;
    static inline std::unique_ptr<BusyGuest> busy_;
};

TEST_F(ControlLoad, malformed_requests) {
    const std::string deep(100'000, '[');
    const std::vector<std::string> lines = {
        "\n",
        "garbage\n",
        "{}\n",
        "null\n",
        deep + "\n",
        std::string(1000, '\0') + "\n",
        "\xff\xfe\xfd\n",
        "{\"schema\":99,\"command\":\"status show\"}\n",
        "{\"schema\":1,\"command\":7}\n",
        "{\"schema\":1,\"command\":\"status show\",\"args\":[]}\n",
        std::string(
            R"({"schema":1,"command":"guest add","args":{"name":1e999,"interface":{},"addresses":7}})") +
            "\n",
        "{\"schema\":1,\"command\":\"guest add\",\"args\":{\"name\":\"" + std::string(100'000, 'x') +
            "\"}}\n",
        "{\"schema\":1,\"command\":\"policy load\",\"args\":{\"name\":\"main\",\"text\":\"" + deep + "\"}}\n",
        "{\"schema\":1,\"command\":\"flow show\",\"args\":{\"id\":-1}}\n",
        "{\"schema\":1,\"command\":\"why\",\"args\":{\"guest\":\"vm0\",\"target\":\"" + deep + "\"}}\n"};
    for (unsigned round = 0; round < 20; ++round) {
        for (const std::string& line : lines) {
            const UniqueFd fd = connect();
            ASSERT_EQ(::send(fd.get(), line.data(), line.size(), MSG_NOSIGNAL),
                      static_cast<ssize_t>(line.size()));
            pollfd entry{.fd = fd.get(), .events = POLLIN, .revents = 0};
            ASSERT_EQ(::poll(&entry, 1, poll_timeout(in(kPatience))), 1) << line.substr(0, 80);
            std::string reply(4096, '\0');
            const ssize_t count = ::recv(fd.get(), reply.data(), reply.size(), 0);
            reply.resize(static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
            EXPECT_NE(reply.find("\"error\""), std::string::npos) << line.substr(0, 80) << reply;
        }
    }
    EXPECT_LT(peak_growth(), 256 * kMebibyte);
}

TEST_F(ControlLoad, requests_without_end) {
    std::vector<UniqueFd> clients;
    for (unsigned i = 0; i < 8; ++i)
        clients.push_back(connect());
    // Until each was refused: at the end of its 64 MiB, for want of a place for a large request, or at its
    // deadline.
    const std::string chunk(kMebibyte, 'x');
    const auto are_all_refused = [&] {
        return std::ranges::none_of(clients, [&](const UniqueFd& fd) { return offer(fd, chunk); });
    };
    EXPECT_TRUE(wait_until(are_all_refused, std::chrono::minutes(2)));
    expect_undisturbed();
    // Two of 64 MiB, in buffers that double.
    EXPECT_LT(peak_growth(), 512 * kMebibyte);
}

TEST_F(ControlLoad, requests_that_never_come_to_an_end_by_more_clients_than_are_served) {
    std::vector<UniqueFd> clients;
    for (unsigned round = 0; round < 30; ++round) {
        for (UniqueFd& fd : clients) {
            if (!offer(fd, "x"))
                fd = connect();
        }
        while (clients.size() < std::size_t{2} * kClients)
            clients.push_back(connect());
        expect_answer();
    }
    expect_undisturbed();
    EXPECT_LT(peak_growth(), 128 * kMebibyte);
}

TEST_F(ControlLoad, clients_that_ask_and_ask_and_take_no_answer) {
    std::vector<UniqueFd> clients;
    std::string requests;
    for (unsigned i = 0; i < 100; ++i)
        requests += "{\"schema\":1,\"command\":\"metric show\"}\n";
    for (unsigned i = 0; i < kClients + 10; ++i) {
        clients.push_back(connect());
        offer(clients.back(), requests);
    }
    for (unsigned round = 0; round < 3; ++round)
        expect_answer();
    expect_undisturbed();
    // Replies that wait take 128 MiB at most; the rest is one that is being made.
    EXPECT_LT(peak_growth(), 384 * kMebibyte);
}

TEST_F(ControlLoad, monitors_that_take_no_event) {
    std::vector<UniqueFd> monitors;
    for (unsigned i = 0; i < kClients / 2; ++i) {
        monitors.push_back(connect());
        ASSERT_TRUE(offer(monitors.back(), "{\"schema\":1,\"command\":\"event monitor\"}\n"));
    }
    for (unsigned round = 0; round < 10; ++round) {
        expect_undisturbed(); // each connection is an event or two
        expect_answer();
    }
    EXPECT_LT(peak_growth(), 128 * kMebibyte);
}

TEST_F(ControlLoad, clients_that_come_and_go) {
    for (unsigned round = 0; round < 20; ++round) {
        std::vector<UniqueFd> clients;
        for (unsigned i = 0; i < 3 * kClients; ++i) {
            clients.push_back(connect());
            offer(clients.back(), i % 2 == 0 ? "{\"schema\":1,\"command\":\"guest show\"}\n" : "{\"sch");
        }
        expect_answer();
    }
    expect_undisturbed();
    EXPECT_TRUE(wait_until([] { return daemon().descriptors() < 200; })) << daemon().descriptors();
}

TEST_F(ControlLoad, slow_and_malformed_readers_of_metrics) {
    const NetNs& host = world().topology.host();
    std::vector<TcpStream> slow;
    for (unsigned round = 0; round < 10; ++round) {
        for (const std::string_view begin :
             {"", "GET /metr", "GET /metrics HTTP/1.1\r\nX: ", "\x16\x03\x01\x02", "\r\n"}) {
            auto stream = TcpStream::connect(host, kMetrics);
            ASSERT_TRUE(stream);
            stream->send(begin);
            slow.push_back(std::move(*stream));
        }
        auto honest = TcpStream::connect(host, kMetrics);
        ASSERT_TRUE(honest);
        honest->send("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        const std::string answer = honest->receive_to_end().bytes;
        EXPECT_TRUE(answer.starts_with("HTTP/1.1 200 ")) << answer.substr(0, 200);
        EXPECT_TRUE(answer.ends_with("# EOF\n"));
    }
    expect_undisturbed();
    EXPECT_LT(peak_growth(), 64 * kMebibyte);
}

} // namespace
} // namespace tapgate::test
