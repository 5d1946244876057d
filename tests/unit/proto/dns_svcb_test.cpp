// SPDX-License-Identifier: Apache-2.0
#include "proto/dns_svcb.hpp"
#include "tests/unit/proto/dns_builder.hpp"

#include <gtest/gtest.h>
#include <ldns/ldns.h>

#include <algorithm>

namespace tapgate::proto {
namespace {

constexpr std::uint16_t kAnswer = 0x81a0; // QR RD RA AD
constexpr std::size_t kHttps = 65;
constexpr std::size_t kRrsig = 46;

/// RDATA of a service record: priority 1, target the owner, then `params`.
Bytes service(const std::vector<std::pair<std::uint16_t, Bytes>>& params) {
    Bytes rdata = {0, 1, 0};
    for (const auto& [key, value] : params) {
        rdata.insert(rdata.end(),
                     {0, static_cast<std::uint8_t>(key), 0, static_cast<std::uint8_t>(value.size())});
        rdata.insert(rdata.end(), value.begin(), value.end());
    }
    return rdata;
}

const Bytes kAlpn = {2, 'h', '2'};
const Bytes kEchConfig = {0, 4, 0xfe, 0x0d, 0, 0};

/// The records of `bytes`, which must parse.
DnsMessage parsed(const Bytes& bytes) {
    DnsParse parse = parse_dns_message(bytes);
    EXPECT_TRUE(parse.message.has_value()) << parse.reason;
    return parse.message.value_or(DnsMessage{});
}

DnsRecord https(const Bytes& rdata) {
    DnsRecord record;
    record.type = kHttps;
    record.klass = kDnsClassIn;
    record.rdata = rdata;
    return record;
}

TEST(DnsSvcb, hints_are_read_in_both_families) {
    const Bytes rdata = service({{1, kAlpn},
                                 {4, {192, 0, 2, 1, 192, 0, 2, 2}},
                                 {6, {0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5}}});
    const auto hints = svcb_hints(https(rdata));
    ASSERT_TRUE(hints.has_value());
    EXPECT_EQ(*hints, (std::vector{*IpAddress::parse("192.0.2.1"), *IpAddress::parse("192.0.2.2"),
                                   *IpAddress::parse("2001:db8::5")}));
}

TEST(DnsSvcb, a_hint_must_be_whole_addresses) {
    for (const Bytes& value : {Bytes{}, Bytes{1, 2, 3}, Bytes{1, 2, 3, 4, 5}})
        EXPECT_FALSE(svcb_hints(https(service({{4, value}}))).has_value()) << value.size();
    EXPECT_FALSE(svcb_hints(https(service({{6, {1, 2, 3, 4}}}))).has_value());
}

TEST(DnsSvcb, every_cut_of_the_rdata_is_malformed_or_ends_between_parameters) {
    const Bytes rdata = service({{1, kAlpn}, {5, kEchConfig}});
    for (std::size_t size = 0; size < rdata.size(); ++size) {
        const Bytes cut(rdata.begin(), rdata.begin() + static_cast<std::ptrdiff_t>(size));
        const bool between = size == 3 || size == 3 + 4 + kAlpn.size();
        EXPECT_EQ(parse_svcb(https(cut)).has_value(), between) << size;
    }
}

TEST(DnsSvcb, keys_ascend_and_the_target_is_not_compressed) {
    EXPECT_FALSE(parse_svcb(https(service({{4, {1, 2, 3, 4}}, {1, kAlpn}}))).has_value());
    EXPECT_FALSE(parse_svcb(https(service({{1, kAlpn}, {1, kAlpn}}))).has_value());
    EXPECT_FALSE(parse_svcb(https({0, 1, 0xc0, 0x0c})).has_value());
    EXPECT_FALSE(parse_svcb(https({0, 1, 0x40, 0})).has_value());
}

TEST(DnsSvcb, ech_is_removed_and_all_else_stays) {
    // Owners and RDATA point at names behind the record that shrinks.
    DnsBuilder builder(0x1234, kAnswer);
    builder.question("www.example.com", kHttps);
    builder.answer("www.example.com", kHttps, service({{1, kAlpn}, {5, kEchConfig}, {6, Bytes(16, 7)}}));
    const std::size_t zone = builder.size();
    builder.authority("example.com", 2, DnsBuilder::wire("ns.example.com"));
    builder.count(3, 2);
    builder.pointer(zone).u16(15).u16(1).u32(60).u16(4).u16(10).pointer(zone); // MX, exchange compressed
    builder.u8(0).u16(41).u16(1232).u32(0).u16(0);
    const DnsMessage before = parsed(builder.bytes());
    ASSERT_TRUE(carries_ech(before));

    const auto bytes = without_ech(before);
    ASSERT_TRUE(bytes.has_value());
    const DnsMessage after = parsed(*bytes);
    EXPECT_FALSE(carries_ech(after));
    EXPECT_FALSE(after.header.authentic_data);
    ASSERT_EQ(after.records.size(), before.records.size());
    for (std::size_t i = 0; i < after.records.size(); ++i) {
        EXPECT_TRUE(after.records[i].owner == before.records[i].owner) << i;
        EXPECT_EQ(after.records[i].type, before.records[i].type) << i;
        EXPECT_EQ(after.records[i].ttl_seconds, before.records[i].ttl_seconds) << i;
    }
    const Bytes left = service({{1, kAlpn}, {6, Bytes(16, 7)}});
    EXPECT_TRUE(std::ranges::equal(after.records[0].rdata, left));
    EXPECT_EQ(after.rdata_name(after.records[1])->text(), "ns.example.com");
    Bytes exchange = {0, 10};
    for (const std::uint8_t octet : DnsBuilder::wire("example.com"))
        exchange.push_back(octet);
    EXPECT_TRUE(std::ranges::equal(after.records[2].rdata, exchange));

    ldns_pkt* raw = nullptr;
    ASSERT_EQ(ldns_wire2pkt(&raw, bytes->data(), bytes->size()), LDNS_STATUS_OK);
    EXPECT_EQ(ldns_pkt_ancount(raw), 1);
    ldns_pkt_free(raw);
}

TEST(DnsSvcb, signatures_over_what_was_changed_go_and_others_stay) {
    const auto signature = [](std::uint8_t covered) {
        Bytes rdata(18, 0);
        rdata[1] = covered;
        rdata.push_back(0); // signer: the root
        rdata.push_back(1);
        return rdata;
    };
    DnsBuilder builder(0x1234, kAnswer);
    builder.question("www.example.com", kHttps);
    builder.cname("www.example.com", "cdn.example.com")
        .answer("www.example.com", kRrsig, signature(5))
        .answer("cdn.example.com", kHttps, service({{5, kEchConfig}}))
        .answer("cdn.example.com", kRrsig, signature(65));
    const auto bytes = without_ech(parsed(builder.bytes()));
    ASSERT_TRUE(bytes.has_value());
    const DnsMessage after = parsed(*bytes);
    ASSERT_EQ(after.records.size(), 3U);
    EXPECT_EQ(after.records[1].type, kRrsig);
    EXPECT_EQ(after.records[2].type, kHttps);
}

TEST(DnsSvcb, what_cannot_be_rewritten_is_refused) {
    DnsBuilder broken(0x1234, kAnswer);
    broken.question("a.example", kHttps).answer("a.example", kHttps, {0, 1});
    EXPECT_TRUE(carries_ech(parsed(broken.bytes())));
    EXPECT_FALSE(without_ech(parsed(broken.bytes())).has_value());
    DnsBuilder old(0x1234, kAnswer);
    old.question("a.example", kHttps)
        .answer("a.example", kHttps, service({{5, kEchConfig}}))
        .additional("a.example", 17, {0, 0}); // RP
    EXPECT_FALSE(without_ech(parsed(old.bytes())).has_value());
}

} // namespace
} // namespace tapgate::proto
