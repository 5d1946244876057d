// SPDX-License-Identifier: Apache-2.0
#include "proxy/flight_gate.hpp"
#include "tests/unit/proxy/gate_guest.hpp"

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

namespace tapgate::proxy {
namespace {

using test::GatedGuest;
using test::GoodOnly;
using test::kLimits;
using Then = net::GateStep::Then;

std::string get(std::string_view host, std::string_view headers = "") {
    return "GET / HTTP/1.1\r\nHost: " + std::string(host) + "\r\n" + std::string(headers) + "\r\n";
}

/// How much the guest sends at a time.
std::size_t piece(bool in_bytes) {
    return in_bytes ? 1 : SIZE_MAX;
}

constexpr std::string_view kOk = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

class FlightGateTest : public ::testing::TestWithParam<bool> {
  protected:
    GoodOnly judge_;
    FlightGate gate_{judge_, FlightGate::Stage::kHttp, kLimits};
    GatedGuest guest_{gate_, piece(GetParam())};
};

TEST_P(FlightGateTest, B39_every_request_on_a_connection_is_judged) {
    const std::string first = get("good.test");
    guest_.says(first);
    EXPECT_EQ(guest_.passed(), first);
    guest_.is_answered(kOk);
    guest_.says(get("evil.test"));
    EXPECT_EQ(guest_.passed(), first);
    EXPECT_EQ(guest_.then(), Then::kRefuse);
    EXPECT_EQ(judge_.asked, (std::vector<std::string>{"good.test", "evil.test"}));
    EXPECT_TRUE(gate_.may_speak());
}

TEST_P(FlightGateTest, B39_a_pipelined_request_is_judged_while_answers_are_under_way) {
    const std::string first = get("good.test");
    guest_.says(first + first + get("evil.test"));
    EXPECT_EQ(guest_.passed(), first + first);
    EXPECT_EQ(guest_.then(), Then::kRefuse);
    EXPECT_FALSE(gate_.may_speak());
}

TEST_P(FlightGateTest, bodies_pass_whatever_is_in_them) {
    const std::string with_length = "POST / HTTP/1.1\r\nHost: good.test\r\nContent-Length: 37\r\n\r\nGET / "
                                    "HTTP/1.1\r\nHost: evil.test\r\n\r\n\r\n";
    const std::string chunked = "POST / HTTP/1.1\r\nHost: good.test\r\nTransfer-Encoding: chunked\r\n\r\n"
                                "3\r\nGET\r\n0\r\nX: y\r\n\r\n";
    guest_.says(with_length + chunked + get("good.test"));
    EXPECT_EQ(guest_.passed(), with_length + chunked + get("good.test"));
    EXPECT_EQ(judge_.asked.size(), 3U);
    guest_.finishes();
    EXPECT_EQ(guest_.then(), Then::kMore);
}

TEST_P(FlightGateTest, B41_what_cannot_be_followed_is_refused) {
    const std::string good = get("good.test");
    const std::pair<std::string, std::string> kCases[] = {
        {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "what follows a request is none"},
        {"\x16\x03\x01\x02\x00\x01", "what follows a request is none"},
        {"GET / HTTP/1.1\r\nHost: good.test\r\n folded\r\n\r\n", "folded header"},
        {"GET / HTTP/1.1\r\nHost: good.test\r\nHost: good.test\r\n\r\n", "more than one Host"},
        {"GET / HTTP/1.1\nHost: good.test\n\n", "LF without CR"},
        {"POST / HTTP/1.1\r\nHost: good.test\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
         "Content-Length and Transfer-Encoding"},
    };
    for (const auto& [bytes, reason] : kCases) {
        GoodOnly judge;
        FlightGate gate(judge, FlightGate::Stage::kHttp, kLimits);
        GatedGuest guest(gate, piece(GetParam()));
        guest.says(good);
        guest.says(bytes);
        EXPECT_EQ(guest.then(), Then::kRefuse) << bytes;
        EXPECT_EQ(guest.passed(), good) << bytes;
        EXPECT_EQ(judge.last_reason, reason) << bytes;
    }
    guest_.says(
        "POST / HTTP/1.1\r\nHost: good.test\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n");
    EXPECT_EQ(guest_.then(), Then::kRefuse);
    EXPECT_EQ(guest_.passed().find("abc"), std::string::npos);
}

TEST_P(FlightGateTest, B40_nothing_passes_behind_upgrade_before_the_server_agrees) {
    const std::string upgrade = get("good.test", "Connection: Upgrade\r\nUpgrade: websocket\r\n");
    guest_.says(upgrade);
    guest_.says("\x81\x05hello");
    EXPECT_EQ(guest_.passed(), upgrade);
    EXPECT_EQ(guest_.then(), Then::kAnswer);
    guest_.is_answered("HTTP/1.1 101 Switching Protocols\r\n\r\n");
    EXPECT_EQ(guest_.then(), Then::kOpen);
    EXPECT_EQ(guest_.passed(), upgrade + "\x81\x05hello");
}

TEST_P(FlightGateTest, B40_what_follows_a_declined_upgrade_is_judged) {
    const std::string upgrade = get("good.test", "Connection: Upgrade\r\nUpgrade: websocket\r\n");
    guest_.says(upgrade + get("evil.test"));
    EXPECT_EQ(guest_.then(), Then::kAnswer);
    guest_.is_answered(kOk);
    EXPECT_EQ(guest_.then(), Then::kRefuse);
    EXPECT_EQ(guest_.passed(), upgrade);
    EXPECT_TRUE(gate_.may_speak());
}

TEST_P(FlightGateTest, B40_an_upgrade_to_http_2_or_tls_ends_when_the_server_agrees) {
    for (const std::string_view protocol : {"h2c", "HTTP/2.0", "websocket, h2c", "TLS/1.0"}) {
        GoodOnly judge;
        FlightGate gate(judge, FlightGate::Stage::kHttp, kLimits);
        GatedGuest guest(gate, piece(GetParam()));
        const std::string upgrade = get("good.test", "Upgrade: " + std::string(protocol) + "\r\n");
        guest.says(upgrade + "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        guest.is_answered("HTTP/1.1 101 Switching Protocols\r\n\r\n");
        EXPECT_EQ(guest.then(), Then::kRefuse) << protocol;
        EXPECT_EQ(guest.passed(), upgrade) << protocol;
        EXPECT_FALSE(gate.may_speak());
    }
    // A client that offers it and is not taken up goes on as ever (Java's does so on its first request).
    guest_.says(get("good.test", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"));
    guest_.is_answered(kOk);
    guest_.says(get("good.test"));
    EXPECT_EQ(guest_.then(), Then::kMore);
    EXPECT_TRUE(guest_.passed().ends_with(get("good.test")));
}

TEST_P(FlightGateTest, B40_connect_is_open_once_the_server_agrees) {
    const std::string connect = "CONNECT good.test:443 HTTP/1.1\r\nHost: good.test:443\r\n\r\n";
    guest_.says(connect + "opaque");
    EXPECT_EQ(guest_.passed(), connect);
    guest_.is_answered("HTTP/1.1 200 OK\r\n\r\n");
    EXPECT_EQ(guest_.then(), Then::kOpen);
    EXPECT_EQ(guest_.passed(), connect + "opaque");
}

TEST_P(FlightGateTest, an_endless_pipeline_waits_for_answers) {
    const std::string request = get("good.test");
    std::string pipeline;
    for (std::size_t i = 0; i < FlightGate::kMaxPipelined + 1; ++i)
        pipeline += request;
    guest_.says(pipeline);
    EXPECT_EQ(guest_.then(), Then::kAnswer);
    EXPECT_EQ(guest_.passed().size(), request.size() * FlightGate::kMaxPipelined);
    guest_.is_answered(kOk);
    EXPECT_EQ(guest_.passed().size(), pipeline.size());
}

TEST_P(FlightGateTest, an_unfinished_head_is_refused_in_time) {
    guest_.says("GET / HTTP/1.1\r\nHost: good");
    EXPECT_EQ(guest_.passed(), "");
    guest_.is_late();
    EXPECT_EQ(guest_.then(), Then::kRefuse);
    EXPECT_EQ(judge_.last_reason, "the request head was not finished in time");
}

TEST_P(FlightGateTest, a_fin_inside_a_head_is_refused) {
    guest_.says("GET / HTTP/1.1\r\nHost: good");
    guest_.finishes();
    EXPECT_EQ(guest_.then(), Then::kRefuse);
    EXPECT_EQ(guest_.passed(), "");
}

TEST_P(FlightGateTest, a_fin_inside_the_data_of_a_chunk_is_carried_as_one) {
    const std::string cut_short =
        "POST / HTTP/1.1\r\nHost: good.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na";
    guest_.says(cut_short);
    guest_.finishes();
    EXPECT_EQ(guest_.then(), Then::kMore);
    EXPECT_EQ(guest_.passed(), cut_short);
}

TEST_P(FlightGateTest, an_endless_chunk_line_is_refused) {
    guest_.says("POST / HTTP/1.1\r\nHost: good.test\r\nTransfer-Encoding: chunked\r\n\r\n1;a=");
    guest_.says(std::string(kLimits.bytes, 'x'));
    EXPECT_EQ(guest_.then(), Then::kRefuse);
}

TEST_P(FlightGateTest, requests_pass_unjudged_where_the_policy_says_so) {
    judge_.every = false;
    guest_.says(get("good.test") + get("evil.test"));
    EXPECT_EQ(guest_.passed(), get("good.test") + get("evil.test"));
    guest_.says("garbage\r\n");
    EXPECT_EQ(guest_.then(), Then::kOpen);
}

class SilenceTest : public ::testing::TestWithParam<bool> {
  protected:
    GoodOnly judge_;
    FlightGate gate_{judge_, FlightGate::Stage::kFirstFlight, kLimits};
    GatedGuest guest_{gate_, piece(GetParam())};
};

TEST_P(SilenceTest, a_client_of_a_server_first_protocol_is_let_through) {
    guest_.is_answered("220 mail.test\r\n");
    guest_.says("EHLO client\r\n");
    EXPECT_EQ(guest_.then(), Then::kOpen);
    EXPECT_EQ(guest_.passed(), "EHLO client\r\n");
    EXPECT_EQ(judge_.asked, std::vector<std::string>{"plain"});
}

TEST_P(SilenceTest, requests_after_silence_are_judged_one_by_one) {
    guest_.says(get("good.test"));
    guest_.is_answered(kOk);
    guest_.says(get("evil.test"));
    EXPECT_EQ(guest_.then(), Then::kRefuse);
    EXPECT_EQ(guest_.passed(), get("good.test"));
    EXPECT_TRUE(gate_.may_speak());
}

TEST_P(SilenceTest, a_hello_after_silence_that_is_never_finished_is_refused) {
    guest_.says(std::string_view("\x16\x03\x01\x02\x00\x01\x00", 7));
    EXPECT_EQ(guest_.then(), Then::kMore);
    guest_.is_late();
    EXPECT_EQ(guest_.then(), Then::kRefuse);
    EXPECT_EQ(guest_.passed(), "");
    EXPECT_TRUE(gate_.may_speak());
}

TEST_P(SilenceTest, nothing_is_said_over_what_the_server_has_begun) {
    guest_.is_answered("220 mail.test\r\n");
    guest_.says(get("evil.test"));
    EXPECT_EQ(guest_.then(), Then::kRefuse);
    EXPECT_FALSE(gate_.may_speak());
}

TEST_P(SilenceTest, silence_may_go_on_and_end) {
    guest_.finishes();
    EXPECT_EQ(guest_.then(), Then::kMore);
    EXPECT_TRUE(judge_.asked.empty());
}

constexpr auto cut_name = [](const auto& of) { return of.param ? "in_bytes" : "whole"; };

INSTANTIATE_TEST_SUITE_P(Cut, FlightGateTest, ::testing::Bool(), cut_name);
INSTANTIATE_TEST_SUITE_P(Cut, SilenceTest, ::testing::Bool(), cut_name);

} // namespace
} // namespace tapgate::proxy
