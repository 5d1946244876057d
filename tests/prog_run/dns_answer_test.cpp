// SPDX-License-Identifier: Apache-2.0
#include "datapath/name_id.hpp"
#include "dns_case.hpp"
#include "proto/dns_name.hpp"

#include <algorithm>
#include <cctype>
#include <optional>
#include <random>

namespace tapgate::test {

namespace {

const Bytes kName = dns_name("allowed.test");

DnsBuilder answer_to(const Bytes& name = kName, std::uint16_t type = kTypeA,
                     std::uint16_t flags = kAnswerFlags) {
    return {kDnsId, flags, name, type};
}

class DnsAnswerTest : public ProgRunTest {
  protected:
    static RunResult ask_and_answer(const Family& family, const Bytes& message, std::uint16_t type = kTypeA) {
        ask(answer_path(), family, kName, type);
        return answer(family, message);
    }

    static testing::AssertionResult malformed(const Family& family, const Bytes& message) {
        answer_path().reset();
        const auto result = refused(ask_and_answer(family, message), TG_DROP_DNS_ANSWER_MALFORMED);
        if (result && answer_path().state().bindings != 0)
            return testing::AssertionFailure() << "something was bound";
        return result;
    }

    static std::uint64_t lifetime_seconds(std::string_view address) {
        const auto names = bound(*IpAddress::parse(address));
        return names.empty() ? 0 : (names[0].expires_ns - boot_now() + kSecond / 2) / kSecond;
    }

    static std::optional<tg_name> recorded_name(const Bytes& name) {
        return answer_path().lookup<tg_name>("names", tg_name_key{kGuestId, name_id(answer_path(), name)});
    }

    static std::optional<tg_chain> recorded_chain(std::uint64_t id) {
        return answer_path().lookup<tg_chain>("chains", tg_chain_key{kGuestId, id});
    }

    /// "ADDRESS ..." of what an answer to a question for `kName` binds, in order; "refused" if it is.
    static std::string bound_by(const Family& family, const DnsBuilder& message,
                                std::uint16_t type = kTypeHttps) {
        answer_path().reset();
        if (!passed(ask_and_answer(family, message.bytes(), type)))
            return "refused";
        std::string text;
        unsigned found = 0;
        for (const char* address : {"203.0.113.5", "203.0.113.6", "203.0.113.7", "2001:db8:7::5",
                                    "2001:db8:7::6", "2001:db8:7::7"}) {
            if (!is_bound(address, kName))
                continue;
            text += (text.empty() ? "" : " ") + std::string(address);
            ++found;
        }
        EXPECT_EQ(answer_path().state().bindings, found);
        return text;
    }

