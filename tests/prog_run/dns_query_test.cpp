// SPDX-License-Identifier: Apache-2.0
#include "datapath/events.hpp"
#include "dns_refusal_case.hpp"
#include "sockets.hpp"

#include <fmt/format.h>

#include <functional>
#include <vector>

namespace tapgate::test {

namespace {

constexpr std::uint16_t kRecursionDesired = 0x0100;
constexpr std::uint16_t kCheckingDisabled = 0x0010;
constexpr std::uint16_t kTypeOpt = 41;
constexpr std::uint32_t kDnssecOk = 0x8000;

constexpr const char* kPolicy = R"(
rules = ["deny@*.bad.allowed.test", "allow@*.allowed.test:tcp:443"]
[deny]
text = "ask platform@example.com"
)";

class DnsQueryTest : public ProgRunTest {
  protected:
    static RunResult query(const Family& family, const Bytes& message) {
        return ingress(query_frame(family, message));
    }

    static Bytes message(const Bytes& name, std::uint16_t type = kTypeA) {
        return DnsBuilder(kDnsId, kRecursionDesired, name, type).bytes();
    }

    static DnsBuilder with_opt(const Bytes& name, std::uint32_t ttl = 0, const Bytes& options = {},
                               const Bytes& owner = {0}) {
        DnsBuilder builder(kDnsId, kRecursionDesired, name, kTypeA);
        builder.record(owner, kTypeOpt, ttl, options, 1232, 10);
        return builder;
    }

