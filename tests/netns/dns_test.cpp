// SPDX-License-Identifier: Apache-2.0
#include "harness/wait.hpp"
#include "netns/events.hpp"
#include "netns/world.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <utility>

// Only a trusted resolver's answer to this guest's question makes a binding, and it makes it in time (I3,
// I4).
namespace tapgate::test {
namespace {

constexpr std::uint16_t kDns = 53;
constexpr unsigned kRightServer = 20;
constexpr unsigned kAttacker = 66;
constexpr std::chrono::milliseconds kShort{600};

/// An answer line for `name` in the family of `address`.
std::string record(const std::string& name, const IpAddress& address, unsigned ttl = 300) {
    return fmt::format("{}. {} IN {} {}", name, ttl, address.is_v4() ? "A" : "AAAA", address.to_string());
}

/// A trusted resolver whose answers each test scripts. The daemon asks it over the family's transport.
class HostileDns : public testing::TestWithParam<const Family*> {
  protected:
    static void SetUpTestSuite() {
        topology_ = std::make_unique<Topology>(2);
        for (const Family* family : {&ipv4(), &ipv6()})
            upstreams_.push_back(std::make_unique<UdpResponder>(topology_->internet(),
                                                                Endpoint{family->resolver, kDns},
                                                                [](const UdpSocket&, const Datagram&) {}));
        DaemonConfig config;
        config.policy = policy_text({"allow@*.allowed.test:tcp:443"});
        config.dns = fmt::format("upstreams = [\"{}\"]\ntimeout_ms = 500", ipv4().resolver.to_string());
        config.guests.push_back({"vm1", "tap1", Topology::guest_addresses(1)});
        daemon_ = std::make_unique<Daemon>(*topology_, config);
    }

    static void TearDownTestSuite() {
        daemon_.reset();
        upstreams_.clear();
        topology_.reset();
    }

    void SetUp() override {
        if (!daemon_)
            throw std::runtime_error("the daemon of this suite did not start");
        daemon_->ask({"dns", "flush", "--guest", "vm0"});
    }

    void TearDown() override {
        script([](const UdpSocket&, const Datagram&) {});
        if (HasFailure())
            std::cerr << "the daemon's log:\n" << daemon_->log();
    }

    static const Family& family() { return *GetParam(); }

    static const NetNs& guest() { return topology_->guest().ns; }

    static const NetNs& internet() { return topology_->internet(); }

    static Daemon& daemon() { return *daemon_; }

    static const Topology& topology() { return *topology_; }

    [[nodiscard]] static IpAddress right() { return family().server(kRightServer); }

    [[nodiscard]] static IpAddress wrong() { return family().server(kAttacker); }

    /// Sets what the resolver says to questions of the guest. The daemon's own, for its health, are answered.
    static void script(const UdpResponder::Handler& handler) {
        upstreams_.front()->set_handler([handler](const UdpSocket& socket, const Datagram& query) {
            const auto question = question_of(query.bytes);
            if (question && question->name == "localhost") {
                socket.send(query.from, make_answer(query.bytes, {}));
                return;
            }
            ++asked_;
            handler(socket, query);
        });
    }

    /// Questions of the guest that reached the resolver.
    static unsigned upstream_received() { return asked_; }

    /// The trusted resolver answers every question with these records and nothing else.
    static void script_records(const AnswerRecords& records) {
        script([records](const UdpSocket& socket, const Datagram& query) {
            socket.send(query.from, make_answer(query.bytes, records));
        });
    }

    static std::optional<DnsReply> ask_gateway(const std::string& name,
                                               std::chrono::milliseconds time = kPatience) {
        return ask(guest(), {family().gateway, kDns}, name, family().record, time);
    }

    static std::vector<std::string> bound(const std::string& name) { return daemon().bindings(name); }

    /// Every name that the guest has a binding for.
    static std::vector<std::string> all_bound_names() {
        std::vector<std::string> names;
        const boost::json::object reply = daemon().ask({"dns", "show"});
        for (const boost::json::value& row : reply.at("bindings").as_array())
            names.emplace_back(row.at("name").as_string());
        return names;
    }

