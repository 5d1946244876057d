// SPDX-License-Identifier: Apache-2.0
#include "harness/dns_tcp.hpp"
#include "harness/wait.hpp"
#include "netns/world.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>

// DNS over TCP takes the same path as over UDP: the same policy, the same bindings, and bounds of its own.
namespace tapgate::test {
namespace {

constexpr std::uint16_t kDns = 53;
constexpr unsigned kServer = 10;
constexpr unsigned kManyAddresses = 60; // more than a datagram carries
constexpr unsigned kBindings = 100;
constexpr unsigned kWideAddresses = 120;    // more than the guest may have bindings
constexpr unsigned kTooManyAddresses = 300; // more than is recorded of one name
constexpr unsigned kConnections = 4;

/// "many.allowed.test" and the like: `count` addresses in both families, most of them beyond the servers'.
void add_addresses(std::vector<std::string>& zone, const std::string& name, unsigned count) {
    for (unsigned i = 0; i < count; ++i) {
        zone.push_back(fmt::format("{}. 300 IN A 203.0.113.{}", name, i % 250 + 1));
        if (i >= 250)
            zone.back() = fmt::format("{}. 300 IN A 198.51.100.{}", name, i - 250 + 100);
        zone.push_back(fmt::format("{}. 300 IN AAAA 2001:db8:3::{:x}", name, i + 1));
    }
}

class DnsOverTcp : public WorldTest<DnsOverTcp> {
  public:
    static std::unique_ptr<World> make_world() {
        DaemonConfig config;
        config.policy = policy_text({"allow@*.allowed.test:tcp:443"});
        config.limits =
            fmt::format("dns_qps = 100000\ndns_connections = {}\nbindings = {}", kConnections, kBindings);
        config.timers = "dns_idle_ms = 2500";
        config.guests.push_back({"vm1", "tap1", Topology::guest_addresses(1)});
        std::vector<std::string> zone = {"txt.allowed.test. 300 IN TXT \"text\""};
        for (const char* name : {"www.allowed.test", "a.allowed.test", "b.allowed.test", "www.denied.test"}) {
            const auto both = dual_stack(name, kServer);
            zone.push_back(both);
        }
        add_addresses(zone, "many.allowed.test", kManyAddresses);
        add_addresses(zone, "wide.allowed.test", kWideAddresses);
        add_addresses(zone, "toomany.allowed.test", kTooManyAddresses);
        return std::make_unique<World>(config, zone, 2);
    }

  protected:
    static Endpoint gateway() { return {family().gateway, kDns}; }

    static TcpStream connected() {
        auto stream = TcpStream::connect(guest(), gateway());
        if (!stream)
            throw std::runtime_error("the gateway does not accept connections for DNS");
        return std::move(*stream);
    }

    static std::string query(std::uint16_t id, const std::string& name, const std::string& type) {
        return framed(make_query(id, name, type));
    }

    static std::string query(std::uint16_t id, const std::string& name) {
        return query(id, name, family().record);
    }

