// SPDX-License-Identifier: Apache-2.0
#include "dns_case.hpp"
#include "harness/ldns_addresses.hpp"
#include "proto/dns_answer.hpp"
#include "proto/dns_message.hpp"
#include "proto/dns_svcb.hpp"

#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <set>
#include <string_view>

namespace tapgate::test {

namespace {

class AnswerGenerator {
  public:
    explicit AnswerGenerator(std::uint32_t seed) : random_(seed) {}

    std::uint32_t below(std::uint32_t bound) { return random_() % bound; }

    /// An answer of the kinds that resolvers give, with records that do not belong there mixed in.
    Bytes message() {
        DnsBuilder builder(kDnsId, below(20) == 0 ? 0x8183 : kAnswerFlags, name(0), kTypeA);
        const auto links = below(5);
        const auto records = 1 + below(6);
        for (std::uint32_t i = 0; i < links; ++i)
            builder.record(name(i), kTypeCname, below(1000), name(i + 1));
        for (std::uint32_t i = 0; i < records; ++i) {
            const Bytes owner = below(4) == 0 ? name(below(6)) : name(links);
            if (below(4) == 0)
                builder.record(owner, below(2) == 0 ? kTypeHttps : kTypeSvcb, below(1000), service());
            else if (below(3) == 0)
                builder.record(owner, kTypeAaaa, below(1000), address_bytes(address(true)));
            else
                builder.record(owner, kTypeA, below(1000), address_bytes(address(false)));
        }
        if (below(3) == 0)
            builder.record(name(below(3)), kTypeNs, 300, name(below(6)), 1, 8);
        if (below(2) == 0)
            builder.record(dns_name(""), 41, 0, {}, 1232, 10);
        return builder.bytes();
    }

    /// Changes, inserts or removes a few bytes; now and then none.
    void damage(Bytes& bytes) {
        for (auto left = below(3); left > 0 && bytes.size() > 20; --left) {
            const auto at = static_cast<long>(below(static_cast<std::uint32_t>(bytes.size())));
            const auto value = static_cast<std::uint8_t>(
                below(3) == 0 ? random_()
                              : (std::array<std::uint8_t, 8>{0, 1, 3, 12, 0x40, 0x80, 0xc0, 0xff})[below(8)]);
            switch (below(8)) {
            case 0:
                bytes.insert(bytes.begin() + at, value);
                break;
            case 1:
                bytes.erase(bytes.begin() + at);
                break;
            case 2:
                bytes[static_cast<std::size_t>(at)] ^= 0x20U;
                break;
            default:
                bytes[static_cast<std::size_t>(at)] = value;
            }
        }
    }

  private:
    /// The i-th name of the chain, whole or as a pointer to the question.
    Bytes name(std::uint32_t i) {
        if (i == 0)
            return used_question_++ != 0 && below(2) == 0 ? dns_question_pointer() : dns_name("allowed.test");
        Bytes wire = dns_name("n" + std::to_string(i));
        if (below(2) == 0) {
            wire.pop_back();
            append(wire, dns_pointer(20)); // "test" of the question
        }
        return wire;
    }

    /// A service with hints as a rule, now and then with parameters out of order or one of a wrong length.
    Bytes service() {
        Bytes rdata =
            dns_service(below(5) == 0 ? 0 : 1, below(2) == 0 ? dns_name("") : dns_name("edge.test"), {});
        std::vector<Bytes> params;
        if (below(2) == 0)
            params.push_back(dns_param(kKeyAlpn, Bytes{2, 'h', '2'}));
        for (const bool v6 : {false, true}) {
            Bytes hints;
            for (auto count = below(4); count > 0; --count)
                append(hints, address_bytes(address(v6)));
            if (!hints.empty() && below(30) == 0)
                hints.pop_back();
            if (!hints.empty() || below(30) == 0)
                params.push_back(dns_param(v6 ? kKeyIpv6Hint : kKeyIpv4Hint, hints));
        }
        if (below(30) == 0)
            std::ranges::shuffle(params, random_);
        for (const Bytes& param : params)
            append(rdata, param);
        return rdata;
    }

    IpAddress address(bool v6) {
        return *IpAddress::parse((v6 ? "2001:db8:9::" : "203.0.113.") + std::to_string(below(200)));
    }

    std::mt19937 random_;
    int used_question_ = 0;
};

/// What userspace thinks of a message: to be delivered or not, and with which addresses.
struct Expectation {
    bool delivered = false;
    std::vector<proto::DnsAddress> addresses;
    std::vector<Bytes> aliases; ///< on the way to them
    bool unique = true;         ///< no address stands twice, so the lifetime is clear
};

/// Addresses in A, AAAA, SVCB and HTTPS records of the answer section, whoever owns them: as long as they are
/// as many as were derived, no address stands twice.
std::size_t address_records(const proto::DnsMessage& message) {
    std::size_t count = 0;
    for (const auto& record : message.records) {
        if (record.section != proto::DnsSection::kAnswer)
            continue;
        if (record.type == kTypeA || record.type == kTypeAaaa)
            ++count;
        else if (const auto hints = proto::is_svcb(record) ? proto::svcb_hints(record) : std::nullopt)
            count += hints->size();
    }
    return count;
}

Expectation expect(const Bytes& bytes, const proto::DnsQuestion& question) {
    const auto parsed = proto::parse_dns_message(bytes);
    if (!parsed.message)
        return {};
    const auto& message = *parsed.message;
    if (!message.header.response || message.header.id != kDnsId)
        return {};
    if (message.questions.empty())
        return {message.header.rcode != 0, {}, {}, true};
    if (!message.questions[0].name.same_as(question.name) || message.questions[0].type != question.type)
        return {};
    const auto derived = proto::derive_addresses(message);
    if (!derived.reason.empty())
        return {};
    Expectation expected{true, derived.addresses, {}, address_records(message) == derived.addresses.size()};
    for (const proto::DnsName& alias : derived.aliases)
        expected.aliases.emplace_back(alias.wire().begin(), alias.wire().end());
    return expected;
}

class DnsDifferentialTest : public ProgRunTest {
  protected:
    void SetUp() override {
        ProgRunTest::SetUp();
        auto guest = Programs::default_guest();
        guest.bindings_max = 100'000;
        answer_path().set_guest(guest);
    }

