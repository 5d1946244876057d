// SPDX-License-Identifier: Apache-2.0
#include "dns_refusal_case.hpp"
#include "policy/parse.hpp"

#include <array>
#include <cstdlib>
#include <map>
#include <random>
#include <string_view>

namespace tapgate::test {

namespace {

constexpr std::string_view kQueryRules = R"(
rules = [
  "deny@exact.allowed.test", "allow@*.allowed.test:tcp:443", "deny@any:tcp:53", "allow:ingress@c.test",
  "allow@b.c.d.e.f.g.test", "deny@*.d.e.f.g.test", "allow@*.g.test",
]
[deny]
text = "ask platform@example.com"
)";

class QueryGenerator {
  public:
    explicit QueryGenerator(std::uint32_t seed) : random_(seed) {}

    std::uint32_t below(std::uint32_t bound) { return random_() % bound; }

    /// A query of the kinds that stubs send, now and then with what does not belong there.
    Bytes message() {
        std::uint16_t flags = 0x0100;
        if (below(12) == 0)
            flags = static_cast<std::uint16_t>(1U << below(16));
        static constexpr std::array<std::uint16_t, 8> kTypes = {1, 28, 65, 16, 257, 255, 10, 41};
        DnsBuilder builder(kDnsId, flags, name(), kTypes.at(below(3) == 0 ? below(8) : below(5)),
                           below(20) == 0 ? 3 : 1);
        if (below(2) == 0)
            builder.record(below(12) == 0 ? owner() : Bytes{0}, below(20) == 0 ? kTypeTxt : std::uint16_t{41},
                           below(12) == 0 ? random_() : below(2) << 15U, options(), 1232,
                           below(20) == 0 ? 8 : 10);
        return builder.bytes();
    }

    /// Changes, inserts or removes a few bytes; mostly none.
    void damage(Bytes& bytes) {
        for (auto left = below(2) == 0 ? 0 : below(3); left > 0 && bytes.size() > 4; --left) {
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
                bytes.resize(static_cast<std::size_t>(at));
                break;
            case 3:
                bytes[static_cast<std::size_t>(at)] ^= 0x20U;
                break;
            default:
                bytes[static_cast<std::size_t>(at)] = value;
            }
        }
    }

  private:
    Bytes name() {
        static constexpr std::array<std::string_view, 16> kNames = {
            "www.allowed.test",
            "exact.allowed.test",
            "allowed.test",
            "notallowed.test",
            "x.exact.allowed.test",
            "c.test",
            "b.c.d.e.f.g.test",
            "a.b.c.d.e.f.g.test",
            "d.e.f.g.test",
            "e.f.g.test",
            "0x1f.g.test",
            "a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q.r.s.t.u.v.w.x.y.z.allowed.test",
            "g.0x1f",
            "1.2.3.4",
            "",
            "test"};
        Bytes wire = dns_name(kNames.at(below(below(4) == 0 ? 16 : 12)));
        for (std::uint8_t& octet : wire)
            if (octet >= 'a' && octet <= 'z' && below(4) == 0)
                octet ^= 0x20U;
        if (below(16) == 0)
            wire.at(below(static_cast<std::uint32_t>(wire.size()))) = static_cast<std::uint8_t>(random_());
        return wire;
    }

    Bytes owner() {
        switch (below(3)) {
        case 0:
            return dns_name("other.test");
        case 1:
            return dns_pointer(12 + below(24));
        default:
            return dns_pointer(below(64));
        }
    }

    Bytes options() {
        Bytes all;
        for (auto left = below(3); left > 0; --left) {
            const auto size = below(12);
            put16(all, 10 + below(3));
            put16(all, below(16) == 0 ? below(20) : size);
            all.resize(all.size() + size);
        }
        return all;
    }

    std::mt19937 random_;
};

class DnsQueryDifferentialTest : public ProgRunTest {};

TEST_F(DnsQueryDifferentialTest, bpf_answers_what_userspace_would_answer_octet_by_octet) {
    const char* const seed_text = std::getenv("TAPGATE_SEED");
    const auto seed = seed_text != nullptr ? static_cast<std::uint32_t>(std::strtoul(seed_text, nullptr, 10))
                                           : std::random_device{}();
    SCOPED_TRACE("TAPGATE_SEED=" + std::to_string(seed));
    const auto parsed = policy::parse(kQueryRules, "policy");
    ASSERT_TRUE(parsed) << parsed.error().message();
    const auto compiled = policy::CompiledPolicy::compile(*parsed);
    ASSERT_TRUE(compiled) << compiled.error().message();
    product().set_policy(kQueryRules);
    const int rounds = is_quick() ? 10'000 : 150'000;
    QueryGenerator generator(seed);
    std::map<tg_drop_reason, int> seen;
    for (int round = 0; round < rounds && !HasFailure(); ++round) {
        Bytes bytes = generator.message();
        generator.damage(bytes);
        const Family& family = families().begin()[round % 2];
        const QueryOutcome expected = expected_outcome(**compiled, bytes);
        const RunResult result = product().act("tap_ingress", query_frame(family, bytes));
        ASSERT_EQ(result.action, expected.answer ? kRedirect : kShot)
            << "round " << round << ", reason " << expected.reason << ": " << testing::PrintToString(bytes);
        if (expected.answer) {
            ASSERT_EQ(result.packet, refusal_frame(family, *expected.answer))
                << "round " << round << ", reason " << expected.reason << ": "
                << testing::PrintToString(bytes);
        }
        ++seen[expected.reason];
        // Reading the counters takes longer than all the rest.
        if (round % 64 == 0) {
            ASSERT_TRUE(refused(product().run("tap_ingress", query_frame(family, bytes)),
                                expected.reason == TG_DROP_NONE ? TG_DROP_NO_LISTENER : expected.reason))
                << "round " << round << ": " << testing::PrintToString(bytes);
        }
    }
    // Of every kind there is enough to compare.
    for (const tg_drop_reason reason : {TG_DROP_NONE, TG_DROP_DNS_NOT_A_QUERY, TG_DROP_DNS_QUERY_MALFORMED,
                                        TG_DROP_DNS_OPCODE, TG_DROP_DNS_CLASS, TG_DROP_DNS_TYPE,
                                        TG_DROP_DNS_EDNS_VERSION, TG_DROP_DNS_NAME, TG_DROP_DNS_POLICY})
        EXPECT_GT(seen[reason], rounds / 200) << reason;
}

} // namespace

} // namespace tapgate::test
