// SPDX-License-Identifier: Apache-2.0
#include "card.hpp"
#include "splice_case.hpp"

#include <algorithm>

// Spliced segments from card to card: redirection, and what only a device's offloads show.
namespace tapgate::test {

namespace {

constexpr std::uint8_t kGsoTcpV4 = 1; // VIRTIO_NET_HDR_GSO_*
constexpr std::uint8_t kGsoTcpV6 = 4;

/// One direction of a spliced connection.
struct Way {
    bool from_guest;
    TcpFields sent;
    TcpFields received;
};

class SpliceLiveTest : public ProgRunTest {
  protected:
    static void SetUpTestSuite() {
        attach(Programs::tap_ifindex(), BPF_TC_INGRESS, "tap_ingress");
        attach(Programs::tap_ifindex(), BPF_TC_EGRESS, "tap_egress");
        attach(Programs::uplink_ifindex(), BPF_TC_INGRESS, "uplink_ingress");
    }

    static void TearDownTestSuite() {
        detach_all(Programs::tap_ifindex());
        detach_all(Programs::uplink_ifindex());
    }

    static std::array<Way, 2> ways(const Bytes& payload) {
        std::array<Way, 2> both{Way{true, {}, {}}, Way{false, {}, {}}};
        both[0].sent.sequence = 1000;
        both[0].sent.acknowledgement = 0xffffff00U + 77777U;
        both[0].sent.options = timestamps_option(5, 6);
        both[0].received.sequence = 1000 + 0xfff00000U;
        both[0].received.acknowledgement = 0xffffff00U;
        both[0].received.options = timestamps_option(100, 0);
        both[1].sent.sequence = 0xffffff00U;
        both[1].sent.acknowledgement = 1000 + 0xfff00000U;
        both[1].sent.options = timestamps_option(7, 100);
        both[1].received.sequence = 0xffffff00U + 77777U;
        both[1].received.acknowledgement = 1000;
        both[1].received.options = timestamps_option(200, 5);
        for (Way& way : both) {
            for (TcpFields* const fields : {&way.sent, &way.received}) {
                fields->flags = kAck | kPsh;
                fields->payload = payload;
            }
        }
        return both;
    }

    /// Sends by one card, and expects by the other what was to come out.
    void check(const SpliceCase& flow, const Way& way, const Bytes& frame, const VnetHeader& offload,
               const Mac& server_mac = kServerMac) const {
        const Card& from = way.from_guest ? guest_ : server_;
        const Card& to = way.from_guest ? server_ : guest_;
        Bytes expected =
            way.from_guest ? flow.on_uplink(way.received, true, 63) : flow.on_tap(way.received, false, 63);
        std::ranges::copy(way.from_guest ? server_mac : kGuestMac, expected.begin());
        std::ranges::copy(way.from_guest ? kUplinkMac : kTapMac, expected.begin() + 6);
        from.send(frame, offload);
        const std::uint16_t port = way.from_guest ? kServerPort : kGuestPort;
        const Bytes received = to.receive([port](const Bytes& candidate) {
            return is_transport(candidate, IPPROTO_TCP) && get16(transport_of(candidate), 2) == port;
        });
        EXPECT_EQ(received, expected) << flow.family.name << way.from_guest;
    }

    static SpliceCase stored(const Family& family) {
        SpliceCase flow(family);
        flow.splice.sides[TG_SPLICE_GUEST].ts_base = 100;
        flow.splice.sides[TG_SPLICE_SERVER].ts_base = 200;
        flow.store();
        return flow;
    }

    static Bytes frame_of(const SpliceCase& flow, const Way& way) {
        return way.from_guest ? flow.on_tap(way.sent, true) : flow.on_uplink(way.sent, false);
    }

    /// Leaves the checksum of a frame to the device: the field holds the sum of the pseudo-header.
    static VnetHeader leave_checksum(const SpliceCase& flow, const Way& way, Bytes& frame) {
        VnetHeader offload{};
        offload.flags = kNeedsChecksum;
        offload.csum_start = flow.family.guest.is_v4() ? 34 : 54;
        offload.csum_offset = 16;
        Bytes pseudo = address_bytes(way.from_guest ? flow.family.guest : flow.family.server);
        append(pseudo, address_bytes(way.from_guest ? flow.seen : flow.family.uplink));
        put32(pseudo, static_cast<std::uint32_t>(frame.size() - offload.csum_start));
        put32(pseudo, IPPROTO_TCP);
        set16(frame, offload.csum_start + 16U, static_cast<std::uint16_t>(~internet_checksum(pseudo)));
        return offload;
    }

    const Card guest_{kGuestName};
    const Card server_{kServerName};
};

TEST_F(SpliceLiveTest, segments_reach_the_other_end_whoever_fills_in_their_checksums) {
    for (const auto& family : families()) {
        const SpliceCase flow = stored(family);
        for (const Way& way : ways(Bytes(701, 'd'))) {
            Bytes frame = frame_of(flow, way);
            check(flow, way, frame, {});
            const VnetHeader offload = leave_checksum(flow, way, frame);
            check(flow, way, frame, offload);
        }
    }
}

TEST_F(SpliceLiveTest, a_segment_for_the_server_goes_to_the_router_of_its_flow) {
    for (const auto& family : families()) {
        for (const char* router : {"198.51.100.8", "2001:db8:7::8"}) {
            SpliceCase flow = stored(family);
            flow.splice.next_hop = to_tg(*IpAddress::parse(router));
            if (!family.server.is_v4() && IpAddress::parse(router)->is_v4())
                continue; // no IPv6 by an IPv4 router (RFC 5549 knows the other way only)
            flow.store();
            for (const Way& way : ways(Bytes(701, 'r')))
                check(flow, way, frame_of(flow, way), {}, kRouterMac);
        }
    }
}

TEST_F(SpliceLiveTest, a_segment_that_the_device_is_to_cut_stays_whole) {
    constexpr std::uint16_t kSegment = 1400;
    for (const auto& family : families()) {
        const SpliceCase flow = stored(family);
        for (const Way& way : ways(Bytes(std::size_t{30} * kSegment + 17, 'g'))) {
            Bytes frame = frame_of(flow, way);
            VnetHeader offload = leave_checksum(flow, way, frame);
            offload.gso_type = family.guest.is_v4() ? kGsoTcpV4 : kGsoTcpV6;
            offload.gso_size = kSegment;
            offload.hdr_len = static_cast<std::uint16_t>(frame.size() - way.sent.payload.size());
            check(flow, way, frame, offload);
        }
        EXPECT_EQ(flow.side(TG_SPLICE_GUEST).bytes, 30U * kSegment + 17);
    }
}

} // namespace

} // namespace tapgate::test