    /// Refused for `reason` with an answer of `rcode` and nothing but the question in it.
    static testing::AssertionResult answered(const Family& family, const Bytes& message,
                                             tg_drop_reason reason, unsigned rcode, bool echoed = true) {
        const RunResult result = query(family, message);
        if (const auto as_told = refused(result, reason); !as_told)
            return as_told;
        if (result.action != kRedirect)
            return testing::AssertionFailure() << "no answer";
        const std::size_t dns = family.guest.is_v4() ? 42 : 62;
        const Bytes answer(result.packet.begin() + static_cast<long>(dns), result.packet.end());
        if (result.packet != refusal_frame(family, answer))
            return testing::AssertionFailure() << "headers: " << testing::PrintToString(result.packet);
        if ((answer.at(3) & 0x0fU) != rcode || (answer.at(2) & 0x80U) == 0)
            return testing::AssertionFailure() << "flags " << get16(answer, 2);
        if (get16(answer, 4) != (echoed ? 1 : 0) || get32(answer, 6) != 0)
            return testing::AssertionFailure() << "counts";
        return testing::AssertionSuccess();
    }
};

TEST_F(DnsQueryTest, a_denied_name_is_answered_nxdomain_with_its_question_octet_by_octet) {
    product().set_policy(kPolicy);
    for (const auto& family : families()) {
        for (const std::uint16_t flags : {0, int{kRecursionDesired}, kRecursionDesired | kCheckingDisabled}) {
            const Bytes name = dns_name("wWw.EXAMPLE.tesT");
            const auto result = query(family, DnsBuilder(kDnsId, flags, name, kTypeAaaa).bytes());
            EXPECT_TRUE(refused(result, TG_DROP_DNS_POLICY));
            ASSERT_EQ(result.action, kRedirect);
            const DnsBuilder expected(kDnsId, static_cast<std::uint16_t>(0x8083U | flags), name, kTypeAaaa);
            EXPECT_EQ(result.packet, refusal_frame(family, expected.bytes())) << flags;
        }
    }
    EXPECT_EQ(product().state().dns_pending, 0U);
}

TEST_F(DnsQueryTest, with_edns_the_denial_says_why) {
    product().set_policy(kPolicy);
    const std::string_view text = "ask platform@example.com";
    for (const auto& family : families()) {
        for (const std::uint32_t flags : {0U, kDnssecOk}) {
            const Bytes name = dns_name("www.example.test");
            const auto result = query(family, with_opt(name, flags).bytes());
            EXPECT_TRUE(refused(result, TG_DROP_DNS_POLICY));
            ASSERT_EQ(result.action, kRedirect);
            Bytes option; // RFC 8914 2
            put16(option, 15);
            put16(option, static_cast<unsigned>(2 + text.size()));
            put16(option, 18);
            append(option, text);
            DnsBuilder expected(kDnsId, 0x8183, name, kTypeA);
            expected.record({0}, kTypeOpt, flags, option, 1232, 10);
            EXPECT_EQ(result.packet, refusal_frame(family, expected.bytes())) << flags;
        }
    }
}

TEST_F(DnsQueryTest, the_longest_denial_of_the_longest_name_fits) {
    const std::string label(63, 'a');
    const std::string name = label + "." + label + "." + label + "." + std::string(61, 'b');
    product().set_policy(fmt::format("[deny]\ntext = \"{}\"", std::string(200, 'x')));
    for (const auto& family : families()) {
        const auto result = query(family, with_opt(dns_name(name)).bytes());
        EXPECT_TRUE(refused(result, TG_DROP_DNS_POLICY));
        ASSERT_EQ(result.action, kRedirect);
        const std::size_t dns = family.guest.is_v4() ? 42 : 62;
        EXPECT_EQ(result.packet.size(), dns + 12 + 259 + 11 + 6 + 200);
        EXPECT_EQ(result.packet, refusal_frame(family, Bytes(result.packet.begin() + static_cast<long>(dns),
                                                             result.packet.end())))
            << "checksums";
    }
}

TEST_F(DnsQueryTest, B15_a_name_that_the_policy_denies_never_wakes_the_daemon) {
    product().set_policy(kPolicy);
    for (const auto& family : families()) {
        const UniqueFd listener =
            family.guest.is_v4()
                ? open_listener(product(), TG_LISTENER_DNS4, {*IpAddress::parse("192.0.0.8"), 53})
                : open_listener(product(), TG_LISTENER_DNS6, {*IpAddress::parse("100::8"), 53});
        for (const char* name : {"payload.tunnel.test", "x.bad.allowed.test", "evilallowed.test", "test"})
            EXPECT_TRUE(answered(family, message(dns_name(name)), TG_DROP_DNS_POLICY, 3)) << name;
        // bpf_sk_assign works on the real ingress path alone.
        for (const char* name : {"allowed.test", "ALLOWED.test", "a.b.allowed.test"})
            EXPECT_TRUE(refused(query(family, message(dns_name(name))), TG_DROP_STEER_FAILED)) << name;
    }
}

TEST_F(DnsQueryTest, a_name_that_an_alias_may_still_allow_goes_to_the_daemon) {
    const std::string aliased =
        R"({ action = "allow", destination = { domain_suffix = "cdn.test" }, options = ["cname"] })";
    const Bytes asked = message(dns_name("www.example.test"));
    for (const auto& family : families()) {
        product().set_policy("rules = [" + aliased + "]");
        EXPECT_TRUE(refused(query(family, asked), kAccepted));
        product().set_policy("rules = [" + aliased + ", \"deny@www.example.test\"]");
        EXPECT_TRUE(refused(query(family, asked), kAccepted));
        product().set_policy("rules = [\"deny@www.example.test\", " + aliased + "]");
        EXPECT_TRUE(answered(family, asked, TG_DROP_DNS_POLICY, 3));
    }
}

TEST_F(DnsQueryTest, without_a_policy_queries_are_answered_servfail) {
    product().drop_policy();
    for (const auto& family : families())
        EXPECT_TRUE(answered(family, message(dns_name("allowed.test")), TG_DROP_NO_POLICY, 2));
}

TEST_F(DnsQueryTest, B44_other_opcodes_classes_types_and_several_questions_are_refused) {
    const Bytes name = dns_name("allowed.test");
    for (const auto& family : families()) {
        for (const unsigned opcode : {1U, 2U, 4U, 5U, 15U}) {
            const auto flags = static_cast<std::uint16_t>(opcode << 11U);
            EXPECT_TRUE(answered(family, DnsBuilder(kDnsId, flags, name, kTypeA).bytes(), TG_DROP_DNS_OPCODE,
                                 4, false))
                << opcode;
        }
        for (const std::uint16_t klass : {0, 2, 3, 4, 254, 255, 65535})
            EXPECT_TRUE(answered(family, DnsBuilder(kDnsId, kRecursionDesired, name, kTypeTxt, klass).bytes(),
                                 TG_DROP_DNS_CLASS, 5))
                << klass;
        for (const std::uint16_t type : {0, 10, 41, 251, 252, 255, 256, 65535}) // NULL, OPT, IXFR, AXFR, ANY
            EXPECT_TRUE(answered(family, message(name, type), TG_DROP_DNS_TYPE, 5)) << type;
        for (const unsigned count : {0U, 2U, 65535U}) {
            Bytes changed = message(name);
            set16(changed, 4, count);
            EXPECT_TRUE(answered(family, changed, TG_DROP_DNS_QUERY_MALFORMED, 1, false)) << count;
        }
    }
}

TEST_F(DnsQueryTest, every_allowed_type_goes_to_the_daemon) {
    for (const auto& family : families()) {
        for (unsigned type = 0; type < 300; ++type) {
            const auto number = static_cast<std::uint16_t>(type);
            EXPECT_TRUE(refused(query(family, message(dns_name("allowed.test"), number)),
                                proto::dns_type_allowed(number) ? kAccepted : TG_DROP_DNS_TYPE))
                << type;
        }
    }
}

TEST_F(DnsQueryTest, only_an_opt_record_of_version_0_may_stand_beside_the_question) {
    const Bytes name = dns_name("allowed.test");
    const Bytes options{0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 12, 0, 0};
    for (const auto& family : families()) {
        EXPECT_TRUE(refused(query(family, with_opt(name).bytes()), kAccepted));
        EXPECT_TRUE(refused(query(family, with_opt(name, 0, options).bytes()), kAccepted));
        const auto root = static_cast<unsigned>(12 + name.size() - 1);
        EXPECT_TRUE(refused(query(family, with_opt(name, 0, {}, dns_pointer(root)).bytes()), kAccepted));
        const auto malformed = [&](const Bytes& bytes, bool echoed = true) {
            return answered(family, bytes, TG_DROP_DNS_QUERY_MALFORMED, 1, echoed);
        };
        for (std::size_t cut = 1; cut < options.size(); ++cut) {
            const bool whole = cut == 12; // between the two
            const Bytes part(options.begin(), options.begin() + static_cast<long>(cut));
            const Bytes bytes = with_opt(name, 0, part).bytes();
            if (whole)
                EXPECT_TRUE(refused(query(family, bytes), kAccepted)) << cut;
            else
                EXPECT_TRUE(malformed(bytes)) << cut;
        }
        EXPECT_TRUE(malformed(with_opt(name, 0, {}, dns_name("x")).bytes())) << "an owner";
        EXPECT_TRUE(malformed(with_opt(name, 0, {}, dns_question_pointer()).bytes())) << "a pointer";
        EXPECT_TRUE(malformed(with_opt(name, 0, {}, dns_pointer(2000)).bytes(), false)) << "a bad pointer";
        EXPECT_TRUE(answered(family, with_opt(name, 0x00010000).bytes(), TG_DROP_DNS_EDNS_VERSION, 0));
        DnsBuilder other(kDnsId, kRecursionDesired, name, kTypeA);
        EXPECT_TRUE(malformed(other.record({0}, kTypeTxt, 0, {}, 1, 10).bytes())) << "TXT";
        DnsBuilder authority(kDnsId, kRecursionDesired, name, kTypeA);
        EXPECT_TRUE(malformed(authority.record({0}, kTypeOpt, 0, {}, 1232, 8).bytes())) << "authority";
        DnsBuilder answer(kDnsId, kRecursionDesired, name, kTypeA);
        EXPECT_TRUE(malformed(answer.address(dns_question_pointer(), 1, "203.0.113.5").bytes(), false));
        DnsBuilder two = with_opt(name);
        EXPECT_TRUE(malformed(two.record({0}, kTypeOpt, 0, {}, 1232, 10).bytes(), false)) << "two of them";
        Bytes longer = with_opt(name).bytes();
        put8(longer, 0);
        EXPECT_TRUE(malformed(longer, false)) << "an octet behind the message";
        for (const std::uint16_t flags : {0x0200, 0x0001, 0x000f})
            EXPECT_TRUE(malformed(DnsBuilder(kDnsId, flags, name, kTypeA).bytes())) << flags;
    }
}

TEST_F(DnsQueryTest, what_does_not_parse_is_answered_formerr_with_the_header_alone) {
    for (const auto& family : families()) {
        const auto malformed = [&](const Bytes& bytes) {
            return answered(family, bytes, TG_DROP_DNS_QUERY_MALFORMED, 1, false);
        };
        const Bytes good = message(dns_name("allowed.test"));
        for (const unsigned length : {0x40U, 0x80U, 0xc0U, 0xffU}) {
            Bytes changed = good;
            changed[12] = static_cast<std::uint8_t>(length);
            EXPECT_TRUE(malformed(changed)) << "label length " << length;
        }
        EXPECT_TRUE(malformed(message(dns_pointer(12)))) << "a pointer to itself";
        EXPECT_TRUE(malformed(message(dns_pointer(0)))) << "a pointer into the header";
        for (std::size_t size = 12; size < good.size(); ++size)
            EXPECT_TRUE(malformed(Bytes(good.begin(), good.begin() + static_cast<long>(size)))) << size;
        Bytes longest = good;
        for (const int size : {int{TG_DNS_PAYLOAD_MAX}, TG_DNS_PAYLOAD_MAX + 1, 1400}) {
            longest.resize(static_cast<std::size_t>(size));
            EXPECT_TRUE(malformed(longest)) << size;
        }
    }
}

TEST_F(DnsQueryTest, what_is_no_query_is_dropped_in_silence) {
    for (const auto& family : families()) {
        const auto dropped = [&](const Bytes& bytes) {
            const RunResult result = query(family, bytes);
            return result.action == kShot ? refused(result, TG_DROP_DNS_NOT_A_QUERY)
                                          : testing::AssertionFailure() << "answered";
        };
        Bytes answer = message(dns_name("allowed.test"));
        answer[2] |= 0x80U;
        EXPECT_TRUE(dropped(answer));
        for (std::size_t size = 0; size < 12; ++size)
            EXPECT_TRUE(dropped(Bytes(size))) << size;
    }
}

TEST_F(DnsQueryTest, names_are_at_most_255_octets_of_labels_of_63) {
    const std::string label(63, 'a');
    const std::string three = label + "." + label + "." + label + ".";
    for (const auto& family : families()) {
        EXPECT_TRUE(refused(query(family, message(dns_name(three + std::string(61, 'b')))), kAccepted))
            << 255;
        EXPECT_TRUE(refused(query(family, message(dns_name(three + std::string(62, 'b')))),
                            TG_DROP_DNS_QUERY_MALFORMED))
            << 256;
        std::string many;
        for (int i = 0; i < 127; ++i)
            many += i == 0 ? "x" : ".x";
        EXPECT_TRUE(refused(query(family, message(dns_name(many))), kAccepted)) << "127 labels";
        EXPECT_TRUE(refused(query(family, message(dns_name(many + ".x"))), TG_DROP_DNS_QUERY_MALFORMED));
    }
}

TEST_F(DnsQueryTest, names_that_no_policy_can_name_are_refused) {
    std::vector<Bytes> names;
    for (const char* text : {"", "1", "192.0.2.1", "a.0", "a.0x", "a.0xdead", "a.007", "a b.test",
                             "a\x7f.test", "caf\xc3\xa9.test", "a*.test"})
        names.push_back(dns_name(text));
    names.push_back({3, 'a', '.', 'b', 4, 't', 'e', 's', 't', 0});
    names.push_back({3, 'a', 0, 'b', 4, 't', 'e', 's', 't', 0});
    for (const auto& family : families()) {
        for (const Bytes& name : names)
            EXPECT_TRUE(answered(family, message(name), TG_DROP_DNS_NAME, 5)) << testing::PrintToString(name);
        for (const char* text : {"a", "1a", "1.a", "a.0xg", "a.0a", "a.1-", "_sip._tcp.a", "-.a", "a.x0"})
            EXPECT_TRUE(refused(query(family, message(dns_name(text))), kAccepted)) << text;
    }
}

TEST_F(DnsQueryTest, a_query_behind_extension_headers_is_judged_and_not_answered) {
    product().set_policy(kPolicy);
    const Family& v6 = *(families().begin() + 1);
    Bytes l4{IPPROTO_UDP, 0, 1, 4, 0, 0, 0, 0}; // destination options: padding
    append(l4, udp_datagram(v6.guest, v6.server, kDnsPort, 53, message(dns_name("www.example.test"))));
    const auto result = ingress(ip_frame(v6.guest, v6.server, IPPROTO_DSTOPTS, l4));
    EXPECT_TRUE(refused(result, TG_DROP_DNS_POLICY));
    EXPECT_EQ(result.action, kShot);
}

TEST_F(DnsQueryTest, queries_beyond_the_guests_rate_are_dropped_whatever_they_ask) {
    constexpr std::uint32_t kRate = 5;
    auto guest = Programs::default_guest();
    guest.dns_queries_per_second = kRate;
    product().set_guest(guest);
    product().set_policy(kPolicy);
    for (const auto& family : families()) {
        const std::array<Bytes, 3> kinds = {message(dns_name("allowed.test")), message(dns_name("b.test")),
                                            Bytes(12)};
        bool same_second = false;
        for (int attempt = 0; attempt < 10 && !same_second; ++attempt) {
            tg_guest_state state{};
            state.query_second = boot_now() / kSecond;
            product().set_state(state);
            std::vector<RunResult> results;
            for (std::uint32_t i = 0; i < kRate + 6; ++i)
                results.push_back(query(family, kinds.at(i % kinds.size())));
            same_second = boot_now() / kSecond == state.query_second;
            for (std::uint32_t i = 0; same_second && i < results.size(); ++i) {
                EXPECT_EQ(results[i].drops.contains(TG_DROP_DNS_RATE), i >= kRate) << i;
                if (i >= kRate) {
                    EXPECT_EQ(results[i].action, kShot) << i;
                }
            }
        }
        EXPECT_TRUE(same_second);
        auto state = product().state();
        state.query_second -= 1;
        product().set_state(state);
        EXPECT_TRUE(refused(query(family, kinds[0]), kAccepted)) << "the next second";
    }
}

TEST_F(DnsQueryTest, a_refusal_tells_the_operator_the_question) {
    const auto events = datapath::Events::open(product().map_fd("events"));
    ASSERT_TRUE(events) << events.error().message();
    product().set_policy(kPolicy);
    const auto read_all = [&events] {
        std::vector<datapath::DropEvent> all;
        for (std::size_t before = 1; before != all.size();) {
            before = all.size();
            (*events)->read({[&all](const datapath::DropEvent& event) { all.push_back(event); }, {}});
        }
        return all;
    };
    for (const auto& family : families()) {
        const auto event_of = [&](const Bytes& bytes) {
            read_all();
            query(family, bytes);
            const std::vector<datapath::DropEvent> seen = read_all();
            EXPECT_EQ(seen.size(), 1U);
            return seen.empty() ? datapath::DropEvent() : seen.front();
        };
        datapath::DropEvent event = event_of(message(dns_name("WWW.bad.Allowed.test"), kTypeAaaa));
        EXPECT_EQ(event.reason, TG_DROP_DNS_POLICY);
        EXPECT_EQ(event.guest, kGuestId);
        EXPECT_EQ(event.flow.guest, (Endpoint{family.guest, kDnsPort}));
        EXPECT_EQ(event.flow.peer, (Endpoint{family.server, 53}));
        EXPECT_EQ(event.judgement.verdict, TG_VERDICT_DENY);
        EXPECT_EQ(event.judgement.rule_group, 0U);
        ASSERT_TRUE(event.question);
        EXPECT_EQ(event.question->name, dns_name("www.bad.allowed.test"));
        EXPECT_EQ(event.question->type, kTypeAaaa);

        event = event_of(message(dns_name("x.test")));
        EXPECT_FALSE(event.judgement.rule_group) << "the default";
        // The owner of a record is read after the question, and does not take its place.
        event = event_of(with_opt(dns_name("x.test"), 0, {}, dns_name("other.test")).bytes());
        EXPECT_EQ(event.reason, TG_DROP_DNS_QUERY_MALFORMED);
        ASSERT_TRUE(event.question);
        EXPECT_EQ(event.question->name, dns_name("x.test"));

        event = event_of(message(dns_pointer(12)));
        EXPECT_EQ(event.reason, TG_DROP_DNS_QUERY_MALFORMED);
        ASSERT_TRUE(event.question);
        EXPECT_TRUE(event.question->name.empty());
        EXPECT_FALSE(event_of(Bytes(3)).question) << "no query at all";
        product().set_state({});
    }
}

TEST_F(DnsQueryTest, an_answer_like_ours_that_did_not_come_in_by_the_tap_never_reaches_the_guest) {
    for (const auto& family : families()) {
        const Bytes answer = DnsBuilder(kDnsId, 0x8183, dns_name("x.test"), kTypeA).bytes();
        const Bytes frame = refusal_frame(family, answer);
        EXPECT_TRUE(refused(egress(frame), TG_DROP_EGRESS_NOT_OURS)) << "of this host";
        EXPECT_TRUE(refused(product().run_on("tap_egress", frame, Programs::tap_ifindex(), 1),
                            TG_DROP_EGRESS_NOT_OURS))
            << "forwarded";
        EXPECT_TRUE(
            refused(product().run_on("tap_egress", frame, Programs::tap_ifindex(), Programs::tap_ifindex()),
                    TG_DROP_EGRESS_NOT_OURS))
            << "without our mark";
    }
}

} // namespace

} // namespace tapgate::test
