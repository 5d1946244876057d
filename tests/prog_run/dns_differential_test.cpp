// SPDX-License-Identifier: Apache-2.0
#include "dns_case.hpp"
#include "proto/dns_answer.hpp"
#include "proto/dns_message.hpp"

#include <cstdlib>
#include <random>
#include <set>
#include <string_view>

namespace tapgate::test {

namespace {

/// TAPGATE_TEST_QUICK=1 is for machines under emulation.
int chosen_rounds() {
    const char* const wish = std::getenv("TAPGATE_TEST_QUICK");
    return wish != nullptr && std::string_view(wish) == "1" ? 10'000 : 100'000;
}

class Generator {
  public:
    explicit Generator(std::uint32_t seed) : random_(seed) {}

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
            if (below(3) == 0)
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
    bool unique = true; ///< no address stands twice, so the lifetime is clear
};

Expectation expect(const Bytes& bytes, const proto::DnsQuestion& question) {
    const auto parsed = proto::parse_dns_message(bytes);
    if (!parsed.message)
        return {};
    const auto& message = *parsed.message;
    if (!message.header.response || message.header.id != kDnsId)
        return {};
    if (message.questions.empty())
        return {message.header.rcode != 0, {}, true};
    if (!message.questions[0].name.same_as(question.name) || message.questions[0].type != question.type)
        return {};
    const auto derived = proto::derive_addresses(message);
    if (!derived.reason.empty())
        return {};
    std::size_t records = 0;
    for (const auto& record : message.records)
        records += record.section == proto::DnsSection::kAnswer &&
                   (record.type == kTypeA || record.type == kTypeAaaa);
    return {true, derived.addresses, records == derived.addresses.size()};
}

class DnsDifferentialTest : public ProgRunTest {};

TEST_F(DnsDifferentialTest, bpf_binds_what_userspace_derives) {
    const char* const seed_text = std::getenv("TAPGATE_SEED");
    const auto seed = seed_text != nullptr ? static_cast<std::uint32_t>(std::strtoul(seed_text, nullptr, 10))
                                           : std::random_device{}();
    SCOPED_TRACE("TAPGATE_SEED=" + std::to_string(seed));
    const int rounds = chosen_rounds();
    Generator generator(seed);
    const Bytes name = dns_name("allowed.test");
    const proto::DnsQuestion question{*proto::DnsName::from_text("allowed.test"), kTypeA, 1};
    const auto id = name_id(answer_path(), name);
    auto guest = Programs::default_guest();
    guest.bindings_max = 1'000'000;
    answer_path().set_guest(guest);
    int delivered = 0;
    int bound_any = 0;

    for (int round = 0; round < rounds && !HasFailure(); ++round) {
        Bytes bytes = generator.message();
        generator.damage(bytes);
        const auto expected = expect(bytes, question);
        const Family& family = families().begin()[round % 2];
        ask(answer_path(), family, name, kTypeA);
        const auto before = boot_now();
        const auto result = answer_path().action("dns_answer_direct", answer_frame(family, bytes));
        const auto after = boot_now();

        ASSERT_EQ(result == kPass, expected.delivered)
            << "round " << round << ": " << testing::PrintToString(bytes);
        std::set<IpAddress> distinct;
        for (const auto& address : expected.addresses)
            distinct.insert(address.address);
        const auto state = answer_path().state();
        ASSERT_EQ(state.bindings, distinct.size())
            << "round " << round << ": " << testing::PrintToString(bytes);
        for (const auto& address : expected.addresses) {
            const auto names = bound(address.address);
            ASSERT_EQ(names.size(), 1U);
            EXPECT_EQ(names[0].name_id, id);
            const auto lifetime = std::clamp<std::uint64_t>(address.ttl_seconds, 60, 86400) * kSecond;
            EXPECT_GE(names[0].expires_ns, before + lifetime);
            if (expected.unique) {
                EXPECT_LE(names[0].expires_ns, after + lifetime);
            }
            tg_binding_key key{};
            key.guest_id = kGuestId;
            key.address = to_tg(address.address);
            answer_path().erase_raw("bindings", &key);
        }
        delivered += expected.delivered;
        bound_any += !expected.addresses.empty();
        const auto key = dns_key(family);
        answer_path().erase_raw("dns_pending", &key);
        answer_path().set_state({});
    }
    // The damage leaves enough of both kinds to compare.
    EXPECT_GT(delivered, rounds / 5);
    EXPECT_LT(delivered, rounds * 9 / 10);
    EXPECT_GT(bound_any, rounds / 20);
}

} // namespace

} // namespace tapgate::test
