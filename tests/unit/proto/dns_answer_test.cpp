// SPDX-License-Identifier: Apache-2.0
#include "proto/dns_answer.hpp"
#include "tests/unit/proto/dns_builder.hpp"

#include <gtest/gtest.h>

#include <algorithm>

namespace tapgate::proto {
namespace {

constexpr std::uint16_t kAnswer = 0x8180;

DnsQuery query_for(const DnsBuilder& builder) {
    const DnsQueryParse parse = parse_dns_query(builder.bytes());
    EXPECT_EQ(parse.status, DnsQueryStatus::kAccepted) << parse.reason;
    return parse.query;
}

/// "ADDRESS/TTL ..." of what `builder`'s answer binds, or the reason why it is malformed.
std::string bound(const DnsBuilder& builder, const DnsLimits& limits = {}) {
    const Bytes& bytes = builder.bytes();
    const DnsParse parse = parse_dns_message(bytes, limits);
    if (!parse.message)
        return std::string(parse.reason);
    const DnsAddresses derived = derive_addresses(*parse.message, limits);
    std::string text(derived.reason);
    EXPECT_TRUE(derived.reason.empty() || derived.addresses.empty());
    for (const DnsAddress& address : derived.addresses)
        text += (text.empty() ? "" : " ") + address.address.to_string() + "/" +
                std::to_string(address.ttl_seconds);
    return text;
}

DnsBuilder answer_to(std::string_view name, std::size_t type = 1) {
    DnsBuilder builder(0x1234, kAnswer);
    builder.question(name, type);
    return builder;
}

TEST(DnsAnswerMismatch, only_the_answer_to_the_question_matches) {
    const DnsQuestion question{DnsName::from_text("wWw.example.com").value(), 28, 1};
    const auto mismatch = [&question](const DnsBuilder& builder, DnsCase name_case = DnsCase::kExact) {
        return dns_answer_mismatch(builder.bytes(), question, 0x1234, name_case);
    };
    EXPECT_EQ(mismatch(answer_to("wWw.example.com", 28)), "");
    EXPECT_EQ(mismatch(answer_to("www.example.com", 28), DnsCase::kIgnore), "");
    EXPECT_EQ(mismatch(answer_to("www.example.com", 28)), "answer has another name");
    EXPECT_EQ(mismatch(answer_to("wWw.example.org", 28)), "answer has another name");
    EXPECT_EQ(mismatch(answer_to("wWw.example.co", 28)), "answer has another name");
    EXPECT_EQ(mismatch(answer_to("wWw.example.com", 1)), "answer has another type");
    EXPECT_EQ(mismatch(DnsBuilder(0x1234, kAnswer).question("wWw.example.com", 28, 3)),
              "answer has another class");
    EXPECT_EQ(mismatch(DnsBuilder(0x1235, kAnswer).question("wWw.example.com", 28)), "answer has another id");
    EXPECT_EQ(mismatch(DnsBuilder(0x1234, 0x0100).question("wWw.example.com", 28)), "not an answer");
    EXPECT_EQ(mismatch(DnsBuilder(0x1234, 0xa980).question("wWw.example.com", 28)),
              "answer has another opcode");
    EXPECT_EQ(mismatch(DnsBuilder(0x1234, kAnswer)), "answer has not one question");
    EXPECT_EQ(mismatch(answer_to("wWw.example.com", 28).question("a")), "answer has not one question");
    const Bytes bytes = answer_to("wWw.example.com", 28).bytes();
    for (std::size_t size = 0; size < bytes.size(); ++size)
        EXPECT_NE(dns_answer_mismatch(ByteView(bytes).first(size), question, 0x1234, DnsCase::kIgnore), "")
            << size;
}

TEST(DeriveAddresses, addresses_of_the_question_name_are_bound) {
    EXPECT_EQ(bound(answer_to("a.example").a("a.example", 1, 60).a("A.Example", 2, 30)),
              "192.0.2.1/60 192.0.2.2/30");
    const Bytes v6 = {0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
    EXPECT_EQ(bound(answer_to("a.example", 28).answer("a.example", 28, v6, 5)), "2001:db8::1/5");
    EXPECT_EQ(bound(answer_to("a.example").a("a.example", 1, 60).a("a.example", 1, 30)), "192.0.2.1/30");
    EXPECT_EQ(bound(answer_to("a.example")), "");
}

TEST(DeriveAddresses, an_ipv4_mapped_aaaa_is_the_ipv4_address) {
    const Bytes mapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 9};
    EXPECT_EQ(bound(answer_to("a.example", 28).answer("a.example", 28, mapped)), "192.0.2.9/300");
}

TEST(DeriveAddresses, aliases_are_followed_in_any_order_and_the_least_ttl_counts) {
    const Bytes bytes = answer_to("a.example")
                            .a("c.example", 1, 500)
                            .cname("B.example", "c.example", 70)
                            .cname("a.example", "b.EXAMPLE", 80)
                            .a("c.example", 2, 20)
                            .bytes();
    const DnsAddresses derived = derive_addresses(parse_dns_message(bytes).message.value());
    ASSERT_EQ(derived.aliases.size(), 2U);
    EXPECT_EQ(derived.aliases[0].text(), "b.example");
    EXPECT_EQ(derived.aliases[1].text(), "c.example");
    ASSERT_EQ(derived.addresses.size(), 2U);
    EXPECT_EQ(derived.addresses[0].ttl_seconds, 70U);
    EXPECT_EQ(derived.addresses[1].ttl_seconds, 20U);
}

TEST(DeriveAddresses, compressed_names_are_followed) {
    DnsBuilder builder = answer_to("a.example");
    builder.count(1, 2);
    builder.pointer(12).u16(5).u16(1).u32(60).u16(4).u8(1).u8('b').pointer(14);
    const std::size_t target = builder.size() - 4;
    builder.pointer(target).u16(1).u16(1).u32(60).u16(4).u32(0xc0000201);
    EXPECT_EQ(bound(builder), "192.0.2.1/60");
}

TEST(DeriveAddresses, records_that_the_chain_does_not_reach_bind_nothing) {
    // B02: foreign owners, other sections, other classes.
    EXPECT_EQ(bound(answer_to("a.example").a("b.example", 1)), "");
    EXPECT_EQ(bound(answer_to("a.example").cname("a.example", "b.example").a("c.example", 1)), "");
    EXPECT_EQ(bound(answer_to("a.example").a("x.a.example", 1).a("example", 2)), "");
    EXPECT_EQ(bound(answer_to("a.example").additional("a.example", 1, {192, 0, 2, 1})), "");
    EXPECT_EQ(bound(answer_to("a.example").authority("a.example", 1, {192, 0, 2, 1})), "");
    EXPECT_EQ(bound(answer_to("a.example")
                        .cname("a.example", "b.example")
                        .additional("b.example", 1, {192, 0, 2, 1})),
              "");
    DnsBuilder chaos = answer_to("a.example");
    chaos.count(1, 1).name("a.example").u16(1).u16(3).u32(60).u16(4).u32(0xc0000201);
    EXPECT_EQ(bound(chaos), "");
}

TEST(DeriveAddresses, only_complete_answers_without_error_bind) {
    for (const std::uint16_t flags : {0x8183, 0x8182, 0x8185, 0x8380}) {
        DnsBuilder builder(1, flags);
        EXPECT_EQ(bound(builder.question("a.example").a("a.example", 1)), "") << flags;
    }
}

TEST(DeriveAddresses, loops_and_contradictions_bind_nothing) {
    EXPECT_EQ(bound(answer_to("a").cname("a", "a")), "too many aliases, or a loop");
    EXPECT_EQ(bound(answer_to("a").cname("a", "b").cname("b", "a")), "too many aliases, or a loop");
    EXPECT_EQ(bound(answer_to("a").cname("a", "b").cname("b", "c").cname("c", "b").a("c", 1)),
              "CNAME beside an address");
    EXPECT_EQ(bound(answer_to("a").cname("a", "b").cname("a", "c").a("b", 1)), "several CNAMEs at one name");
    EXPECT_EQ(bound(answer_to("a").cname("a", "b").a("a", 1).a("b", 2)), "CNAME beside an address");
    EXPECT_EQ(bound(answer_to("a").a("a", 1).answer("x", 5, {1, 'b'})), "CNAME is malformed");
    EXPECT_EQ(bound(answer_to("a").a("a", 1).answer("a", 1, {192, 0, 2})),
              "address record has a wrong length");
    EXPECT_EQ(bound(answer_to("a").a("a", 1).answer("x", 1, {192, 0, 2, 1, 0})),
              "address record has a wrong length");
    EXPECT_EQ(bound(answer_to("a").a("a", 1).answer("x", 28, Bytes(15, 0))),
              "address record has a wrong length");
    EXPECT_EQ(bound(answer_to("a").a("a", 1).answer("x", 28, Bytes(17, 0))),
              "address record has a wrong length");
    EXPECT_EQ(bound(DnsBuilder(1, kAnswer).a("a", 1)), "answer has not one question");
}

TEST(DeriveAddresses, the_chain_ends_at_16_aliases) {
    const auto chain = [](unsigned length) {
        DnsBuilder builder = answer_to("n0");
        for (unsigned i = length; i > 0; --i)
            builder.cname("n" + std::to_string(i - 1), "n" + std::to_string(i));
        return builder.a("n" + std::to_string(length), 1);
    };
    EXPECT_EQ(bound(chain(kMaxDnsAliases)), "192.0.2.1/300");
    EXPECT_EQ(bound(chain(kMaxDnsAliases + 1)), "too many aliases, or a loop");
}

TEST(DeriveAddresses, hints_of_services_are_bound_like_addresses) {
    const Bytes v4 = {0, 4, 0, 8, 192, 0, 2, 1, 192, 0, 2, 2};
    const Bytes v6 = {0, 6, 0, 16, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
    const auto service = [](std::uint8_t priority, const Bytes& target, std::initializer_list<Bytes> params) {
        Bytes rdata = {0, priority};
        rdata.insert(rdata.end(), target.begin(), target.end());
        for (const Bytes& param : params)
            rdata.insert(rdata.end(), param.begin(), param.end());
        return rdata;
    };
    const Bytes root = {0};
    for (const std::size_t type : {64U, 65U})
        EXPECT_EQ(bound(answer_to("a.example", type).answer("a.example", type, service(1, root, {v4, v6}))),
                  "192.0.2.1/300 192.0.2.2/300 2001:db8::1/300");
    EXPECT_EQ(bound(answer_to("a.example", 65)
                        .answer("b.example", 65, service(1, {1, 'x', 0}, {v6}))
                        .cname("a.example", "b.example", 70)
                        .a("b.example", 9)),
              "2001:db8::1/70 192.0.2.9/70");
    EXPECT_EQ(bound(answer_to("a.example", 65).answer("a.example", 65, service(0, root, {v4, v6}))), "")
        << "the alias form";
    EXPECT_EQ(bound(answer_to("a.example", 65).answer("x.example", 65, service(1, root, {v4}))), "");
    EXPECT_EQ(bound(answer_to("a.example", 65).additional("a.example", 65, service(1, root, {v4}))), "");
    for (const Bytes& broken :
         {service(1, root, {v6, v4}), service(1, root, {v4, v4}), service(1, {0xc0, 12}, {v4}),
          service(1, root, {{0, 4, 0, 0}}), service(0, root, {{0, 6, 0, 4, 1, 2, 3, 4}}), Bytes{0, 1}}) {
        EXPECT_EQ(bound(answer_to("a.example", 65).a("a.example", 1).answer("x", 65, broken)),
                  "service record is malformed");
        EXPECT_EQ(bound(answer_to("a.example", 65).a("a.example", 1).additional("x", 65, broken)),
                  "192.0.2.1/300")
            << "other sections are not looked into";
    }
    EXPECT_EQ(bound(answer_to("a").cname("a", "b").answer("a", 65, service(1, root, {}))),
              "CNAME beside an address");
}

TEST(DeriveAddresses, B43_more_addresses_than_the_limit_make_the_answer_malformed) {
    const auto with = [](unsigned count) {
        Bytes rdata = {
            0, 1, 0, 0, 4, static_cast<std::uint8_t>(count * 4 >> 8U), static_cast<std::uint8_t>(count * 4)};
        for (unsigned i = 0; i < count; ++i)
            for (const unsigned octet : {198U, 18U, i >> 8U, i & 255U})
                rdata.push_back(static_cast<std::uint8_t>(octet));
        return answer_to("a", 65).answer("a", 65, rdata);
    };
    EXPECT_NE(bound(with(64)), "too many addresses");
    EXPECT_EQ(bound(with(65)), "too many addresses");
    EXPECT_NE(bound(with(256), kDnsTcpLimits), "too many addresses");
    EXPECT_EQ(bound(with(257), kDnsTcpLimits), "too many addresses");
}

TEST(DeriveAddresses, larger_messages_are_read_under_the_limits_for_tcp_and_still_bounded) {
    const auto with = [](unsigned records) {
        DnsBuilder builder = answer_to("a");
        builder.a("a", 1);
        for (unsigned i = 1; i < records; ++i)
            builder.answer("a", 16, {1, 'x'});
        return builder.count(1, records);
    };
    EXPECT_EQ(bound(with(33)), "too many answer records");
    EXPECT_EQ(bound(with(512), kDnsTcpLimits), "192.0.2.1/300");
    EXPECT_EQ(bound(with(513), kDnsTcpLimits), "too many answer records");
    // Names that take 127 steps each.
    std::string deep = "a";
    for (int i = 0; i < 126; ++i)
        deep += ".a";
    DnsBuilder builder = answer_to(deep);
    builder.count(1, 200);
    for (int i = 0; i < 200; ++i)
        builder.pointer(12).u16(16).u16(1).u32(60).u16(0);
    EXPECT_EQ(bound(builder, kDnsTcpLimits), "record is malformed");
}

TEST(DeriveAddresses, a_name_that_is_too_long_as_text_cannot_be_bound) {
    Bytes name;
    for (int i = 0; i < 2; ++i) {
        name.push_back(63);
        name.insert(name.end(), 63, 1); // "\001" each
    }
    name.push_back(0);
    DnsBuilder builder(0x1234, kAnswer);
    builder.count(0, 1).count(1, 1).raw(name).u16(1).u16(1);
    builder.pointer(12).u16(1).u16(1).u32(60).u16(4).u32(0xc0000201);
    EXPECT_EQ(bound(builder), "a name is too long as text");
}

TEST(DeriveAddresses, a_ttl_with_the_top_bit_is_zero) {
    EXPECT_EQ(bound(answer_to("a").a("a", 1, 0x80000000)), "192.0.2.1/0");
    EXPECT_EQ(bound(answer_to("a").a("a", 1, 0x7fffffff)), "192.0.2.1/2147483647");
    EXPECT_EQ(bound(answer_to("a").cname("a", "b", 0xffffffff).a("b", 1)), "192.0.2.1/0");
}

/// The answer that the guest gets.
Bytes guest_answer(const DnsBuilder& upstream, const DnsQuery& query, std::size_t limit) {
    const DnsParse parse = parse_dns_message(upstream.bytes(), {.size = kMaxDnsTcpPayload});
    EXPECT_TRUE(parse.message.has_value()) << parse.reason;
    const auto answer = build_guest_answer(parse.message.value(), query, limit);
    EXPECT_TRUE(answer.has_value());
    return answer.value_or(Bytes{});
}

TEST(GuestAnswer, id_flags_and_question_are_the_guests_and_records_stay) {
    const DnsQuery query =
        query_for(DnsBuilder(0x7777, 0x0010).question("wwW.Example.com").opt(1232, 0x8000));
    DnsBuilder upstream(0x1234, 0x85b0);
    upstream.question("www.example.com")
        .cname("www.example.com", "b.example")
        .a("b.example", 1)
        .opt(4096, 0, {0, 3, 0, 0});
    DnsBuilder expected(0x7777, 0x84b0);
    expected.question("wwW.Example.com")
        .cname("www.example.com", "b.example")
        .a("b.example", 1)
        .opt(1232, 0x8000);
    EXPECT_EQ(guest_answer(upstream, query, query.udp_limit()), expected.bytes());
}

TEST(GuestAnswer, compression_pointers_into_the_question_stay_valid) {
    const DnsQuery query = query_for(DnsBuilder(1).question("WWW.example.com"));
    DnsBuilder upstream(9, kAnswer);
    upstream.question("www.example.com").count(1, 1).pointer(12).u16(1).u16(1).u32(60).u16(4).u32(0xc0000201);
    const Bytes answer = guest_answer(upstream, query, 512);
    EXPECT_EQ(answer.size(), upstream.size());
    const DnsParse parse = parse_dns_message(answer);
    EXPECT_EQ(parse.message.value().records[0].owner, DnsName::from_text("WWW.example.com"));
}

TEST(GuestAnswer, opt_is_stripped_for_a_guest_without_edns_and_added_for_one_with) {
    const DnsQuery plain = query_for(DnsBuilder(1).question("a"));
    DnsBuilder with_opt(9, kAnswer);
    with_opt.question("a").a("a", 1).additional("x", 1, {1, 2, 3, 4}).opt().additional("y", 1, {1, 2, 3, 4});
    DnsBuilder expected(1, kAnswer);
    expected.question("a").a("a", 1).additional("x", 1, {1, 2, 3, 4});
    EXPECT_EQ(guest_answer(with_opt, plain, 512), expected.bytes());

    const DnsQuery edns = query_for(DnsBuilder(1).question("a").opt());
    DnsBuilder without_opt(9, kAnswer);
    without_opt.question("a").a("a", 1);
    EXPECT_EQ(guest_answer(without_opt, edns, 1232),
              DnsBuilder(1, kAnswer).question("a").a("a", 1).opt().bytes());
}

TEST(GuestAnswer, a_name_made_of_the_opt_record_is_not_handed_on_without_it) {
    // The label of 26 octets at offset 32 covers the record whose owner it is, and most of the OPT record.
    DnsBuilder upstream(9, kAnswer);
    upstream.question("a").answer("a", 16, {26});
    ASSERT_EQ(upstream.size(), 33U);
    upstream.count(1, 2).pointer(32).u16(1).u16(1).u32(60).u16(4).u32(0xc0000201).opt();
    const DnsParse parse = parse_dns_message(upstream.bytes());
    ASSERT_TRUE(parse.message.has_value()) << parse.reason;
    for (const DnsBuilder& asked : {DnsBuilder(1).question("a"), DnsBuilder(1).question("a").opt()})
        EXPECT_FALSE(build_guest_answer(*parse.message, query_for(asked), kMaxDnsTcpPayload));
}

TEST(GuestAnswer, what_does_not_fit_is_truncated) {
    const DnsQuery edns = query_for(DnsBuilder(1).question("a").opt(600));
    const auto with_text = [](std::size_t size) {
        DnsBuilder upstream(9, kAnswer);
        upstream.question("a").answer("a", 16, Bytes(size, 1));
        return upstream;
    };
    const std::size_t overhead = with_text(0).size() + 11;
    EXPECT_EQ(guest_answer(with_text(600 - overhead), edns, edns.udp_limit()).size(), 600U);
    EXPECT_EQ(guest_answer(with_text(601 - overhead), edns, edns.udp_limit()),
              DnsBuilder(1, 0x8380).question("a").opt().bytes());
    const DnsQuery plain = query_for(DnsBuilder(1).question("a"));
    EXPECT_EQ(guest_answer(with_text(500), plain, plain.udp_limit()),
              DnsBuilder(1, 0x8380).question("a").bytes());
    EXPECT_EQ(guest_answer(with_text(5000), plain, kMaxDnsTcpPayload).size(), with_text(5000).size());
}

TEST(GuestAnswer, a_truncated_answer_carries_no_records) {
    const DnsQuery query = query_for(DnsBuilder(1).question("a"));
    DnsBuilder upstream(9, 0x8380);
    upstream.question("a").a("a", 1);
    EXPECT_EQ(guest_answer(upstream, query, 512), DnsBuilder(1, 0x8380).question("a").bytes());
}

TEST(GuestAnswer, an_extended_rcode_becomes_servfail) {
    // Without its OPT record BADVERS would read as NOERROR.
    const DnsQuery query = query_for(DnsBuilder(1).question("a"));
    DnsBuilder upstream(9, kAnswer);
    upstream.question("a").opt(1232, 0x01000000);
    EXPECT_EQ(guest_answer(upstream, query, 512), DnsBuilder(1, 0x8182).question("a").bytes());
}

TEST(GuestAnswer, authentic_data_is_for_those_who_asked) {
    DnsBuilder upstream(9, kAnswer | 0x0020);
    upstream.question("a");
    EXPECT_EQ(guest_answer(upstream, query_for(DnsBuilder(1).question("a")), 512),
              DnsBuilder(1, kAnswer).question("a").bytes());
    EXPECT_EQ(guest_answer(upstream, query_for(DnsBuilder(1, 0x0120).question("a")), 512),
              DnsBuilder(1, kAnswer | 0x0020).question("a").bytes());
}

TEST(GuestAnswer, an_answer_to_another_question_is_refused) {
    const DnsQuery query = query_for(DnsBuilder(1).question("a.example"));
    for (const DnsBuilder& upstream : {DnsBuilder(9, kAnswer), DnsBuilder(9, kAnswer).question("b.example"),
                                       DnsBuilder(9, kAnswer).question("a.example", 28),
                                       DnsBuilder(9, kAnswer).question("a.example", 1, 3)}) {
        const DnsParse parse = parse_dns_message(upstream.bytes());
        EXPECT_FALSE(build_guest_answer(parse.message.value(), query, 512).has_value());
    }
}

} // namespace
} // namespace tapgate::proto