  private:
    static inline std::unique_ptr<Topology> topology_;
    static inline std::vector<std::unique_ptr<UdpResponder>> upstreams_;
    static inline std::atomic<unsigned> asked_{0};
    static inline std::unique_ptr<Daemon> daemon_;
};

TEST_P(HostileDns, an_answer_is_recorded_and_delivered) {
    script_records({{record("www.allowed.test", right())}, {}, {}});
    const auto reply = ask_gateway("www.allowed.test");
    ASSERT_TRUE(reply.has_value());
    EXPECT_EQ(reply->rcode, kNoError);
    EXPECT_EQ(reply->addresses, std::vector<std::string>{right().to_string()});
    EXPECT_EQ(bound("www.allowed.test"), reply->addresses);
}

TEST_P(HostileDns, B01_a_server_of_the_guests_own_choice_is_never_asked) {
    UdpResponder poisoned(internet(), {wrong(), kDns}, [](const UdpSocket& socket, const Datagram& query) {
        socket.send(query.from, make_answer(query.bytes, {{record("www.allowed.test", wrong())}, {}, {}}));
    });
    script_records({{record("www.allowed.test", right())}, {}, {}});
    PacketTap uplink(internet(), "eth0");
    // The answer comes from the address that the guest asked, with what the trusted resolver said.
    const auto reply = ask(guest(), {wrong(), kDns}, "www.allowed.test", family().record, kPatience);
    ASSERT_TRUE(reply.has_value());
    EXPECT_EQ(reply->addresses, std::vector<std::string>{right().to_string()});
    EXPECT_EQ(bound("www.allowed.test"), reply->addresses);
    EXPECT_EQ(poisoned.received(), 0U);
    for (const Seen& seen : uplink.drain())
        EXPECT_TRUE(!seen.to || seen.to->address != wrong()) << seen.to_string();
}

TEST_P(HostileDns, B02_extra_records_bind_nothing) {
    const std::string bank = "bank.allowed.test";
    script_records({{record("www.allowed.test", right()), record(bank, wrong())},
                    {record(bank, wrong())},
                    {record(bank, wrong()), record("www.allowed.test", wrong())}});
    ask_gateway("www.allowed.test", kShort);
    EXPECT_EQ(bound(bank), std::vector<std::string>{});
    const std::vector<std::string> addresses = bound("www.allowed.test");
    EXPECT_EQ(std::ranges::count(addresses, wrong().to_string()), 0);
}

TEST_P(HostileDns, B02_aliases_are_followed_from_the_question_only) {
    script_records({{"www.allowed.test. 300 IN CNAME a.allowed.test.",
                     "a.allowed.test. 300 IN CNAME b.cdn.test.", record("b.cdn.test", right()),
                     "x.cdn.test. 300 IN CNAME y.cdn.test.", record("y.cdn.test", wrong())},
                    {},
                    {}});
    ask_gateway("www.allowed.test", kShort);
    const std::vector<std::string> addresses = bound("www.allowed.test");
    EXPECT_EQ(std::ranges::count(addresses, wrong().to_string()), 0);
    for (const std::string& name : all_bound_names())
        EXPECT_EQ(name, "www.allowed.test");
}

TEST_P(HostileDns, B02_an_alias_chain_in_any_order_binds_the_question_name) {
    script_records({{record("end.cdn.test", right()), "a.cdn.test. 300 IN CNAME end.cdn.test.",
                     "www.allowed.test. 300 IN CNAME a.cdn.test."},
                    {},
                    {}});
    const auto reply = ask_gateway("www.allowed.test");
    ASSERT_TRUE(reply.has_value());
    EXPECT_EQ(reply->rcode, kNoError);
    EXPECT_EQ(bound("www.allowed.test"), std::vector<std::string>{right().to_string()});
}

TEST_P(HostileDns, B02_an_alias_loop_binds_nothing) {
    script_records(
        {{"www.allowed.test. 300 IN CNAME a.allowed.test.", "a.allowed.test. 300 IN CNAME www.allowed.test."},
         {},
         {}});
    const auto reply = ask_gateway("www.allowed.test", kShort);
    EXPECT_TRUE(!reply || reply->addresses.empty());
    EXPECT_EQ(all_bound_names(), std::vector<std::string>{});
}

TEST_P(HostileDns, B03_answers_with_inner_addresses_are_refused) {
    const bool v4 = family().name == "IPv4";
    const std::vector<std::string> inner =
        v4 ? std::vector<std::string>{"10.0.0.1",    "127.0.0.1",  "169.254.169.254", "169.254.1.1",
                                      "192.168.1.1", "100.64.0.1", "198.51.100.1",    "192.0.2.1",
                                      "192.0.2.2",   "0.0.0.0",    "224.0.0.1",       "255.255.255.255"}
           : std::vector<std::string>{
                 "fd00::1",        "::1",           "fd00:ec2::254", "fe80::1",       "::ffff:10.0.0.1",
                 "64:ff9b::a00:1", "2002:a00:1::1", "2001:db8:2::1", "2001:db8:1::1", "::",
                 "ff02::1"};
    for (const std::string& address : inner) {
        // Among good ones too: one bad address spoils the answer.
        for (const bool mixed : {false, true}) {
            AnswerRecords records{
                {fmt::format("www.allowed.test. 300 IN {} {}", family().record, address)}, {}, {}};
            if (mixed)
                records.answer.push_back(record("www.allowed.test", right()));
            script_records(records);
            const auto reply = ask_gateway("www.allowed.test");
            ASSERT_TRUE(reply.has_value()) << address;
            EXPECT_EQ(reply->rcode, kNxDomain) << address;
            EXPECT_EQ(bound("www.allowed.test"), std::vector<std::string>{}) << address;
        }
    }
    EXPECT_GE(daemon().drops("dns-rebinding"), inner.size());
}

TEST_P(HostileDns, forged_answers_lose_against_the_right_one) {
    const UdpSocket other_port(internet(), {ipv4().resolver, 5353});
    const UdpSocket other_server(internet(), {ipv4().server(kAttacker), kDns});
    const AnswerRecords lie{{record("www.allowed.test", wrong())}, {}, {}};
    script([&](const UdpSocket& socket, const Datagram& query) {
        const Bytes truth = make_answer(query.bytes, {{record("www.allowed.test", right())}, {}, {}});
        const Bytes forged = make_answer(query.bytes, lie);
        Bytes wrong_id = forged;
        wrong_id[1] ^= 1U;
        Bytes not_an_answer = forged;
        not_an_answer[2] &= 0x7fU;
        const Bytes wrong_question =
            make_answer(make_query(static_cast<std::uint16_t>((query.bytes[0] << 8U) | query.bytes[1]),
                                   "bank.allowed.test", family().record),
                        {{record("bank.allowed.test", wrong())}, {}, {}});
        socket.send(query.from, wrong_id);
        socket.send(query.from, not_an_answer);
        socket.send(query.from, wrong_question);
        other_port.send(query.from, forged);
        other_server.send(query.from, forged);
        socket.send(query.from, truth);
        socket.send(query.from, forged); // too late: the question is answered
    });
    const auto reply = ask_gateway("www.allowed.test");
    ASSERT_TRUE(reply.has_value());
    EXPECT_EQ(reply->addresses, std::vector<std::string>{right().to_string()});
    EXPECT_EQ(bound("www.allowed.test"), reply->addresses);
    EXPECT_EQ(bound("bank.allowed.test"), std::vector<std::string>{});
}

TEST_P(HostileDns, forged_answers_alone_bind_nothing_and_do_not_reach_the_guest) {
    const UdpSocket other_port(internet(), {ipv4().resolver, 5353});
    script([&](const UdpSocket& socket, const Datagram& query) {
        Bytes forged = make_answer(query.bytes, {{record("www.allowed.test", wrong())}, {}, {}});
        other_port.send(query.from, forged);
        forged[0] ^= 0x80U;
        socket.send(query.from, forged);
    });
    const auto reply = ask_gateway("www.allowed.test");
    EXPECT_TRUE(!reply || (reply->rcode == kServFail && reply->addresses.empty()));
    EXPECT_EQ(all_bound_names(), std::vector<std::string>{});
}

TEST_P(HostileDns, forged_answers_of_a_second_guest_reach_neither_the_daemon_nor_the_first_guest) {
    constexpr Mac kSecondMac{0x02, 0, 0, 0, 0, 3};
    constexpr Mac kSecondTapMac{0x02, 0, 0, 0, 1, 2};
    const PacketTap wire(topology().guest(1).ns, "eth0");
    const std::vector<std::string> own = Topology::guest_addresses(1);
    const UdpSocket client(guest(), {family().guest, 0});
    const Bytes query = make_query(77, "www.allowed.test", family().record);
    const AnswerRecords lie{{record("www.allowed.test", wrong())}, {}, {}};
    const auto forge = [&](const IpAddress& from, const Endpoint& to, const Bytes& asked) {
        const Endpoint source{from, kDns};
        wire.send(frame(
            kSecondTapMac, kSecondMac,
            ip_packet(from, to.address, kProtocolUdp, udp_datagram(source, to, make_answer(asked, lie)))));
    };
    const auto own_like = [&](const IpAddress& address) {
        return IpAddress::parse(own[address.is_v4() ? 0 : 1]).value();
    };
    const auto dropped = [&] {
        return std::pair(daemon().drops("source-address", "vm1"),
                         daemon().drops("policy-first-packet", "vm1"));
    };
    const auto before = dropped();
    // It knows all that there is to guess: ports, ids and the moment. It may name others as the sender or
    // not.
    script([&](const UdpSocket& socket, const Datagram& asked) {
        forge(socket.local().address, asked.from, asked.bytes);
        forge(own_like(asked.from.address), asked.from, asked.bytes);
        forge(family().gateway, client.local(), query);
        forge(own_like(family().guest), client.local(), query);
        socket.send(asked.from, make_answer(asked.bytes, {{record("www.allowed.test", right())}, {}, {}}));
    });
    client.send({family().gateway, kDns}, query);
    const auto got = client.receive(kPatience);
    ASSERT_TRUE(got.has_value());
    EXPECT_EQ(read_answer(*got)->addresses, std::vector<std::string>{right().to_string()});
    EXPECT_EQ(bound("www.allowed.test"), std::vector<std::string>{right().to_string()});
    const auto after = dropped();
    EXPECT_EQ(after.first, before.first + 2);
    EXPECT_EQ(after.second, before.second + 2);
    // Had one come late, it would stand before the next answer.
    client.send({family().gateway, kDns}, make_query(78, "www.allowed.test", family().record));
    const auto next = client.receive(kPatience);
    ASSERT_TRUE(next.has_value());
    EXPECT_EQ(read_answer(*next)->id, 78U);
}

TEST_P(HostileDns, a_malformed_answer_binds_nothing_and_is_not_delivered) {
    for (const std::size_t cut : {1U, 3U, 10U}) {
        script([&](const UdpSocket& socket, const Datagram& query) {
            Bytes answer = make_answer(query.bytes, {{record("www.allowed.test", right())}, {}, {}});
            answer.resize(answer.size() - cut);
            socket.send(query.from, answer);
        });
        const auto reply = ask_gateway("www.allowed.test");
        ASSERT_TRUE(reply.has_value()) << cut;
        EXPECT_EQ(reply->rcode, kServFail) << cut;
        EXPECT_EQ(all_bound_names(), std::vector<std::string>{}) << cut;
    }
}

TEST_P(HostileDns, an_unasked_answer_of_another_program_on_the_host_does_not_reach_the_guest) {
    const UdpSocket client(guest(), {family().guest, 0});
    const UdpSocket forger(topology().host(), {family().gateway, kDns});
    const std::uint64_t before = daemon().drops("egress-not-ours");
    const Bytes query = make_query(77, "www.allowed.test", family().record);
    forger.send(client.local(), make_answer(query, {{record("www.allowed.test", wrong())}, {}, {}}));
    // While the question is open, too.
    script([](const UdpSocket&, const Datagram&) {});
    client.send({family().gateway, kDns}, query);
    forger.send(client.local(), make_answer(query, {{record("www.allowed.test", wrong())}, {}, {}}));
    const auto got = client.receive(kShort);
    EXPECT_TRUE(!got || read_answer(*got)->addresses.empty());
    EXPECT_EQ(all_bound_names(), std::vector<std::string>{});
    EXPECT_GE(daemon().drops("egress-not-ours"), before + 2);
}

TEST_P(HostileDns, a_denied_name_never_leaves_the_host) {
    const unsigned before = upstream_received();
    const auto reply = ask_gateway("secret.data.tunnel.test");
    ASSERT_TRUE(reply.has_value());
    EXPECT_EQ(reply->rcode, kNxDomain);
    EXPECT_EQ(upstream_received(), before);
    EXPECT_GE(daemon().drops("dns-policy"), 1U);
}

TEST_P(HostileDns, B15_a_denied_name_is_shown_to_the_operator_although_the_daemon_never_saw_the_query) {
    const EventMonitor monitor(daemon());
    ask_gateway("Secret.Data.tunnel.test");
    const auto event =
        monitor.wait_for([](const auto& seen) { return is(seen, "name", "secret.data.tunnel.test"); });
    ASSERT_TRUE(event.has_value());
    EXPECT_TRUE(is(*event, "type", "dns"));
    EXPECT_TRUE(is(*event, "guest", "vm0"));
    EXPECT_TRUE(is(*event, "qtype", family().record));
    EXPECT_TRUE(is(*event, "verdict", "deny"));
    EXPECT_TRUE(is(*event, "reason", "default"));
    EXPECT_EQ(event->at("generation").to_number<std::uint64_t>(), 1U);
}

TEST_P(HostileDns, only_noerror_answers_bind) {
    for (const unsigned rcode : {kServFail, kNxDomain, kRefused}) {
        script([&](const UdpSocket& socket, const Datagram& query) {
            Bytes answer = make_answer(query.bytes, {{record("www.allowed.test", right())}, {}, {}});
            answer[3] = static_cast<std::uint8_t>((answer[3] & 0xf0U) | rcode);
            socket.send(query.from, answer);
        });
        ask_gateway("www.allowed.test", kShort);
        EXPECT_EQ(all_bound_names(), std::vector<std::string>{}) << rcode;
    }
}

TEST_P(HostileDns, a_ttl_of_zero_still_lasts_long_enough_to_connect) {
    script_records({{record("www.allowed.test", right(), 0)}, {}, {}});
    CaptureServer server(internet(), {right(), 443});
    ASSERT_TRUE(ask_gateway("www.allowed.test").has_value());
    EXPECT_PRED1(was_served, exchange(guest(), server.endpoint(), client_hello("www.allowed.test")));
}

TEST_P(HostileDns, a_resolver_that_is_silent_gives_servfail) {
    script([](const UdpSocket&, const Datagram&) {});
    const auto reply = ask_gateway("www.allowed.test");
    ASSERT_TRUE(reply.has_value());
    EXPECT_EQ(reply->rcode, kServFail);
    EXPECT_GE(daemon().drops("dns-upstream"), 1U);
}

TEST_P(HostileDns, B44_queries_of_other_kinds_are_refused_and_never_leave) {
    const unsigned before = upstream_received();
    const std::uint64_t drops = daemon().drops("dns-type");
    for (const std::string type : {"ANY", "NULL", "AXFR"}) {
        const auto reply = ask(guest(), {family().gateway, kDns}, "www.allowed.test", type, kPatience);
        EXPECT_TRUE(reply && reply->rcode != kNoError && reply->addresses.empty()) << type;
    }
    EXPECT_EQ(upstream_received(), before);
    EXPECT_EQ(daemon().drops("dns-type"), drops + 3);
}

INSTANTIATE_TEST_SUITE_P(Family, HostileDns, families(), family_name);

/// With the real resolver.
class ResolveThenConnect : public WorldTest<ResolveThenConnect> {
  public:
    static constexpr unsigned kNames = 1000;
    static constexpr unsigned kAddresses = 100;
    static constexpr std::uint16_t kPort = 7000;

