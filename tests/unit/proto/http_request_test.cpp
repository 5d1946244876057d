// SPDX-License-Identifier: Apache-2.0
#include "proto/http_request.hpp"
#include "tests/unit/proto/peek_outcome.hpp"

#include <gtest/gtest.h>

#include <ctime>
#include <string>

namespace tapgate::proto {
namespace {

ByteView bytes_of(std::string_view text) {
    return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

HttpRequestParser run(std::string_view stream, std::size_t cap = kDefaultPeekCap) {
    SCOPED_TRACE(stream);
    return run_parser<HttpRequestParser>(bytes_of(stream), cap);
}

HttpRequest done(std::string_view stream) {
    const auto parser = run(stream);
    EXPECT_EQ(parser.status(), PeekStatus::kDone) << stream << ": " << parser.reason();
    return parser.request();
}

std::string_view malformed_reason(std::string_view stream) {
    const auto parser = run(stream);
    EXPECT_EQ(parser.status(), PeekStatus::kMalformed) << stream;
    return parser.reason();
}

/// A request whose head has these lines behind the request line.
std::string get(std::string_view headers) {
    return "GET / HTTP/1.1\r\n" + std::string(headers) + "\r\n";
}

TEST(HttpRequest, the_authority_of_an_ordinary_request_is_its_host) {
    const HttpRequest request =
        done("GET /a?b HTTP/1.1\r\nUser-Agent: x\r\nhOST: \t Example.com \t\r\nA:\r\n\r\nbody");
    EXPECT_EQ(request.method, "GET");
    EXPECT_EQ(request.target_form, HttpTargetForm::kOrigin);
    ASSERT_TRUE(request.authority.has_value());
    EXPECT_EQ(request.authority->host, "Example.com");
    EXPECT_FALSE(request.authority->is_address);
    EXPECT_EQ(request.authority->port, std::nullopt);
}

TEST(HttpRequest, host_may_have_a_port_or_be_an_address) {
    const HttpAuthority named = done(get("Host: example.com.:8080\r\n")).authority.value();
    EXPECT_EQ(named.host, "example.com.");
    EXPECT_EQ(named.port, 8080);
    const HttpAuthority v4 = done(get("Host: 192.0.2.1:80\r\n")).authority.value();
    EXPECT_EQ(v4.host, "192.0.2.1");
    EXPECT_TRUE(v4.is_address);
    const HttpAuthority v6 = done(get("Host: [2001:db8::1]:8443\r\n")).authority.value();
    EXPECT_EQ(v6.host, "2001:db8::1");
    EXPECT_TRUE(v6.is_address);
    EXPECT_EQ(v6.port, 8443);
}

TEST(HttpRequest, every_cut_of_a_valid_head_needs_more) {
    const std::string head = "OPTIONS http://example.com/a HTTP/1.1\r\nHost: example.com\r\nX: y\r\n\r\n";
    for (std::size_t size = 0; size < head.size(); ++size) {
        HttpRequestParser parser;
        EXPECT_EQ(parser.update(bytes_of(head).first(size)), PeekStatus::kNeedMore) << size;
    }
    EXPECT_EQ(run(head).status(), PeekStatus::kDone);
}

TEST(HttpRequest, all_four_target_forms_are_recognised) {
    EXPECT_EQ(done("OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n").target_form, HttpTargetForm::kAsterisk);
    const HttpRequest absolute = done("GET http://a.example:81/x HTTP/1.1\r\nHost: A.example.:81\r\n\r\n");
    EXPECT_EQ(absolute.target_form, HttpTargetForm::kAbsolute);
    EXPECT_EQ(absolute.authority->host, "a.example");
    EXPECT_EQ(absolute.authority->port, 81);
    const HttpRequest connect = done("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n");
    EXPECT_EQ(connect.target_form, HttpTargetForm::kAuthority);
    EXPECT_EQ(connect.authority->host, "a.example");
    EXPECT_EQ(connect.authority->port, 443);
    EXPECT_EQ(done("CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:DB8:0::1]:443\r\n\r\n").authority->host,
              "2001:db8::1");
}

TEST(HttpRequest, host_must_agree_with_the_target) {
    constexpr std::string_view kReason = "Host differs from the target";
    EXPECT_EQ(malformed_reason("GET http://a.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n"), kReason);
    EXPECT_EQ(malformed_reason("GET http://a.example:81/ HTTP/1.1\r\nHost: a.example\r\n\r\n"), kReason);
    EXPECT_EQ(malformed_reason("GET http://a.example/ HTTP/1.1\r\nHost: a.example:443\r\n\r\n"), kReason);
    EXPECT_EQ(malformed_reason("GET http://a.example/ HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n"), kReason);
    EXPECT_EQ(malformed_reason("GET http://192.0.2.2/ HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n"), kReason);
    EXPECT_EQ(malformed_reason("CONNECT a.example:443 HTTP/1.1\r\nHost: b.example:443\r\n\r\n"), kReason);
    EXPECT_EQ(malformed_reason("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:80\r\n\r\n"), kReason);
    done("GET http://a.example/ HTTP/1.1\r\nHost: a.example:80\r\n\r\n");
    done("GET https://a.example:443/ HTTP/1.1\r\nHost: a.example\r\n\r\n");
    done("GET HTTP://a.example?q HTTP/1.1\r\nHost: a.example\r\n\r\n");
}

TEST(HttpRequest, broken_targets_are_malformed) {
    EXPECT_EQ(malformed_reason("CONNECT a.example HTTP/1.1\r\n"), "CONNECT without a port");
    EXPECT_EQ(malformed_reason("CONNECT /x HTTP/1.1\r\n"), "CONNECT without a valid authority");
    EXPECT_EQ(malformed_reason("CONNECT http://a.example:1 HTTP/1.1\r\n"),
              "CONNECT without a valid authority");
    EXPECT_EQ(malformed_reason("GET * HTTP/1.1\r\n"), "target is not a path or an URI");
    EXPECT_EQ(malformed_reason("GET a.example HTTP/1.1\r\n"), "target is not a path or an URI");
    EXPECT_EQ(malformed_reason("GET ftp://a.example/ HTTP/1.1\r\n"), "target has an unknown scheme");
    for (const char* authority :
         {"", "u@a.example", "u:p@a.example", "a.example:", "a.example:0", "a.example:65536", "a.example:+1",
          "a.example:1x", "a..b", "a\\@b", "[2001:db8::1", "[a.example]", "[192.0.2.1]", "[2001:db8::1]x",
          "[fe80::1%25eth0]", "127.1", "b\xc3\xbc.example"})
        EXPECT_EQ(malformed_reason("GET http://" + std::string(authority) + "/ HTTP/1.1\r\n"),
                  "target has an invalid authority")
            << authority;
}

TEST(HttpRequest, broken_hosts_are_malformed) {
    for (const char* host : {"", " ", "u@a.example", "a.example:", "a.example:0", "a.example:65536",
                             "a.example/", "a.example, b.example", "a.example b.example", "http://a.example",
                             "2001:db8::1", "a..b", "0x7f000001", "*", "b\xc3\xbc.example"})
        EXPECT_EQ(malformed_reason(get("Host: " + std::string(host) + "\r\n")), "Host is not a host") << host;
    EXPECT_EQ(malformed_reason(get("Host: a.example\r\nHost: a.example\r\n")), "more than one Host");
    EXPECT_EQ(malformed_reason(get("Host: a.example\r\nX: y\r\nhost: b.example\r\n")), "more than one Host");
    EXPECT_EQ(malformed_reason(get("X-Host: a.example\r\n")), "HTTP/1.1 without Host");
    EXPECT_EQ(malformed_reason("GET http://a.example/ HTTP/1.1\r\n\r\n"), "HTTP/1.1 without Host");
}

TEST(HttpRequest, http_1_0_may_name_nobody) {
    EXPECT_FALSE(done("GET / HTTP/1.0\r\n\r\n").authority.has_value());
    EXPECT_EQ(done("GET / HTTP/1.0\r\nHost: a.example\r\n\r\n").authority->host, "a.example");
    EXPECT_EQ(done("GET http://a.example/ HTTP/1.0\r\n\r\n").authority->host, "a.example");
}

TEST(HttpRequest, what_two_readers_take_differently_is_malformed) {
    EXPECT_EQ(malformed_reason(get("Host: a.example\r\n b.example\r\n")), "folded header");
    EXPECT_EQ(malformed_reason(get("\tHost: a.example\r\n")), "folded header");
    EXPECT_EQ(malformed_reason(get("Host : a.example\r\n")), "header name is not a token");
    EXPECT_EQ(malformed_reason(get(": a.example\r\n")), "header name is not a token");
    EXPECT_EQ(malformed_reason(get("Host\r\n")), "header without a colon");
    EXPECT_EQ(malformed_reason("GET / HTTP/1.1\nHost: a.example\n\n"), "LF without CR");
    EXPECT_EQ(malformed_reason(get("X: y\nHost: a.example\r\n")), "LF without CR");
    EXPECT_EQ(malformed_reason(get("Host: a.example\r\n\n")), "LF without CR");
    EXPECT_EQ(malformed_reason(get("X: y\rHost: a.example\r\n")), "CR without LF");
    EXPECT_EQ(malformed_reason(get("X: y\r\r\n")), "CR without LF");
    EXPECT_EQ(malformed_reason(get(std::string_view("X: \0\r\n", 6))), "control byte");
    EXPECT_EQ(malformed_reason(get("X: \x7f\r\n")), "control byte");
    EXPECT_EQ(malformed_reason(std::string_view("GET /\0 HTTP/1.1\r\n", 17)), "control byte");
    EXPECT_EQ(malformed_reason("GET  / HTTP/1.1\r\n"), "blanks in the request line");
    EXPECT_EQ(malformed_reason("GET /  HTTP/1.1\r\n"), "blanks in the request line");
    EXPECT_EQ(malformed_reason("GET / x HTTP/1.1\r\n"), "blanks in the request line");
    EXPECT_EQ(malformed_reason("GET\t/ HTTP/1.1\r\n"), "request line without a version");
    EXPECT_EQ(malformed_reason("GET / HTTP/1.1 \r\n"), "blanks in the request line");
    EXPECT_EQ(malformed_reason("GET\v/ HTTP/1.1\r\n"), "control byte");
    EXPECT_EQ(malformed_reason("GET\r/ HTTP/1.1\r\n"), "CR without LF");
}

TEST(HttpRequest, a_body_whose_end_is_open_to_dispute_is_malformed) {
    const std::string host = "Host: a.test\r\n";
    const std::pair<std::string_view, std::string_view> kCases[] = {
        {"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "Content-Length and Transfer-Encoding"},
        {"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "Content-Length and Transfer-Encoding"},
        {"Content-Length: 5\r\nContent-Length: 5\r\n", "more than one Content-Length"},
        {"Content-Length: 5, 5\r\n", "Content-Length is not a number"},
        {"Content-Length: +5\r\n", "Content-Length is not a number"},
        {"Content-Length: -1\r\n", "Content-Length is not a number"},
        {"Content-Length: 0x5\r\n", "Content-Length is not a number"},
        {"Content-Length: 5 5\r\n", "Content-Length is not a number"},
        {"Content-Length:\r\n", "Content-Length is not a number"},
        {"Content-Length: 9223372036854775808\r\n", "Content-Length is not a number"},
        {"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "more than one Transfer-Encoding"},
        {"Transfer-Encoding: gzip, chunked\r\n", "Transfer-Encoding is not chunked"},
        {"Transfer-Encoding: chunked, identity\r\n", "Transfer-Encoding is not chunked"},
        {"Transfer-Encoding: identity\r\n", "Transfer-Encoding is not chunked"},
        {"Transfer-Encoding: xchunked\r\n", "Transfer-Encoding is not chunked"},
        {"Transfer-Encoding: \"chunked\"\r\n", "Transfer-Encoding is not chunked"},
        {"Transfer-Encoding:\r\n", "Transfer-Encoding is not chunked"},
    };
    for (const auto& [headers, reason] : kCases)
        EXPECT_EQ(malformed_reason(get(host + std::string(headers))), reason) << headers;
    EXPECT_EQ(malformed_reason("POST / HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n"),
              "Transfer-Encoding in HTTP/1.0");
    done(get(host + "Transfer-Encoding: \tChunked \r\n"));
    done(get(host + "Content-Length: 9223372036854775807\r\n"));
}

TEST(HttpRequest, the_protocols_of_upgrade_are_listed) {
    const auto request = done(get("Host: a.test\r\nUpgrade: WebSocket, h2c\r\nupgrade:,TLS/1.0 ,\r\n"));
    EXPECT_EQ(request.upgrades, (std::vector<std::string>{"websocket", "h2c", "tls/1.0"}));
    EXPECT_TRUE(done(get("Host: a.test\r\nUpgrade:\r\n")).upgrades.empty());
}

TEST(HttpRequest, the_size_of_the_head_leaves_out_what_follows) {
    const std::string head = get("Host: a.test\r\n");
    EXPECT_EQ(run(head + "body").head_size(), head.size());
}

TEST(HttpRequest, other_versions_are_malformed) {
    for (const char* version : {"HTTP/1.2", "HTTP/2.0", "HTTP/0.9", "http/1.1", "HTTP/1.1x", "HTTP/11"})
        EXPECT_EQ(malformed_reason("GET / " + std::string(version) + "\r\n"), "unknown HTTP version")
            << version;
    // HTTP/0.9 names nobody and has no head; servers still answer it.
    EXPECT_EQ(malformed_reason("GET /\r\n"), "request line without a version");
}

TEST(HttpRequest, white_space_in_front_does_not_hide_a_request) {
    for (const char* front : {"\r\n", "\n", "\r\n\r\n", " ", "\t", "\r", " \r\n"})
        EXPECT_EQ(malformed_reason(front + get("Host: a.example\r\n")), "white space before the request");
    EXPECT_EQ(run("\r\n\r\n").status(), PeekStatus::kNeedMore);
    EXPECT_EQ(run("\r\n\x01").status(), PeekStatus::kOtherProtocol);
}

TEST(HttpRequest, other_protocols_are_told_at_the_first_byte_that_shows_it) {
    EXPECT_EQ(run(std::string_view("\x16\x03\x01", 3).substr(0, 1)).status(), PeekStatus::kOtherProtocol);
    EXPECT_EQ(run(std::string_view("\0", 1)).status(), PeekStatus::kOtherProtocol);
    EXPECT_EQ(run("\xff").status(), PeekStatus::kOtherProtocol);
    EXPECT_EQ(run("GET\x01").status(), PeekStatus::kOtherProtocol);
    EXPECT_EQ(run("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").status(), PeekStatus::kOtherProtocol);
    for (const char* line :
         {"SSH-2.0-OpenSSH_9.2\r\n", "EHLO client.example\r\n", "a1 LOGIN user pass\r\n",
          "*1\r\n$4\r\nPING\r\n", "PING\r\n", "PING\n", "OPTIONS rtsp://a.example RTSP/1.0\r\n",
          "REGISTER sip:a.example SIP/2.0\r\n", "get key\r\n", "USER anonymous\r\n", "NICK x\n"})
        EXPECT_EQ(run(line).status(), PeekStatus::kOtherProtocol) << line;
}

TEST(HttpRequest, the_head_must_end_within_the_cap) {
    const std::string head = get("Host: a.example\r\n");
    EXPECT_EQ(run(head, head.size()).status(), PeekStatus::kDone);
    EXPECT_EQ(run(head, head.size() - 1).status(), PeekStatus::kTooLarge);
    EXPECT_EQ(run(std::string(100, 'A'), 100).reason(), "request head is larger than the cap");
    EXPECT_EQ(run(std::string(100, '\n'), 100).status(), PeekStatus::kTooLarge);
}

TEST(HttpRequest, the_longest_head_one_byte_at_a_time_stays_cheap) {
    std::string head = "GET / HTTP/1.1\r\nHost: a.example\r\n";
    while (head.size() < kDefaultPeekCap - 10)
        head += "a:\r\n";
    head += "\r\n";
    HttpRequestParser parser;
    const std::clock_t start = std::clock();
    for (std::size_t size = 1; size <= head.size(); ++size)
        parser.update(bytes_of(head).first(size));
    EXPECT_EQ(parser.status(), PeekStatus::kDone) << parser.reason();
    // Processor time. Quadratic would be many seconds; the bound leaves room for sanitizers.
    EXPECT_LT(std::clock() - start, 2 * CLOCKS_PER_SEC);
}

} // namespace
} // namespace tapgate::proto