    static std::string name_text(const Bytes& name) {
        const auto text = recorded_name(name);
        if (!text)
            return "(none)";
        EXPECT_EQ(text->length, std::string(text->text).size());
        return text->text;
    }
};

TEST_F(DnsAnswerTest, siphash_agrees_with_its_published_vector) {
    Bytes input;
    for (unsigned i = 0; i < 15; ++i)
        put8(input, i);
    EXPECT_EQ(siphash24(0x0706050403020100, 0x0f0e0d0c0b0a0908, input), 0xa129ca6149be45e5U);
}

TEST_F(DnsAnswerTest, addresses_are_bound_to_the_question_name_and_the_question_is_taken) {
    for (const auto& family : families()) {
        answer_path().reset();
        auto message = answer_to();
        message.address(dns_question_pointer(), 300, "203.0.113.5");
        message.address(kName, 300, "203.0.113.6");
        EXPECT_TRUE(passed(ask_and_answer(family, message.bytes())));
        EXPECT_TRUE(is_bound("203.0.113.5", kName));
        EXPECT_TRUE(is_bound("203.0.113.6", kName));
        EXPECT_EQ(lifetime_seconds("203.0.113.5"), 300U);
        EXPECT_EQ(name_text(kName), "allowed.test");
        EXPECT_EQ(answer_path().state().bindings, 2U);
        EXPECT_EQ(answer_path().state().dns_pending, 0U);
        EXPECT_TRUE(refused(answer(family, message.bytes()), TG_DROP_DNS_ANSWER_UNASKED)) << "a second copy";
        EXPECT_EQ(answer_path().state().dns_pending, 0U);

        message = answer_to(kName, kTypeAaaa);
        message.address(dns_question_pointer(), 300, "2001:db8:7::5");
        EXPECT_TRUE(passed(ask_and_answer(family, message.bytes(), kTypeAaaa)));
        EXPECT_TRUE(is_bound("2001:db8:7::5", kName));
        EXPECT_EQ(answer_path().state().bindings, 3U);
    }
}

TEST_F(DnsAnswerTest, alias_chains_are_followed_in_any_order) {
    std::mt19937 random(7);
    for (const auto& family : families()) {
        for (int length = 1; length <= TG_DNS_ALIASES_MAX; ++length) {
            const auto hop = [](int i) { return dns_name("hop" + std::to_string(i) + ".test"); };
            for (int order = 0; order < 4; ++order) {
                std::vector<int> links(static_cast<std::size_t>(length));
                for (int i = 0; i < length; ++i)
                    links[static_cast<std::size_t>(i)] = i;
                if (order == 1)
                    std::ranges::reverse(links);
                else if (order > 1)
                    std::ranges::shuffle(links, random);
                auto message = answer_to();
                // The least TTL of the chain counts.
                for (const int i : links)
                    message.record(i == 0 ? dns_question_pointer() : hop(i), kTypeCname,
                                   i == length - 1 ? 100 : 400, hop(i + 1));
                message.address(hop(length), 300, "203.0.113.5");
                answer_path().reset();
                EXPECT_TRUE(passed(ask_and_answer(family, message.bytes()))) << length << " " << order;
                EXPECT_TRUE(is_bound("203.0.113.5", kName));
                EXPECT_EQ(lifetime_seconds("203.0.113.5"), 100U);
                const auto names = bound(*IpAddress::parse("203.0.113.5"));
                ASSERT_EQ(names.size(), 1U) << "aliases are not bound";
                std::vector<Bytes> aliases;
                for (int i = 1; i <= length; ++i)
                    aliases.push_back(hop(i));
                EXPECT_EQ(names[0].chain_id, chain_id(answer_path(), aliases)) << "but kept, in order";
                const auto chain = recorded_chain(names[0].chain_id);
                ASSERT_TRUE(chain);
                ASSERT_EQ(chain->alias_count, aliases.size());
                EXPECT_GE(chain->expires_ns, names[0].expires_ns);
                for (std::size_t i = 0; i < aliases.size(); ++i) {
                    EXPECT_EQ(chain->alias_ids[i], name_id(answer_path(), aliases[i]));
                    const auto alias = recorded_name(aliases[i]);
                    ASSERT_TRUE(alias);
                    EXPECT_EQ(alias->text, "hop" + std::to_string(i + 1) + ".test");
                    EXPECT_GE(alias->expires_ns, names[0].expires_ns);
                }
            }
        }
    }
}

TEST_F(DnsAnswerTest, bad_alias_chains_make_the_answer_malformed) {
    for (const auto& family : families()) {
        auto message = answer_to();
        for (int i = 0; i <= TG_DNS_ALIASES_MAX; ++i)
            message.record(i == 0 ? kName : dns_name("h" + std::to_string(i)), kTypeCname, 300,
                           dns_name("h" + std::to_string(i + 1)));
        EXPECT_TRUE(malformed(family, message.bytes())) << "17 aliases";

        message = answer_to();
        message.record(kName, kTypeCname, 300, dns_name("b.test"));
        message.record(dns_name("b.test"), kTypeCname, 300, kName);
        EXPECT_TRUE(malformed(family, message.bytes())) << "a loop";

        message = answer_to();
        message.record(kName, kTypeCname, 300, kName);
        EXPECT_TRUE(malformed(family, message.bytes())) << "an alias of itself";

        message = answer_to();
        message.record(kName, kTypeCname, 300, dns_name("b.test"));
        message.record(kName, kTypeCname, 300, dns_name("c.test"));
        message.address(dns_name("c.test"), 300, "203.0.113.5");
        EXPECT_TRUE(malformed(family, message.bytes())) << "two aliases at one name";

        message = answer_to();
        message.record(kName, kTypeCname, 300, dns_name("b.test"));
        message.address(kName, 300, "203.0.113.5");
        EXPECT_TRUE(malformed(family, message.bytes())) << "an alias beside an address";

        Bytes target = dns_name("b.test");
        put8(target, 0);
        message = answer_to();
        message.record(kName, kTypeCname, 300, target);
        EXPECT_TRUE(malformed(family, message.bytes())) << "a byte behind the alias";
    }
}

// B02: records that have nothing to do with the question bind nothing.
TEST_F(DnsAnswerTest, B02_records_of_other_owners_and_sections_are_not_bound) {
    for (const auto& family : families()) {
        answer_path().reset();
        auto message = answer_to();
        message.address(dns_name("other.test"), 300, "203.0.113.66");
        message.record(dns_name("x.test"), kTypeCname, 300, kName);
        message.record(kName, kTypeA, 300, Bytes{203, 0, 113, 67}, 3); // class CHAOS
        message.address(dns_question_pointer(), 300, "203.0.113.5");
        message.record(kName, kTypeA, 300, Bytes{203, 0, 113, 68}, 1, 8);
        message.record(kName, kTypeA, 300, Bytes{203, 0, 113, 69}, 1, 10);
        EXPECT_TRUE(passed(ask_and_answer(family, message.bytes())));
        EXPECT_TRUE(is_bound("203.0.113.5", kName));
        EXPECT_EQ(answer_path().state().bindings, 1U);
        EXPECT_EQ(name_text(dns_name("other.test")), "(none)");
    }
}

TEST_F(DnsAnswerTest, an_answer_to_another_question_is_refused) {
    auto good = answer_to();
    good.address(dns_question_pointer(), 300, "203.0.113.5");
    for (const auto& family : families()) {
        const auto unasked = [&](const Bytes& packet) {
            answer_path().reset();
            ask(answer_path(), family, kName, kTypeA);
            const auto result =
                refused(answer_path().run("dns_answer_direct", packet), TG_DROP_DNS_ANSWER_UNASKED);
            if (result && (answer_path().state().bindings != 0 || answer_path().state().dns_pending != 1))
                return testing::AssertionFailure() << "it left a trace";
            return result;
        };
        Bytes other_id = good.bytes();
        other_id[0] ^= 1U;
        EXPECT_TRUE(unasked(answer_frame(family, other_id)));
        EXPECT_TRUE(unasked(answer_frame(family, answer_to(dns_name("allowee.test")).bytes())));
        EXPECT_TRUE(unasked(answer_frame(family, answer_to(dns_name("x.allowed.test")).bytes())));
        EXPECT_TRUE(unasked(answer_frame(family, answer_to(kName, kTypeAaaa).bytes())));
        EXPECT_TRUE(unasked(udp_frame(family.server, family.guest, 53, kDnsPort + 1, good.bytes())));
        EXPECT_TRUE(unasked(udp_frame(family.stranger, family.guest, 53, kDnsPort, good.bytes())));
        EXPECT_TRUE(unasked(udp_frame(family.server, family.stranger, 53, kDnsPort, good.bytes())));

        answer_path().reset();
        ask(answer_path(), family, kName, kTypeA, boot_now() - 1);
        EXPECT_TRUE(refused(answer(family, good.bytes()), TG_DROP_DNS_ANSWER_UNASKED)) << "too late";
    }
}

TEST_F(DnsAnswerTest, the_case_of_the_question_does_not_matter) {
    for (const auto& family : families()) {
        answer_path().reset();
        auto message = answer_to(dns_name("aLLoWeD.TeSt"));
        message.record(dns_name("ALLOWED.test"), kTypeCname, 300, dns_name("CDN.test"));
        message.address(dns_name("cdn.TEST"), 300, "203.0.113.5");
        EXPECT_TRUE(passed(ask_and_answer(family, message.bytes())));
        EXPECT_TRUE(is_bound("203.0.113.5", kName));
        EXPECT_EQ(name_text(kName), "allowed.test");
    }
}

TEST_F(DnsAnswerTest, errors_and_truncated_answers_are_delivered_and_bind_nothing) {
    for (const auto& family : families()) {
        for (const std::uint16_t flags : {0x8183, 0x8182, 0x8185, 0x8380}) {
            answer_path().reset();
            auto message = answer_to(kName, kTypeA, flags);
            message.address(dns_question_pointer(), 300, "203.0.113.5");
            EXPECT_TRUE(passed(ask_and_answer(family, message.bytes()))) << flags;
            EXPECT_EQ(answer_path().state().bindings, 0U);
            EXPECT_EQ(answer_path().state().dns_pending, 0U);
        }
        EXPECT_TRUE(passed(ask_and_answer(family, answer_to().bytes()))) << "no data";
        // A refusal may come without the question, a good answer may not.
        Bytes bare(12);
        set16(bare, 0, kDnsId);
        set16(bare, 2, 0x8184);
        EXPECT_TRUE(passed(ask_and_answer(family, bare)));
        set16(bare, 2, kAnswerFlags);
        EXPECT_TRUE(malformed(family, bare));
    }
}

TEST_F(DnsAnswerTest, B37_lifetimes_are_clamped) {
    struct Case {
        std::uint32_t ttl;
        std::uint64_t seconds;
    };

    for (const Case& c : {Case{0, 60}, Case{59, 60}, Case{61, 61}, Case{86400, 86400}, Case{86401, 86400},
                          Case{0x7fffffff, 86400}, Case{0x80000000, 60}, Case{0xffffffff, 60}}) {
        for (const auto& family : families()) {
            answer_path().reset();
            auto message = answer_to();
            message.address(dns_question_pointer(), c.ttl, "203.0.113.5");
            EXPECT_TRUE(passed(ask_and_answer(family, message.bytes())));
            EXPECT_EQ(lifetime_seconds("203.0.113.5"), c.seconds) << c.ttl;
        }
    }
}

TEST_F(DnsAnswerTest, a_binding_is_prolonged_and_never_shortened) {
    const Family& family = *families().begin();
    for (const std::uint32_t ttl : {300U, 100U, 500U}) {
        auto message = answer_to();
        message.address(dns_question_pointer(), ttl, "203.0.113.5");
        EXPECT_TRUE(passed(ask_and_answer(family, message.bytes())));
        EXPECT_EQ(lifetime_seconds("203.0.113.5"), std::max(ttl, 300U));
        EXPECT_EQ(answer_path().state().bindings, 1U);
    }
}

TEST_F(DnsAnswerTest, an_address_holds_32_names_and_then_expired_slots_are_used_again) {
    const Family& family = *families().begin();
    const auto bind_name = [&family](int i) {
        const Bytes name = dns_name("n" + std::to_string(i) + ".test");
        ask(answer_path(), family, name, kTypeA);
        return answer(family, answer_to(name).address(dns_question_pointer(), 300, "203.0.113.5").bytes());
    };
    for (int i = 0; i < TG_NAMES_PER_ADDRESS; ++i)
        EXPECT_TRUE(passed(bind_name(i))) << i;
    EXPECT_TRUE(refused(bind_name(99), TG_DROP_DNS_BINDING_FULL));
    EXPECT_TRUE(passed(bind_name(5))) << "one that it holds";
    EXPECT_EQ(answer_path().state().bindings, static_cast<unsigned>(TG_NAMES_PER_ADDRESS));

    tg_binding_key key{};
    key.guest_id = kGuestId;
    key.address = to_tg(*IpAddress::parse("203.0.113.5"));
    auto binding = answer_path().lookup<tg_binding>("bindings", key).value();
    for (auto& slot : binding.names) {
        if (slot.name_id == name_id(answer_path(), dns_name("n17.test")))
            slot.expires_ns = 1;
    }
    answer_path().store("bindings", key, binding);
    EXPECT_TRUE(passed(bind_name(99)));
    EXPECT_TRUE(is_bound("203.0.113.5", dns_name("n99.test")));
    EXPECT_FALSE(is_bound("203.0.113.5", dns_name("n17.test")));
    EXPECT_EQ(answer_path().state().bindings, static_cast<unsigned>(TG_NAMES_PER_ADDRESS));
}

TEST_F(DnsAnswerTest, the_cap_of_bindings_refuses_what_is_new_and_not_what_is_known) {
    const Family& family = *families().begin();
    auto guest = Programs::default_guest();
    guest.bindings_max = 2;
    answer_path().set_guest(guest);
    auto two = answer_to();
    two.address(kName, 300, "203.0.113.5").address(kName, 300, "203.0.113.6");
    EXPECT_TRUE(passed(ask_and_answer(family, two.bytes())));
    EXPECT_TRUE(passed(ask_and_answer(family, two.bytes()))) << "again";
    EXPECT_EQ(answer_path().state().bindings, 2U);
    auto three = answer_to();
    three.address(kName, 300, "203.0.113.7");
    EXPECT_TRUE(refused(ask_and_answer(family, three.bytes()), TG_DROP_DNS_BINDING_CAP));
    const Bytes other = dns_name("other.test");
    ask(answer_path(), family, other, kTypeA);
    EXPECT_TRUE(refused(answer(family, answer_to(other).address(other, 300, "203.0.113.5").bytes()),
                        TG_DROP_DNS_BINDING_CAP));
    EXPECT_EQ(name_text(other), "(none)") << "no name without a binding";
    EXPECT_EQ(answer_path().state().bindings, 2U);
}

TEST_F(DnsAnswerTest, B43_thirty_two_answers_are_bound_and_more_are_malformed) {
    for (const auto& family : families()) {
        answer_path().reset();
        auto message = answer_to();
        for (int i = 0; i < TG_DNS_ANSWERS_MAX; ++i)
            message.address(dns_question_pointer(), 300, "203.0.113." + std::to_string(i));
        EXPECT_TRUE(passed(ask_and_answer(family, message.bytes())));
        EXPECT_EQ(answer_path().state().bindings, static_cast<unsigned>(TG_DNS_ANSWERS_MAX));
        message.address(dns_question_pointer(), 300, "203.0.113.99");
        EXPECT_TRUE(malformed(family, message.bytes()));

        message = answer_to();
        for (int i = 0; i < TG_DNS_RECORDS_MAX; ++i)
            message.record(dns_name(""), kTypeTxt, 0, {}, 1, 10);
        EXPECT_TRUE(passed(ask_and_answer(family, message.bytes())));
        message.record(dns_name(""), kTypeTxt, 0, {}, 1, 10);
        EXPECT_TRUE(malformed(family, message.bytes())) << "65 records";
    }
}

TEST_F(DnsAnswerTest, damaged_messages_are_refused) {
    for (const auto& family : families()) {
        auto message = answer_to();
        message.record(dns_question_pointer(), kTypeCname, 300, dns_name("cdn.test"));
        message.address(dns_name("cdn.test"), 300, "203.0.113.5");
        message.record(dns_name(""), 41, 0, {}, 1232, 10);
        const Bytes good = message.bytes();
        ASSERT_TRUE(passed(ask_and_answer(family, good)));
        for (std::size_t size = 0; size < good.size(); ++size)
            EXPECT_TRUE(malformed(family, Bytes(good.begin(), good.begin() + static_cast<long>(size))))
                << size;
        Bytes changed = good;
        put8(changed, 0);
        EXPECT_TRUE(malformed(family, changed)) << "a byte behind the message";
        for (const std::size_t count_at : {6U, 8U, 10U}) {
            changed = good;
            set16(changed, count_at, get16(good, count_at) + 1U);
            EXPECT_TRUE(malformed(family, changed)) << count_at;
        }
        changed = good;
        set16(changed, 4, 2);
        EXPECT_TRUE(malformed(family, changed)) << "two questions";
        changed = good;
        changed[2] &= 0x7fU;
        EXPECT_TRUE(malformed(family, changed)) << "a query";

        for (const std::size_t size : {0U, 3U, 5U, 16U})
            EXPECT_TRUE(malformed(family, answer_to().record(kName, kTypeA, 300, Bytes(size)).bytes()))
                << size;
        for (const std::size_t size : {0U, 4U, 15U, 17U})
            EXPECT_TRUE(malformed(family, answer_to().record(kName, kTypeAaaa, 300, Bytes(size)).bytes()))
                << size;
        // Pointers: to themselves, forwards, into the header, behind the end; a reserved label type; a
        // pointer cut in two by the end of its CNAME.
        const auto here = static_cast<unsigned>(answer_to().bytes().size());
        for (const unsigned target : {here, here + 2, 0U, 11U, 0x3fffU})
            EXPECT_TRUE(
                malformed(family, answer_to().record(dns_pointer(target), kTypeA, 300, Bytes(4)).bytes()))
                << target;
        EXPECT_TRUE(malformed(family, answer_to().record(Bytes{0x80, 0}, kTypeA, 300, Bytes(4)).bytes()));
        EXPECT_TRUE(malformed(family, answer_to().record(kName, kTypeCname, 300, Bytes{0xc0}).bytes()));
        EXPECT_TRUE(malformed(family, answer_to().record(kName, kTypeCname, 300, {}).bytes()));
    }
}

// A dot inside a label must not read like one between labels.
TEST_F(DnsAnswerTest, name_ids_and_texts_are_those_of_userspace) {
    const Family& family = *families().begin();
    std::mt19937 random(11);
    std::vector<Bytes> all{dns_name(""),       dns_name("a"),
                           dns_name("A-_9.Z"), Bytes{4, 'a', '.', 'b', 0, 0},
                           Bytes{46, 'a'},     dns_name(std::string(63, 'Q'))};
    all[4].resize(47, 'x');
    put8(all[4], 0);
    for (int i = 0; i < 250; ++i) {
        Bytes name;
        const unsigned labels = 1 + random() % 6;
        for (unsigned label = 0; label < labels; ++label) {
            const unsigned size = 1 + random() % 20;
            put8(name, size);
            for (unsigned octet = 0; octet < size; ++octet)
                put8(name, random() % 8 == 0 ? random() % 256 : "aZ09-_mQ"[random() % 8]);
        }
        put8(name, 0);
        all.push_back(name);
    }
    std::string most;
    for (int i = 0; i < 127; ++i)
        most += i == 0 ? "K" : ".K";
    all.push_back(dns_name(most));
    for (const Bytes& name : all) {
        answer_path().reset();
        ask(answer_path(), family, name, kTypeA);
        const auto result =
            answer(family, answer_to(name).address(dns_question_pointer(), 300, "203.0.113.5").bytes());
        const auto built = answer_to(name);
        const auto read = proto::DnsNameReader(built.bytes()).read(12);
        ASSERT_TRUE(read);
        const auto expected = read->name.text();
        if (expected.size() > 253) {
            EXPECT_TRUE(refused(result, TG_DROP_DNS_ANSWER_MALFORMED));
            continue;
        }
        EXPECT_TRUE(passed(result)) << expected;
        EXPECT_TRUE(is_bound("203.0.113.5", name)) << expected;
        EXPECT_EQ(name_text(name), expected);
    }
}

TEST_F(DnsAnswerTest, a_name_keeps_the_ids_of_the_zones_around_it) {
    const Family& family = *families().begin();
    const auto key = answer_path().lookup<tg_hash_key>("hash_key", std::uint32_t{0}).value();
    std::string text = "Test";
    for (unsigned labels = 1; labels <= TG_NAME_SUFFIXES_MAX + 4; ++labels) {
        answer_path().reset();
        const Bytes name = dns_name(text);
        ask(answer_path(), family, name, kTypeA);
        EXPECT_TRUE(passed(
            answer(family, answer_to(name).address(dns_question_pointer(), 300, "203.0.113.5").bytes())));
        const auto recorded = recorded_name(name);
        ASSERT_TRUE(recorded) << text;
        std::string lower = text;
        std::ranges::transform(lower, lower.begin(),
                               [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
        const tg_name expected = datapath::name_entry(key, lower);
        EXPECT_EQ(recorded->suffix_count,
                  labels > 2 ? std::min<unsigned>(labels - 2, TG_NAME_SUFFIXES_MAX) : 0);
        ASSERT_EQ(recorded->suffix_count, expected.suffix_count) << text;
        EXPECT_TRUE(std::equal(expected.suffix_ids, expected.suffix_ids + expected.suffix_count,
                               recorded->suffix_ids))
            << text;
        text = "Www" + std::to_string(labels) + "." + text;
    }
}

TEST_F(DnsAnswerTest, a_name_is_kept_as_long_as_its_longest_binding) {
    const Family& family = *families().begin();
    for (const std::uint32_t ttl : {300U, 100U, 500U}) {
        auto message = answer_to();
        message.address(dns_question_pointer(), ttl, "203.0.113.5");
        message.address(dns_question_pointer(), 60, "203.0.113.6");
        EXPECT_TRUE(passed(ask_and_answer(family, message.bytes())));
        const auto recorded = recorded_name(kName);
        ASSERT_TRUE(recorded);
        EXPECT_GE(recorded->expires_ns, bound(*IpAddress::parse("203.0.113.5")).at(0).expires_ns);
        EXPECT_GE(recorded->expires_ns, bound(*IpAddress::parse("203.0.113.6")).at(0).expires_ns);
    }
}

TEST_F(DnsAnswerTest, hints_of_services_are_bound_like_addresses) {
    const Bytes root = dns_name("");
    const Bytes v4 = dns_param(kKeyIpv4Hint, dns_hints({"203.0.113.5", "203.0.113.6"}));
    const Bytes v6 = dns_param(kKeyIpv6Hint, dns_hints({"2001:db8:7::5", "2001:db8:7::6"}));
    for (const auto& family : families()) {
        for (const std::uint16_t type : {kTypeSvcb, kTypeHttps}) {
            auto message = answer_to(kName, type);
            message.record(dns_question_pointer(), type, 300,
                           dns_service(1, root, {dns_param(kKeyAlpn, Bytes{2, 'h', '2'}), v4, v6}));
            EXPECT_EQ(bound_by(family, message, type), "203.0.113.5 203.0.113.6 2001:db8:7::5 2001:db8:7::6");
            EXPECT_EQ(lifetime_seconds("2001:db8:7::6"), 300U);
        }
        // The target is where the service is, the hints are of the owner all the same.
        auto message = answer_to(kName, kTypeHttps);
        message.record(dns_name("cdn.test"), kTypeHttps, 300, dns_service(1, dns_name("edge.test"), {v6}));
        message.record(dns_question_pointer(), kTypeCname, 100, dns_name("cdn.test"));
        message.record(dns_name("cdn.test"), kTypeHttps, 300, dns_service(2, root, {}));
        message.address(dns_name("cdn.test"), 300, "203.0.113.7");
        EXPECT_EQ(bound_by(family, message), "203.0.113.7 2001:db8:7::5 2001:db8:7::6");
        EXPECT_EQ(lifetime_seconds("2001:db8:7::6"), 100U);
        EXPECT_EQ(bound(*IpAddress::parse("2001:db8:7::6"))[0].chain_id,
                  chain_id(answer_path(), {dns_name("cdn.test")}));

        message = answer_to(kName, kTypeHttps);
        message.record(dns_question_pointer(), kTypeHttps, 300, dns_service(0, dns_name("x.test"), {v4, v6}));
        EXPECT_EQ(bound_by(family, message), "") << "the alias form has no parameters (RFC 9460 2.4.2)";

        message = answer_to(kName, kTypeHttps);
        message.record(dns_name("other.test"), kTypeHttps, 300, dns_service(1, root, {v4}));
        message.record(dns_question_pointer(), kTypeHttps, 300, dns_service(1, root, {v4}), 3);
        message.record(dns_question_pointer(), kTypeHttps, 300, dns_service(1, root, {v6}), 1, 10);
        EXPECT_EQ(bound_by(family, message), "") << "another owner, class, section";

        message = answer_to(kName, kTypeHttps);
        message.record(dns_question_pointer(), kTypeHttps, 300,
                       dns_service(1, root,
                                   {dns_param(kKeyIpv6Hint, Bytes{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff,
                                                                  203, 0, 113, 5})}));
        EXPECT_EQ(bound_by(family, message), "203.0.113.5") << "a mapped address is the IPv4 address";
    }
}

TEST_F(DnsAnswerTest, damaged_services_make_the_answer_malformed) {
    const Bytes root = dns_name("");
    const Bytes v4 = dns_param(kKeyIpv4Hint, dns_hints({"203.0.113.5"}));
    const Bytes v6 = dns_param(kKeyIpv6Hint, dns_hints({"2001:db8:7::5"}));
    const auto with = [](const Bytes& rdata, std::uint16_t type = kTypeHttps) {
        return answer_to(kName, kTypeHttps).record(dns_question_pointer(), type, 300, rdata).bytes();
    };
    for (const auto& family : families()) {
        const auto bad = [&](const Bytes& message) {
            answer_path().reset();
            return refused(ask_and_answer(family, message, kTypeHttps), TG_DROP_DNS_ANSWER_MALFORMED);
        };
        const Bytes good = dns_service(1, dns_name("edge.test"), {v4, v6});
        EXPECT_FALSE(bad(with(good)));
        // Cut at every octet: only where the parameters end it is whole.
        const std::size_t head = 2 + dns_name("edge.test").size();
        for (std::size_t size = 0; size < good.size(); ++size) {
            const bool whole = size == head || size == head + v4.size();
            EXPECT_EQ(!bad(with(Bytes(good.begin(), good.begin() + static_cast<long>(size)))), whole) << size;
        }
        EXPECT_TRUE(bad(with(dns_service(1, root, {v6, v4})))) << "keys out of order";
        EXPECT_TRUE(bad(with(dns_service(1, root, {v4, v4})))) << "a key twice";
        EXPECT_TRUE(bad(with(dns_service(1, root, {v4, v4}), kTypeSvcb)));
        for (const std::size_t size : {0U, 1U, 3U, 5U, 7U})
            EXPECT_TRUE(bad(with(dns_service(1, root, {dns_param(kKeyIpv4Hint, Bytes(size))})))) << size;
        for (const std::size_t size : {0U, 4U, 15U, 17U, 31U})
            EXPECT_TRUE(bad(with(dns_service(1, root, {dns_param(kKeyIpv6Hint, Bytes(size))})))) << size;
        EXPECT_TRUE(bad(with(dns_service(0, root, {dns_param(kKeyIpv4Hint, Bytes(3))})))) << "alias form";
        EXPECT_TRUE(bad(with(dns_service(1, dns_question_pointer(), {v4})))) << "a compressed target";
        Bytes longer = dns_param(kKeyAlpn, Bytes(3));
        set16(longer, 2, 4);
        EXPECT_TRUE(bad(with(dns_service(1, root, {longer})))) << "a parameter that ends outside";
        set16(longer, 2, 0xffff);
        EXPECT_TRUE(bad(with(dns_service(1, root, {longer}))));
        // Whoever owns it, like a broken address.
        EXPECT_TRUE(bad(answer_to(kName, kTypeHttps)
                            .record(dns_name("other.test"), kTypeHttps, 300, dns_service(1, root, {v4, v4}))
                            .bytes()));
        Bytes many = dns_service(1, root, {});
        for (unsigned key = 100; key < 100 + TG_DNS_SERVICE_PARAMS_MAX; ++key)
            append(many, dns_param(key, {}));
        EXPECT_FALSE(bad(with(many)));
        append(many, dns_param(1000, {}));
        EXPECT_TRUE(bad(with(many))) << "33 parameters";

        auto beside = answer_to(kName, kTypeHttps);
        beside.record(dns_question_pointer(), kTypeCname, 300, dns_name("cdn.test"));
        beside.record(dns_question_pointer(), kTypeHttps, 300, dns_service(1, root, {}));
        EXPECT_TRUE(bad(beside.bytes())) << "an alias beside a service";
    }
}

TEST_F(DnsAnswerTest, B43_sixty_four_addresses_are_bound_and_more_are_malformed) {
    const auto hints = [](unsigned count) {
        Bytes addresses;
        for (unsigned i = 0; i < count; ++i)
            append(addresses, Bytes{198, 18, 0, static_cast<std::uint8_t>(i)});
        return dns_service(1, dns_name(""), {dns_param(kKeyIpv4Hint, addresses)});
    };
    for (const auto& family : families()) {
        for (const unsigned count : {TG_DNS_ADDRESSES_MAX - 1U, TG_DNS_ADDRESSES_MAX + 0U}) {
            answer_path().reset();
            auto message = answer_to(kName, kTypeHttps);
            message.record(dns_question_pointer(), kTypeHttps, 300, hints(TG_DNS_ADDRESSES_MAX - 1));
            if (count == TG_DNS_ADDRESSES_MAX)
                message.address(kName, 300, "203.0.113.5");
            EXPECT_TRUE(passed(ask_and_answer(family, message.bytes(), kTypeHttps)));
            EXPECT_EQ(answer_path().state().bindings, count);
            if (count == TG_DNS_ADDRESSES_MAX) {
                message.address(kName, 300, "203.0.113.6");
                answer_path().reset();
                EXPECT_TRUE(refused(ask_and_answer(family, message.bytes(), kTypeHttps),
                                    TG_DROP_DNS_ANSWER_MALFORMED));
                EXPECT_EQ(answer_path().state().bindings, 0U);
            }
        }
    }
}

// The aliases belong to the name at this address: another address of the name has its own.
TEST_F(DnsAnswerTest, each_chain_to_an_address_is_a_binding_of_its_own) {
    const Family& family = *families().begin();
    const auto through = [&](std::string_view alias, std::string_view address, std::uint32_t ttl) {
        auto message = answer_to();
        message.record(kName, kTypeCname, ttl, dns_name(alias));
        message.address(dns_name(alias), ttl, address);
        return passed(ask_and_answer(family, message.bytes()));
    };
    EXPECT_TRUE(through("good.test", "203.0.113.5", 100));
    EXPECT_TRUE(through("evil.test", "203.0.113.66", 100));
    EXPECT_TRUE(through("good.test", "203.0.113.5", 300));
    EXPECT_TRUE(through("evil.test", "203.0.113.5", 200));
    const std::uint64_t good = chain_id(answer_path(), {dns_name("good.test")});
    const std::uint64_t evil = chain_id(answer_path(), {dns_name("evil.test")});
    auto names = bound(*IpAddress::parse("203.0.113.5"));
    std::ranges::sort(names, {}, &tg_bound_name::expires_ns);
    ASSERT_EQ(names.size(), 2U);
    EXPECT_EQ(names[0].chain_id, evil);
    EXPECT_EQ(names[1].chain_id, good);
    EXPECT_EQ(names[0].name_id, names[1].name_id);
    EXPECT_EQ((names[1].expires_ns - boot_now() + kSecond / 2) / kSecond, 300U);
    names = bound(*IpAddress::parse("203.0.113.66"));
    ASSERT_EQ(names.size(), 1U);
    EXPECT_EQ(names[0].chain_id, evil);
    EXPECT_EQ(answer_path().state().bindings, 3U);
    EXPECT_EQ(answer_path().state().names, 3U);
    EXPECT_EQ(answer_path().state().chains, 2U);
}

TEST_F(DnsAnswerTest, B34_names_and_chains_have_caps_that_follow_from_that_of_bindings) {
    const Family& family = *families().begin();
    const auto chain_of = [&](int number, int length) {
        auto message = answer_to();
        const auto hop = [&](int i) {
            return i == 0 ? kName : dns_name("h" + std::to_string(number) + "-" + std::to_string(i));
        };
        for (int i = 0; i < length; ++i)
            message.record(hop(i), kTypeCname, 300, hop(i + 1));
        message.address(hop(length), 300, "203.0.113." + std::to_string(number));
        return ask_and_answer(family, message.bytes());
    };
    auto guest = Programs::default_guest();
    guest.bindings_max = 9;
    answer_path().set_guest(guest);
    EXPECT_TRUE(passed(chain_of(1, 16)));
    EXPECT_TRUE(passed(chain_of(2, 1)));
    EXPECT_TRUE(refused(chain_of(3, 1), TG_DROP_DNS_BINDING_CAP)) << "the nineteenth name";
    EXPECT_EQ(answer_path().state().names, 9U * TG_NAMES_PER_BINDING);
    EXPECT_EQ(answer_path().state().bindings, 2U);
    auto state = answer_path().state();
    state.names = 0;
    state.chains = 9;
    answer_path().set_state(state);
    EXPECT_TRUE(refused(chain_of(4, 1), TG_DROP_DNS_BINDING_CAP)) << "the tenth chain";
    EXPECT_TRUE(passed(chain_of(2, 1))) << "what is known";
    EXPECT_EQ(answer_path().state().chains, 9U);
}

TEST_F(DnsAnswerTest, who_answered_and_when_is_kept_with_the_name) {
    const Family& family = *families().begin();
    const tg_address resolver = to_tg(*IpAddress::parse("2001:db8::53"));
    const auto before = boot_now();
    ask(answer_path(), family, kName, kTypeA);
    auto question = answer_path().lookup<tg_dns_question>("dns_pending", dns_key(family)).value();
    question.resolver = resolver;
    answer_path().store("dns_pending", dns_key(family), question);
    auto message = answer_to();
    message.record(kName, kTypeCname, 300, dns_name("cdn.test"));
    message.address(dns_name("cdn.test"), 300, "203.0.113.5");
    EXPECT_TRUE(passed(answer(family, message.bytes())));
    const auto name = recorded_name(kName).value();
    EXPECT_TRUE(std::ranges::equal(name.resolver.bytes, resolver.bytes));
    EXPECT_GE(name.told_ns, before);
    const auto alias = recorded_name(dns_name("cdn.test")).value();
    EXPECT_TRUE(std::ranges::equal(alias.resolver.bytes, tg_address{}.bytes)) << "it was not asked for";
    EXPECT_GE(bound(*IpAddress::parse("203.0.113.5")).at(0).told_ns, before);
}

// The resolver's trouble is no news of the name.
TEST_F(DnsAnswerTest, errors_and_empty_answers_remove_nothing) {
    for (const auto& family : families()) {
        answer_path().reset();
        EXPECT_TRUE(passed(ask_and_answer(family, answer_to().address(kName, 300, "203.0.113.5").bytes())));
        const auto before = bound(*IpAddress::parse("203.0.113.5")).at(0).expires_ns;
        for (const std::uint16_t flags : {0x8182, 0x8183, 0x8180})
            EXPECT_TRUE(passed(ask_and_answer(family, answer_to(kName, kTypeA, flags).bytes())));
        EXPECT_TRUE(passed(ask_and_answer(family, answer_to().address(kName, 300, "203.0.113.6").bytes())));
        EXPECT_EQ(bound(*IpAddress::parse("203.0.113.5")).at(0).expires_ns, before);
        EXPECT_TRUE(is_bound("203.0.113.6", kName)) << "the set is a union";
    }
}

// B42: no answer before its binding. An entry that another CPU is removing, or whose memory has become
// another entry, takes no writes: they would be lost, or be another guest's.
TEST_F(DnsAnswerTest, B42_an_answer_is_not_delivered_on_the_strength_of_an_entry_that_is_gone) {
    const tg_binding_key key{kGuestId, to_tg(*IpAddress::parse("203.0.113.5"))};
    for (const auto& family : families()) {
        const auto refuses = [&](const tg_binding& there) {
            answer_path().reset();
            answer_path().store("bindings", key, there);
            const auto result =
                refused(ask_and_answer(family, answer_to().address(kName, 300, "203.0.113.5").bytes()),
                        TG_DROP_DNS_BINDING_FULL);
            EXPECT_TRUE(bound(*IpAddress::parse("203.0.113.5")).empty()) << "nothing was written";
            EXPECT_EQ(answer_path().state().bindings, 0U);
            return result;
        };
        tg_binding dying{};
        dying.key = key;
        dying.dying = 1;
        EXPECT_TRUE(refuses(dying));
        tg_binding of_another{};
        of_another.key = {kGuestId + 1, key.address};
        EXPECT_TRUE(refuses(of_another));
        of_another.key = {kGuestId, to_tg(*IpAddress::parse("203.0.113.6"))};
        EXPECT_TRUE(refuses(of_another));
    }
}

// A mapped AAAA is the IPv4 address: no second spelling.
TEST_F(DnsAnswerTest, a_mapped_ipv6_address_binds_the_ipv4_address) {
    auto message = answer_to(kName, kTypeAaaa);
    message.record(kName, kTypeAaaa, 300, Bytes{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 203, 0, 113, 5});
    EXPECT_TRUE(passed(ask_and_answer(*families().begin(), message.bytes(), kTypeAaaa)));
    EXPECT_TRUE(is_bound("203.0.113.5", kName));
}

TEST_F(DnsAnswerTest, segmentation_offload_and_fragments_are_refused) {
    for (const auto& family : families()) {
        ask(answer_path(), family, kName, kTypeA);
        const Bytes packet = answer_frame(family, answer_to().bytes());
        EXPECT_TRUE(refused(answer_path().run_on("dns_answer_direct", packet, Programs::tap_ifindex(), 0, 16),
                            TG_DROP_UDP_HEADER));
    }
}

} // namespace

} // namespace tapgate::test
