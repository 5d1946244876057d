// SPDX-License-Identifier: Apache-2.0
// ldns as the independent implementation: what it packs is read alike, and what is accepted here it reads
// alike.
#include "proto/dns_answer.hpp"
#include "proto/dns_message.hpp"
#include "proto/dns_query.hpp"
#include "tests/harness/ldns_addresses.hpp"
#include "tests/unit/proto/dns_builder.hpp"

#include <gtest/gtest.h>
#include <ldns/ldns.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <set>
#include <string>

namespace tapgate::proto {
namespace {

struct Free {
    void operator()(ldns_pkt* packet) const { ldns_pkt_free(packet); }

    void operator()(void* memory) const { std::free(memory); }
};

using Packet = std::unique_ptr<ldns_pkt, Free>;

Packet unpack(ByteView bytes) {
    ldns_pkt* packet = nullptr;
    return Packet(ldns_wire2pkt(&packet, bytes.data(), bytes.size()) == LDNS_STATUS_OK ? packet : nullptr);
}

Bytes pack(const ldns_pkt* packet) {
    std::uint8_t* wire = nullptr;
    std::size_t size = 0;
    EXPECT_EQ(ldns_pkt2wire(&wire, packet, &size), LDNS_STATUS_OK);
    const std::unique_ptr<std::uint8_t, Free> owner(wire);
    return {wire, wire + size};
}

ldns_rr* record(const std::string& text) {
    ldns_rr* made = nullptr;
    EXPECT_EQ(ldns_rr_new_frm_str(&made, text.c_str(), 0, nullptr, nullptr), LDNS_STATUS_OK) << text;
    return made;
}

std::string lower_wire(const ldns_rdf* name) {
    return test::ldns_lower_wire(name);
}

std::string lower_wire(const DnsName& name) {
    const DnsName lower = name.lower();
    return {lower.wire().begin(), lower.wire().end()};
}

/// Expects that ldns reads the same header, question and records as `message`, which was accepted.
void expect_same_reading(const ldns_pkt* packet, const DnsMessage& message) {
    EXPECT_EQ(ldns_pkt_id(packet), message.header.id);
    EXPECT_EQ(ldns_pkt_qr(packet), message.header.response);
    // As numbers: damaged messages have values that the enumerations of ldns lack.
    EXPECT_EQ(static_cast<unsigned>(ldns_pkt_get_opcode(packet)), message.header.opcode);
    EXPECT_EQ(ldns_pkt_aa(packet), message.header.authoritative);
    EXPECT_EQ(ldns_pkt_tc(packet), message.header.truncated);
    EXPECT_EQ(ldns_pkt_rd(packet), message.header.recursion_desired);
    EXPECT_EQ(ldns_pkt_ra(packet), message.header.recursion_available);
    EXPECT_EQ(ldns_pkt_ad(packet), message.header.authentic_data);
    EXPECT_EQ(ldns_pkt_cd(packet), message.header.checking_disabled);
    EXPECT_EQ(static_cast<unsigned>(ldns_pkt_get_rcode(packet)), message.header.rcode);
    const ldns_rr_list* const questions = ldns_pkt_question(packet);
    ASSERT_EQ(ldns_rr_list_rr_count(questions), message.questions.size());
    for (std::size_t i = 0; i < message.questions.size(); ++i) {
        const ldns_rr* const question = ldns_rr_list_rr(questions, i);
        EXPECT_EQ(lower_wire(ldns_rr_owner(question)), lower_wire(message.questions[i].name));
        EXPECT_EQ(static_cast<unsigned>(ldns_rr_get_type(question)), message.questions[i].type);
        EXPECT_EQ(static_cast<unsigned>(ldns_rr_get_class(question)), message.questions[i].klass);
    }
    for (const auto& [section, list] : {std::pair{DnsSection::kAnswer, ldns_pkt_answer(packet)},
                                        std::pair{DnsSection::kAuthority, ldns_pkt_authority(packet)}}) {
        std::size_t index = 0;
        for (const DnsRecord& ours : message.records) {
            if (ours.section != section)
                continue;
            ASSERT_LT(index, ldns_rr_list_rr_count(list));
            const ldns_rr* const theirs = ldns_rr_list_rr(list, index++);
            EXPECT_EQ(lower_wire(ldns_rr_owner(theirs)), lower_wire(ours.owner));
            EXPECT_EQ(static_cast<unsigned>(ldns_rr_get_type(theirs)), ours.type);
            EXPECT_EQ(static_cast<unsigned>(ldns_rr_get_class(theirs)), ours.klass);
            EXPECT_EQ(ldns_rr_ttl(theirs), ours.ttl_seconds);
            if (ours.type == static_cast<std::uint16_t>(DnsType::kCname)) {
                const auto target = message.rdata_name(ours);
                ASSERT_TRUE(target.has_value());
                EXPECT_EQ(lower_wire(ldns_rr_rdf(theirs, 0)), lower_wire(*target));
            } else if (ours.type == static_cast<std::uint16_t>(DnsType::kA)) {
                EXPECT_EQ(std::memcmp(ldns_rdf_data(ldns_rr_rdf(theirs, 0)), ours.rdata.data(), 4), 0);
            }
        }
        EXPECT_EQ(index, ldns_rr_list_rr_count(list));
    }
}

std::set<IpAddress> addresses_of(const DnsAddresses& derived) {
    std::set<IpAddress> addresses;
    for (const DnsAddress& address : derived.addresses)
        addresses.insert(address.address);
    return addresses;
}

/// An answer of ldns with aliases, addresses, an authority record and EDNS; ldns compresses names.
Packet sample_answer() {
    Packet packet(ldns_pkt_query_new(ldns_dname_new_frm_str("www.example.com"), LDNS_RR_TYPE_A,
                                     LDNS_RR_CLASS_IN, LDNS_RD | LDNS_QR | LDNS_RA));
    ldns_pkt_set_id(packet.get(), 0x1234);
    for (const char* text :
         {"www.example.com. 300 IN CNAME cdn.example.com.", "cdn.example.com. 60 IN CNAME edge.example.net.",
          "edge.example.net. 20 IN A 192.0.2.1", "edge.example.net. 30 IN A 192.0.2.2"})
        ldns_pkt_push_rr(packet.get(), LDNS_SECTION_ANSWER, record(text));
    ldns_pkt_push_rr(packet.get(), LDNS_SECTION_AUTHORITY, record("example.net. 9 IN NS ns1.example.net."));
    ldns_pkt_push_rr(packet.get(), LDNS_SECTION_ADDITIONAL, record("ns1.example.net. 9 IN A 192.0.2.53"));
    ldns_pkt_set_edns_udp_size(packet.get(), 1232);
    return packet;
}

TEST(DnsLdns, answers_that_it_packs_are_read_alike) {
    const Packet packet = sample_answer();
    const Bytes bytes = pack(packet.get());
    ASSERT_TRUE(std::ranges::any_of(bytes, [](std::uint8_t byte) { return byte >= 0xc0; }))
        << "compression is in use";
    const DnsParse parse = parse_dns_message(bytes);
    ASSERT_TRUE(parse.message.has_value()) << parse.reason;
    expect_same_reading(packet.get(), *parse.message);
    const DnsAddresses derived = derive_addresses(*parse.message);
    ASSERT_EQ(derived.addresses.size(), 2U) << derived.reason;
    EXPECT_EQ(derived.addresses[0].address.to_string(), "192.0.2.1");
    EXPECT_EQ(derived.addresses[0].ttl_seconds, 20U);
    EXPECT_EQ(derived.aliases.back().text(), "edge.example.net");
}

TEST(DnsLdns, queries_that_it_packs_are_accepted) {
    for (const ldns_rr_type type :
         {LDNS_RR_TYPE_A, LDNS_RR_TYPE_AAAA, LDNS_RR_TYPE_TXT, LDNS_RR_TYPE_DNSKEY}) {
        for (const bool dnssec : {false, true}) {
            const Packet packet(ldns_pkt_query_new(ldns_dname_new_frm_str("Www.example.com"), type,
                                                   LDNS_RR_CLASS_IN, LDNS_RD));
            ldns_pkt_set_id(packet.get(), 77);
            if (dnssec) {
                ldns_pkt_set_edns_udp_size(packet.get(), 4096);
                ldns_pkt_set_edns_do(packet.get(), true);
            }
            const DnsQueryParse parse = parse_dns_query(pack(packet.get()));
            ASSERT_EQ(parse.status, DnsQueryStatus::kAccepted) << parse.reason;
            EXPECT_EQ(parse.query.id, 77);
            EXPECT_EQ(parse.query.question->type, type);
            EXPECT_EQ(parse.query.question->name.text(), "www.example.com");
            EXPECT_EQ(parse.query.edns.has_value(), dnssec);
        }
    }
}

TEST(DnsLdns, it_reads_the_messages_that_are_built_here) {
    const DnsQuery query =
        parse_dns_query(DnsBuilder(5).question("wWw.example.com").opt(1232, 0x8000).bytes()).query;
    const Packet upstream = unpack(build_upstream_query(query, 0xbeef).bytes);
    ASSERT_TRUE(upstream);
    EXPECT_EQ(ldns_pkt_id(upstream.get()), 0xbeef);
    EXPECT_EQ(ldns_pkt_edns_udp_size(upstream.get()), 1232);
    EXPECT_TRUE(ldns_pkt_edns_do(upstream.get()));

    const Packet refused = unpack(build_error_answer(query, DnsRcode::kBadVers, DnsExtendedError{18, "no"}));
    ASSERT_TRUE(refused);
    EXPECT_EQ(ldns_pkt_edns_extended_rcode(refused.get()), 1);

    const Bytes answered = pack(sample_answer().get());
    const auto answer =
        build_guest_answer(parse_dns_message(answered).message.value(), query, query.udp_limit());
    const Packet delivered = unpack(answer.value());
    ASSERT_TRUE(delivered);
    EXPECT_EQ(ldns_pkt_id(delivered.get()), 5);
    EXPECT_EQ(ldns_pkt_ancount(delivered.get()), 4);
    expect_same_reading(delivered.get(), parse_dns_message(*answer).message.value());
}

TEST(DnsLdns, damaged_messages_that_are_accepted_are_read_alike) {
    const Bytes original = pack(sample_answer().get());
    std::mt19937 random(1);
    unsigned accepted = 0;
    unsigned read_by_both = 0;
    for (unsigned round = 0; round < 12000; ++round) {
        Bytes bytes = original;
        for (unsigned change = 0; change <= random() % 3; ++change) {
            const std::size_t at = random() % bytes.size();
            if (random() % 2 == 0)
                bytes[at] = static_cast<std::uint8_t>(random());
            else
                bytes[at] = static_cast<std::uint8_t>(bytes[at] + (random() % 2 == 0 ? 1 : 255));
        }
        const DnsParse parse = parse_dns_message(bytes);
        if (!parse.message || !derive_addresses(*parse.message).reason.empty())
            continue;
        ++accepted;
        // ldns looks into every RDATA and so refuses more.
        const Packet packet = unpack(bytes);
        if (!packet)
            continue;
        ++read_by_both;
        expect_same_reading(packet.get(), *parse.message);
        EXPECT_EQ(std::optional(addresses_of(derive_addresses(*parse.message))),
                  test::addresses_by_ldns(bytes));
        if (HasFailure())
            FAIL() << "round " << round;
    }
    EXPECT_GT(accepted, 2000U);
    EXPECT_GT(read_by_both, accepted * 9 / 10);
}

// Answers that BIND 9 and unbound gave (tests/fuzz/capture_answers).
TEST(DnsLdns, real_answers_bind_what_it_derives_from_them) {
    unsigned compared = 0;
    unsigned bound = 0;
    for (const auto& file : std::filesystem::directory_iterator(TAPGATE_ANSWER_CORPUS)) {
        const std::string name = file.path().filename();
        const bool real = name.starts_with("bind9_") || name.starts_with("unbound_");
        std::ifstream in(file.path(), std::ios::binary);
        const Bytes bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
        const DnsParse parse = parse_dns_message(bytes);
        if (!real && (!parse.message || !derive_addresses(*parse.message).reason.empty()))
            continue;
        // A set of more than 32 records goes over TCP.
        const bool large = name.ends_with("_sixty_addresses");
        const DnsParse whole = parse_dns_message(bytes, large ? kDnsTcpLimits : DnsLimits());
        EXPECT_EQ(parse.message.has_value(), !large) << name << ": " << parse.reason;
        ASSERT_TRUE(whole.message) << name << ": " << whole.reason;
        const DnsAddresses derived = derive_addresses(*whole.message);
        EXPECT_EQ(derived.reason, "") << name;
        const Packet packet = unpack(bytes);
        ASSERT_TRUE(packet || !real) << name;
        if (!packet)
            continue;
        expect_same_reading(packet.get(), *whole.message);
        EXPECT_EQ(std::optional(addresses_of(derived)), test::addresses_by_ldns(bytes)) << name;
        ++compared;
        bound += derived.addresses.empty() ? 0 : 1;
    }
    EXPECT_GE(compared, 58U) << "is the corpus there?";
    EXPECT_GE(bound, 40U);
}

} // namespace
} // namespace tapgate::proto
