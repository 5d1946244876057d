// SPDX-License-Identifier: Apache-2.0
#include "program_fixture.hpp"

namespace tapgate::test {

namespace {

const IpAddress kUnspecified4 = *IpAddress::parse("0.0.0.0");
const IpAddress kUnspecified6 = *IpAddress::parse("::");

IpAddress solicited_node(const IpAddress& target) {
    auto bytes = IpAddress::parse("ff02::1:ff00:0")->bytes();
    std::copy(target.bytes().begin() + 13, target.bytes().end(), bytes.begin() + 13);
    return IpAddress(bytes);
}

ArpFields arp_request() {
    ArpFields arp;
    arp.sender = kGuest4;
    arp.target = kGateway4;
    return arp;
}

NdFields solicitation() {
    NdFields nd;
    nd.source = kGuest6;
    nd.target = kGateway6;
    nd.destination = solicited_node(kGateway6);
    nd.options = nd_mac_option(1, kGuestMac);
    return nd;
}

NdFields advertisement() {
    NdFields nd;
    nd.source = kGuest6;
    nd.type = 136;
    nd.target = kGuest6;
    nd.destination = *IpAddress::parse("fe80::1");
    nd.options = nd_mac_option(2, kGuestMac);
    return nd;
}

class NeighbourTest : public ProgRunTest {
  protected:
    template <typename Fields>
    static Bytes build(const Fields& fields) {
        if constexpr (std::is_same_v<Fields, ArpFields>)
            return arp_frame(fields);
        else
            return nd_frame(fields);
    }

