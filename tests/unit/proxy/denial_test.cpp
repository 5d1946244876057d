// SPDX-License-Identifier: Apache-2.0
#include "proxy/denial.hpp"

#include <gtest/gtest.h>

namespace tapgate::proxy {
namespace {

TEST(Denial, says_host_ground_and_policy_text_in_one_line) {
    const std::string page = http_forbidden("evil.test", "rule deny@evil.test", "ask ops@example.com");
    EXPECT_TRUE(page.starts_with("HTTP/1.1 403 Forbidden\r\n"));
    EXPECT_TRUE(
        page.ends_with("\r\n\r\ntapgate: evil.test is denied by rule deny@evil.test. ask ops@example.com\n"));
}

TEST(Denial, states_the_exact_length_of_its_body) {
    const std::string page = http_forbidden("evil.test", "the default", "");
    const std::string body = page.substr(page.find("\r\n\r\n") + 4);
    EXPECT_NE(page.find("Content-Length: " + std::to_string(body.size()) + "\r\n"), std::string::npos);
}

TEST(Denial, escapes_what_the_guest_wrote) {
    const std::string page = http_forbidden("a\r\nSet-Cookie: x", "the default", "");
    EXPECT_EQ(page.find("\r\nSet-Cookie"), std::string::npos);
}

TEST(Denial, tls_alert_is_a_complete_record) {
    EXPECT_EQ(kTlsAccessDenied[0], 21);
    EXPECT_EQ(kTlsAccessDenied[3] * 256 + kTlsAccessDenied[4], int{kTlsAccessDenied.size()} - 5);
}

} // namespace
} // namespace tapgate::proxy
