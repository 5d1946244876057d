// SPDX-License-Identifier: Apache-2.0
//
// A long run over the splice in the kernel, on wires that lose, double and delay. Not part of ctest: it moves
// TAPGATE_LONG_BYTES (1 GiB) for each IP version, with TAPGATE_LONG_ROUGH more slowly, and prints what it has
// done.
#include "bad_wire.skel.h"
#include "harness/wait.hpp"
#include "netns/pattern.hpp"
#include "netns/world.hpp"

#include <bpf/libbpf.h>
#include <fmt/format.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <random>
#include <system_error>
#include <thread>
#include <vector>

#include <linux/tcp.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>

namespace tapgate::test {
namespace {

constexpr std::uint64_t kMebibyte = 1024 * 1024;
constexpr std::uint64_t kGibibyte = 1024 * kMebibyte;
constexpr unsigned kSite = 20;
constexpr std::uint16_t kPort = 7001;
/// Addresses, each with a clock of its own for timestamps.
constexpr unsigned kFirstClock = 100;
constexpr unsigned kClocks = 40;
constexpr unsigned kStreams = 8;
/// Of 65536.
constexpr std::uint32_t kLost = 65;
constexpr std::uint32_t kDoubled = 65;
constexpr std::uint32_t kLate = 327;

std::string clock_name(unsigned site) {
    return fmt::format("clock{}.bulk.test", site);
}

std::uint64_t wanted_bytes() {
    const char* wish = std::getenv("TAPGATE_LONG_BYTES");
    return wish == nullptr ? kGibibyte : std::strtoull(wish, nullptr, 10);
}

/// Segments of their own on the wire, none larger than the MTU, and ten times as many of them in trouble.
bool is_rough() {
    return std::getenv("TAPGATE_LONG_ROUGH") != nullptr;
}

/// The egress of an interface, through bad_wire.bpf.c.
class BadWire {
  public:
    BadWire(const NetNs& ns, const std::string& interface) {
        const std::uint32_t times = is_rough() ? 10 : 1;
        if (is_rough())
            must_run({"ip", "link", "set", "dev", interface, "gso_max_segs", "1"}, &ns);
        // The detour's delay is that of its queue.
        must_run({"ip", "link", "add", "detour0", "type", "veth", "peer", "name", "detour1"}, &ns);
        ip_batch(ns, "link set detour0 up\nlink set detour1 up\n");
        must_run({"tc", "qdisc", "add", "dev", "detour0", "root", "tbf", "rate", "400mbit", "burst", "128k",
                  "latency", "50ms"},
                 &ns);
        if (!bpf_)
            throw std::runtime_error("bad_wire cannot be opened");
        const auto index = [&](const char* name) { return ns.run([&] { return ::if_nametoindex(name); }); };
        bpf_->rodata->wire_ifindex = index(interface.c_str());
        bpf_->rodata->detour_ifindex = index("detour0");
        bpf_->rodata->lost_share = kLost * times;
        bpf_->rodata->doubled_share = kDoubled * times;
        bpf_->rodata->late_share = kLate * times;
        if (bad_wire::load(bpf_.get()) != 0)
            throw std::runtime_error("bad_wire cannot be loaded");
        attach(ns, index(interface.c_str()), BPF_TC_EGRESS, bpf_->progs.wire);
        attach(ns, index("detour1"), BPF_TC_INGRESS, bpf_->progs.back);
    }

    [[nodiscard]] std::string told() const {
        return fmt::format("{} packets, {} lost, {} doubled, {} late", bpf_->bss->packets, bpf_->bss->lost,
                           bpf_->bss->doubled, bpf_->bss->late);
    }

  private:
    static void attach(const NetNs& ns, unsigned index, bpf_tc_attach_point point,
                       const bpf_program* program) {
        bpf_tc_hook hook{};
        hook.sz = sizeof hook;
        hook.ifindex = static_cast<int>(index);
        hook.attach_point = point;
        bpf_tc_opts options{};
        options.sz = sizeof options;
        options.prog_fd = ::bpf_program__fd(program);
        const int result = ns.run([&] {
            const int made = ::bpf_tc_hook_create(&hook);
            return made != 0 ? made : ::bpf_tc_attach(&hook, &options);
        });
        if (result != 0)
            throw std::system_error(-result, std::generic_category(), "attach bad_wire");
    }

