// SPDX-License-Identifier: Apache-2.0
#include "dns_case.hpp"

namespace tapgate::test {

namespace {

class DnsQueryTest : public ProgRunTest {
  protected:
    static RunResult query(const Family& family, const Bytes& message) {
        return ingress(udp_frame(family.guest, family.server, kDnsPort, 53, message));
    }

    static Bytes message(const Bytes& name, std::uint16_t type = kTypeA) {
        return DnsBuilder(kDnsId, 0x0100, name, type).bytes();
    }
};

// What a query meets when nothing is wrong with it: no daemon runs.
constexpr tg_drop_reason kAccepted = TG_DROP_NO_LISTENER;

TEST_F(DnsQueryTest, any_type_class_and_opcode_goes_to_the_daemon) {
    for (const auto& family : families()) {
        const Bytes name = dns_name("allowed.test");
        for (const std::uint16_t type : {1, 28, 16, 65, 255, 65535})
            EXPECT_TRUE(refused(query(family, message(name, type)), kAccepted)) << type;
        EXPECT_TRUE(refused(query(family, DnsBuilder(1, 0x0100, name, kTypeTxt, 3).bytes()), kAccepted))
            << "CHAOS";
        EXPECT_TRUE(refused(query(family, DnsBuilder(1, 0x2000, name, kTypeA).bytes()), kAccepted))
            << "NOTIFY";
        EXPECT_TRUE(refused(query(family, message(dns_name(""))), kAccepted)) << "the root";
        DnsBuilder with_opt(1, 0x0100, name, kTypeA);
        with_opt.record(dns_name(""), 41, 0, {}, 1232, 10);
        EXPECT_TRUE(refused(query(family, with_opt.bytes()), kAccepted)) << "EDNS";
    }
}

TEST_F(DnsQueryTest, what_has_no_question_is_refused) {
    for (const auto& family : families()) {
        const auto bad = [&family](const Bytes& bytes) {
            return refused(query(family, bytes), TG_DROP_DNS_QUERY_MALFORMED);
        };
        const Bytes good = message(dns_name("allowed.test"));
        EXPECT_TRUE(bad({}));
        Bytes changed = good;
        changed[2] |= 0x80U;
        EXPECT_TRUE(bad(changed)) << "an answer";
        for (const unsigned count : {0U, 2U, 65535U}) {
            changed = good;
            set16(changed, 4, count);
            EXPECT_TRUE(bad(changed)) << count << " questions";
        }
        for (const unsigned length : {0x40U, 0x80U, 0xc0U, 0xffU}) {
            changed = good;
            changed[12] = static_cast<std::uint8_t>(length);
            EXPECT_TRUE(bad(changed)) << "label length " << length;
        }
        Bytes pointer = dns_pointer(12);
        EXPECT_TRUE(bad(message(pointer))) << "a pointer to itself";
        EXPECT_TRUE(bad(message(dns_pointer(0)))) << "a pointer into the header";
        for (std::size_t size = 0; size < good.size(); ++size)
            EXPECT_TRUE(bad(Bytes(good.begin(), good.begin() + static_cast<long>(size)))) << size;
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

TEST_F(DnsQueryTest, a_query_longer_than_an_answer_may_be_is_refused) {
    for (const auto& family : families()) {
        Bytes bytes = message(dns_name("allowed.test"));
        bytes.resize(TG_DNS_PAYLOAD_MAX);
        EXPECT_TRUE(refused(query(family, bytes), kAccepted));
        bytes.resize(TG_DNS_PAYLOAD_MAX + 1);
        EXPECT_TRUE(refused(query(family, bytes), TG_DROP_DNS_QUERY_MALFORMED));
    }
}

} // namespace

} // namespace tapgate::test