    static std::string address() { return family().server(kServer).to_string(); }
};

TEST_P(DnsOverTcp, an_answer_is_recorded_before_it_is_delivered) {
    const CaptureServer web(world().topology.internet(), server(kServer, 443));
    const auto reply = ask_over_tcp(guest(), gateway(), "www.allowed.test", family().record);
    ASSERT_TRUE(reply.has_value());
    EXPECT_EQ(reply->rcode, kNoError);
    EXPECT_EQ(reply->addresses, std::vector<std::string>{address()});
    EXPECT_EQ(world().daemon.bindings("www.allowed.test"), reply->addresses);
    EXPECT_PRED1(was_served, exchange(guest(), web.endpoint(), client_hello("www.allowed.test")));
}

TEST_P(DnsOverTcp, B16_a_query_may_come_byte_by_byte) {
    TcpStream stream = connected();
    for (const std::string& byte : one_by_one(query(5, "www.allowed.test")))
        ASSERT_EQ(stream.send(byte), 0);
    const auto reply = receive_reply(stream);
    ASSERT_TRUE(reply.has_value());
    EXPECT_EQ(reply->id, 5U);
    EXPECT_EQ(reply->addresses, std::vector<std::string>{address()});
}

TEST_P(DnsOverTcp, B16_the_length_may_be_cut_in_two) {
    TcpStream stream = connected();
    const std::string first = query(6, "a.allowed.test");
    const std::string second = query(7, "b.allowed.test");
    // The second length begins in the segment that ends the first message.
    ASSERT_EQ(stream.send(first + second.substr(0, 1)), 0);
    const auto one = receive_reply(stream);
    ASSERT_TRUE(one.has_value());
    EXPECT_EQ(one->id, 6U);
    ASSERT_EQ(stream.send(second.substr(1)), 0);
    const auto two = receive_reply(stream);
    ASSERT_TRUE(two.has_value());
    EXPECT_EQ(two->id, 7U);
}

TEST_P(DnsOverTcp, B16_each_of_two_queries_in_one_write_is_judged) {
    const std::uint64_t denials = world().daemon.drops("dns-policy");
    TcpStream stream = connected();
    ASSERT_EQ(stream.send(query(8, "www.denied.test") + query(9, "www.allowed.test") +
                          query(10, "www.denied.test")),
              0);
    std::set<unsigned> denied;
    for (int i = 0; i < 3; ++i) {
        const auto reply = receive_reply(stream);
        ASSERT_TRUE(reply.has_value()) << i;
        if (reply->id == 9)
            EXPECT_EQ(reply->addresses, std::vector<std::string>{address()});
        else if (reply->rcode == kNxDomain)
            denied.insert(reply->id);
    }
    EXPECT_EQ(denied, (std::set<unsigned>{8, 10}));
    EXPECT_EQ(world().daemon.drops("dns-policy"), denials + 2);
    EXPECT_EQ(world().daemon.bindings("www.denied.test"), std::vector<std::string>{});
}

TEST_P(DnsOverTcp, many_queries_may_be_in_flight_on_one_connection) {
    TcpStream stream = connected();
    constexpr unsigned kQueries = 100;
    std::string all;
    for (std::uint16_t id = 0; id < kQueries; ++id)
        all += query(id, id % 2 == 0 ? "a.allowed.test" : "b.allowed.test");
    ASSERT_EQ(stream.send(all), 0);
    stream.finish(); // what is in flight is still answered
    std::set<unsigned> answered;
    while (const auto reply = receive_reply(stream))
        answered.insert(reply->id);
    EXPECT_EQ(answered.size(), kQueries);
    EXPECT_EQ(stream.receive_to_end().end, End::kFin);
}

TEST_P(DnsOverTcp, B01_a_server_of_the_guests_own_choice_is_never_asked) {
    const Endpoint own = server(66, kDns);
    const TcpServer poisoned(world().topology.internet(), own, [](TcpStream&) {});
    UplinkWatch uplink(world());
    const auto reply = ask_over_tcp(guest(), own, "www.allowed.test", family().record);
    ASSERT_TRUE(reply.has_value());
    EXPECT_EQ(reply->from, own);
    EXPECT_EQ(reply->addresses, std::vector<std::string>{address()});
    EXPECT_EQ(poisoned.accepted(), 0U);
    EXPECT_EQ(uplink.leaks({own}), std::vector<std::string>{});
}

TEST_P(DnsOverTcp, B43_what_does_not_fit_a_datagram_comes_over_tcp_and_is_all_recorded) {
    const auto cut = ask(guest(), gateway(), "many.allowed.test", family().record, kPatience);
    ASSERT_TRUE(cut.has_value());
    EXPECT_TRUE(cut->truncated);
    EXPECT_EQ(cut->addresses, std::vector<std::string>{});
    EXPECT_EQ(world().daemon.bindings("many.allowed.test"), std::vector<std::string>{});
    const auto whole = ask_over_tcp(guest(), gateway(), "many.allowed.test", family().record);
    ASSERT_TRUE(whole.has_value());
    EXPECT_FALSE(whole->truncated);
    EXPECT_EQ(whole->addresses.size(), kManyAddresses);
    std::vector<std::string> told = whole->addresses;
    std::vector<std::string> bound = world().daemon.bindings("many.allowed.test");
    std::ranges::sort(told);
    std::ranges::sort(bound);
    EXPECT_EQ(told, bound);
}

TEST_P(DnsOverTcp, B43_more_than_the_stated_cap_is_refused_and_binds_nothing) {
    const auto reply = ask_over_tcp(guest(), gateway(), "toomany.allowed.test", family().record);
    ASSERT_TRUE(reply.has_value());
    EXPECT_EQ(reply->rcode, kServFail);
    EXPECT_EQ(reply->addresses, std::vector<std::string>{});
    EXPECT_EQ(world().daemon.bindings("toomany.allowed.test"), std::vector<std::string>{});
}

TEST_P(DnsOverTcp, B42_an_answer_that_cannot_be_recorded_is_not_delivered) {
    const std::uint64_t before = world().daemon.drops("dns-unrecorded");
    const auto reply = ask_over_tcp(guest(), gateway(), "wide.allowed.test", family().record);
    ASSERT_TRUE(reply.has_value());
    EXPECT_EQ(reply->rcode, kServFail);
    EXPECT_EQ(reply->addresses, std::vector<std::string>{});
    EXPECT_EQ(world().daemon.drops("dns-unrecorded"), before + 1);
}

TEST_P(DnsOverTcp, B44_other_kinds_of_queries_are_refused) {
    const std::uint64_t refused = world().daemon.drops("dns-refused");
    for (const std::string type : {"ANY", "NULL", "AXFR"}) {
        const auto reply = ask_over_tcp(guest(), gateway(), "www.allowed.test", type);
        ASSERT_TRUE(reply.has_value()) << type;
        EXPECT_EQ(reply->rcode, kRefused) << type;
    }
    EXPECT_EQ(world().daemon.drops("dns-refused"), refused + 3);
}

TEST_P(DnsOverTcp, a_message_of_64_kib_is_refused_and_the_connection_goes_on) {
    TcpStream stream = connected();
    Bytes large = make_query(11, "www.allowed.test", family().record);
    large.resize(65535);
    ASSERT_EQ(stream.send(framed(large) + query(12, "www.allowed.test")), 0);
    std::set<unsigned> seen;
    for (int i = 0; i < 2; ++i) {
        const auto reply = receive_reply(stream);
        ASSERT_TRUE(reply.has_value());
        seen.insert(reply->id);
        EXPECT_EQ(reply->rcode, reply->id == 11 ? 1U : kNoError);
    }
    EXPECT_EQ(seen, (std::set<unsigned>{11, 12}));
}

TEST_P(DnsOverTcp, a_connection_without_queries_is_closed) {
    TcpStream idle = connected();
    EXPECT_EQ(idle.receive_to_end().end, End::kFin);
    TcpStream slow = connected();
    const std::string whole = query(13, "www.allowed.test");
    ASSERT_EQ(slow.send(whole.substr(0, whole.size() - 1)), 0);
    EXPECT_EQ(slow.receive_to_end().end, End::kFin) << "half a query is none";
}

TEST_P(DnsOverTcp, connections_are_capped_and_room_is_given_back) {
    const std::uint64_t before = world().daemon.drops("dns-connection-cap");
    {
        std::vector<TcpStream> held;
        for (unsigned i = 0; i < kConnections; ++i) {
            held.push_back(connected());
            ASSERT_EQ(held.back().send(query(14, "www.allowed.test")), 0);
            ASSERT_TRUE(receive_reply(held.back()).has_value()) << i;
        }
        EXPECT_FALSE(ask_over_tcp(guest(), gateway(), "www.allowed.test", family().record).has_value());
        EXPECT_GT(world().daemon.drops("dns-connection-cap"), before);
        const Endpoint others{
            IpAddress::parse(family().name == "IPv4" ? "192.0.2.17" : "2001:db8:1:1::1").value(), kDns};
        EXPECT_TRUE(ask_over_tcp(world().topology.guest(1).ns, others, "www.allowed.test", family().record)
                        .has_value());
    }
    EXPECT_TRUE(wait_until(
        [] { return ask_over_tcp(guest(), gateway(), "www.allowed.test", family().record).has_value(); }));
}

TEST_P(DnsOverTcp, a_guest_that_does_not_read_its_answers_is_cut_off) {
    TcpStream stream = connected();
    // Answers of a kilobyte to queries of forty bytes: they pile up here, and we stop reading.
    std::string queries;
    for (std::uint16_t id = 0; id < 200; ++id)
        queries += query(id, "many.allowed.test");
    int error = 0;
    for (int i = 0; i < 200 && error == 0; ++i)
        error = stream.send(queries);
    EXPECT_NE(error, 0) << "more was taken than any buffer holds";
    EXPECT_TRUE(wait_until([&] { return stream.send("x") != 0; }));
}

INSTANTIATE_TEST_SUITE_P(Family, DnsOverTcp, families(), family_name);

} // namespace
} // namespace tapgate::test