    struct Unload {
        void operator()(bad_wire* bpf) const { bad_wire::destroy(bpf); }
    };

    std::unique_ptr<bad_wire, Unload> bpf_{bad_wire::open()};
};

struct BadWorld : World {
    using World::World;
    BadWire up{topology.guest().ns, "eth0"};
    BadWire down{topology.internet(), "eth0"};
};

/// What a connection is for; the client's first bytes. The byte in front is that of no TLS hello.
struct Order {
    enum Manner : std::uint8_t {
        kBoth,      ///< both send at once
        kUpFirst,   ///< the server begins when the guest has finished: the answer to a half-closed request
        kDownFirst, ///< the other way round
        kStallUp,   ///< the server does not read before it is told to
        kTrickle,   ///< an octet for an octet, as long as the guest wants; then both
        kManners,
    };

    std::uint8_t front = 0;
    Manner manner = kBoth;
    std::uint64_t up = 0;
    std::uint64_t down = 0;
};

void set(int fd, int option, int value) {
    EXPECT_EQ(::setsockopt(fd, IPPROTO_TCP, option, &value, sizeof value), 0) << option;
}

std::uint32_t get(const TcpStream& stream, int option) {
    std::uint32_t value = 0;
    socklen_t length = sizeof value;
    EXPECT_EQ(::getsockopt(stream.fd(), IPPROTO_TCP, option, &value, &length), 0) << option;
    return value;
}

tcp_info info_of(const TcpStream& stream) {
    tcp_info info{};
    socklen_t length = sizeof info;
    EXPECT_EQ(::getsockopt(stream.fd(), IPPROTO_TCP, TCP_INFO, &info, &length), 0);
    return info;
}

/// True if the clock of that end's timestamps is in the second half of its range. It begins anywhere, by the
/// addresses of the connection (RFC 7323 5.4).
bool is_late(const TcpStream& stream) {
    return get(stream, TCP_TIMESTAMP) >= 0x80000000U;
}

/// Lets the timestamps of that end wrap in a few seconds. False: they would have to go back for it, and the
/// other end drops that.
bool bring_clock_near_its_end(const TcpStream& stream) {
    if (!is_late(stream))
        return false;
    set(stream.fd(), TCP_REPAIR, TCP_REPAIR_ON);
    set(stream.fd(), TCP_TIMESTAMP, -3000); // milliseconds
    set(stream.fd(), TCP_REPAIR, TCP_REPAIR_OFF_NO_WP);
    const int on = 1; // which TCP_REPAIR takes away: the next server would find the port in use
    EXPECT_EQ(::setsockopt(stream.fd(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), 0);
    return true;
}

class SpliceLong : public WorldTest<SpliceLong> {
  public:
    static std::unique_ptr<World> make_world() {
        DaemonConfig config;
        config.daemon = "workers = 2\nsplice = \"kernel\"";
        config.policy = policy_text({"allow@*.bulk.test:tcp:7000-7999"});
        std::vector<std::string> zone = {dual_stack("bulk.test", kSite)};
        for (unsigned site = kFirstClock; site < kFirstClock + kClocks; ++site)
            zone.push_back(dual_stack(clock_name(site), site));
        return std::make_unique<BadWorld>(config, zone);
    }

  protected:
    void SetUp() override {
        WorldTest::SetUp();
        resolve(world(), family(), "bulk.test");
    }

    static const BadWorld& bad_world() { return static_cast<const BadWorld&>(world()); }

    void serve(TcpStream& stream) {
        obey(stream);
        ++served_;
    }

    /// Waits for the server's ends of so many connections: a server that goes away cuts them.
    void expect_served(unsigned connections) const {
        EXPECT_TRUE(wait_until([&] { return served_ == connections; }, std::chrono::minutes(2)))
            << served_ << " of " << connections;
    }

    /// What the server does with a connection.
    void obey(TcpStream& stream) {
        const std::string said = stream.receive(sizeof(Order)).bytes;
        Order order;
        ASSERT_EQ(said.size(), sizeof order);
        std::memcpy(&order, said.data(), sizeof order);
        // So that the guest does not send more at first than is spliced (SpliceRefusal::kFirstFlight).
        EXPECT_EQ(stream.send("g"), 0);
        switch (order.manner) {
        case Order::kDownFirst:
            EXPECT_EQ(send_pattern(stream, order.down), 0);
            stream.finish();
            expect_pattern(stream, order.up);
            return;
        case Order::kUpFirst:
            expect_pattern(stream, order.up);
            EXPECT_EQ(send_pattern(stream, order.down), 0);
            return;
        case Order::kStallUp:
            EXPECT_TRUE(wait_until([&] { return may_read_.load(); }));
            break;
        case Order::kTrickle:
            EXPECT_EQ(stream.send(bring_clock_near_its_end(stream) ? "y" : "n"), 0);
            for (Received got = stream.receive(1); got.bytes == "t"; got = stream.receive(1))
                EXPECT_EQ(stream.send(is_late(stream) ? "l" : "w"), 0);
            break;
        case Order::kBoth:
        case Order::kManners:
            break;
        }
        std::thread sender([&] {
            EXPECT_EQ(send_pattern(stream, order.down), 0);
            stream.finish();
        });
        expect_pattern(stream, order.up);
        sender.join();
    }

    static void expect_pattern(TcpStream& stream, std::uint64_t total) {
        const PatternResult got = receive_pattern(stream);
        EXPECT_TRUE(got.intact) << "after " << got.verified << " of " << total;
        EXPECT_EQ(got.verified, total);
        EXPECT_EQ(got.end, End::kFin);
    }

    /// Sends it, and waits until the server has it.
    static bool give(TcpStream& stream, const Order& order) {
        std::array<char, sizeof order> bytes{};
        std::memcpy(bytes.data(), &order, sizeof order);
        return stream.send({bytes.data(), bytes.size()}) == 0 && stream.receive(1).bytes == "g";
    }

    [[nodiscard]] static TcpStream connect() {
        auto stream = TcpStream::connect(guest(), server(kSite, kPort));
        if (!stream)
            throw std::system_error(stream.error(), std::generic_category(), "connect");
        return std::move(*stream);
    }

    /// A connection whose first sequence number is `before_wrap` before the numbers begin again.
    [[nodiscard]] static TcpStream connect_near_the_wrap(const Endpoint& server, std::uint32_t before_wrap) {
        sockaddr_storage to{};
        const socklen_t length = server.to_sockaddr(to);
        UniqueFd fd(guest().run([&] { return ::socket(to.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0); }));
        set(fd.get(), TCP_REPAIR, TCP_REPAIR_ON);
        set(fd.get(), TCP_REPAIR_QUEUE, TCP_SEND_QUEUE);
        set(fd.get(), TCP_QUEUE_SEQ, static_cast<int>(0U - before_wrap));
        set(fd.get(), TCP_REPAIR, TCP_REPAIR_OFF_NO_WP);
        if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), length) != 0)
            throw std::system_error(errno, std::generic_category(), "connect");
        return TcpStream(std::move(fd));
    }

