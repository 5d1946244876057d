// SPDX-License-Identifier: Apache-2.0
#include "harness/wait.hpp"
#include "netns/world.hpp"

// How long a name holds for an address: its TTL within the floor and the ceiling, and as long as it is in
// use.
namespace tapgate::test {
namespace {

constexpr std::uint16_t kPort = 7000;
constexpr unsigned kShort = 10;
constexpr unsigned kLong = 11;
/// Neither TLS nor HTTP: the bindings of the address decide.
constexpr const char* kPlain = "\x01ping";

std::unique_ptr<World> world_with(const std::string& lifetimes) {
    DaemonConfig config;
    config.policy = policy_text({"allow@*.life.test:tcp:7000"});
    config.dns += "\n" + lifetimes;
    std::vector<std::string> zone;
    for (const Family* family : {&ipv4(), &ipv6()})
        for (const auto& [name, ttl, number] :
             {std::tuple("short", "1", kShort), {"zero", "0", kShort}, {"years", "100000000", kLong}})
            zone.push_back(std::string(name) + ".life.test. " + ttl + " IN " + std::string(family->record) +
                           " " + family->server(number).to_string());
    return std::make_unique<World>(config, zone);
}

/// Seconds that the guest's binding of `name` still has; empty if there is none.
std::optional<std::int64_t> seconds_left(const World& world, const Family& family, const std::string& name,
                                         unsigned number) {
    const boost::json::object reply = world.daemon.ask(
        {"dns", "show", "vm0", "--name", name, "--address", family.server(number).to_string()});
    const boost::json::array& bindings = reply.at("bindings").as_array();
    if (bindings.empty())
        return std::nullopt;
    return bindings.at(0).at("expires_seconds").to_number<std::int64_t>();
}

class Clamped : public WorldTest<Clamped> {
  public:
    static std::unique_ptr<World> make_world() { return world_with("min_ttl = 2\nmax_ttl = 100"); }
};

TEST_P(Clamped, B36_an_address_is_worth_nothing_once_its_time_is_over) {
    const TcpServer web(world().topology.internet(), server(kShort, kPort), echo);
    resolve(world(), family(), "short.life.test");
    EXPECT_EQ(exchange(guest(), web.endpoint(), kPlain).answer, kPlain);
    // That flow has kept the binding; another one has none that could.
    world().daemon.ask({"dns", "flush", "--guest", "vm0"});
    resolve(world(), family(), "short.life.test");
    ASSERT_TRUE(seconds_left(world(), family(), "short.life.test", kShort).has_value());
    EXPECT_TRUE(
        wait_until([&] { return !seconds_left(world(), family(), "short.life.test", kShort).has_value(); }));
    EXPECT_PRED1(was_reset, exchange(guest(), web.endpoint(), kPlain));
}

TEST_P(Clamped, B36_a_binding_that_a_flow_uses_stays) {
    const TcpServer web(world().topology.internet(), server(kShort, kPort), echo);
    resolve(world(), family(), "short.life.test");
    resolve(world(), family(), "zero.life.test");
    auto stream = TcpStream::connect(guest(), web.endpoint());
    ASSERT_TRUE(stream.has_value());
    ASSERT_EQ(stream->send("GET / HTTP/1.1\r\nHost: short.life.test\r\n\r\n"), 0);
    EXPECT_EQ(stream->receive(3).bytes, "GET");
    // The name that nobody used is gone; the other one is not, for new connections too.
    EXPECT_TRUE(
        wait_until([&] { return !seconds_left(world(), family(), "zero.life.test", kShort).has_value(); }));
    EXPECT_GE(seconds_left(world(), family(), "short.life.test", kShort).value_or(0), 10);
    EXPECT_EQ(exchange(guest(), web.endpoint(), kPlain).answer, kPlain);
}

TEST_P(Clamped, B37_a_ttl_of_zero_gets_the_floor_and_one_of_years_the_ceiling) {
    resolve(world(), family(), "zero.life.test");
    resolve(world(), family(), "years.life.test");
    const auto zero = seconds_left(world(), family(), "zero.life.test", kShort);
    ASSERT_TRUE(zero.has_value());
    EXPECT_LE(*zero, 2);
    const auto years = seconds_left(world(), family(), "years.life.test", kLong);
    ASSERT_TRUE(years.has_value());
    EXPECT_LE(*years, 100);
    EXPECT_GT(*years, 80);
}

class Exact : public WorldTest<Exact> {
  public:
    static std::unique_ptr<World> make_world() { return world_with("min_ttl = 0"); }
};

TEST_P(Exact, B36_under_exact_lifetimes_no_flow_keeps_a_binding) {
    const TcpServer web(world().topology.internet(), server(kShort, kPort), echo);
    resolve(world(), family(), "short.life.test");
    auto stream = TcpStream::connect(guest(), web.endpoint());
    ASSERT_TRUE(stream.has_value());
    ASSERT_EQ(stream->send(kPlain), 0);
    EXPECT_EQ(stream->receive(5).bytes, kPlain);
    EXPECT_TRUE(
        wait_until([&] { return !seconds_left(world(), family(), "short.life.test", kShort).has_value(); }));
    EXPECT_PRED1(was_reset, exchange(guest(), web.endpoint(), kPlain));
    ASSERT_EQ(stream->send("pong"), 0);
    EXPECT_EQ(stream->receive(4).bytes, "pong") << "a flow that was admitted goes on";
}

INSTANTIATE_TEST_SUITE_P(Family, Clamped, families(), family_name);
INSTANTIATE_TEST_SUITE_P(Family, Exact, families(), family_name);

} // namespace
} // namespace tapgate::test