    /// Lets BPF have `bytes`, as an answer to `question`, and expects it to do what userspace thinks right.
    /// What it bound is forgotten again. Returns what was expected.
    static Expectation compare(const Family& family, const Bytes& bytes, const proto::DnsQuestion& question) {
        const Expectation expected = expect(bytes, question);
        const Bytes name(question.name.wire().begin(), question.name.wire().end());
        ask(answer_path(), family, name, question.type);
        const auto before = boot_now();
        const auto result = answer_path().action("dns_answer_direct", answer_frame(family, bytes));
        const auto after = boot_now();

        EXPECT_EQ(result == kPass, expected.delivered);
        EXPECT_EQ(answer_path().state().bindings, expected.addresses.size());
        expect_the_same_of_ldns(bytes, expected);
        for (const auto& address : expected.addresses) {
            const auto names = bound(address.address);
            EXPECT_EQ(names.size(), 1U);
            if (names.size() != 1)
                continue;
            EXPECT_EQ(names[0].name_id, name_id(answer_path(), name));
            EXPECT_EQ(names[0].chain_id, chain_id(answer_path(), expected.aliases));
            const auto lifetime = std::clamp<std::uint64_t>(address.ttl_seconds, 60, 86400) * kSecond;
            EXPECT_GE(names[0].expires_ns, before + lifetime);
            if (expected.unique) {
                EXPECT_LE(names[0].expires_ns, after + lifetime);
            }
            const tg_binding_key key{kGuestId, to_tg(address.address)};
            answer_path().erase_raw("bindings", &key);
        }
        const auto key = dns_key(family);
        answer_path().erase_raw("dns_pending", &key);
        answer_path().set_state({});
        return expected;
    }

    /// For all that is delivered, as far as ldns reads it: it looks into every RDATA and so refuses more.
    static void expect_the_same_of_ldns(const Bytes& bytes, const Expectation& expected) {
        if (!expected.delivered)
            return;
        const auto theirs = addresses_by_ldns(bytes);
        if (!theirs)
            return;
        std::set<IpAddress> ours;
        for (const auto& address : expected.addresses)
            ours.insert(address.address);
        EXPECT_EQ(ours, *theirs);
        ++read_by_ldns_;
    }

    static inline int read_by_ldns_ = 0;
};

TEST_F(DnsDifferentialTest, bpf_binds_what_userspace_derives) {
    const char* const seed_text = std::getenv("TAPGATE_SEED");
    const auto seed = seed_text != nullptr ? static_cast<std::uint32_t>(std::strtoul(seed_text, nullptr, 10))
                                           : std::random_device{}();
    SCOPED_TRACE("TAPGATE_SEED=" + std::to_string(seed));
    const int rounds = is_quick() ? 10'000 : 100'000;
    AnswerGenerator generator(seed);
    const proto::DnsQuestion question{*proto::DnsName::from_text("allowed.test"), kTypeA, 1};
    int delivered = 0;
    int bound_any = 0;
    read_by_ldns_ = 0;
    for (int round = 0; round < rounds; ++round) {
        Bytes bytes = generator.message();
        generator.damage(bytes);
        const Expectation expected = compare(families().begin()[round % 2], bytes, question);
        ASSERT_FALSE(HasFailure()) << "round " << round << ": "
                                   << fmt::format("{:02x}", fmt::join(bytes, ""));
        delivered += expected.delivered;
        bound_any += !expected.addresses.empty();
    }
    // The damage leaves enough of both kinds to compare.
    EXPECT_GT(delivered, rounds / 5);
    EXPECT_LT(delivered, rounds * 9 / 10);
    EXPECT_GT(bound_any, rounds / 20);
    EXPECT_GT(read_by_ldns_, delivered * 9 / 10);
}

// Answers of BIND 9 and unbound, and those that the fuzzer found worth keeping (tests/fuzz).
TEST_F(DnsDifferentialTest, bpf_and_userspace_agree_on_the_answers_of_real_servers) {
    int delivered = 0;
    int bound_any = 0;
    for (const auto& file : std::filesystem::directory_iterator(TAPGATE_ANSWER_CORPUS)) {
        std::ifstream in(file.path(), std::ios::binary);
        Bytes bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
        const auto parsed = proto::parse_dns_message(bytes);
        const bool has_question = parsed.message && parsed.message->questions.size() == 1;
        if (bytes.size() < 2)
            continue;
        set16(bytes, 0, kDnsId);
        const proto::DnsQuestion question =
            has_question ? parsed.message->questions[0]
                         : proto::DnsQuestion{*proto::DnsName::from_text("allowed.test"), kTypeA, 1};
        for (const auto& family : families()) {
            const Expectation expected = compare(family, bytes, question);
            EXPECT_FALSE(HasFailure()) << file.path();
            delivered += expected.delivered;
            bound_any += !expected.addresses.empty();
        }
    }
    EXPECT_GT(delivered, 100) << "is the corpus there?";
    EXPECT_GT(bound_any, 80);
}

} // namespace

} // namespace tapgate::test
