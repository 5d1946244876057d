// SPDX-License-Identifier: Apache-2.0
#include "dns_case.hpp"
#include "sockets.hpp"
#include "splice_case.hpp"

#include <bpf/bpf.h>

#include <cstring>
#include <functional>
#include <set>

#include <net/if.h>

namespace tapgate::test {

namespace {

/// One packet for one reason, in one family.
struct DropCase {
    tg_drop_reason reason;
    std::function<RunResult(const Family&)> run;
};

RunResult tap(const Bytes& packet) {
    return product().run("tap_ingress", packet);
}

Bytes syn(const Family& family) {
    return tcp_frame(family.guest, family.server, {});
}

Bytes query_of(const Family& family, const Bytes& name, std::uint16_t type, std::uint16_t klass = 1,
               std::uint16_t flags = 0x0100) {
    const DnsBuilder message(kDnsId, flags, name, type, klass);
    return udp_frame(family.guest, family.server, kDnsPort, 53, message.bytes());
}

Bytes query(const Family& family) {
    return query_of(family, dns_name("allowed.test"), kTypeA);
}

UniqueFd tcp_listener(const Family& family) {
    return family.guest.is_v4()
               ? open_listener(product(), TG_LISTENER_TCP4, {*IpAddress::parse("192.0.0.8"), 0})
               : open_listener(product(), TG_LISTENER_TCP6, {*IpAddress::parse("100::8"), 0});
}

UniqueFd dns_listener(const Family& family) {
    return family.guest.is_v4()
               ? open_listener(product(), TG_LISTENER_DNS4, {*IpAddress::parse("192.0.0.8"), 53})
               : open_listener(product(), TG_LISTENER_DNS6, {*IpAddress::parse("100::8"), 53});
}

/// Fills a table with entries of nobody.
template <typename Key, typename Value>
void fill_table(const char* map, std::uint32_t size) {
    std::vector<Key> keys(size);
    const std::vector<Value> values(size);
    for (std::uint32_t i = 0; i < size; ++i)
        std::memcpy(&keys[i], &i, sizeof i);
    ASSERT_EQ(bpf_map_update_batch(product().map_fd(map), keys.data(), values.data(), &size, nullptr), 0);
}

RunResult answer_to(const Family& family, const Bytes& asked, const Bytes& message) {
    ask(answer_path(), family, asked, kTypeA);
    return answer(family, message);
}

Bytes plain_answer() {
    return DnsBuilder(kDnsId, kAnswerFlags, dns_name("allowed.test"), kTypeA)
        .address(dns_question_pointer(), 300, "203.0.113.5")
        .bytes();
}

/// Of the guest of a SpliceCase.
TcpFields guest_ack(std::uint32_t sequence) {
    TcpFields fields;
    fields.sequence = sequence;
    fields.acknowledgement = 0xffffff00U + 77777U;
    fields.flags = kAck;
    return fields;
}

Bytes with_mac(Bytes packet, const Mac& source) {
    std::ranges::copy(source, packet.begin() + 6);
    return packet;
}

const std::vector<DropCase>& cases() {
    static const std::vector<DropCase> all{
        {TG_DROP_UNKNOWN_GUEST,
         [](const Family& f) {
             return product().run_on("tap_ingress", syn(f), ::if_nametoindex(kStrangerName));
         }},
        {TG_DROP_TRUNCATED,
         [](const Family& f) {
             Bytes packet = syn(f);
             packet.pop_back();
             return tap(packet);
         }},
        {TG_DROP_VLAN,
         [](const Family& f) {
             Bytes packet = syn(f);
             const Bytes tag{0x81, 0x00, 0x00, 0x05};
             packet.insert(packet.begin() + 12, tag.begin(), tag.end());
             return tap(packet);
         }},
        {TG_DROP_ETHERTYPE, [](const Family&) { return tap(ethernet(0x88cc, Bytes(50))); }},
        {TG_DROP_SOURCE_MAC, [](const Family& f) { return tap(with_mac(syn(f), kOtherMac)); }},
        {TG_DROP_SOURCE_ADDRESS, [](const Family& f) { return tap(tcp_frame(f.stranger, f.server, {})); }},
        {TG_DROP_ARP,
         [](const Family&) {
             ArpFields arp;
             arp.sender = kGuest4;
             arp.target = *IpAddress::parse("192.0.2.77");
             return tap(arp_frame(arp));
         }},
        {TG_DROP_ND,
         [](const Family&) {
             NdFields nd;
             nd.source = kGuestLinkLocal;
             nd.destination = *IpAddress::parse("ff02::2");
             nd.type = 134;
             return tap(nd_frame(nd));
         }},
        {TG_DROP_IP_HEADER,
         [](const Family& f) {
             Bytes packet = syn(f);
             packet[14] = static_cast<std::uint8_t>(0x50U | (packet[14] & 0x0fU));
             return tap(packet);
         }},
        {TG_DROP_IP_OPTIONS,
         [](const Family&) {
             Ipv4Fields fields;
             fields.options = Bytes{1, 1, 1, 1};
             return tap(ethernet(kEtherIpv4, ipv4(kGuest4, kServer4, IPPROTO_TCP,
                                                  tcp_segment(kGuest4, kServer4, {}), fields)));
         }},
        {TG_DROP_FRAGMENT,
         [](const Family& f) {
             if (!f.guest.is_v4())
                 return tap(ip_frame(f.guest, f.server, IPPROTO_FRAGMENT, Bytes(64)));
             Ipv4Fields fields;
             fields.fragment = 0x2000;
             return tap(ethernet(kEtherIpv4, ipv4(f.guest, f.server, IPPROTO_UDP, Bytes(64), fields)));
         }},
        {TG_DROP_EXTENSION_HEADER,
         [](const Family&) { return tap(ip_frame(kGuest6, kServer6, IPPROTO_ROUTING, Bytes(64))); }},
        {TG_DROP_PROTOCOL,
         [](const Family& f) { return tap(ip_frame(f.guest, f.server, IPPROTO_SCTP, Bytes(64))); }},
        {TG_DROP_MULTICAST,
         [](const Family& f) {
             const auto group = *IpAddress::parse(f.guest.is_v4() ? "224.0.0.251" : "ff02::fb");
             return tap(udp_frame(f.guest, group, 5353, 5353, Bytes(12)));
         }},
        {TG_DROP_ICMP,
         [](const Family& f) {
             return tap(
                 ip_frame(f.guest, f.server,
                          f.guest.is_v4() ? std::uint8_t{IPPROTO_ICMP} : std::uint8_t{IPPROTO_ICMPV6},
                          Bytes{static_cast<std::uint8_t>(f.guest.is_v4() ? 8 : 128), 0, 0, 0, 0, 0, 0, 0}));
         }},
        {TG_DROP_TCP_HEADER,
         [](const Family& f) {
             TcpFields fields;
             fields.flags = kSyn | kFin;
             return tap(tcp_frame(f.guest, f.server, fields));
         }},
        {TG_DROP_TCP_NO_FLOW,
         [](const Family& f) {
             TcpFields fields;
             fields.flags = kAck;
             return tap(tcp_frame(f.guest, f.server, fields));
         }},
        {TG_DROP_TCP_INGRESS,
         [](const Family& f) {
             TcpFields fields;
             fields.flags = kSyn | kAck;
             return tap(tcp_frame(f.guest, f.server, fields));
         }},
        {TG_DROP_UDP_HEADER,
         [](const Family& f) {
             Bytes datagram = udp_datagram(f.guest, f.server, 1, 53, Bytes(20));
             set16(datagram, 4, 27);
             return tap(ip_frame(f.guest, f.server, IPPROTO_UDP, datagram));
         }},
        {TG_DROP_UDP,
         [](const Family& f) { return tap(udp_frame(f.guest, f.server, 5000, 443, Bytes(20))); }},
        {TG_DROP_NO_LISTENER, [](const Family& f) { return tap(syn(f)); }},
        {TG_DROP_STEER_FAILED,
         [](const Family& f) {
             // bpf_sk_assign works on the real ingress path alone.
             const UniqueFd listener = tcp_listener(f);
             return tap(syn(f));
         }},
        {TG_DROP_HALF_OPEN_CAP,
         [](const Family& f) {
             auto guest = Programs::default_guest();
             guest.half_open_max = 0;
             product().set_guest(guest);
             return tap(syn(f));
         }},
        {TG_DROP_SESSION_CAP,
         [](const Family& f) {
             auto guest = Programs::default_guest();
             guest.sessions_max = 2;
             product().set_guest(guest);
             auto state = product().state();
             state.sessions = 2;
             product().set_state(state);
             return tap(syn(f));
         }},
        {TG_DROP_PENDING_FULL,
         [](const Family& f) {
             fill_table<tg_flow, tg_pending>("pending", TG_PENDING_MAX);
             return tap(syn(f));
         }},
        {TG_DROP_DNS_TRANSPORT,
         [](const Family& f) { return tap(udp_frame(f.guest, f.server, 5000, 853, Bytes(20))); }},
        {TG_DROP_DNS_QUERY_MALFORMED,
         [](const Family& f) { return tap(udp_frame(f.guest, f.server, 5000, 53, Bytes(20))); }},
        {TG_DROP_DNS_PENDING_CAP,
         [](const Family& f) {
             auto guest = Programs::default_guest();
             guest.dns_pending_max = 0;
             product().set_guest(guest);
             const UniqueFd listener = dns_listener(f);
             return tap(query(f));
         }},
        {TG_DROP_DNS_PENDING_FULL,
         [](const Family& f) {
             fill_table<tg_dns_key, tg_dns_question>("dns_pending", TG_DNS_PENDING_MAX);
             const UniqueFd listener = dns_listener(f);
             return tap(query(f));
         }},
        {TG_DROP_DNS_NOT_A_QUERY,
         [](const Family& f) { return tap(udp_frame(f.guest, f.server, kDnsPort, 53, Bytes(11))); }},
        {TG_DROP_DNS_OPCODE,
         [](const Family& f) { return tap(query_of(f, dns_name("a.test"), kTypeA, 1, 0x2000)); }},
        {TG_DROP_DNS_EDNS_VERSION,
         [](const Family& f) {
             DnsBuilder message(kDnsId, 0x0100, dns_name("a.test"), kTypeA);
             message.record({0}, 41, 0x00010000, {}, 1232, 10);
             return tap(udp_frame(f.guest, f.server, kDnsPort, 53, message.bytes()));
         }},
        {TG_DROP_DNS_CLASS,
         [](const Family& f) { return tap(query_of(f, dns_name("a.test"), kTypeTxt, 3)); }},
        {TG_DROP_DNS_TYPE, [](const Family& f) { return tap(query_of(f, dns_name("a.test"), 255)); }},
        {TG_DROP_DNS_NAME, [](const Family& f) { return tap(query_of(f, dns_name(""), kTypeA)); }},
        {TG_DROP_DNS_POLICY,
         [](const Family& f) {
             product().set_policy("");
             return tap(query(f));
         }},
        {TG_DROP_DNS_RATE,
         [](const Family& f) {
             auto guest = Programs::default_guest();
             guest.dns_queries_per_second = 0;
             product().set_guest(guest);
             return tap(query(f));
         }},
        {TG_DROP_DNS_ANSWER_UNASKED, [](const Family& f) { return answer(f, plain_answer()); }},
        {TG_DROP_DNS_ANSWER_MALFORMED,
         [](const Family& f) {
             Bytes message = plain_answer();
             put8(message, 0);
             return answer_to(f, dns_name("allowed.test"), message);
         }},
        {TG_DROP_DNS_BINDING_CAP,
         [](const Family& f) {
             auto guest = Programs::default_guest();
             guest.bindings_max = 0;
             answer_path().set_guest(guest);
             return answer_to(f, dns_name("allowed.test"), plain_answer());
         }},
        {TG_DROP_DNS_BINDING_FULL,
         [](const Family& f) {
             tg_binding_key key{};
             key.guest_id = kGuestId;
             key.address = to_tg(*IpAddress::parse("203.0.113.5"));
             tg_binding binding{};
             binding.key = key;
             for (auto& slot : binding.names)
                 slot = {0x1234, 0, ~0ULL, 0};
             answer_path().store("bindings", key, binding);
             return answer_to(f, dns_name("allowed.test"), plain_answer());
         }},
        {TG_DROP_EGRESS_NOT_OURS,
         [](const Family& f) {
             return product().run("tap_egress", udp_frame(f.server, f.guest, 53, 5000, Bytes(20)));
         }},
        {TG_DROP_SPLICE_HELD,
         [](const Family& f) {
             SpliceCase flow(f);
             flow.splice.state = TG_SPLICE_HELD;
             flow.store();
             return flow.from_guest(guest_ack(1000));
         }},
        {TG_DROP_SPLICE_REPLAY,
         [](const Family& f) {
             const SpliceCase flow(f);
             flow.store();
             TcpFields old = guest_ack(999);
             old.payload = Bytes(1);
             return flow.from_guest(old);
         }},
        {TG_DROP_SPLICE_SEGMENT,
         [](const Family& f) {
             const SpliceCase flow(f);
             flow.store();
             return flow.from_guest(guest_ack(0x80000000));
         }},
        {TG_DROP_SPLICE_FORWARD,
         [](const Family& f) {
             const SpliceCase flow(f);
             flow.store();
             return tap(flow.on_tap(guest_ack(1000), true, 1));
         }},
        {TG_DROP_EGRESS_SPLICED,
         [](const Family& f) {
             const SpliceCase flow(f);
             flow.store();
             return product().run("tap_egress", flow.on_tap(guest_ack(1), false));
         }},
        {TG_DROP_POLICY_FIRST_PACKET,
         [](const Family& f) {
             product().set_policy("");
             return tap(syn(f));
         }},
        {TG_DROP_REFUSED_ADDRESS,
         [](const Family& f) {
             return tap(tcp_frame(f.guest, *IpAddress::parse(f.guest.is_v4() ? "240.0.0.1" : "::"), {}));
         }},
        {TG_DROP_NO_POLICY,
         [](const Family& f) {
             product().drop_policy();
             return tap(syn(f));
         }},
    };
    return all;
}

/// Reasons that only the proxy gives.
bool is_userspace(int reason) {
    return reason >= 100 && reason != TG_DROP_SESSION_CAP && reason != TG_DROP_DNS_POLICY &&
           reason != TG_DROP_DNS_RATE;
}

class DropReasonTest : public ProgRunTest {};

TEST_F(DropReasonTest, every_reason_refuses_its_packet_and_is_counted_once) {
    for (const auto& drop : cases()) {
        for (const auto& family : families()) {
            product().reset();
            answer_path().reset();
            EXPECT_TRUE(refused(drop.run(family), drop.reason)) << drop.reason << " " << family.name;
        }
    }
}

TEST_F(DropReasonTest, every_reason_of_the_programs_has_a_case) {
    std::set<int> covered;
    for (const auto& drop : cases())
        covered.insert(drop.reason);
#define X(number, name, word, text) EXPECT_TRUE(is_userspace(number) || covered.contains(number)) << #name;
    TG_DROP_REASONS(X)
#undef X
}

TEST_F(DropReasonTest, a_refused_flow_leaves_nothing_behind) {
    for (const auto& family : families()) {
        const UniqueFd tcp = tcp_listener(family);
        const UniqueFd dns = dns_listener(family);
        EXPECT_TRUE(refused(ingress(syn(family)), TG_DROP_STEER_FAILED));
        EXPECT_TRUE(refused(ingress(query(family)), TG_DROP_STEER_FAILED));
        EXPECT_EQ(product().state().half_open, 0U);
        EXPECT_EQ(product().state().dns_pending, 0U);
        std::array<std::uint8_t, 64> key{};
        EXPECT_NE(bpf_map_get_next_key(product().map_fd("pending"), nullptr, key.data()), 0);
        EXPECT_NE(bpf_map_get_next_key(product().map_fd("dns_pending"), nullptr, key.data()), 0);
    }
}

TEST_F(DropReasonTest, a_guest_at_its_cap_can_still_refresh_what_it_has) {
    auto guest = Programs::default_guest();
    guest.half_open_max = 1;
    guest.dns_pending_max = 1;
    product().set_guest(guest);
    for (const auto& family : families()) {
        const UniqueFd tcp = tcp_listener(family);
        const UniqueFd dns = dns_listener(family);
        auto state = product().state();
        state.half_open = 1;
        state.dns_pending = 1;
        product().set_state(state);

        tg_flow flow{};
        flow.guest_address = to_tg(family.guest);
        flow.peer_address = to_tg(family.server);
        flow.guest_port = htons(40000);
        flow.peer_port = htons(443);
        flow.protocol = IPPROTO_TCP;
        product().store("pending", flow, tg_pending{kGuestId, 1, kGuestSlot, Programs::tap_ifindex(), {}});
        product().store("dns_pending", dns_key(family), tg_dns_question{});
        EXPECT_TRUE(refused(ingress(syn(family)), TG_DROP_STEER_FAILED)) << family.name;
        EXPECT_TRUE(refused(ingress(query(family)), TG_DROP_STEER_FAILED)) << family.name;
        const auto question = product().lookup<tg_dns_question>("dns_pending", dns_key(family));
        ASSERT_TRUE(question);
        EXPECT_EQ(question->name_id, name_id(product(), dns_name("allowed.test")));
        EXPECT_EQ(question->type, kTypeA);
        product().reset();
        product().set_guest(guest);
    }
}

TEST_F(DropReasonTest, drop_events_are_limited_by_guest_and_the_rest_only_counted) {
    for (int i = 0; i < 2 * TG_EVENTS_PER_SECOND; ++i)
        ingress(ethernet(0x88cc, Bytes(50)));
    // Both numbers speak of the same second unless one just ended.
    EXPECT_GE(product().state().event_count, 1U);
    EXPECT_EQ(product().state().event_second, boot_now() / kSecond);
}

TEST_F(DropReasonTest, what_the_host_says_to_groups_is_counted_without_an_event) {
    constexpr Mac kGroup = {0x33, 0x33, 0, 0, 0, 0x16};
    const Bytes to_group = ethernet(0x88cc, Bytes(50), kHostMac, kGroup);
    EXPECT_TRUE(refused(egress(to_group), TG_DROP_EGRESS_NOT_OURS));
    EXPECT_EQ(product().state().event_count, 0U);
    // From elsewhere, or to the guest alone.
    EXPECT_TRUE(refused(product().run_on("tap_egress", to_group, Programs::tap_ifindex(), 1),
                        TG_DROP_EGRESS_NOT_OURS));
    EXPECT_EQ(product().state().event_count, 1U);
    product().set_state({});
    EXPECT_TRUE(refused(egress(ethernet(0x88cc, Bytes(50), kHostMac, kGuestMac)), TG_DROP_EGRESS_NOT_OURS));
    EXPECT_EQ(product().state().event_count, 1U);
}

} // namespace

} // namespace tapgate::test
