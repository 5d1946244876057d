// SPDX-License-Identifier: Apache-2.0
#include "harness/wait.hpp"
#include "netns/events.hpp"
#include "netns/pattern.hpp"
#include "netns/world.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <thread>
#include <tuple>

#include <poll.h>

// Bytes verbatim, ends faithful, nothing left behind (I9): for every way of carrying a session.
namespace tapgate::test {
namespace {

constexpr std::uint64_t kMebibyte = 1024 * 1024;
constexpr std::uint16_t kUp = 7001;
constexpr std::uint16_t kDown = 7002;
constexpr std::uint16_t kEcho = 7003;
constexpr std::uint16_t kSilent = 7004;
constexpr std::uint16_t kScript = 7005;
constexpr unsigned kBulk = 20;

class Transfer : public testing::TestWithParam<std::tuple<std::string, const Family*>> {
  protected:
    static void TearDownTestSuite() { worlds_.clear(); }

    void SetUp() override {
        const std::string& splice = std::get<0>(GetParam());
        std::unique_ptr<World>& world = worlds_[splice];
        if (!world) {
            DaemonConfig config;
            config.daemon = fmt::format("workers = 2\nsplice = \"{}\"", splice);
            config.policy = policy_text({"allow@bulk.test:tcp:7000-7999"});
            world = std::make_unique<World>(config, std::vector<std::string>{dual_stack("bulk.test", kBulk)});
        }
        world_ = world.get();
        EXPECT_EQ(world_->daemon.ask({"status", "show"}).at("splice").as_string(), splice);
        resolve(*world_, family(), "bulk.test");
    }

    void TearDown() override {
        if (HasFailure() && world_ != nullptr)
            std::cerr << "the daemon's log:\n" << world_->daemon.log();
    }

    static const Family& family() { return *std::get<1>(GetParam()); }

    [[nodiscard]] static Endpoint upstream(std::uint16_t port) { return {family().server(kBulk), port}; }

    [[nodiscard]] const NetNs& internet() const { return world_->topology.internet(); }

    [[nodiscard]] const NetNs& guest() const { return world_->topology.guest().ns; }

    /// A connection on which the guest has said one byte, so that it is past its peek.
    [[nodiscard]] TcpStream connect(std::uint16_t port) const {
        auto stream = TcpStream::connect(guest(), upstream(port));
        if (!stream)
            throw std::system_error(stream.error(), std::generic_category(), "connect");
        stream->send(std::string_view("\0", 1));
        return std::move(*stream);
    }

    World* world_ = nullptr;

