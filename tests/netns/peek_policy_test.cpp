// SPDX-License-Identifier: Apache-2.0
#include "harness/tls_hello_builder.hpp"
#include "harness/wait.hpp"
#include "netns/events.hpp"
#include "netns/world.hpp"

#include <fmt/format.h>

#include <atomic>
#include <chrono>

// What the first flight, the bindings and the policy say together: the behaviour that defines tapgate.
namespace tapgate::test {
namespace {

using std::chrono::steady_clock;

constexpr std::chrono::milliseconds kPeek{3000};
constexpr std::chrono::milliseconds kServerFirst{300};
constexpr std::size_t kPeekBytes = 8192;
constexpr unsigned kShared = 12;
constexpr unsigned kSuffix = 14;

std::string text(const Bytes& bytes) {
    return {bytes.begin(), bytes.end()};
}

class PeekPolicy : public WorldTest<PeekPolicy> {
  public:
    static std::unique_ptr<World> make_world() {
        DaemonConfig config;
        config.timers = fmt::format("peek_ms = {}\nserver_first_ms = {}\npeek_bytes = {}", kPeek.count(),
                                    kServerFirst.count(), kPeekBytes);
        return std::make_unique<World>(
            config, std::vector<std::string>{
                        dual_stack("shared-a.test", kShared), dual_stack("shared-b.test", kShared),
                        dual_stack("blocked.test", kShared), dual_stack("www.suffix.test", kSuffix)});
    }

  protected:
    static void load(const std::vector<std::string>& rules) {
        world().daemon.load_policy(policy_text(rules));
    }

