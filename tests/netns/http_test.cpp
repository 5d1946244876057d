// SPDX-License-Identifier: Apache-2.0
#include "harness/wait.hpp"
#include "netns/events.hpp"
#include "netns/world.hpp"

#include <fmt/format.h>

#include <mutex>
#include <optional>

// Requests on one connection, each of them judged ([http] host = "every"), and what the other settings let
// by.
namespace tapgate::test {
namespace {

constexpr unsigned kShared = 12;
constexpr std::uint16_t kHttp = 80;

std::string get(const std::string& host, const std::string& headers = {}) {
    return fmt::format("GET / HTTP/1.1\r\nHost: {}\r\n{}\r\n", host, headers);
}

const std::string kOk = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const std::string kSwitched = "HTTP/1.1 101 Switching Protocols\r\n\r\n";
const std::string kTunnel = "HTTP/1.1 200 Tunnel\r\n\r\n";
const std::string kChunkedHead =
    "POST / HTTP/1.1\r\nHost: shared-a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
/// Some servers take the bare LF for the end of the chunk's line, others do not.
const std::string kAmbiguousChunk = "2;\nxx\r\n3\r\nabc\r\n0\r\n\r\n";

/// Answers each request head, agrees to whatever Upgrade or CONNECT asks for and then sends back what it
/// gets. Keeps all it has received.
class WebSite {
  public:
    WebSite(const NetNs& ns, const Endpoint& endpoint)
        : server_(ns, endpoint, [this](TcpStream& stream) { serve(stream); }) {}

    [[nodiscard]] std::string received() {
        const std::lock_guard lock(mutex_);
        return received_;
    }

    /// How the last connection that is over ended.
    [[nodiscard]] std::optional<End> ended() {
        const std::lock_guard lock(mutex_);
        return ended_;
    }

    [[nodiscard]] const Endpoint& endpoint() const { return server_.endpoint(); }

    [[nodiscard]] unsigned accepted() const { return server_.accepted(); }

  private:
    void serve(TcpStream& stream) {
        std::string unread;
        bool is_opaque = false;
        for (;;) {
            Received got = stream.receive_some(65536);
            note(got);
            if (got.bytes.empty())
                return;
            unread += got.bytes;
            std::string answer;
            if (is_opaque)
                answer.swap(unread);
            for (std::size_t end = unread.find("\r\n\r\n"); !is_opaque && end != std::string::npos;
                 end = unread.find("\r\n\r\n")) {
                const std::string head = unread.substr(0, end);
                unread.erase(0, end + 4);
                const bool upgrade = head.find("Upgrade: ") != std::string::npos;
                const bool connect = head.starts_with("CONNECT ");
                answer += upgrade ? kSwitched : connect ? kTunnel : kOk;
                is_opaque = upgrade || connect;
            }
            if (stream.send(answer) != 0) {
                note({.bytes = {}, .end = End::kReset}); // the kernel tells of a reset once
                return;
            }
        }
    }

    void note(const Received& got) {
        const std::lock_guard lock(mutex_);
        received_ += got.bytes;
        if (got.bytes.empty())
            ended_ = got.end;
    }

    std::mutex mutex_;
    std::string received_;     // guarded by mutex_
    std::optional<End> ended_; // guarded by mutex_
    TcpServer server_;
};

class Http : public WorldTest<Http> {
  public:
    static std::unique_ptr<World> make_world() {
        DaemonConfig config;
        config.timers = "peek_ms = 1500";
        return std::make_unique<World>(config,
                                       std::vector<std::string>{dual_stack("shared-a.test", kShared),
                                                                dual_stack("shared-b.test", kShared)});
    }

  protected:
    void SetUp() override {
        WorldTest::SetUp();
        load("");
        resolve(world(), family(), "shared-a.test");
    }

    static void load(std::string_view more,
                     const std::vector<std::string>& rules = {"allow@shared-a.test:tcp:80"}) {
        world().daemon.load_policy(policy_text(rules, more));
    }

    TcpStream connect() {
        auto stream = TcpStream::connect(guest(), site_.endpoint());
        if (!stream)
            throw std::system_error(stream.error(), std::generic_category(), "connect");
        return std::move(*stream);
    }

    /// A connection on which one allowed request was answered.
    TcpStream connect_and_ask() {
        TcpStream stream = connect();
        stream.send(get("shared-a.test"));
        EXPECT_EQ(stream.receive(kOk.size()).bytes, kOk);
        return stream;
    }

