// SPDX-License-Identifier: Apache-2.0
#include "harness/process.hpp"
#include "harness/wait.hpp"
#include "netns/pattern.hpp"
#include "netns/world.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <set>
#include <thread>
#include <tuple>

// kill -9 at any moment, again and again, while the guest goes on: it starts again by itself, what was in
// force before is in force afterwards, and no denied packet has left meanwhile (I5). TAPGATE_KILLS says how
// often.
namespace tapgate::test {
namespace {

namespace json = boost::json;
using std::chrono::milliseconds;

constexpr unsigned kNamed = 10;  ///< www.open.test, on ports 7000 and 7443
constexpr unsigned kBulk = 20;   ///< allowed by its address
constexpr unsigned kDenied = 30; ///< hidden.test; nothing may reach it
constexpr std::uint16_t kPort = 7000;
constexpr std::uint16_t kTls = 7443;
constexpr std::uint64_t kBulkBytes = 2 * 1024 * 1024;
/// A guest without a daemon hears nothing at all.
constexpr milliseconds kShort{500};
/// Between two attempts of one kind; the programs under test are to have the CPU, too.
constexpr milliseconds kPace{5};

unsigned kills_wanted() {
    const char* wish = std::getenv("TAPGATE_KILLS");
    const long number = wish != nullptr ? std::strtol(wish, nullptr, 10) : 10;
    return static_cast<unsigned>(std::clamp(number, 1L, 100'000L));
}

/// What a guest does without pause, and what it got for it.
class Load {
  public:
    explicit Load(const World& world) : world_(world) {
        start([this](const Family& family) { connect_by_name(family); });
        start([this](const Family& family) { connect_by_denied_name(family); });
        start([this](const Family& family) { connect_to_denied_address(family); });
        start([this](const Family& family) { download(family); });
        start([this](const Family& family) { ask_names(family); });
    }

    /// How often what is allowed has worked, by kind.
    [[nodiscard]] std::vector<unsigned> served() const { return {named_, bulk_, answered_, refused_}; }

    /// What must never happen.
    [[nodiscard]] std::vector<std::string> wrongs() const {
        std::vector<std::string> found;
        const auto note = [&](const std::atomic<unsigned>& count, std::string_view what) {
            if (count != 0)
                found.push_back(fmt::format("{} x {}", count.load(), what));
        };
        note(leaked_names_, "a server got the hello of a denied name");
        note(let_through_, "a denied connection was served");
        note(denied_answers_, "a denied name was resolved");
        note(wrong_bytes_, "bytes arrived that were not sent");
        note(cut_short_, "a transfer that was cut looked complete");
        return found;
    }

  private:
    template <typename Step>
    void start(Step step) {
        threads_.emplace_back([step](const std::stop_token& stop) {
            for (unsigned round = 0; !stop.stop_requested(); ++round) {
                step(round % 2 == 0 ? ipv4() : ipv6());
                std::this_thread::sleep_for(kPace);
            }
        });
    }

    [[nodiscard]] const NetNs& guest() const { return world_.topology.guest().ns; }

    [[nodiscard]] std::string try_hello(const Family& family, std::string_view name) const {
        auto stream = TcpStream::connect(guest(), {family.server(kNamed), kTls}, kShort);
        if (!stream)
            return "";
        stream->send(client_hello(name), kShort);
        stream->finish();
        return stream->receive_to_end(kShort).bytes;
    }

    void connect_by_name(const Family& family) {
        if (try_hello(family, "www.open.test") == "served\n")
            ++named_;
    }

    void connect_by_denied_name(const Family& family) {
        const std::string answer = try_hello(family, "hidden.test");
        if (answer == "served\n")
            ++let_through_;
        else if (!answer.empty())
            ++refused_; // by an alert
    }

    void connect_to_denied_address(const Family& family) {
        if (TcpStream::connect(guest(), {family.server(kDenied), kPort}, kShort))
            ++let_through_;
    }

    void download(const Family& family) {
        auto stream = TcpStream::connect(guest(), {family.server(kBulk), kPort}, kShort);
        if (!stream)
            return;
        const PatternResult got = receive_pattern(*stream, kShort);
        if (!got.intact)
            ++wrong_bytes_;
        if (got.end == End::kFin && got.verified != kBulkBytes)
            ++cut_short_;
        if (got.end == End::kFin && got.verified == kBulkBytes)
            ++bulk_;
    }

    void ask_names(const Family& family) {
        const auto hidden = ask(guest(), {family.gateway, 53}, "hidden.test", family.record, kShort);
        if (hidden && !hidden->addresses.empty())
            ++denied_answers_;
        const auto open = ask(guest(), {family.gateway, 53}, "dns.open.test", family.record, kShort);
        if (open && open->rcode == kNoError && !open->addresses.empty())
            ++answered_;
    }

    const World& world_;
    std::atomic<unsigned> named_{0};
    std::atomic<unsigned> bulk_{0};
    std::atomic<unsigned> answered_{0};
    std::atomic<unsigned> refused_{0};
    std::atomic<unsigned> let_through_{0};
    std::atomic<unsigned> denied_answers_{0};
    std::atomic<unsigned> wrong_bytes_{0};
    std::atomic<unsigned> cut_short_{0};

    // Servers first: the clients end before them.
    std::atomic<unsigned> leaked_names_{0};
    std::vector<std::unique_ptr<TcpServer>> servers_ = make_servers();
    std::vector<std::jthread> threads_;

    std::vector<std::unique_ptr<TcpServer>> make_servers() {
        const NetNs& internet = world_.topology.internet();
        std::vector<std::unique_ptr<TcpServer>> made;
        for (const Family* family : {&ipv4(), &ipv6()}) {
            made.push_back(std::make_unique<TcpServer>(
                internet, Endpoint{family->server(kNamed), kTls}, [this](TcpStream& stream) {
                    const Received hello = stream.receive_to_end();
                    if (hello.bytes.find("hidden.test") != std::string::npos)
                        ++leaked_names_;
                    stream.send("served\n");
                }));
            made.push_back(
                std::make_unique<TcpServer>(internet, Endpoint{family->server(kBulk), kPort},
                                            [](TcpStream& stream) { send_pattern(stream, kBulkBytes); }));
        }
        return made;
    }
};

/// Counts, in the internet's kernel, packets that must not be there.
class Tripwire {
  public:
    explicit Tripwire(const NetNs& internet) : internet_(internet) {
        must_run({"nft", fmt::format("add table inet trip; "
                                     "add chain inet trip in {{ type filter hook prerouting priority 0; }}; "
                                     "add rule inet trip in iifname eth0 ip daddr {} counter; "
                                     "add rule inet trip in iifname eth0 ip6 daddr {} counter; "
                                     "add rule inet trip in iifname eth0 ip saddr 192.0.2.0/24 counter; "
                                     "add rule inet trip in iifname eth0 ip6 saddr 2001:db8:1::/48 counter",
                                     ipv4().server(kDenied).to_string(), ipv6().server(kDenied).to_string())},
                 &internet_);
    }

    [[nodiscard]] std::uint64_t packets() const {
        const json::value listed =
            json::parse(must_run({"nft", "-j", "list", "table", "inet", "trip"}, &internet_));
        std::uint64_t sum = 0;
        unsigned rules = 0;
        for (const json::value& entry : listed.at("nftables").as_array()) {
            const json::value* rule = entry.as_object().if_contains("rule");
            if (rule == nullptr)
                continue;
            ++rules;
            for (const json::value& part : rule->at("expr").as_array()) {
                if (const json::value* counter = part.as_object().if_contains("counter"))
                    sum += counter->at("packets").to_number<std::uint64_t>();
            }
        }
        EXPECT_EQ(rules, 4U);
        return sum;
    }

  private:
    const NetNs& internet_;
};

/// What a restart has to find again.
struct InForce {
    std::string rules;
    std::uint64_t generation = 0;
    std::uint64_t guest_id = 0;
    std::string mac;
    std::set<std::string> bound; ///< to a name that is asked for once alone
    std::string steering;
    std::set<std::string> pins;
};

class Kill : public testing::TestWithParam<std::string> {
  protected:
    static DaemonConfig config() {
        DaemonConfig config;
        config.daemon = fmt::format("workers = 2\nsplice = \"{}\"", GetParam());
        config.policy = policy_text({"allow@www.open.test:tcp:7000,7443", "allow@dns.open.test:tcp:7000",
                                     fmt::format("allow@{}:tcp:7000", ipv4().server(kBulk).to_string()),
                                     fmt::format("allow@[{}]:tcp:7000", ipv6().server(kBulk).to_string())});
        return config;
    }

    void TearDown() override {
        if (HasFailure())
            std::cerr << "the daemon's log:\n" << world_.daemon.log();
    }

    [[nodiscard]] InForce in_force() const {
        const Daemon& daemon = world_.daemon;
        const NetNs& host = world_.topology.host();
        const json::object policy = daemon.ask({"policy", "show", "main"}).at("policies").at(0).as_object();
        const json::object guest = daemon.guest();
        const std::vector<std::string> bound = daemon.bindings("www.open.test");
        InForce found;
        found.rules = json::serialize(policy.at("policy"));
        found.generation = policy.at("generation").to_number<std::uint64_t>();
        EXPECT_EQ(guest.at("generation").to_number<std::uint64_t>(), found.generation);
        found.guest_id = guest.at("id").to_number<std::uint64_t>();
        found.mac = guest.at("mac").as_string();
        found.bound.insert(bound.begin(), bound.end());
        for (const std::string version : {"-4", "-6"})
            found.steering += must_run({"ip", version, "rule", "show"}, &host) +
                              must_run({"ip", version, "route", "show", "table", "29793"}, &host);
        for (const auto& entry : std::filesystem::recursive_directory_iterator(daemon.pin_dir()))
            found.pins.insert(entry.path().string());
        return found;
    }

    /// All kinds of load have worked once more than at `before`.
    [[nodiscard]] bool works_again(const Load& load) const {
        const std::vector<unsigned> before = load.served();
        return wait_until([&] { return std::ranges::equal(before, load.served(), std::ranges::less{}); });
    }

    /// Nothing is left in the tables of the sessions and queries that were killed.
    void expect_no_remains() const {
        for (const std::string map : {"pending", "dns_pending", "flows"})
            EXPECT_TRUE(
                wait_until([&] { return world_.daemon.map_entries(map) == 0; }, std::chrono::minutes(1)))
                << map;
        EXPECT_TRUE(wait_until([&] { return world_.daemon.flows().empty(); }));
        EXPECT_EQ(world_.daemon.guest().at("sessions").to_number<unsigned>(), 0U);
        const json::object metrics = world_.daemon.ask({"metric", "show"});
        unsigned seen = 0;
        for (const json::value& family : metrics.at("metrics").as_array()) {
            if (family.at("name").as_string() != "tapgate_guest_use")
                continue;
            for (const json::value& sample : family.at("samples").as_array()) {
                const json::string& resource = sample.at("labels").at("resource").as_string();
                if (resource == "bindings")
                    continue;
                EXPECT_EQ(sample.at("value").to_number<double>(), 0) << resource;
                ++seen;
            }
        }
        EXPECT_GE(seen, 4U); // sessions, half_open, and two of DNS
    }

    milliseconds any_moment(milliseconds most) {
        return milliseconds(std::uniform_int_distribution<long>(0, most.count())(random_));
    }

    World world_{config(),
                 {dual_stack("www.open.test", kNamed, 86400), dual_stack("dns.open.test", kNamed, 1),
                  dual_stack("hidden.test", kDenied)}};
    std::mt19937 random_{testing::UnitTest::GetInstance()->random_seed() == 0
                             ? std::random_device{}()
                             : static_cast<unsigned>(testing::UnitTest::GetInstance()->random_seed())};
};

TEST_P(Kill, at_any_moment_under_load_opens_nothing_and_a_restart_needs_nobody) {
    const Tripwire tripwire(world_.topology.internet());
    for (const Family* family : {&ipv4(), &ipv6()})
        resolve(world_, *family, "www.open.test");
    std::optional<Load> load(world_);
    ASSERT_TRUE(works_again(*load));
    InForce before = in_force();
    ASSERT_EQ(before.bound.size(), 2U);

    unsigned while_starting = 0;
    milliseconds start_takes{0};
    const unsigned kills = (kills_wanted() + 1) / 2; // of each kind of splice
    for (unsigned number = 1; number <= kills && !HasFailure(); ++number) {
        SCOPED_TRACE(fmt::format("kill {}", number));
        std::this_thread::sleep_for(any_moment(milliseconds(200)));
        world_.daemon.kill();
        while (start_takes.count() != 0 && number < kills && random_() % 2 == 0) {
            world_.daemon.launch();
            std::this_thread::sleep_for(any_moment(start_takes));
            world_.daemon.kill();
            ++number;
            ++while_starting;
        }
        const auto begun = std::chrono::steady_clock::now();
        world_.daemon.start();
        start_takes =
            std::max(start_takes, std::chrono::ceil<milliseconds>(std::chrono::steady_clock::now() - begun));

        const InForce now = in_force();
        EXPECT_EQ(now.rules, before.rules);
        EXPECT_GE(now.generation, before.generation);
        EXPECT_EQ(now.guest_id, before.guest_id);
        EXPECT_EQ(now.mac, before.mac);
        EXPECT_EQ(now.bound, before.bound);
        EXPECT_EQ(now.steering, before.steering);
        EXPECT_EQ(now.pins, before.pins);
        EXPECT_TRUE(works_again(*load));
        EXPECT_EQ(load->wrongs(), std::vector<std::string>{});
        EXPECT_EQ(tripwire.packets(), 0U);
        before = now;
    }
    const std::vector<unsigned> served = load->served();
    load.reset();
    expect_no_remains();
    EXPECT_EQ(tripwire.packets(), 0U);
    std::cout << fmt::format(
        "{} kills, {} of them while it started (at most {} ms); meanwhile {} connections by name, "
        "{} downloads, {} answers, {} refusals\n",
        kills, while_starting, start_takes.count(), served.at(0), served.at(1), served.at(2), served.at(3));
}

INSTANTIATE_TEST_SUITE_P(Splice, Kill, testing::Values("auto", "kernel"),
                         [](const testing::TestParamInfo<std::string>& tested) { return tested.param; });

} // namespace
} // namespace tapgate::test