    template <typename Fields, typename Change>
    static RunResult changed(Fields fields, Change change) {
        change(fields);
        return ingress(build(fields));
    }
};

TEST_F(NeighbourTest, arp_for_the_gateway_and_the_own_address_passes) {
    EXPECT_TRUE(passed(ingress(arp_frame(arp_request()))));
    EXPECT_TRUE(passed(changed(arp_request(), [](auto& arp) { arp.target = kGuest4; }))) << "announcement";
    EXPECT_TRUE(passed(changed(arp_request(), [](auto& arp) {
        arp.sender = kUnspecified4;
        arp.target = kGuest4;
    }))) << "probe";
    EXPECT_TRUE(passed(changed(arp_request(), [](auto& arp) { arp.operation = 2; }))) << "reply";
}

TEST_F(NeighbourTest, B27_other_arp_is_refused) {
    const auto bad = [](auto change) { return changed(arp_request(), change); };
    const auto stranger = *IpAddress::parse("192.0.2.77");
    EXPECT_TRUE(refused(bad([&](auto& arp) { arp.sender = stranger; }), TG_DROP_ARP));
    EXPECT_TRUE(refused(bad([&](auto& arp) { arp.sender = kGateway4; }), TG_DROP_ARP));
    EXPECT_TRUE(refused(bad([&](auto& arp) { arp.target = stranger; }), TG_DROP_ARP));
    EXPECT_TRUE(refused(bad([&](auto& arp) { arp.sender = kUnspecified4; }), TG_DROP_ARP))
        << "probe of the gateway";
    EXPECT_TRUE(refused(bad([&](auto& arp) {
                            arp.operation = 2;
                            arp.sender = kGateway4;
                        }),
                        TG_DROP_ARP))
        << "reply for the gateway";
    EXPECT_TRUE(refused(bad([](auto& arp) { arp.operation = 3; }), TG_DROP_ARP)) << "RARP";
    EXPECT_TRUE(refused(bad([](auto& arp) { arp.sender_mac = kOtherMac; }), TG_DROP_ARP));
    EXPECT_TRUE(refused(bad([](auto& arp) { arp.frame_source = kOtherMac; }), TG_DROP_SOURCE_MAC));
    EXPECT_TRUE(refused(bad([](auto& arp) { arp.hardware_type = 6; }), TG_DROP_ARP));
    EXPECT_TRUE(refused(bad([](auto& arp) { arp.protocol_type = kEtherIpv6; }), TG_DROP_ARP));
    EXPECT_TRUE(refused(bad([](auto& arp) { arp.hardware_length = 8; }), TG_DROP_ARP));
    EXPECT_TRUE(refused(bad([](auto& arp) { arp.protocol_length = 16; }), TG_DROP_ARP));
}

TEST_F(NeighbourTest, nd_for_the_gateway_and_the_own_addresses_passes) {
    EXPECT_TRUE(passed(ingress(nd_frame(solicitation()))));
    EXPECT_TRUE(passed(changed(solicitation(), [](auto& nd) { nd.destination = kGateway6; }))) << "unicast";
    EXPECT_TRUE(passed(changed(solicitation(), [](auto& nd) { nd.source = kGuestLinkLocal; })));
    EXPECT_TRUE(passed(changed(solicitation(), [](auto& nd) { nd.options.clear(); })));
    for (const auto& own : {kGuest6, kGuestLinkLocal}) {
        EXPECT_TRUE(passed(changed(solicitation(), [&](auto& nd) {
            nd.source = kUnspecified6;
            nd.target = own;
            nd.destination = solicited_node(own);
            nd.options = Bytes{14, 1, 1, 2, 3, 4, 5, 6}; // nonce, RFC 7527
        }))) << "duplicate address detection";
    }
    EXPECT_TRUE(passed(ingress(nd_frame(advertisement()))));
    EXPECT_TRUE(passed(changed(advertisement(), [](auto& nd) {
        nd.source = kGuestLinkLocal;
        nd.target = kGuestLinkLocal;
        nd.destination = *IpAddress::parse("ff02::1");
    })));
    EXPECT_TRUE(passed(changed(advertisement(), [](auto& nd) { nd.destination = kGateway6; })));
}

TEST_F(NeighbourTest, B27_other_nd_is_refused) {
    const auto bad_ns = [](auto change) { return changed(solicitation(), change); };
    const auto bad_na = [](auto change) { return changed(advertisement(), change); };
    const auto stranger = *IpAddress::parse("2001:db8::77");
    EXPECT_TRUE(refused(bad_ns([&](auto& nd) { nd.source = stranger; }), TG_DROP_ND));
    EXPECT_TRUE(refused(bad_ns([&](auto& nd) { nd.source = *IpAddress::parse("fe80::77"); }), TG_DROP_ND));
    EXPECT_TRUE(refused(bad_ns([&](auto& nd) {
                            nd.target = stranger;
                            nd.destination = solicited_node(stranger);
                        }),
                        TG_DROP_ND));
    EXPECT_TRUE(refused(bad_ns([](auto& nd) { nd.source = kUnspecified6; }), TG_DROP_ND))
        << "DAD of the gateway";
    EXPECT_TRUE(refused(bad_ns([](auto& nd) { nd.destination = kServer6; }), TG_DROP_ND))
        << "would be forwarded";
    EXPECT_TRUE(refused(bad_ns([](auto& nd) { nd.hop_limit = 254; }), TG_DROP_ND));
    EXPECT_TRUE(refused(bad_ns([](auto& nd) { nd.code = 1; }), TG_DROP_ND));
    EXPECT_TRUE(refused(bad_ns([](auto& nd) { nd.options = nd_mac_option(1, kOtherMac); }), TG_DROP_ND));
    EXPECT_TRUE(refused(bad_ns([](auto& nd) { nd.options = Bytes{1, 0, 0, 0, 0, 0, 0, 0}; }), TG_DROP_ND));
    EXPECT_TRUE(refused(bad_ns([](auto& nd) { nd.options = Bytes{1, 2, 0, 0, 0, 0, 0, 0}; }), TG_DROP_ND));
    EXPECT_TRUE(refused(bad_ns([](auto& nd) { nd.options.resize(7); }), TG_DROP_ND));
    EXPECT_TRUE(refused(bad_na([](auto& nd) { nd.target = kGateway6; }), TG_DROP_ND)) << "gateway stolen";
    EXPECT_TRUE(refused(bad_na([&](auto& nd) { nd.target = stranger; }), TG_DROP_ND));
    EXPECT_TRUE(refused(bad_na([](auto& nd) { nd.source = kUnspecified6; }), TG_DROP_ND));
    EXPECT_TRUE(refused(bad_na([](auto& nd) { nd.destination = kServer6; }), TG_DROP_ND))
        << "would be forwarded";
    EXPECT_TRUE(refused(bad_na([](auto& nd) { nd.options = nd_mac_option(2, kOtherMac); }), TG_DROP_ND));
    for (const unsigned type : {130U, 131U, 132U, 133U, 134U, 137U, 143U})
        EXPECT_TRUE(refused(bad_ns([type](auto& nd) { nd.type = type; }), TG_DROP_ND)) << type;
}

TEST_F(NeighbourTest, nothing_passes_cut_short) {
    for (const Bytes& whole :
         {arp_frame(arp_request()), nd_frame(solicitation()), nd_frame(advertisement())}) {
        ASSERT_TRUE(passed(ingress(whole)));
        // The kernel runs no packet that is shorter than its IP header; live_test sends those.
        for (std::size_t size = whole[12] == 0x86 ? 54 : 15; size < whole.size(); ++size)
            EXPECT_EQ(ingress(Bytes(whole.begin(), whole.begin() + static_cast<long>(size))).action, kShot)
                << size;
    }
}

TEST_F(NeighbourTest, B27_the_mac_is_learned_from_the_first_packet_with_an_own_address) {
    auto guest = Programs::default_guest();
    std::ranges::fill(guest.mac, 0);
    const auto forget = [&guest] {
        product().set_state({});
        product().set_guest(guest);
    };
    const std::uint64_t learned = 0x020000000002; // kGuestMac, which reads the same from both ends

    forget();
    EXPECT_TRUE(passed(changed(arp_request(), [](auto& arp) {
        arp.sender = kUnspecified4;
        arp.target = kGuest4;
    })));
    EXPECT_EQ(product().state().mac, 0U) << "a probe has no sender";
    EXPECT_TRUE(passed(ingress(arp_frame(arp_request()))));
    EXPECT_EQ(product().state().mac, learned);
    EXPECT_TRUE(refused(changed(arp_request(),
                                [](auto& arp) {
                                    arp.sender_mac = kOtherMac;
                                    arp.frame_source = kOtherMac;
                                }),
                        TG_DROP_SOURCE_MAC));

    forget();
    EXPECT_TRUE(passed(ingress(nd_frame(solicitation()))));
    EXPECT_EQ(product().state().mac, learned);

    forget();
    EXPECT_TRUE(passed(changed(solicitation(), [](auto& nd) { nd.source = kGuestLinkLocal; })));
    EXPECT_EQ(product().state().mac, 0U) << "not one of the guest's configured addresses";

    forget();
    EXPECT_TRUE(
        refused(ingress(tcp_frame(*IpAddress::parse("192.0.2.77"), kServer4, {})), TG_DROP_SOURCE_ADDRESS));
    EXPECT_EQ(product().state().mac, 0U);
    EXPECT_TRUE(refused(ingress(tcp_frame(kGuest4, kServer4, {})), TG_DROP_NO_LISTENER));
    EXPECT_EQ(product().state().mac, learned);
}

TEST_F(NeighbourTest, a_group_or_zero_source_mac_is_refused) {
    auto guest = Programs::default_guest();
    std::ranges::fill(guest.mac, 0);
    product().set_guest(guest);
    for (const Mac& mac : {kBroadcastMac, Mac{0x03, 0, 0, 0, 0, 1}, Mac{}}) {
        EXPECT_TRUE(refused(changed(arp_request(),
                                    [&mac](auto& arp) {
                                        arp.sender_mac = mac;
                                        arp.frame_source = mac;
                                    }),
                            TG_DROP_SOURCE_MAC));
    }
    EXPECT_EQ(product().state().mac, 0U);
}

TEST_F(NeighbourTest, B27_arp_and_nd_of_the_host_reach_the_guest_and_router_advertisements_do_not) {
    ArpFields arp = arp_request();
    arp.sender = kGateway4;
    arp.target = kGuest4;
    EXPECT_TRUE(passed(egress(arp_frame(arp))));
    NdFields nd = solicitation();
    nd.source = kGateway6;
    nd.target = kGuest6;
    nd.destination = solicited_node(kGuest6);
    EXPECT_TRUE(passed(egress(nd_frame(nd))));
    nd.type = 136;
    EXPECT_TRUE(passed(egress(nd_frame(nd))));
    nd.hop_limit = 64;
    EXPECT_TRUE(refused(egress(nd_frame(nd)), TG_DROP_EGRESS_NOT_OURS));
    nd.hop_limit = 255;
    for (const unsigned type : {128U, 129U, 130U, 133U, 134U, 137U, 143U, 1U, 2U}) {
        nd.type = type;
        EXPECT_TRUE(refused(egress(nd_frame(nd)), TG_DROP_EGRESS_NOT_OURS)) << type;
    }
    // Forwarded from elsewhere.
    nd.type = 136;
    EXPECT_TRUE(refused(product().run_on("tap_egress", nd_frame(nd), Programs::tap_ifindex(), 1),
                        TG_DROP_EGRESS_NOT_OURS));
    EXPECT_TRUE(refused(product().run_on("tap_egress", arp_frame(arp), Programs::tap_ifindex(), 1),
                        TG_DROP_EGRESS_NOT_OURS));
}

} // namespace

} // namespace tapgate::test