    void expect_upstream_was_reset() {
        EXPECT_TRUE(wait_until([&] { return site_.ended().has_value(); }));
        EXPECT_EQ(site_.ended(), End::kReset) << "what was cut must not look complete";
    }

    WebSite site_{world().topology.internet(), server(kShared, kHttp)};
};

TEST_P(Http, B39_a_second_request_with_another_host_is_refused_and_the_guest_can_read_why) {
    load("[deny]\ntext = \"ask platform@example.com\"\n");
    const EventMonitor monitor(world().daemon);
    TcpStream stream = connect_and_ask();
    stream.send(get("shared-b.test"));
    const Received refusal = stream.receive_to_end();
    EXPECT_TRUE(refusal.bytes.starts_with("HTTP/1.1 403 ")) << refusal.bytes;
    EXPECT_NE(refusal.bytes.find("shared-b.test"), std::string::npos) << refusal.bytes;
    EXPECT_NE(refusal.bytes.find("ask platform@example.com"), std::string::npos) << refusal.bytes;
    EXPECT_EQ(refusal.end, End::kFin);
    expect_upstream_was_reset();
    EXPECT_EQ(site_.received(), get("shared-a.test"));
    const auto verdict = monitor.wait_for([](const boost::json::object& event) {
        return is(event, "type", "verdict") && is(event, "verdict", "deny");
    });
    ASSERT_TRUE(verdict.has_value());
    EXPECT_TRUE(is(*verdict, "name", "shared-b.test") && is(*verdict, "name_source", "host"));
    const auto end =
        monitor.wait_for([](const boost::json::object& event) { return is(event, "type", "flow-end"); });
    ASSERT_TRUE(end.has_value());
    EXPECT_TRUE(is(*end, "how", "denied") && is(*end, "who", "daemon") && is(*end, "verdict", "deny"));
    EXPECT_EQ(end->at("bytes_up").to_number<std::size_t>(), get("shared-a.test").size());
    EXPECT_EQ(end->at("bytes_down").to_number<std::size_t>(), kOk.size());
}

TEST_P(Http, B39_a_pipelined_request_with_another_host_never_goes_upstream) {
    TcpStream stream = connect();
    stream.send(get("shared-a.test") + get("shared-b.test"));
    const Received got = stream.receive_to_end();
    EXPECT_EQ(got.bytes.find("403"), std::string::npos) << "it could be taken for the answer to the first";
    EXPECT_EQ(got.end, End::kReset);
    expect_upstream_was_reset();
    EXPECT_EQ(site_.received().find("shared-b"), std::string::npos);
}

TEST_P(Http, B39_a_request_behind_a_body_is_found_whatever_the_body_is) {
    const std::string inner = get("shared-b.test");
    const std::vector<std::string> requests = {
        fmt::format("POST / HTTP/1.1\r\nHost: shared-a.test\r\nContent-Length: {}\r\n\r\n{}", inner.size(),
                    inner),
        fmt::format("POST / HTTP/1.1\r\nHost: shared-a.test\r\nTransfer-Encoding: "
                    "chunked\r\n\r\n{:x}\r\n{}\r\n0\r\n\r\n",
                    inner.size(), inner)};
    for (const std::string& request : requests) {
        TcpStream stream = connect();
        stream.send(request + get("shared-a.test"));
        // Two heads of the guest's, and one that the site takes out of the body: bodies are its own business.
        EXPECT_EQ(stream.receive(2 * kOk.size()).bytes, kOk + kOk);
        stream.send(get("shared-b.test"));
        EXPECT_NE(stream.receive_to_end().end, End::kNone);
        EXPECT_TRUE(wait_until([&] { return site_.ended().has_value(); }));
        EXPECT_TRUE(site_.received().ends_with(request + get("shared-a.test")));
    }
}

TEST_P(Http, a_kept_connection_serves_many_requests_and_ends_in_order) {
    TcpStream stream = connect_and_ask();
    for (int i = 0; i < 50; ++i) {
        for (const std::string& piece : i % 10 == 0 ? one_by_one(get("shared-a.test"))
                                                    : std::vector<std::string>{get("SHARED-A.test.:80")})
            stream.send(piece);
        ASSERT_EQ(stream.receive(kOk.size()).bytes, kOk);
    }
    stream.finish();
    EXPECT_EQ(stream.receive_to_end().end, End::kFin);
    EXPECT_EQ(site_.ended(), End::kFin);
    EXPECT_EQ(site_.accepted(), 1U);
}

TEST_P(Http, B40_connect_through_an_allowed_host_needs_a_rule_on_what_is_behind_it) {
    const auto ask = [&](const std::string& authority) {
        TcpStream stream = connect();
        stream.send(fmt::format("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n", authority));
        return stream.receive_to_end();
    };
    for (const char* authority : {"shared-a.test:443", "shared-b.test:80", "203.0.113.66:443",
                                  "[2001:db8:3::42]:443", "169.254.169.254:80"}) {
        EXPECT_TRUE(ask(authority).bytes.starts_with("HTTP/1.1 403 ")) << authority;
    }
    EXPECT_EQ(site_.accepted(), 0U);
    load("", {"allow@shared-a.test:tcp:80", "allow@shared-b.test:tcp:8443"});
    TcpStream stream = connect();
    stream.send("CONNECT shared-b.test:8443 HTTP/1.1\r\nHost: shared-b.test:8443\r\n\r\nopaque");
    EXPECT_EQ(stream.receive(kTunnel.size() + 6).bytes, kTunnel + "opaque");
    stream.send("\x16\x03more");
    EXPECT_EQ(stream.receive(6).bytes, "\x16\x03more");
}

TEST_P(Http, B40_absolute_form_is_judged_by_its_authority) {
    TcpStream stream = connect_and_ask();
    stream.send("GET http://shared-b.test/ HTTP/1.1\r\nHost: shared-b.test\r\n\r\n");
    EXPECT_TRUE(stream.receive_to_end().bytes.starts_with("HTTP/1.1 403 "));
    TcpStream other = connect_and_ask();
    other.send("GET http://shared-b.test/ HTTP/1.1\r\nHost: shared-a.test\r\n\r\n");
    EXPECT_TRUE(other.receive_to_end().bytes.starts_with("HTTP/1.1 403 "));
    TcpStream good = connect_and_ask();
    good.send("GET http://shared-a.test/ HTTP/1.1\r\nHost: shared-a.test\r\n\r\n");
    EXPECT_EQ(good.receive(kOk.size()).bytes, kOk);
    EXPECT_EQ(site_.received().find("shared-b"), std::string::npos);
}

TEST_P(Http, B40_a_websocket_is_opaque_once_the_server_agrees) {
    TcpStream stream = connect_and_ask();
    stream.send(get("shared-a.test", "Connection: Upgrade\r\nUpgrade: websocket\r\n"));
    EXPECT_EQ(stream.receive(kSwitched.size()).bytes, kSwitched);
    stream.send("\x81\x05hello");
    EXPECT_EQ(stream.receive(7).bytes, "\x81\x05hello");
    stream.finish();
    EXPECT_EQ(stream.receive_to_end().end, End::kFin);
}

TEST_P(Http, B40_h2c_ends_where_it_would_carry_requests_that_nobody_judges) {
    const std::string upgrade = get(
        "shared-a.test", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAM\r\n");
    TcpStream stream = connect_and_ask();
    stream.send(upgrade + "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    EXPECT_EQ(stream.receive_to_end().end, End::kReset);
    expect_upstream_was_reset();
    EXPECT_EQ(site_.received(), get("shared-a.test") + upgrade);

    TcpStream prior = connect_and_ask();
    prior.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    EXPECT_TRUE(prior.receive_to_end().bytes.starts_with("HTTP/1.1 403 "));
    EXPECT_EQ(site_.received().find("PRI"), std::string::npos);
}

TEST_P(Http, B41_a_later_request_that_two_servers_read_differently_is_refused) {
    const std::string host = "Host: shared-a.test\r\n";
    for (const std::string& request : std::vector<std::string>{
             "GET / HTTP/1.1\r\n" + host + " folded\r\n\r\n",
             "GET / HTTP/1.1\r\n" + host + host + "\r\n",
             "GET / HTTP/1.1\r\nHost: shared-a.test\r\nHost: shared-b.test\r\n\r\n",
             "GET / HTTP/1.1\nHost: shared-a.test\n\n",
             "GET / HTTP/1.1\r\nHost : shared-a.test\r\n\r\n",
             "GET / HTTP/1.1\r\n\r\n",
             "GET / HTTP/1.1\r\nHost: shared-a.test@shared-b.test\r\n\r\n",
             "GET / HTTP/1.1\r\nHost: shared-a.test:0\r\n\r\n",
             "\r\nGET / HTTP/1.1\r\n" + host + "\r\n",
             "POST / HTTP/1.1\r\n" + host +
                 "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
             "POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
             "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
             "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
         }) {
        TcpStream stream = connect_and_ask();
        stream.send(request);
        const Received got = stream.receive_to_end();
        EXPECT_TRUE(got.bytes.starts_with("HTTP/1.1 403 ")) << request << "\n-> " << got.bytes;
    }
    std::string only_the_good;
    for (unsigned i = 0; i < site_.accepted(); ++i)
        only_the_good += get("shared-a.test");
    EXPECT_EQ(site_.received(), only_the_good);
}

// In one segment with its head, so that the site cannot have answered in between.
TEST_P(Http, B41_a_chunk_that_two_servers_read_differently_ends_the_connection) {
    TcpStream stream = connect_and_ask();
    stream.send(kChunkedHead + kAmbiguousChunk + get("shared-b.test"));
    EXPECT_EQ(stream.receive_to_end().end, End::kReset);
    expect_upstream_was_reset();
    EXPECT_EQ(site_.received().find("abc"), std::string::npos);
}

TEST_P(Http, B41_a_chunk_that_two_servers_read_differently_is_told_of_once_the_request_is_answered) {
    TcpStream stream = connect_and_ask();
    stream.send(kChunkedHead);
    EXPECT_EQ(stream.receive(kOk.size()).bytes, kOk);
    stream.send(kAmbiguousChunk + get("shared-b.test"));
    const Received got = stream.receive_to_end();
    EXPECT_TRUE(got.bytes.starts_with("HTTP/1.1 403 ")) << got.bytes;
    EXPECT_EQ(got.end, End::kFin);
    expect_upstream_was_reset();
    EXPECT_EQ(site_.received().find("abc"), std::string::npos);
}

TEST_P(Http, B35_a_later_head_that_is_never_finished_ends_the_connection) {
    TcpStream stream = connect_and_ask();
    stream.send("GET / HTTP/1.1\r\nHost: shared-a.te");
    const Received got = stream.receive_to_end();
    EXPECT_TRUE(got.bytes.starts_with("HTTP/1.1 403 ")) << got.bytes;
    expect_upstream_was_reset();
}

TEST_P(Http, a_swap_reaches_the_next_request_of_a_live_connection) {
    load("", {"allow@shared-a.test:tcp:80", "allow@shared-b.test:tcp:80"});
    resolve(world(), family(), "shared-b.test");
    TcpStream stream = connect_and_ask();
    stream.send(get("shared-b.test"));
    EXPECT_EQ(stream.receive(kOk.size()).bytes, kOk);
    stream.send(get("shared-a.test"));
    EXPECT_EQ(stream.receive(kOk.size()).bytes, kOk);
    load("");
    stream.send(get("shared-a.test"));
    EXPECT_EQ(stream.receive(kOk.size()).bytes, kOk);
    stream.send(get("shared-b.test"));
    EXPECT_TRUE(stream.receive_to_end().bytes.starts_with("HTTP/1.1 403 "));
}

TEST_P(Http, first_and_ignore_let_later_requests_pass) {
    for (const char* host : {"first", "ignore"}) {
        load(fmt::format("[http]\nhost = \"{}\"\n", host));
        TcpStream stream = connect_and_ask();
        stream.send(get("shared-b.test"));
        EXPECT_EQ(stream.receive(kOk.size()).bytes, kOk) << host;
    }
}

TEST_P(Http, a_refusal_can_be_a_reset) {
    load("[deny]\nstyle = \"reset\"\n");
    EXPECT_PRED1(was_reset, exchange(guest(), site_.endpoint(), get("shared-b.test")));
    TcpStream stream = connect_and_ask();
    stream.send(get("shared-b.test"));
    const Received got = stream.receive_to_end();
    EXPECT_EQ(got.bytes, "");
    EXPECT_EQ(got.end, End::kReset);
}

INSTANTIATE_TEST_SUITE_P(Family, Http, families(), family_name);

} // namespace
} // namespace tapgate::test