  private:
    static inline std::map<std::string, std::unique_ptr<World>> worlds_;
};

TEST_P(Transfer, an_upload_of_a_gibibyte_arrives_intact) {
    const std::uint64_t total = (quick() ? 32 : 1024) * kMebibyte;
    PatternResult got;
    const TcpServer sink(internet(), upstream(kUp), [&](TcpStream& stream) {
        stream.receive(1);
        got = receive_pattern(stream);
        stream.send("done");
    });
    TcpStream stream = connect(kUp);
    EXPECT_EQ(send_pattern(stream, total), 0);
    stream.finish();
    const Received reply = stream.receive_to_end();
    EXPECT_EQ(reply.bytes, "done");
    EXPECT_EQ(reply.end, End::kFin);
    EXPECT_TRUE(got.intact);
    EXPECT_EQ(got.verified, total);
    EXPECT_EQ(got.end, End::kFin);
}

TEST_P(Transfer, a_download_of_a_gibibyte_arrives_intact) {
    const std::uint64_t total = (quick() ? 32 : 1024) * kMebibyte;
    const TcpServer source(internet(), upstream(kDown), [&](TcpStream& stream) {
        stream.receive(1);
        send_pattern(stream, total);
    });
    TcpStream stream = connect(kDown);
    const PatternResult got = receive_pattern(stream);
    EXPECT_TRUE(got.intact);
    EXPECT_EQ(got.verified, total);
    EXPECT_EQ(got.end, End::kFin);
}

TEST_P(Transfer, a_download_goes_on_after_the_guest_has_finished_sending) {
    const TcpServer source(internet(), upstream(kDown), [](TcpStream& stream) {
        if (stream.receive_to_end().end ==
            End::kFin) // only then, so that the guest's FIN must have come through
            send_pattern(stream, 8 * kMebibyte);
    });
    TcpStream stream = connect(kDown);
    stream.finish();
    const PatternResult got = receive_pattern(stream);
    EXPECT_EQ(got.verified, 8 * kMebibyte);
    EXPECT_EQ(got.end, End::kFin);
}

TEST_P(Transfer, an_upload_goes_on_after_the_server_has_finished_sending) {
    PatternResult got;
    std::atomic<bool> done{false};
    const TcpServer sink(internet(), upstream(kUp), [&](TcpStream& stream) {
        stream.receive(1);
        stream.finish();
        got = receive_pattern(stream);
        done = true;
    });
    TcpStream stream = connect(kUp);
    EXPECT_EQ(stream.receive_to_end().end, End::kFin);
    EXPECT_EQ(send_pattern(stream, 8 * kMebibyte), 0);
    stream.finish();
    EXPECT_TRUE(wait_until([&] { return done.load(); }));
    EXPECT_TRUE(got.intact);
    EXPECT_EQ(got.verified, 8 * kMebibyte);
}

TEST_P(Transfer, a_reset_by_the_guest_is_a_reset_upstream) {
    std::atomic<int> end{-1};
    const TcpServer server(internet(), upstream(kScript), [&](TcpStream& stream) {
        stream.send("ready");
        end = static_cast<int>(stream.receive_to_end().end);
    });
    TcpStream stream = connect(kScript);
    EXPECT_EQ(stream.receive(5).bytes, "ready");
    stream.reset();
    EXPECT_TRUE(wait_until([&] { return end >= 0; }));
    EXPECT_EQ(end, static_cast<int>(End::kReset));
}

TEST_P(Transfer, a_reset_by_the_server_is_a_reset_at_the_guest) {
    const TcpServer server(internet(), upstream(kScript), [&](TcpStream& stream) {
        stream.send("ready");
        stream.receive(2);
        stream.reset();
    });
    TcpStream stream = connect(kScript);
    EXPECT_EQ(stream.receive(5).bytes, "ready");
    stream.send("x");
    EXPECT_EQ(stream.receive_to_end().end, End::kReset);
}

TEST_P(Transfer, a_download_that_the_server_resets_never_looks_complete) {
    const TcpServer source(internet(), upstream(kDown), [&](TcpStream& stream) {
        stream.receive(1);
        send_pattern(stream, kMebibyte);
        stream.reset();
    });
    TcpStream stream = connect(kDown);
    const PatternResult got = receive_pattern(stream);
    EXPECT_TRUE(got.intact);
    EXPECT_EQ(got.end, End::kReset);
}

TEST_P(Transfer, a_refused_dial_is_a_reset) {
    auto stream = TcpStream::connect(guest(), upstream(7999)); // nobody listens there
    ASSERT_TRUE(stream.has_value());
    stream->send(std::string_view("\0", 1));
    EXPECT_EQ(stream->receive_to_end().end, End::kReset);
}

TEST_P(Transfer, a_slow_reader_gets_everything) {
    constexpr std::uint64_t kTotal = 96 * kMebibyte; // more than the kernels of both ends take
    const TcpServer source(internet(), upstream(kDown), [&](TcpStream& stream) {
        stream.receive(1);
        send_pattern(stream, kTotal);
    });
    TcpStream stream = connect(kDown);
    // Reads nothing until as much is held on the way as is going to be.
    std::uint64_t carried = 0;
    const auto stalled = [&] {
        const boost::json::array flows = world_->daemon.flows();
        const std::uint64_t now = flows.empty() ? 0 : flows[0].at("bytes_down").to_number<std::uint64_t>();
        return now > 0 && std::exchange(carried, now) == now;
    };
    EXPECT_TRUE(wait_until(stalled));
    EXPECT_LT(carried, kTotal);
    const PatternResult got = receive_pattern(stream);
    EXPECT_EQ(got.verified, kTotal);
    EXPECT_EQ(got.end, End::kFin);
}

TEST_P(Transfer, two_hundred_sessions_at_once_leave_nothing_behind) {
    constexpr unsigned kSessions = 200;
    const std::uint64_t each = (quick() ? 64 : 512) * 1024ULL;
    const TcpServer server(internet(), upstream(kEcho), [&](TcpStream& stream) {
        stream.receive(1);
        echo(stream);
    });
    const auto round = [&] {
        std::atomic<unsigned> intact{0};
        std::vector<std::thread> clients;
        for (unsigned i = 0; i < kSessions; ++i) {
            clients.emplace_back([&] {
                TcpStream stream = connect(kEcho);
                std::thread sender([&] {
                    if (send_pattern(stream, each) == 0)
                        stream.finish();
                });
                const PatternResult got = receive_pattern(stream);
                sender.join();
                intact += got.intact && got.verified == each && got.end == End::kFin ? 1 : 0;
            });
        }
        for (std::thread& client : clients)
            client.join();
        return intact.load();
    };
    EXPECT_TRUE(wait_until([&] { return world_->daemon.flows().empty(); }));
    const std::size_t descriptors = world_->daemon.descriptors();
    EXPECT_EQ(round(), kSessions);
    EXPECT_TRUE(wait_until([&] { return world_->daemon.flows().empty(); }));
    const std::size_t resident = world_->daemon.resident_bytes();
    EXPECT_EQ(round(), kSessions);
    EXPECT_EQ(round(), kSessions);

    EXPECT_TRUE(wait_until([&] { return world_->daemon.flows().empty(); }));
    EXPECT_EQ(world_->daemon.guest().at("sessions").to_number<int>(), 0);
    EXPECT_TRUE(wait_until([&] { return world_->daemon.descriptors() <= descriptors; }))
        << descriptors << " before, " << world_->daemon.descriptors() << " after";
    EXPECT_EQ(world_->daemon.map_entries("pending"), 0U);
    EXPECT_EQ(world_->daemon.map_entries("dns_pending"), 0U);
    // AddressSanitizer's quarantine keeps up to 256 MiB of what was freed.
    const std::uint64_t slack = (quick() ? 300 : 16) * kMebibyte;
    EXPECT_LT(world_->daemon.resident_bytes(), resident + slack);
}

TEST_P(Transfer, flow_show_tells_the_live_session) {
    const TcpServer server(internet(), upstream(kEcho), [](TcpStream& stream) { echo(stream); });
    TcpStream stream = connect(kEcho);
    stream.send("12345");
    EXPECT_EQ(stream.receive(6).bytes.size(), 6U);
    boost::json::array flows;
    ASSERT_TRUE(wait_until([&] { // those of the test before may not be over yet
        flows = world_->daemon.flows();
        return flows.size() == 1;
    }));
    const boost::json::object& flow = flows[0].as_object();
    EXPECT_EQ(flow.at("guest").as_string(), "vm0");
    EXPECT_EQ(flow.at("source").as_string(), stream.local().to_string());
    EXPECT_EQ(flow.at("destination").as_string(), upstream(kEcho).to_string());
    EXPECT_EQ(flow.at("state").as_string(), "relay");
    EXPECT_EQ(flow.at("verdict").as_string(), "allow");
    EXPECT_EQ(flow.at("splice").as_string(), std::get<0>(GetParam()));
    EXPECT_EQ(flow.at("bytes_up").to_number<int>(), 6);
    EXPECT_EQ(flow.at("bytes_down").to_number<int>(), 6);
}

TEST_P(Transfer, flow_kill_resets_both_ends_of_what_was_chosen_and_nothing_else) {
    std::atomic<int> resets{0};
    const TcpServer server(internet(), upstream(kEcho), [&](TcpStream& stream) {
        resets += stream.receive_to_end().end == End::kReset ? 1 : 0;
    });
    const EventMonitor monitor(world_->daemon);
    std::vector<TcpStream> streams;
    for (int i = 0; i < 3; ++i)
        streams.push_back(connect(kEcho));
    boost::json::array flows;
    ASSERT_TRUE(wait_until([&] {
        flows = world_->daemon.flows();
        return flows.size() == 3 && std::ranges::all_of(flows, [](const boost::json::value& flow) {
                   return flow.at("state").as_string() == "relay";
               });
    }));
    const auto id_of = [&](const TcpStream& stream) {
        const auto flow = std::ranges::find_if(flows, [&](const boost::json::value& row) {
            return row.at("source").as_string() == stream.local().to_string();
        });
        return std::to_string(flow->at("id").to_number<std::uint64_t>());
    };
    const auto kill = [&](std::vector<std::string> words) {
        words.insert(words.begin(), {"flow", "kill"});
        return world_->daemon.ask(words).at("killed").to_number<int>();
    };
    EXPECT_EQ(kill({"--guest", "vm0", "--dry-run"}), 0);
    EXPECT_EQ(kill({id_of(streams[0])}), 1);
    EXPECT_EQ(streams[0].receive_to_end().end, End::kReset);
    EXPECT_TRUE(wait_until([&] { return resets == 1 && world_->daemon.flows().size() == 2; }));
    EXPECT_EQ(world_->daemon.cli({"flow", "kill", id_of(streams[0])}).exit_code, 1); // gone
    EXPECT_EQ(kill({"--name", "other.test"}), 0);
    EXPECT_EQ(kill({"--name", "bulk.test"}), 2);
    EXPECT_EQ(streams[1].receive_to_end().end, End::kReset);
    EXPECT_EQ(streams[2].receive_to_end().end, End::kReset);
    EXPECT_TRUE(wait_until([&] { return resets == 3; }));
    EXPECT_TRUE(monitor.wait_for([&](const boost::json::object& event) {
        return is(event, "type", "flow-end") && is(event, "how", "killed") && is(event, "who", "operator") &&
               is(event, "source", streams[2].local().to_string());
    }));
}

INSTANTIATE_TEST_SUITE_P(Splice, Transfer,
                         testing::Combine(testing::Values("kernel", "uring", "copy"), families()),
                         [](const auto& tested) {
                             return std::get<0>(tested.param) + "_" + std::get<1>(tested.param)->name;
                         });

/// Waits for an RST on a stream whose other side has sent FIN already.
void wait_until_reset(const TcpStream& stream) {
    pollfd entry{stream.fd(), 0, 0}; // POLLERR and POLLHUP are always reported
    ::poll(&entry, 1, poll_timeout(in(kPatience)));
}

/// Timers short enough to be waited for.
class Timers : public WorldTest<Timers> {
  public:
    static std::unique_ptr<World> make_world() {
        DaemonConfig config;
        config.timers = "idle_s = 3\nhalf_closed_s = 1\nconnect_ms = 1500";
        config.policy = policy_text({"allow@public:tcp"});
        return std::make_unique<World>(config, std::vector<std::string>{});
    }
};

TEST_P(Timers, an_idle_session_is_reset_at_both_ends) {
    std::atomic<int> end{-1};
    const TcpServer server(world().topology.internet(), Timers::server(30, kSilent),
                           [&](TcpStream& stream) { end = static_cast<int>(stream.receive_to_end().end); });
    auto stream = TcpStream::connect(guest(), server.endpoint());
    ASSERT_TRUE(stream.has_value());
    EXPECT_EQ(stream->receive_to_end().end, End::kReset);
    EXPECT_TRUE(wait_until([&] { return end >= 0; }));
    EXPECT_EQ(end, static_cast<int>(End::kReset));
}

TEST_P(Timers, a_half_closed_session_that_stays_silent_is_reset) {
    const TcpServer server(world().topology.internet(), Timers::server(30, kSilent), [&](TcpStream& stream) {
        stream.receive_to_end(); // the guest's FIN
        // No FIN of ours until the session is gone.
        wait_until_reset(stream);
    });
    auto stream = TcpStream::connect(guest(), server.endpoint());
    ASSERT_TRUE(stream.has_value());
    stream->finish();
    EXPECT_EQ(stream->receive_to_end().end, End::kReset);
}

TEST_P(Timers, a_dial_that_nobody_answers_is_a_reset_at_the_connect_timeout) {
    const IpAddress hole = family().server(200);
    must_run({"ip", "route", "add", "blackhole", hole.to_string(), "table", "local"},
             &world().topology.internet());
    const auto start = std::chrono::steady_clock::now();
    auto stream = TcpStream::connect(guest(), Endpoint{hole, 443});
    ASSERT_TRUE(stream.has_value());
    EXPECT_EQ(stream->receive_to_end().end, End::kReset);
    EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(1400));
}

INSTANTIATE_TEST_SUITE_P(Family, Timers, families(), family_name);

} // namespace
} // namespace tapgate::test
