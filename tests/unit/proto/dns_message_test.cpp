// SPDX-License-Identifier: Apache-2.0
#include "proto/dns_message.hpp"
#include "tests/unit/proto/dns_builder.hpp"

#include <gtest/gtest.h>

namespace tapgate::proto {
namespace {

Bytes sample() {
    DnsBuilder builder(0xabcd, 0x8583);
    return builder.question("www.example.com", 28)
        .cname("www.example.com", "cdn.example.net")
        .a("cdn.example.net", 1, 60)
        .authority("example.net", 2, DnsBuilder::wire("ns.example.net"))
        .opt()
        .bytes();
}

TEST(DnsMessage, every_part_is_taken_apart) {
    const Bytes bytes = sample();
    const DnsParse parse = parse_dns_message(bytes);
    ASSERT_TRUE(parse.message.has_value()) << parse.reason;
    const DnsMessage& message = *parse.message;
    EXPECT_EQ(message.header.id, 0xabcd);
    EXPECT_TRUE(message.header.response);
    EXPECT_TRUE(message.header.authoritative);
    EXPECT_FALSE(message.header.truncated);
    EXPECT_TRUE(message.header.recursion_desired);
    EXPECT_TRUE(message.header.recursion_available);
    EXPECT_EQ(message.header.rcode, 3);
    ASSERT_EQ(message.questions.size(), 1U);
    EXPECT_EQ(message.questions[0].name.text(), "www.example.com");
    EXPECT_EQ(message.questions[0].type, 28);
    ASSERT_EQ(message.records.size(), 4U);
    EXPECT_EQ(message.records[0].section, DnsSection::kAnswer);
    EXPECT_EQ(message.rdata_name(message.records[0])->text(), "cdn.example.net");
    EXPECT_EQ(message.records[1].ttl_seconds, 60U);
    EXPECT_EQ(message.records[1].rdata.size(), 4U);
    EXPECT_EQ(message.records[2].section, DnsSection::kAuthority);
    EXPECT_EQ(message.records[3].section, DnsSection::kAdditional);
    EXPECT_EQ(message.records[3].type, 41);
}

TEST(DnsMessage, every_cut_and_every_byte_more_is_malformed) {
    Bytes bytes = sample();
    for (std::size_t size = 0; size < bytes.size(); ++size)
        EXPECT_FALSE(parse_dns_message(ByteView(bytes).first(size)).message) << size;
    bytes.push_back(0);
    EXPECT_EQ(parse_dns_message(bytes).reason, "bytes behind the message");
}

TEST(DnsMessage, every_count_must_be_exact) {
    for (std::size_t which = 0; which < 4; ++which) {
        DnsBuilder builder;
        builder.question("a.example").a("a.example", 1).authority("b.example", 1, {1, 2, 3, 4}).opt();
        const std::size_t value = builder.bytes()[5 + 2 * which];
        for (const std::size_t wrong : {value - 1, value + 1, std::size_t{0xffff}})
            EXPECT_FALSE(parse_dns_message(DnsBuilder(builder).count(which, wrong).bytes()).message)
                << which << " " << wrong;
    }
}

TEST(DnsMessage, a_wrong_rdlength_is_malformed) {
    const Bytes good = DnsBuilder().question("a.example").a("a.example", 1).bytes();
    ASSERT_TRUE(parse_dns_message(good).message);
    for (const unsigned wrong : {0U, 3U, 5U, 0xffffU}) {
        Bytes bytes = good;
        bytes[bytes.size() - 6] = static_cast<std::uint8_t>(wrong >> 8U);
        bytes[bytes.size() - 5] = static_cast<std::uint8_t>(wrong);
        EXPECT_FALSE(parse_dns_message(bytes).message) << wrong;
    }
}

TEST(DnsMessage, limits_hold) {
    const auto with_answers = [](unsigned answers, unsigned authority) {
        DnsBuilder builder;
        builder.question("a.example");
        for (unsigned i = 0; i < answers; ++i)
            builder.a("a", 1);
        for (unsigned i = 0; i < authority; ++i)
            builder.authority("a", 1, {1, 2, 3, 4});
        return builder.bytes();
    };
    EXPECT_TRUE(parse_dns_message(with_answers(32, 32)).message);
    EXPECT_EQ(parse_dns_message(with_answers(33, 0)).reason, "too many answer records");
    EXPECT_EQ(parse_dns_message(with_answers(32, 33)).reason, "too many records");
    const Bytes largest = DnsBuilder().question("a").answer("a", 16, Bytes(1232 - 12 - 7 - 13, 1)).bytes();
    ASSERT_EQ(largest.size(), kMaxDnsUdpPayload);
    EXPECT_TRUE(parse_dns_message(largest).message);
    const Bytes larger = DnsBuilder().question("a").answer("a", 16, Bytes(1232 - 12 - 7 - 12, 1)).bytes();
    EXPECT_EQ(parse_dns_message(larger).reason, "message is too long");
    EXPECT_TRUE(parse_dns_message(larger, {.size = kMaxDnsTcpPayload}).message);
    EXPECT_EQ(parse_dns_message(DnsBuilder().question("a").question("b").bytes()).reason,
              "more than one question");
}

TEST(DnsMessage, a_name_in_rdata_must_fill_it_exactly) {
    const auto target = [](const Bytes& rdata) {
        const Bytes bytes = DnsBuilder().question("a.example").answer("a.example", 5, rdata).bytes();
        const DnsParse parse = parse_dns_message(bytes);
        const auto name = parse.message.value().rdata_name(parse.message->records[0]);
        return name ? name->text() : "malformed";
    };
    EXPECT_EQ(target({1, 'b', 0}), "b");
    EXPECT_EQ(target({1, 'b', 0xc0, 14}), "b.example");
    EXPECT_EQ(target({0}), ".");
    EXPECT_EQ(target({}), "malformed");
    EXPECT_EQ(target({1, 'b'}), "malformed");
    EXPECT_EQ(target({1, 'b', 0, 0}), "malformed");
    EXPECT_EQ(target({1, 'b', 0xc0}), "malformed");
}

} // namespace
} // namespace tapgate::proto