    CaptureServer shared_{world().topology.internet(), server(kShared, 443)};
};

TEST_P(PeekPolicy, sni_overrides_the_cache_for_over_allow) {
    load({"allow@shared-a.test:tcp:443"});
    resolve(world(), family(), "shared-a.test");
    UplinkWatch uplink(world());

    EXPECT_PRED1(was_denied_by_alert, exchange(guest(), shared_.endpoint(), client_hello("shared-b.test")));
    EXPECT_EQ(shared_.accepted(), 0U);
    EXPECT_EQ(uplink.leaks({shared_.endpoint()}), std::vector<std::string>{});
    EXPECT_PRED1(was_served, exchange(guest(), shared_.endpoint(), client_hello("shared-a.test")));
    EXPECT_EQ(shared_.accepted(), 1U);
}

TEST_P(PeekPolicy, sni_overrides_the_cache_for_over_block) {
    load({"allow@dns", "deny@blocked.test:tcp:443", "allow@public:tcp:443"});
    resolve(world(), family(), "blocked.test");

    EXPECT_PRED1(was_served, exchange(guest(), shared_.endpoint(), client_hello("shared-a.test")));
    EXPECT_PRED1(was_denied_by_alert, exchange(guest(), shared_.endpoint(), client_hello("blocked.test")));
    EXPECT_EQ(shared_.accepted(), 1U);
}

TEST_P(PeekPolicy, non_tls_falls_back_to_the_bindings) {
    load({"allow@dns", "deny@blocked.test:tcp:443", "allow@shared-a.test:tcp:443"});
    resolve(world(), family(), "shared-a.test");
    const std::string plain("\x00\x01plain", 7);
    EXPECT_PRED1(was_served, exchange(guest(), shared_.endpoint(), plain));

    resolve(world(), family(), "blocked.test");
    EXPECT_PRED1(was_reset, exchange(guest(), shared_.endpoint(), plain));
    EXPECT_EQ(shared_.accepted(), 1U);
}

TEST_P(PeekPolicy, a_suffix_rule_with_a_binding_is_allowed) {
    load({"allow@*.suffix.test:tcp:443"});
    CaptureServer upstream(world().topology.internet(), server(kSuffix, 443));
    resolve(world(), family(), "www.suffix.test");
    EXPECT_PRED1(was_served, exchange(guest(), upstream.endpoint(), client_hello("www.suffix.test")));
}

TEST_P(PeekPolicy, the_same_sni_without_any_binding_is_denied) {
    load({"allow@*.suffix.test:tcp:443"});
    CaptureServer upstream(world().topology.internet(), server(kSuffix, 443));
    UplinkWatch uplink(world());
    EXPECT_PRED1(was_reset, exchange(guest(), upstream.endpoint(), client_hello("www.suffix.test")));
    EXPECT_EQ(upstream.accepted(), 0U);
    EXPECT_EQ(uplink.leaks({upstream.endpoint()}), std::vector<std::string>{});
}

TEST_P(PeekPolicy, the_hello_arrives_upstream_byte_for_byte) {
    load({"allow@shared-a.test:tcp:443"});
    resolve(world(), family(), "shared-a.test");
    const std::string hello = client_hello("shared-a.test");
    EXPECT_PRED1(was_served, exchange(guest(), shared_.endpoint(), hello + "and what follows it"));
    EXPECT_EQ(shared_.captured(), std::vector<std::string>{hello + "and what follows it"});
}

TEST_P(PeekPolicy, peek_ends_at_once_on_a_first_byte_that_is_not_tls) {
    load({"allow@shared-a.test:tcp:443"});
    resolve(world(), family(), "shared-a.test");
    const TcpServer banner(world().topology.internet(), server(kShared, 2525), [](TcpStream& stream) {
        stream.receive(1);
        stream.send("220 hello\n");
    });
    load({"allow@shared-a.test:tcp:2525"});
    const auto start = steady_clock::now();
    auto stream = TcpStream::connect(guest(), banner.endpoint());
    ASSERT_TRUE(stream.has_value());
    stream->send(std::string_view("\x00", 1));
    EXPECT_EQ(stream->receive(10).bytes, "220 hello\n");
    EXPECT_LT(steady_clock::now() - start, kPeek / 2);
}

TEST_P(PeekPolicy, peek_ends_at_its_cap) {
    load({"allow@shared-a.test:tcp:443"});
    resolve(world(), family(), "shared-a.test");
    const std::string hello = text(TlsHelloBuilder().sni("shared-a.test").padding(2 * kPeekBytes).build());
    const auto start = steady_clock::now();
    auto stream = TcpStream::connect(guest(), shared_.endpoint());
    ASSERT_TRUE(stream.has_value());
    stream->send(hello.substr(0, kPeekBytes + 100)); // and no FIN: only the cap can end it early
    Received received = stream->receive_to_end();
    EXPECT_PRED1(was_denied_by_alert, (Outcome{0, received.bytes, received.end}));
    EXPECT_LT(steady_clock::now() - start, kPeek);
    EXPECT_EQ(shared_.accepted(), 0U);
}

TEST_P(PeekPolicy, peek_ends_at_its_deadline) {
    load({"allow@shared-a.test:tcp:443"});
    resolve(world(), family(), "shared-a.test");
    const auto start = steady_clock::now();
    auto stream = TcpStream::connect(guest(), shared_.endpoint());
    ASSERT_TRUE(stream.has_value());
    stream->send(client_hello("shared-a.test").substr(0, 50));
    const Received received = stream->receive_to_end();
    EXPECT_PRED1(was_denied_by_alert, (Outcome{0, received.bytes, received.end}));
    EXPECT_GE(steady_clock::now() - start, kPeek);
    EXPECT_LT(steady_clock::now() - start, 3 * kPeek);
    EXPECT_EQ(shared_.accepted(), 0U);
}

TEST_P(PeekPolicy, a_server_that_speaks_first_is_connected_after_a_short_silence) {
    const TcpServer banner(world().topology.internet(), server(kShared, 2525), [](TcpStream& stream) {
        stream.send("220 hello\n");
        stream.send(stream.receive(13).bytes);
    });
    load({"allow@shared-a.test:tcp:2525"});
    resolve(world(), family(), "shared-a.test");
    const auto start = steady_clock::now();
    auto stream = TcpStream::connect(guest(), banner.endpoint());
    ASSERT_TRUE(stream.has_value());
    EXPECT_EQ(stream->receive(10).bytes, "220 hello\n");
    EXPECT_GE(steady_clock::now() - start, kServerFirst);
    EXPECT_LT(steady_clock::now() - start, kPeek);
    stream->send("EHLO client\r\n");
    EXPECT_EQ(stream->receive(13).bytes, "EHLO client\r\n");
}

TEST_P(PeekPolicy, B10_a_hello_after_silence_is_judged_before_a_byte_of_it_goes_upstream) {
    load({"allow@shared-a.test:tcp:443"});
    resolve(world(), family(), "shared-a.test");
    const auto after_silence = [&](std::string_view name) {
        const unsigned before = shared_.accepted();
        auto stream = TcpStream::connect(guest(), shared_.endpoint());
        EXPECT_TRUE(stream && wait_until([&] { return shared_.accepted() > before; }));
        stream->send(client_hello(name));
        stream->finish();
        const Received got = stream->receive_to_end();
        return Outcome{0, got.bytes, got.end};
    };
    EXPECT_PRED1(was_denied_by_alert, after_silence("shared-b.test"));
    EXPECT_PRED1(was_served, after_silence("shared-a.test"));
    EXPECT_TRUE(wait_until([&] { return shared_.captured().size() == 2; }));
    EXPECT_EQ(shared_.captured(), (std::vector<std::string>{"", client_hello("shared-a.test")}));
}

TEST_P(PeekPolicy, B10_a_denial_behind_a_servers_greeting_is_a_reset) {
    std::atomic<bool> was_spoken_to{false};
    const TcpServer banner(world().topology.internet(), server(kShared, 2525), [&](TcpStream& stream) {
        stream.send("220 hello\n");
        was_spoken_to = !stream.receive_to_end().bytes.empty();
    });
    load({"allow@shared-a.test:tcp:2525"});
    resolve(world(), family(), "shared-a.test");
    auto stream = TcpStream::connect(guest(), banner.endpoint());
    ASSERT_TRUE(stream.has_value());
    EXPECT_EQ(stream->receive(10).bytes, "220 hello\n");
    stream->send(client_hello("shared-b.test"));
    const Received got = stream->receive_to_end();
    EXPECT_EQ(got.bytes, "");
    EXPECT_EQ(got.end, End::kReset);
    EXPECT_FALSE(was_spoken_to);
}

TEST_P(PeekPolicy, silence_where_another_bound_name_is_denied_waits_for_the_name) {
    load({"allow@dns", "deny@blocked.test:tcp:443", "allow@shared-a.test:tcp:443"});
    resolve(world(), family(), "shared-a.test");
    resolve(world(), family(), "blocked.test");
    auto stream = TcpStream::connect(guest(), shared_.endpoint());
    ASSERT_TRUE(stream.has_value());
    EXPECT_EQ(stream->receive(1, 2 * kServerFirst).end, End::kNone) << "not reset at the window";
    EXPECT_EQ(shared_.accepted(), 0U);
    stream->send(client_hello("shared-a.test"));
    stream->finish();
    const Received got = stream->receive_to_end();
    EXPECT_PRED1(was_served, (Outcome{0, got.bytes, got.end}));

    auto silent = TcpStream::connect(guest(), shared_.endpoint());
    ASSERT_TRUE(silent.has_value());
    EXPECT_EQ(silent->receive_to_end().end, End::kReset);
    EXPECT_EQ(shared_.accepted(), 1U);
}

TEST_P(PeekPolicy, a_denial_can_be_a_reset_and_its_flow_is_recorded) {
    world().daemon.load_policy(policy_text({"allow@shared-a.test:tcp:443"}, "[deny]\nstyle = \"reset\"\n"));
    resolve(world(), family(), "shared-a.test");
    const EventMonitor monitor(world().daemon);
    EXPECT_PRED1(was_reset, exchange(guest(), shared_.endpoint(), client_hello("shared-b.test")));
    const auto end =
        monitor.wait_for([](const boost::json::object& event) { return is(event, "type", "flow-end"); });
    ASSERT_TRUE(end.has_value());
    EXPECT_TRUE(is(*end, "how", "denied") && is(*end, "who", "daemon") && is(*end, "verdict", "deny"))
        << boost::json::serialize(*end);
    EXPECT_TRUE(is(*end, "name", "shared-b.test") && is(*end, "name_source", "sni") &&
                is(*end, "splice", ""));
    EXPECT_PRED1(was_served, exchange(guest(), shared_.endpoint(), client_hello("shared-a.test")));
    const auto served = monitor.wait_for([](const boost::json::object& event) {
        return is(event, "type", "flow-end") && is(event, "verdict", "allow");
    });
    ASSERT_TRUE(served.has_value());
    EXPECT_TRUE(is(*served, "how", "finished") && is(*served, "who", "guest"))
        << boost::json::serialize(*served);
    EXPECT_FALSE(is(*served, "splice", ""));
    EXPECT_EQ(served->at("bytes_down").to_number<unsigned>(), 7U);
}

TEST_P(PeekPolicy, an_address_rule_needs_no_peek_so_that_servers_may_speak_first) {
    const TcpServer banner(world().topology.internet(), server(kShared, 2525),
                           [](TcpStream& stream) { stream.send("220 hello\n"); });
    load({"allow@public:tcp:2525"});
    const auto start = steady_clock::now();
    auto stream = TcpStream::connect(guest(), banner.endpoint());
    ASSERT_TRUE(stream.has_value());
    EXPECT_EQ(stream->receive(10).bytes, "220 hello\n");
    EXPECT_LT(steady_clock::now() - start, kPeek / 2);
}

TEST_P(PeekPolicy, a_hello_without_sni_is_denied_where_a_name_decides) {
    load({"allow@shared-a.test:tcp:443"});
    resolve(world(), family(), "shared-a.test");
    EXPECT_PRED1(was_denied_by_alert, exchange(guest(), shared_.endpoint(), text(TlsHelloBuilder().build())));
    EXPECT_EQ(shared_.accepted(), 0U);
}

TEST_P(PeekPolicy, B08_a_hello_of_one_byte_per_segment_is_recognised) {
    load({"allow@shared-a.test:tcp:443"});
    resolve(world(), family(), "shared-a.test");
    const std::string good = client_hello("shared-a.test");
    EXPECT_PRED1(was_served, exchange(guest(), shared_.endpoint(), one_by_one(good)));
    EXPECT_EQ(shared_.captured(), std::vector<std::string>{good});
    EXPECT_PRED1(was_denied_by_alert,
                 exchange(guest(), shared_.endpoint(), one_by_one(client_hello("shared-b.test"))));
    EXPECT_EQ(shared_.accepted(), 1U);
}

TEST_P(PeekPolicy, B08_a_hello_split_into_several_tls_records_is_recognised) {
    load({"allow@shared-a.test:tcp:443"});
    resolve(world(), family(), "shared-a.test");
    for (const std::size_t size : {1U, 7U, 60U}) {
        const auto split = [&](std::string_view name) {
            return text(TlsHelloBuilder().sni(name).records_of(size).build());
        };
        EXPECT_PRED1(was_served, exchange(guest(), shared_.endpoint(), split("shared-a.test"))) << size;
        EXPECT_PRED1(was_denied_by_alert, exchange(guest(), shared_.endpoint(), split("shared-b.test")))
            << size;
    }
    EXPECT_EQ(shared_.accepted(), 3U);
}

TEST_P(PeekPolicy, a_post_quantum_hello_of_4_kib_is_recognised) {
    load({"allow@shared-a.test:tcp:443"});
    resolve(world(), family(), "shared-a.test");
    const auto large = [](std::string_view name) {
        return text(TlsHelloBuilder().post_quantum().padding(2700).sni(name).build());
    };
    const std::string hello = large("shared-a.test");
    EXPECT_GT(hello.size(), 4000U);
    // Two segments, as a path with an ordinary MTU would have it at least.
    EXPECT_PRED1(was_served,
                 exchange(guest(), shared_.endpoint(), {hello.substr(0, 1400), hello.substr(1400)}));
    EXPECT_EQ(shared_.captured(), std::vector<std::string>{hello});
    EXPECT_PRED1(was_denied_by_alert, exchange(guest(), shared_.endpoint(), large("shared-b.test")));
}

TEST_P(PeekPolicy, B11_malformed_server_names_are_denied) {
    load({"allow@shared-a.test:tcp:443"});
    resolve(world(), family(), "shared-a.test");
    using Builder = TlsHelloBuilder;
    const std::vector<std::pair<const char*, Bytes>> hellos = {
        {"NUL in the name", Builder().sni(std::string_view("shared-a.test\0.x", 16)).build()},
        {"control byte", Builder().sni("shared-a.test\n").build()},
        {"raw UTF-8", Builder().sni("shared-\xc3\xa9.test").build()},
        {"empty name", Builder().sni("").build()},
        {"two names",
         Builder().extension(0, Builder::server_name({{0, "shared-a.test"}, {0, "shared-b.test"}})).build()},
        {"two extensions", Builder().sni("shared-a.test").sni("shared-b.test").build()},
        {"the same extension twice", Builder().sni("shared-a.test").sni("shared-a.test").build()},
        {"a name type that is not host_name",
         Builder().extension(0, Builder::server_name({{1, "shared-a.test"}})).build()},
    };
    for (const auto& [what, hello] : hellos)
        EXPECT_PRED1(was_denied_by_alert, exchange(guest(), shared_.endpoint(), text(hello))) << what;
    EXPECT_EQ(shared_.accepted(), 0U);
}

TEST_P(PeekPolicy, B04_an_allowed_sni_to_another_address_is_denied) {
    load({"allow@shared-a.test:tcp:443", "allow@www.suffix.test:tcp:443"});
    resolve(world(), family(), "shared-a.test");
    resolve(world(), family(), "www.suffix.test");
    CaptureServer attacker(world().topology.internet(), server(66, 443));
    UplinkWatch uplink(world());
    // An address that no name has, and one that another allowed name has.
    EXPECT_PRED1(was_reset, exchange(guest(), attacker.endpoint(), client_hello("shared-a.test")));
    EXPECT_PRED1(was_denied_by_alert, exchange(guest(), shared_.endpoint(), client_hello("www.suffix.test")));
    EXPECT_EQ(attacker.accepted() + shared_.accepted(), 0U);
    EXPECT_PRED1(was_served, exchange(guest(), shared_.endpoint(), client_hello("shared-a.test")));
    EXPECT_EQ(uplink.leaks({attacker.endpoint()}), std::vector<std::string>{});
}

TEST_P(PeekPolicy, an_http_request_is_judged_by_its_host) {
    CaptureServer upstream(world().topology.internet(), server(kShared, 80));
    load({"allow@shared-a.test:tcp:80"});
    resolve(world(), family(), "shared-a.test");
    EXPECT_PRED1(was_served,
                 exchange(guest(), upstream.endpoint(), "GET / HTTP/1.1\r\nHost: shared-a.test\r\n\r\n"));
    const Outcome denied =
        exchange(guest(), upstream.endpoint(), "GET / HTTP/1.1\r\nHost: shared-b.test\r\n\r\n");
    EXPECT_TRUE(denied.answer.starts_with("HTTP/1.1 403 ")) << denied;
    EXPECT_NE(denied.answer.find("shared-b.test"), std::string::npos) << denied;
    EXPECT_EQ(upstream.accepted(), 1U);
}

INSTANTIATE_TEST_SUITE_P(Family, PeekPolicy, families(), family_name);

} // namespace
} // namespace tapgate::test
