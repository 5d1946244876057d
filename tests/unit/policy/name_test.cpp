// SPDX-License-Identifier: Apache-2.0
#include "policy/name.hpp"
#include "support.hpp"

#include <gtest/gtest.h>

namespace tapgate::policy {
namespace {

using test::name;

std::string user_error(std::string_view text) {
    const auto result = Name::from_user(text);
    return result ? "taken as " + result->text() : result.error().message();
}

TEST(Name, case_and_one_final_dot_do_not_matter) {
    EXPECT_EQ(name("PyPI.Org.").text(), "pypi.org");
    EXPECT_EQ(Name::from_wire("PyPI.Org.")->text(), "pypi.org");
    EXPECT_FALSE(Name::from_wire("pypi.org.."));
    EXPECT_FALSE(Name::from_wire("."));
}

TEST(Name, unicode_of_an_operator_becomes_a_labels) {
    EXPECT_EQ(name("Bücher.de").text(), "xn--bcher-kva.de");
    EXPECT_EQ(name("bu\u0308cher.de").text(), "xn--bcher-kva.de"); // decomposed
    EXPECT_EQ(name("straße.de").text(), "xn--strae-oqa.de");       // IDNA 2008, not "ss"
    EXPECT_EQ(name("例え。テスト").text(), "xn--r8jz45g.xn--zckzah");
    EXPECT_EQ(name("XN--BCHER-KVA.de").text(), "xn--bcher-kva.de");
}

TEST(Name, unicode_on_the_wire_is_no_name) {
    EXPECT_FALSE(Name::from_wire("bücher.de"));
    EXPECT_TRUE(Name::from_wire("xn--bcher-kva.de"));
}

TEST(Name, unicode_that_is_no_name_is_an_error_with_the_reason) {
    EXPECT_EQ(user_error("a\xff.de"), "'a\\xff.de' is not a domain name: string encoding error");
    EXPECT_EQ(user_error("℀.example.com"),
              "'\\xe2\\x84\\x80.example.com' is not a domain name: only letters, "
              "digits, '-', '_' and dots stand in a name"); // maps to "a/c"
    EXPECT_EQ(user_error("１０.0.0.1"),
              "'\\xef\\xbc\\x91\\xef\\xbc\\x90.0.0.1' is not a domain name: it ends "
              "in a number, as only IP addresses do: four numbers of 0 to 255, without leading zeros");
}

TEST(Name, an_ip_literal_is_no_name) {
    for (const std::string_view text : {"192.0.2.1", "1.2", "127.1", "2130706433", "0x7f000001", "a.0x7f",
                                        "0x", "2001:db8::1", "[2001:db8::1]"})
        EXPECT_FALSE(Name::from_wire(text)) << text;
    EXPECT_TRUE(Name::from_wire("1.2.3.4.in-addr.arpa"));
    EXPECT_TRUE(Name::from_wire("0xcafe.example"));
}

TEST(Name, lengths_are_those_of_the_dns) {
    const std::string label(63, 'a');
    const std::string longest = label + '.' + label + '.' + label + '.' + std::string(61, 'b');
    ASSERT_EQ(longest.size(), 253U);
    EXPECT_TRUE(Name::from_wire(longest));
    EXPECT_TRUE(Name::from_wire(longest + '.'));
    EXPECT_FALSE(Name::from_wire(longest + 'b'));
    EXPECT_TRUE(Name::from_user(longest));
    EXPECT_FALSE(Name::from_user(longest + "bb"));
    EXPECT_FALSE(Name::from_wire(label + "a.example"));
    EXPECT_EQ(user_error(label + "a.example"),
              "'" + label + "a.example' is not a domain name: it has a label longer than 63 octets");
    EXPECT_FALSE(Name::from_wire(std::string(100'000, 'a')));
    EXPECT_FALSE(Name::from_user(std::string(1'000'000, 'a')));
}

TEST(Name, only_letters_digits_hyphen_and_underscore_stand_in_labels) {
    for (int byte = 0; byte < 256; ++byte) {
        const char c = static_cast<char>(byte);
        const bool legal = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                           c == '-' || c == '_' || c == '.';
        const std::string text = std::string("a") + c + "b.example";
        EXPECT_EQ(Name::from_wire(text).has_value(), legal) << byte;
    }
    EXPECT_FALSE(Name::from_wire(""));
    EXPECT_FALSE(Name::from_wire(".example"));
    EXPECT_FALSE(Name::from_wire("a..example"));
    EXPECT_EQ(user_error(std::string_view("a\0.example", 10)),
              "'a\\x00.example' is not a domain name: it has a NUL byte");
    EXPECT_EQ(user_error(""), "'' is not a domain name: it is empty");
}

TEST(Name, a_name_lies_in_a_zone_on_label_boundaries_only) {
    EXPECT_TRUE(name("example.com").is_in(name("example.com")));
    EXPECT_TRUE(name("a.b.example.com").is_in(name("example.com")));
    EXPECT_FALSE(name("evilexample.com").is_in(name("example.com")));
    EXPECT_FALSE(name("com").is_in(name("example.com")));
    EXPECT_FALSE(name("example.com.evil.org").is_in(name("example.com")));
    EXPECT_FALSE(name("example.com").is_in(Name{}));
}

} // namespace
} // namespace tapgate::policy
