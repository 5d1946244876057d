// SPDX-License-Identifier: Apache-2.0
#include "harness/sandbox.hpp"
#include "harness/wait.hpp"
#include "netns/world.hpp"

#include <fmt/format.h>

#include <csignal>
#include <filesystem>
#include <random>

// kill -9 in the middle of a policy load: the old policy or the new one is in force afterwards, never a
// mixture and never none (I6).
namespace tapgate::test {
namespace {

namespace json = boost::json;
using std::chrono::milliseconds;

constexpr unsigned kServer = 10;
constexpr std::uint16_t kPorts[] = {7000, 7001};
constexpr milliseconds kShort{500};

/// Policy 0 allows the first port, policy 1 the second; many more rules give a load some time.
std::string policy(unsigned number) {
    std::vector<std::string> rules = {fmt::format("allow@public:tcp:{}", kPorts[number])};
    for (unsigned i = 0; i < 1000; ++i)
        rules.push_back(fmt::format("deny@host{}.policy{}.test", i, number));
    return policy_text(rules);
}

class SwapCrash : public WorldTest<SwapCrash> {
  public:
    static std::unique_ptr<World> make_world() {
        DaemonConfig config;
        config.policy = policy(0);
        config.policy_options = "watch = true";
        return std::make_unique<World>(config, std::vector<std::string>{});
    }

  protected:
    static Daemon& daemon() { return world().daemon; }

    static json::object shown() {
        return daemon().ask({"policy", "show", "main"}).at("policies").at(0).as_object();
    }

    /// Which of the two policies the daemon says is in force.
    static unsigned in_force(const json::object& policy) {
        const json::array& rules = policy.at("policy").at("rules").as_array();
        EXPECT_EQ(rules.size(), 1001U);
        const auto port = rules.at(0).at("ports").at(0).at("start").to_number<std::uint16_t>();
        return port == kPorts[0] ? 0 : 1;
    }

    static bool is_served(std::uint16_t port) {
        CaptureServer upstream(world().topology.internet(), server(kServer, port));
        return was_served(exchange(guest(), upstream.endpoint(), "\x01"));
    }

    /// The policy that is shown is the one by which connections are judged, and it is a whole one.
    static void expect_one_whole_policy() {
        for (;;) {
            const json::object before = shown();
            const bool first = is_served(kPorts[0]);
            const bool second = is_served(kPorts[1]);
            if (shown().at("generation") != before.at("generation"))
                continue; // a load that was under way has come through meanwhile
            EXPECT_EQ(first, in_force(before) == 0);
            EXPECT_EQ(second, in_force(before) == 1);
            return;
        }
    }

    /// Kills happen at any time within `most`.
    milliseconds any_moment(milliseconds most) {
        return milliseconds(std::uniform_int_distribution<long>(0, most.count())(random_));
    }

    static Process load(unsigned number) {
        const auto file = write_scratch(fmt::format("crash-{}.toml", number), policy(number));
        return Process({cli_program(), "-s", daemon().control_socket(), "policy", "load", "main", file});
    }

  private:
    std::mt19937 random_{testing::UnitTest::GetInstance()->random_seed() == 0
                             ? std::random_device{}()
                             : static_cast<unsigned>(testing::UnitTest::GetInstance()->random_seed())};
};

TEST_P(SwapCrash, a_client_killed_at_any_moment_leaves_the_old_or_the_new_policy) {
    const auto begun = std::chrono::steady_clock::now();
    ASSERT_EQ(load(1).wait(kPatience), 0);
    const auto whole =
        std::chrono::ceil<milliseconds>(std::chrono::steady_clock::now() - begun) + milliseconds(1);
    unsigned changed = 0;
    constexpr unsigned kRounds = 15;
    for (unsigned round = 0; round < kRounds; ++round) {
        const unsigned before = in_force(shown());
        Process client = load(1 - before);
        static_cast<void>(client.wait(any_moment(whole)));
        client.signal(SIGKILL);
        EXPECT_TRUE(client.wait(kPatience).has_value());
        expect_one_whole_policy();
        changed += in_force(shown()) == before ? 0 : 1;
    }
    std::cout << fmt::format("{} of {} killed loads came through\n", changed, kRounds);
}

TEST_P(SwapCrash, a_daemon_killed_in_the_middle_of_a_load_comes_back_with_a_whole_policy) {
    constexpr unsigned kRounds = 4;
    for (unsigned round = 0; round < kRounds; ++round) {
        const unsigned next = 1 - in_force(shown());
        // Both ways to load at once: by the client, and by the file that the daemon watches.
        std::filesystem::rename(write_scratch("crash-new.toml", policy(next)), daemon().policy_file());
        Process client = load(next);
        static_cast<void>(client.wait(any_moment(milliseconds(300))));
        daemon().kill();
        EXPECT_TRUE(client.wait(kPatience).has_value());
        for (const std::uint16_t port : kPorts) {
            const TcpServer upstream(world().topology.internet(), server(kServer, port), echo);
            EXPECT_FALSE(TcpStream::connect(guest(), upstream.endpoint(), kShort).has_value());
        }
        daemon().start();
        EXPECT_EQ(in_force(shown()), next);
        expect_one_whole_policy();
    }
}

INSTANTIATE_TEST_SUITE_P(Family, SwapCrash, families(), family_name);

} // namespace
} // namespace tapgate::test
