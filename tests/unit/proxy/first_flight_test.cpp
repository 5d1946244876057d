// SPDX-License-Identifier: Apache-2.0
#include "proxy/first_flight.hpp"

#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

namespace tapgate::proxy {
namespace {

using policy::FirstFlightKind;

constexpr std::size_t kCap = 65536;

std::vector<std::uint8_t> bytes(std::string_view text) {
    return {text.begin(), text.end()};
}

/// A minimal ClientHello in one record, with `name` as server name unless it is empty.
std::vector<std::uint8_t> hello(std::string_view name) {
    const auto u16 = [](std::vector<std::uint8_t>& out, std::size_t value) {
        out.push_back(static_cast<std::uint8_t>(value >> 8U));
        out.push_back(static_cast<std::uint8_t>(value));
    };
    std::vector<std::uint8_t> extensions;
    if (!name.empty()) {
        u16(extensions, 0);               // server_name
        u16(extensions, name.size() + 5); // extension length
        u16(extensions, name.size() + 3); // list length
        extensions.push_back(0);          // host_name
        u16(extensions, name.size());
        extensions.insert(extensions.end(), name.begin(), name.end());
    }
    std::vector<std::uint8_t> body = {3, 3};
    body.insert(body.end(), 32, 7); // random
    body.push_back(0);              // session id
    for (const int byte : {0, 2, 0x13, 1, 1, 0})
        body.push_back(static_cast<std::uint8_t>(byte)); // one cipher suite, null compression
    u16(body, extensions.size());
    body.insert(body.end(), extensions.begin(), extensions.end());
    std::vector<std::uint8_t> record = {22, 3, 1};
    u16(record, body.size() + 4);
    record.push_back(1);
    record.push_back(0);
    u16(record, body.size());
    record.insert(record.end(), body.begin(), body.end());
    return record;
}

policy::FirstFlight settled(const std::vector<std::uint8_t>& stream) {
    FirstFlightReader reader(kCap);
    EXPECT_TRUE(reader.update(stream));
    return reader.flight();
}

TEST(FirstFlight, tls_with_a_server_name_is_tls_with_that_name_in_canonical_form) {
    const auto flight = settled(hello("PyPI.org"));
    EXPECT_EQ(flight.kind, FirstFlightKind::kTls);
    ASSERT_TRUE(flight.name);
    EXPECT_EQ(flight.name->text(), "pypi.org");
}

TEST(FirstFlight, tls_without_a_server_name_is_tls_no_sni) {
    EXPECT_EQ(settled(hello("")).kind, FirstFlightKind::kTlsNoSni);
}

TEST(FirstFlight, one_byte_at_a_time_is_settled_at_the_last_byte_only) {
    const auto stream = hello("pypi.org");
    FirstFlightReader reader(kCap);
    for (std::size_t size = 1; size < stream.size(); ++size)
        ASSERT_FALSE(reader.update(ByteView(stream).first(size))) << size;
    EXPECT_TRUE(reader.update(stream));
}

TEST(FirstFlight, an_unfinished_hello_is_bad_and_never_plain) {
    const auto stream = hello("pypi.org");
    for (std::size_t size = 1; size < stream.size(); ++size) {
        FirstFlightReader reader(kCap);
        reader.update(ByteView(stream).first(size));
        reader.finish();
        ASSERT_EQ(reader.flight().kind, FirstFlightKind::kTlsBad) << size;
        ASSERT_FALSE(reader.reason().empty());
    }
}

TEST(FirstFlight, a_hello_over_the_cap_is_bad) {
    const auto stream = hello("pypi.org");
    FirstFlightReader reader(stream.size() - 1);
    EXPECT_TRUE(reader.update(ByteView(stream).first(stream.size() - 1)));
    EXPECT_EQ(reader.flight().kind, FirstFlightKind::kTlsBad);
}

TEST(FirstFlight, another_protocol_is_plain_at_its_first_byte) {
    const std::array<std::uint8_t, 1> binary = {0};
    FirstFlightReader reader(kCap);
    EXPECT_TRUE(reader.update(binary));
    EXPECT_EQ(reader.flight().kind, FirstFlightKind::kPlain);
}

TEST(FirstFlight, nothing_by_the_deadline_is_plain) {
    FirstFlightReader reader(kCap);
    EXPECT_FALSE(reader.update({}));
    reader.finish();
    EXPECT_EQ(reader.flight().kind, FirstFlightKind::kPlain);
}

TEST(FirstFlight, an_http_request_carries_its_host) {
    const auto flight = settled(bytes("GET / HTTP/1.1\r\nHost: Example.COM:8080\r\n\r\n"));
    EXPECT_EQ(flight.kind, FirstFlightKind::kHttp);
    ASSERT_TRUE(flight.name);
    EXPECT_EQ(flight.name->text(), "example.com");
}

TEST(FirstFlight, an_http_request_to_an_address_has_that_address_and_no_name) {
    const auto flight = settled(bytes("GET / HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n"));
    EXPECT_EQ(flight.kind, FirstFlightKind::kHttp);
    EXPECT_FALSE(flight.name);
    EXPECT_EQ(flight.literal, IpAddress::parse("192.0.2.1"));
}

TEST(FirstFlight, connect_carries_the_port_of_its_authority) {
    const auto flight = settled(bytes("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n"));
    EXPECT_EQ(flight.kind, FirstFlightKind::kHttp);
    EXPECT_EQ(flight.connect_port, 443);
    EXPECT_EQ(settled(bytes("GET / HTTP/1.1\r\nHost: a.test:443\r\n\r\n")).connect_port, std::nullopt);
}

TEST(FirstFlight, two_hosts_are_bad) {
    EXPECT_EQ(settled(bytes("GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n")).kind,
              FirstFlightKind::kHttpBad);
}

TEST(FirstFlight, an_unfinished_request_head_is_bad) {
    FirstFlightReader reader(kCap);
    EXPECT_FALSE(reader.update(bytes("GET / HTTP/1.1\r\nHost: a.test\r\n")));
    reader.finish();
    EXPECT_EQ(reader.flight().kind, FirstFlightKind::kHttpBad);
}

} // namespace
} // namespace tapgate::proxy