    /// The guest's part of an order, from behind the order itself on.
    static void carry_out(TcpStream& stream, const Order& order) {
        if (order.manner == Order::kDownFirst)
            expect_pattern(stream, order.down);
        std::thread sender([&] {
            EXPECT_EQ(send_pattern(stream, order.up), 0);
            stream.finish();
        });
        if (order.manner != Order::kDownFirst)
            expect_pattern(stream, order.down);
        sender.join();
    }

    std::atomic<bool> may_read_{false};
    std::atomic<unsigned> served_{0};
    TcpServer server_{world().topology.internet(), server(kSite, kPort),
                      [this](TcpStream& stream) { serve(stream); }};
};

TEST_P(SpliceLong, sequence_numbers_and_timestamps_of_both_ends_wrap_in_the_middle) {
    const Order order{0, Order::kTrickle, 64 * kMebibyte, 64 * kMebibyte};
    bool is_done = false;
    for (unsigned site = kFirstClock; !is_done && site < kFirstClock + kClocks; ++site) {
        resolve(world(), family(), clock_name(site));
        const TcpServer other(world().topology.internet(), server(site, kPort),
                              [this](TcpStream& stream) { serve(stream); });
        TcpStream stream = connect_near_the_wrap(other.endpoint(), 100'000);
        const bool is_near = bring_clock_near_its_end(stream);
        ASSERT_TRUE(give(stream, order));
        is_done = stream.receive(1).bytes == "y" && is_near;
        EXPECT_TRUE(!is_done || wait_until([&] {
            return stream.send("t") == 0 && stream.receive(1).bytes == "w" && !is_late(stream);
        }));
        ASSERT_EQ(stream.send("."), 0);
        carry_out(stream, order);
        expect_served(site - kFirstClock + 1);
    }
    EXPECT_TRUE(is_done) << "no two clocks that could be brought near their end";
}

TEST_P(SpliceLong, a_server_that_does_not_read_stops_the_guest_and_gets_everything) {
    TcpStream stream = connect();
    const Order order{0, Order::kStallUp, 64 * kMebibyte, kMebibyte};
    may_read_ = false;
    EXPECT_TRUE(give(stream, order));
    std::thread guest_end([&] { carry_out(stream, order); });
    EXPECT_TRUE(wait_until([&] {
        const tcp_info info = info_of(stream);
        return info.tcpi_notsent_bytes != 0 && info.tcpi_unacked == 0 &&
               info.tcpi_snd_wnd < info.tcpi_snd_mss;
    }));
    may_read_ = true;
    guest_end.join();
    expect_served(1);
}

TEST_P(SpliceLong, keep_alives_are_answered_while_nothing_moves) {
    TcpStream stream = connect();
    set(stream.fd(), TCP_KEEPIDLE, 1);
    set(stream.fd(), TCP_KEEPINTVL, 1);
    set(stream.fd(), TCP_KEEPCNT, 30);
    const int on = 1;
    ASSERT_EQ(::setsockopt(stream.fd(), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on), 0);
    EXPECT_TRUE(give(stream, {0, Order::kTrickle, kMebibyte, kMebibyte}));
    EXPECT_EQ(stream.receive(1).bytes.size(), 1U);
    // An acknowledgement long after the last octet that was sent: that of a keep-alive.
    EXPECT_TRUE(wait_until([&] {
        const tcp_info info = info_of(stream);
        return info.tcpi_last_data_sent > 3000 && info.tcpi_last_ack_recv < 1500;
    }));
    EXPECT_EQ(stream.send("."), 0);
    carry_out(stream, {0, Order::kBoth, kMebibyte, kMebibyte});
    expect_served(1);
}

TEST_P(SpliceLong, mixed_streams_are_verbatim) {
    std::atomic<std::int64_t> left{static_cast<std::int64_t>(wanted_bytes())};
    std::atomic<std::uint64_t> moved{0};
    std::atomic<unsigned> connections{0};
    const auto begun = std::chrono::steady_clock::now();
    std::vector<std::thread> guests;
    for (unsigned number = 0; number < kStreams; ++number)
        guests.emplace_back([&, number] {
            std::mt19937_64 random(number);
            for (bool is_first = true; !HasFailure(); is_first = false) {
                // From nothing to half a gibibyte, each length as likely as its double.
                const auto draw = [&] { return random() % (std::uint64_t{1} << (random() % 30)); };
                Order order{0, static_cast<Order::Manner>(random() % 3), draw(), draw()};
                // The numbers of one connection in eight streams come round, both ways.
                if (number == 0 && is_first && wanted_bytes() >= 32 * kGibibyte)
                    order = {0, Order::kBoth, 5 * kGibibyte, 5 * kGibibyte};
                const std::uint64_t bytes = order.up + order.down;
                if (left.fetch_sub(static_cast<std::int64_t>(bytes)) < static_cast<std::int64_t>(bytes))
                    return;
                ++connections;
                TcpStream stream = connect();
                EXPECT_TRUE(give(stream, order));
                carry_out(stream, order);
                moved += bytes;
            }
        });
    for (std::thread& guest : guests)
        guest.join();
    expect_served(connections);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begun;
    std::cout << fmt::format(
        "{}: {:.2f} GiB in {} connections, {:.0f} s; guest's wire so far: {}; server's wire: {}\n",
        family().name, static_cast<double>(moved) / static_cast<double>(kGibibyte), connections.load(),
        took.count(), bad_world().up.told(), bad_world().down.told());
    const boost::json::object status = world().daemon.ask({"status", "show"});
    std::cout << "not spliced by the kernel: " << boost::json::serialize(status.at("splice_refusals"))
              << '\n';
    EXPECT_TRUE(status.at("splice_refusals").as_array().empty());
    EXPECT_GT(moved, 0U);
}

INSTANTIATE_TEST_SUITE_P(Family, SpliceLong, families(), family_name);

} // namespace
} // namespace tapgate::test
