// SPDX-License-Identifier: Apache-2.0
#include "proto/dns_query.hpp"
#include "tests/unit/proto/dns_builder.hpp"

#include <gtest/gtest.h>

#include <array>

namespace tapgate::proto {
namespace {

DnsQuery accepted(const Bytes& bytes) {
    const DnsQueryParse parse = parse_dns_query(bytes);
    EXPECT_EQ(parse.status, DnsQueryStatus::kAccepted) << parse.reason;
    return parse.query;
}

void expect_refused(const Bytes& bytes, DnsRcode rcode, std::string_view reason) {
    const DnsQueryParse parse = parse_dns_query(bytes);
    EXPECT_EQ(parse.status, DnsQueryStatus::kRefused) << reason;
    EXPECT_EQ(parse.rcode, rcode) << reason;
    EXPECT_EQ(parse.reason, reason);
    // Whatever was refused can be answered, with the id of the query.
    const Bytes answer = build_error_answer(parse.query, parse.rcode);
    const DnsParse reread = parse_dns_message(answer);
    ASSERT_TRUE(reread.message) << reread.reason;
    EXPECT_TRUE(reread.message->header.response);
    EXPECT_EQ(reread.message->header.id, 0x1234);
    EXPECT_EQ(reread.message->header.rcode, static_cast<unsigned>(rcode) & 0xfU);
}

TEST(DnsQuery, a_plain_query_is_taken_apart) {
    const DnsQuery query = accepted(DnsBuilder(0x4321, 0x0110).question("Www.Example.com", 28).bytes());
    EXPECT_EQ(query.id, 0x4321);
    EXPECT_TRUE(query.recursion_desired);
    EXPECT_TRUE(query.checking_disabled);
    EXPECT_FALSE(query.authentic_data);
    EXPECT_EQ(query.question->name, DnsName::from_text("Www.Example.com"));
    EXPECT_EQ(query.question->name.text(), "www.example.com");
    EXPECT_EQ(query.question->type, 28);
    EXPECT_FALSE(query.edns.has_value());
    EXPECT_EQ(query.udp_limit(), 512U);
}

TEST(DnsQuery, edns_is_taken_apart_and_its_size_clamped) {
    const auto limit = [](std::size_t payload) {
        return accepted(DnsBuilder().question("a").opt(payload).bytes()).udp_limit();
    };
    EXPECT_EQ(limit(0), 512U);
    EXPECT_EQ(limit(511), 512U);
    EXPECT_EQ(limit(1000), 1000U);
    EXPECT_EQ(limit(1233), 1232U);
    EXPECT_EQ(limit(65535), 1232U);
    const DnsQuery query =
        accepted(DnsBuilder().question("a").opt(4096, 0x8000, {0, 10, 0, 2, 1, 2}).bytes());
    EXPECT_TRUE(query.edns->dnssec_ok);
    EXPECT_EQ(query.edns->udp_payload, 4096);
}

TEST(DnsQuery, what_is_no_query_is_dropped) {
    const Bytes bytes = DnsBuilder().question("a").bytes();
    for (std::size_t size = 0; size < 12; ++size)
        EXPECT_EQ(parse_dns_query(ByteView(bytes).first(size)).status, DnsQueryStatus::kDropped);
    EXPECT_EQ(parse_dns_query(DnsBuilder(1, 0x8100).question("a").bytes()).status, DnsQueryStatus::kDropped);
}

TEST(DnsQuery, every_cut_behind_the_header_is_a_format_error) {
    const Bytes bytes = DnsBuilder().question("www.example.com").opt(1232, 0, {0, 10, 0, 1, 7}).bytes();
    for (std::size_t size = 12; size < bytes.size(); ++size) {
        const DnsQueryParse parse = parse_dns_query(ByteView(bytes).first(size));
        EXPECT_EQ(parse.status, DnsQueryStatus::kRefused) << size;
        EXPECT_EQ(parse.rcode, DnsRcode::kFormErr) << size;
    }
    EXPECT_EQ(parse_dns_query(bytes).status, DnsQueryStatus::kAccepted);
}

TEST(DnsQuery, other_forms_are_refused_each_with_its_rcode) {
    expect_refused(DnsBuilder(0x1234, 0x2900).question("a").bytes(), DnsRcode::kNotImp,
                   "opcode is not QUERY");
    expect_refused(DnsBuilder(0x1234, 0x0300).question("a").bytes(), DnsRcode::kFormErr,
                   "flags of an answer");
    expect_refused(DnsBuilder(0x1234, 0x0103).question("a").bytes(), DnsRcode::kFormErr,
                   "flags of an answer");
    expect_refused(DnsBuilder().bytes(), DnsRcode::kFormErr, "no question");
    expect_refused(DnsBuilder().question("a").question("b").bytes(), DnsRcode::kFormErr,
                   "more than one question");
    expect_refused(DnsBuilder().question("a").a("a", 1).bytes(), DnsRcode::kFormErr,
                   "too many answer records");
    expect_refused(DnsBuilder().question("a").authority("a", 1, {}).bytes(), DnsRcode::kFormErr,
                   "records in a query");
    expect_refused(DnsBuilder().question("a").authority("a", 41, {}).bytes(), DnsRcode::kFormErr,
                   "records in a query");
    expect_refused(DnsBuilder().question("a").additional("a", 250, {}).bytes(), DnsRcode::kFormErr,
                   "records in a query");
    expect_refused(DnsBuilder().question("a").opt().opt().bytes(), DnsRcode::kFormErr, "too many records");
    expect_refused(DnsBuilder().question("a").u8(0).bytes(), DnsRcode::kFormErr, "bytes behind the message");
    expect_refused(DnsBuilder().question("a", 1, 3).bytes(), DnsRcode::kRefused, "class is not IN");
    expect_refused(DnsBuilder().question("a", 1, 255).bytes(), DnsRcode::kRefused, "class is not IN");
    expect_refused(DnsBuilder().question("a").opt(1232, 0x00010000).bytes(), DnsRcode::kBadVers,
                   "unknown EDNS version");
    expect_refused(DnsBuilder().question("a").opt(1232, 0, {0, 10, 0, 2, 1}).bytes(), DnsRcode::kFormErr,
                   "OPT record is malformed");
    expect_refused(DnsBuilder().question("a").additional("x", 41, {}).bytes(), DnsRcode::kFormErr,
                   "OPT record is malformed");
    // A compressed question can only point at itself or into the header.
    expect_refused(DnsBuilder().count(0, 1).pointer(12).u16(1).u16(1).bytes(), DnsRcode::kFormErr,
                   "question is malformed");
    expect_refused(DnsBuilder().count(0, 1).pointer(4).u16(1).u16(1).bytes(), DnsRcode::kFormErr,
                   "question is malformed");
}

TEST(DnsQuery, types_outside_the_allowlist_are_refused) {
    for (const std::size_t type :
         {0, 10, 13, 38, 41, 46, 249, 250, 251, 252, 253, 254, 255, 256, 65280, 65535})
        expect_refused(DnsBuilder().question("a", type).bytes(), DnsRcode::kRefused,
                       "query type is not allowed");
    unsigned allowed = 0;
    for (unsigned type = 0; type < 65536; ++type)
        allowed += dns_type_allowed(static_cast<std::uint16_t>(type)) ? 1 : 0;
    EXPECT_EQ(allowed, 17U);
}

TEST(DnsQuery, the_upstream_query_holds_nothing_of_the_guests_but_its_values) {
    // Another id, AA, RA, Z and AD set, a strange EDNS size, options: none of it goes upstream.
    const DnsQuery query = accepted(DnsBuilder(0x1234, 0x04f0)
                                        .question("Www.eXample.com", 28)
                                        .opt(700, 0x8001, {0, 10, 0, 1, 7})
                                        .bytes());
    const DnsUpstreamQuery upstream = build_upstream_query(query, 0xbeef);
    EXPECT_EQ(upstream.bytes,
              DnsBuilder(0xbeef, 0x0110).question("www.example.com", 28).opt(1232, 0x8000).bytes());
    EXPECT_EQ(upstream.question.name, DnsName::from_text("www.example.com"));
    const DnsQuery plain = accepted(DnsBuilder(1, 0).question("a").bytes());
    EXPECT_EQ(build_upstream_query(plain, 2).bytes, DnsBuilder(2, 0x0100).question("a").opt(1232, 0).bytes());
}

TEST(DnsQuery, the_upstream_query_takes_its_case_from_the_random_bits) {
    const DnsQuery query = accepted(DnsBuilder().question("aAaA.com").bytes());
    const std::array<std::uint8_t, 32> bits = {0b00001010};
    const DnsUpstreamQuery upstream = build_upstream_query(query, 7, bits);
    EXPECT_EQ(upstream.question.name, DnsName::from_text("AaAa.com"));
    EXPECT_EQ(upstream.bytes, DnsBuilder(7, 0x0100).question("AaAa.com").opt(1232, 0).bytes());
}

TEST(DnsErrorAnswer, the_question_is_echoed_and_an_error_explained_to_those_with_edns) {
    const DnsExtendedError error{DnsExtendedError::kProhibited, "no"};
    const DnsQuery plain = accepted(DnsBuilder(9, 0x0110).question("Www.Example.com").bytes());
    EXPECT_EQ(build_error_answer(plain, DnsRcode::kNxDomain, error),
              DnsBuilder(9, 0x8193).question("Www.Example.com").bytes());
    const DnsQuery edns = accepted(DnsBuilder(9).question("a").opt(512, 0x8000).bytes());
    EXPECT_EQ(build_error_answer(edns, DnsRcode::kNxDomain, error),
              DnsBuilder(9, 0x8183).question("a").opt(1232, 0x8000, {0, 15, 0, 4, 0, 18, 'n', 'o'}).bytes());
    EXPECT_EQ(build_error_answer(edns, DnsRcode::kServFail),
              DnsBuilder(9, 0x8182).question("a").opt(1232, 0x8000).bytes());
}

TEST(DnsErrorAnswer, badvers_stands_in_the_opt_record) {
    const DnsQueryParse parse = parse_dns_query(DnsBuilder(9).question("a").opt(1232, 0x00050000).bytes());
    EXPECT_EQ(build_error_answer(parse.query, parse.rcode),
              DnsBuilder(9, 0x8180).question("a").opt(1232, 0x01000000).bytes());
}

TEST(DnsErrorAnswer, notimp_repeats_the_opcode) {
    const DnsQueryParse parse = parse_dns_query(DnsBuilder(9, 0x2800).question("a").bytes());
    EXPECT_EQ(build_error_answer(parse.query, parse.rcode), DnsBuilder(9, 0xa884).bytes());
}

TEST(DnsErrorAnswer, the_largest_fits_512_bytes_and_its_text_is_whole_utf_8) {
    const std::string label(63, 'a');
    const DnsQuery query = accepted(
        DnsBuilder().question(label + "." + label + "." + label + "." + label.substr(0, 61)).opt().bytes());
    std::string text;
    while (text.size() < 1000)
        text += "\xe2\x82\xac";
    const Bytes answer = build_error_answer(query, DnsRcode::kRefused, DnsExtendedError{17, text});
    EXPECT_LE(answer.size(), kMinDnsUdpPayload);
    const DnsParse parse = parse_dns_message(answer);
    EXPECT_EQ(parse.message.value().records[0].rdata.size(), 6U + 198U);
}

} // namespace
} // namespace tapgate::proto
