// SPDX-License-Identifier: Apache-2.0
#include "program_fixture.hpp"

#include <fmt/format.h>

#include <cstring>

#include <arpa/inet.h>
#include <linux/if_ether.h>

namespace tapgate::test {

namespace {

/// The policy's verdicts as the guest meets them; that they are the right ones is for policy_property_test.
class PolicyTest : public ProgRunTest {
  protected:
    struct Judged {
        RunResult run;
        tg_judgement judgement{};
    };

    static Judged judge(const IpAddress& destination, std::uint16_t port,
                        unsigned ifindex = Programs::tap_ifindex()) {
        tg_judging judging{};
        judging.peer_address = to_tg(destination);
        judging.ifindex = ifindex;
        judging.peer_port = htons(port);
        Bytes packet(ETH_HLEN + sizeof judging);
        std::memcpy(packet.data() + ETH_HLEN, &judging, sizeof judging);
        Judged judged{product().run("judge_flow", packet), {}};
        std::memcpy(&judging, judged.run.packet.data() + ETH_HLEN, sizeof judging);
        judged.judgement = judging.judgement;
        return judged;
    }

    static RunResult send_syn(const Family& family, const IpAddress& destination) {
        TcpFields fields;
        return ingress(tcp_frame(family.guest, destination, fields));
    }
};

TEST_F(PolicyTest, a_denied_port_looks_like_a_closed_one) {
    product().set_policy("rules = [\"deny@any\"]");
    for (const auto& family : families()) {
        const auto denied = send_syn(family, family.server);
        EXPECT_TRUE(refused(denied, TG_DROP_POLICY_FIRST_PACKET));
        ASSERT_EQ(denied.action, kRedirect);
        product().set_policy(kAllowAll);
        const auto closed = send_syn(family, family.server);
        EXPECT_TRUE(refused(closed, TG_DROP_NO_LISTENER));
        EXPECT_EQ(denied.packet, closed.packet);
        product().set_policy("rules = [\"deny@any\"]");
    }
}

TEST_F(PolicyTest, nothing_is_allowed_by_a_policy_that_is_not_there) {
    product().drop_policy();
    for (const auto& family : families()) {
        EXPECT_TRUE(refused(send_syn(family, family.server), TG_DROP_NO_POLICY));
        EXPECT_TRUE(refused(ingress(udp_frame(family.guest, family.server, 4000, 4000, Bytes(8))),
                            TG_DROP_NO_POLICY));
    }
    EXPECT_EQ(product().state().half_open, 0U);
}

TEST_F(PolicyTest, B14_an_empty_policy_allows_nothing) {
    product().set_policy("");
    for (const auto& family : families())
        EXPECT_TRUE(refused(send_syn(family, family.server), TG_DROP_POLICY_FIRST_PACKET));
}

TEST_F(PolicyTest, B30_one_policy_judges_both_families) {
    product().set_policy("rules = [\"allow@198.51.100.0/24:tcp:443\"]");
    EXPECT_TRUE(refused(send_syn(*families().begin(), kServer4), TG_DROP_NO_LISTENER));
    EXPECT_TRUE(refused(send_syn(*(families().begin() + 1), kServer6), TG_DROP_POLICY_FIRST_PACKET));
}

TEST_F(PolicyTest, B31_translated_addresses_are_judged_by_the_address_inside) {
    // 198.51.100.7 in NAT64 and 6to4 spelling.
    const IpAddress nat64 = *IpAddress::parse("64:ff9b::c633:6407");
    const IpAddress six_to_four = *IpAddress::parse("2002:c633:6407::1");
    const Family& v6 = *(families().begin() + 1);
    product().set_policy("rules = [\"deny@198.51.100.0/24\", \"allow@any\"]");
    for (const IpAddress& address : {nat64, six_to_four})
        EXPECT_TRUE(refused(send_syn(v6, address), TG_DROP_POLICY_FIRST_PACKET)) << address.to_string();
    product().set_policy("rules = [\"allow@198.51.100.0/24\"]");
    for (const IpAddress& address : {nat64, six_to_four})
        EXPECT_TRUE(refused(send_syn(v6, address), TG_DROP_POLICY_FIRST_PACKET)) << address.to_string();
    // 240.0.0.1, which nothing can allow.
    product().set_policy("rules = [\"allow@any\"]");
    EXPECT_TRUE(refused(send_syn(v6, *IpAddress::parse("64:ff9b::f000:1")), TG_DROP_REFUSED_ADDRESS));
}

TEST_F(PolicyTest, an_address_that_no_policy_can_allow_is_refused_before_the_rules) {
    const Family& v4 = *families().begin();
    product().set_policy("rules = [\"allow@any\"]");
    EXPECT_TRUE(refused(send_syn(v4, *IpAddress::parse("240.0.0.1")), TG_DROP_REFUSED_ADDRESS));
    EXPECT_TRUE(refused(send_syn(v4, *IpAddress::parse("0.0.0.0")), TG_DROP_REFUSED_ADDRESS));
}

TEST_F(PolicyTest, an_address_that_nothing_is_routed_to_is_refused_even_if_allowed_and_gets_no_answer) {
    const Family& v4 = *families().begin();
    for (const char* address : {"127.0.0.1", "0.0.0.1"}) {
        const auto result = send_syn(v4, *IpAddress::parse(address));
        EXPECT_TRUE(refused(result, TG_DROP_IP_HEADER)) << address;
        EXPECT_EQ(result.action, kShot);
    }
    EXPECT_TRUE(refused(send_syn(v4, *IpAddress::parse("224.0.0.1")), TG_DROP_MULTICAST));
    product().set_policy("");
    EXPECT_EQ(send_syn(v4, *IpAddress::parse("224.0.0.1")).action, kShot)
        << "no reset from a group's address";
}

TEST_F(PolicyTest, udp_and_icmp_are_judged_although_neither_is_forwarded) {
    product().set_policy("rules = [\"allow@any:udp:4000\"]");
    for (const auto& family : families()) {
        EXPECT_TRUE(
            refused(ingress(udp_frame(family.guest, family.server, 4000, 4000, Bytes(8))), TG_DROP_UDP));
        EXPECT_TRUE(refused(ingress(udp_frame(family.guest, family.server, 4000, 4001, Bytes(8))),
                            TG_DROP_POLICY_FIRST_PACKET));
    }
    EXPECT_TRUE(refused(ingress(ip_frame(kGuest4, kServer4, IPPROTO_ICMP, Bytes{8, 0, 0, 0, 0, 0, 0, 0})),
                        TG_DROP_POLICY_FIRST_PACKET));
}

TEST_F(PolicyTest, judge_flow_says_what_tap_ingress_does_and_does_nothing) {
    for (const char* policy : {"rules = [\"allow@www.example.com:tcp:443\"]", "rules = [\"deny@any\"]",
                               "rules = [\"deny@x.example\", \"allow@any:tcp:443,853\"]"}) {
        product().reset();
        product().set_policy(policy);
        for (const auto& family : families()) {
            product().bind("www.example.com", family.server, std::chrono::hours(1));
            for (const IpAddress& destination :
                 {family.server, family.stranger, *IpAddress::parse("127.0.0.1"), *IpAddress::parse("::1"),
                  *IpAddress::parse("224.0.0.1"), *IpAddress::parse("ff02::1"),
                  *IpAddress::parse("240.0.0.1")}) {
                if (destination.is_v4() != family.guest.is_v4())
                    continue;
                for (const std::uint16_t port : {443, 444, 853, 53}) {
                    const Judged judged = judge(destination, port);
                    EXPECT_EQ(product().state().half_open, 0U);
                    TcpFields fields;
                    fields.destination_port = port;
                    const auto met = ingress(tcp_frame(family.guest, destination, fields));
                    const auto reason =
                        judged.run.action == TG_DROP_NONE ? int{TG_DROP_NO_LISTENER} : judged.run.action;
                    EXPECT_TRUE(refused(met, static_cast<tg_drop_reason>(reason)))
                        << policy << ' ' << destination.to_string() << ' ' << port;
                    EXPECT_TRUE(judged.run.drops.empty());
                }
            }
        }
    }
}

TEST_F(PolicyTest, judge_flow_tells_the_judgement_and_knows_the_guest_and_its_cap) {
    const Family& family = *families().begin();
    product().set_policy("rules = [\"deny@192.0.2.0/24\", \"allow@any:tcp:443\"]");
    EXPECT_EQ(judge(family.server, 443).judgement.verdict, TG_VERDICT_ALLOW);
    EXPECT_EQ(judge(family.server, 443).judgement.group, 1);
    EXPECT_EQ(judge(family.server, 444).judgement.verdict, TG_VERDICT_DENY);
    EXPECT_EQ(judge(family.server, 53).judgement.verdict, TG_VERDICT_NONE);
    tg_guest_state full = product().state();
    full.half_open = Programs::default_guest().half_open_max;
    product().set_state(full);
    EXPECT_EQ(judge(family.server, 443).run.action, TG_DROP_HALF_OPEN_CAP);
    EXPECT_EQ(judge(family.server, 443, 0).run.action, TG_DROP_UNKNOWN_GUEST);
    EXPECT_EQ(product().run("judge_flow", Bytes(20)).action, TG_DROP_UNKNOWN_GUEST);
}

TEST_F(PolicyTest, a_name_counts_only_while_its_binding_lives) {
    product().set_policy("rules = [\"allow@*.example.com:tcp:443\"]");
    for (const auto& family : families()) {
        EXPECT_TRUE(refused(send_syn(family, family.server), TG_DROP_POLICY_FIRST_PACKET));
        product().bind("www.example.com", family.server, std::chrono::hours(1));
        EXPECT_TRUE(refused(send_syn(family, family.server), TG_DROP_NO_LISTENER));
        product().bind("www.example.com", family.server, std::chrono::seconds(-1));
        EXPECT_TRUE(refused(send_syn(family, family.server), TG_DROP_POLICY_FIRST_PACKET));
    }
}

TEST_F(PolicyTest, B13_suffixes_match_on_label_boundaries_alone) {
    product().set_policy("rules = [\"allow@*.example.com:tcp:443\"]");
    const Family& family = *families().begin();
    const auto is_deferred = [&](std::string_view name) {
        product().reset_bindings();
        product().bind(name, family.server, std::chrono::hours(1));
        return static_cast<bool>(refused(send_syn(family, family.server), TG_DROP_NO_LISTENER));
    };
    for (const char* name :
         {"example.com", "a.example.com", "a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q.r.example.com"})
        EXPECT_TRUE(is_deferred(name)) << name;
    for (const char* name : {"evilexample.com", "example.com.evil.org", "com", "example.org", "e.xample.com"})
        EXPECT_FALSE(is_deferred(name)) << name;
}

TEST_F(PolicyTest, a_name_is_judged_anew_under_each_generation) {
    const Family& family = *families().begin();
    product().bind("www.example.com", family.server, std::chrono::hours(1));
    for (int round = 0; round < 3; ++round) {
        product().set_policy("rules = [\"allow@www.example.com\"]");
        EXPECT_TRUE(refused(send_syn(family, family.server), TG_DROP_NO_LISTENER));
        product().set_policy("rules = [\"allow@other.example.com\"]");
        EXPECT_TRUE(refused(send_syn(family, family.server), TG_DROP_POLICY_FIRST_PACKET));
    }
}

TEST_F(PolicyTest, B38_another_guests_bindings_count_for_nothing) {
    product().set_policy("rules = [\"allow@www.example.com\"]");
    const Family& family = *families().begin();
    product().bind("www.example.com", family.server, std::chrono::hours(1));
    tg_guest next = Programs::default_guest();
    next.id = kGuestId + 1;
    product().set_guest(next);
    EXPECT_TRUE(refused(send_syn(family, family.server), TG_DROP_POLICY_FIRST_PACKET));
}

TEST_F(PolicyTest, a_policy_with_the_most_groups_is_judged_to_its_last_rule) {
    std::string rules;
    for (unsigned group = 0; group < TG_RULE_GROUPS_MAX - 1; ++group)
        rules += fmt::format("\"deny@192.0.2.77:tcp:{}\", ", group + 1);
    product().set_policy("rules = [" + rules + "\"allow@198.51.100.7:tcp:443\"]");
    const Family& family = *families().begin();
    EXPECT_TRUE(refused(send_syn(family, family.server), TG_DROP_NO_LISTENER));
    EXPECT_TRUE(refused(send_syn(family, family.stranger), TG_DROP_POLICY_FIRST_PACKET));
}

} // namespace

} // namespace tapgate::test