    static std::unique_ptr<World> make_world() {
        std::vector<std::string> zone;
        for (unsigned i = 0; i < kNames; ++i)
            zone.push_back(dual_stack(name(i), 100 + i % kAddresses));
        DaemonConfig config;
        config.policy = policy_text({"allow@*.many.test:tcp:7000"});
        config.limits = "dns_qps = 100000";
        return std::make_unique<World>(config, zone);
    }

    static std::string name(unsigned number) { return fmt::format("n{}.many.test", number % kNames); }
};

TEST_P(ResolveThenConnect, B42_the_binding_is_there_before_the_first_syn) {
    const unsigned rounds = quick() ? 1000 : 10000;
    const Endpoint any{family().name == "IPv4" ? IpAddress::from_v4(0) : IpAddress(), kPort};
    const TcpServer server(world().topology.internet(), any, [](TcpStream& stream) {
        stream.receive(1);
        stream.send("y");
    });
    unsigned misses = 0;
    for (unsigned round = 0; round < rounds; ++round) {
        if (round % kNames == 0) // so that each name's binding is new in each pass
            world().daemon.ask({"dns", "flush", "--guest", "vm0"});
        const std::vector<std::string> addresses = resolve(world(), family(), name(round));
        ASSERT_EQ(addresses.size(), 1U) << "round " << round;
        auto stream = TcpStream::connect(guest(), {IpAddress::parse(addresses[0]).value(), kPort});
        const bool served =
            stream && stream->send(std::string_view("\0", 1)) == 0 && stream->receive(1).bytes == "y";
        misses += served ? 0 : 1;
    }
    EXPECT_EQ(misses, 0U);
}

INSTANTIATE_TEST_SUITE_P(Family, ResolveThenConnect, families(), family_name);

} // namespace
} // namespace tapgate::test
