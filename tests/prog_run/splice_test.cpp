// SPDX-License-Identifier: Apache-2.0
#include "splice_case.hpp"

#include <bpf/libbpf.h>

#include <cstring>

namespace tapgate::test {

namespace {

constexpr std::uint32_t kWindowMax = 1U << 30U;

TcpFields segment(std::uint32_t sequence, std::uint32_t acknowledgement, std::uint8_t flags = kAck,
                  Bytes payload = {}) {
    TcpFields fields;
    fields.sequence = sequence;
    fields.acknowledgement = acknowledgement;
    fields.flags = flags;
    fields.payload = std::move(payload);
    return fields;
}

class SpliceTest : public ProgRunTest {
  protected:
    /// What the ends of a fresh splice say next: numbers of SpliceCase.
    static TcpFields guest_says(std::uint8_t flags = kAck, Bytes payload = {}) {
        return segment(1000, 0xffffff00U + 77777U, flags, std::move(payload));
    }

    static TcpFields server_says(std::uint8_t flags = kAck, Bytes payload = {}) {
        return segment(0xffffff00U, 1000U + 0xfff00000U, flags, std::move(payload));
    }

    static std::uint32_t change(const SpliceCase& flow, tg_change what, std::uint64_t id = kSpliceId,
                                tg_flow_change change = {}) {
        change.flow = flow.flow();
        change.id = id;
        change.change = what;
        Bytes packet(14 + sizeof change);
        std::memcpy(packet.data() + 14, &change, sizeof change);
        return static_cast<std::uint32_t>(product().action("change_flow", packet));
    }

    /// How often an end or half an end was told since the last call.
    static std::size_t events_of_changes() {
        std::size_t count = 0;
        ring_buffer* const ring = ring_buffer__new(
            product().map_fd("events"),
            [](void* context, void* data, std::size_t size) {
                tg_event event{};
                if (size >= sizeof event)
                    std::memcpy(&event, data, sizeof event);
                if (event.type == TG_EVENT_SPLICE)
                    ++*static_cast<std::size_t*>(context);
                return 0;
            },
            &count, nullptr);
        ring_buffer__consume(ring);
        ring_buffer__free(ring);
        return count;
    }
};

TEST_F(SpliceTest, segments_are_rewritten_for_the_other_end) {
    for (const auto& family : families()) {
        const SpliceCase flow(family);
        flow.store();
        const Bytes text{'h', 'e', 'l', 'l', 'o'};
        auto result = flow.from_guest(guest_says(kAck | kPsh, text));
        EXPECT_TRUE(forwarded(result)) << family.name;
        EXPECT_EQ(result.packet,
                  flow.on_uplink(segment(1000 + 0xfff00000U, 0xffffff00U, kAck | kPsh, text), true, 63))
            << family.name;
        result = flow.from_server(segment(0xffffff00U, 1005U + 0xfff00000U, kAck, Bytes(301, 'x')));
        EXPECT_TRUE(forwarded(result)) << family.name;
        EXPECT_EQ(result.packet,
                  flow.on_tap(segment(0xffffff00U + 77777U, 1005, kAck, Bytes(301, 'x')), false, 63))
            << family.name;

        const tg_splice now = flow.now();
        const auto& guest = now.sides[TG_SPLICE_GUEST];
        const auto& server = now.sides[TG_SPLICE_SERVER];
        EXPECT_EQ(guest.packets, 1U);
        EXPECT_EQ(guest.bytes, 5U);
        EXPECT_EQ(guest.end, 1005U);
        EXPECT_EQ(guest.acked, 1005U);
        EXPECT_EQ(server.packets, 1U);
        EXPECT_EQ(server.bytes, 301U);
        EXPECT_EQ(server.end, 0xffffff00U + 301);
        EXPECT_EQ(server.acked, 0xffffff00U);
        EXPECT_NE(guest.last_ns, 0U);
        EXPECT_NE(server.last_ns, 0U);
    }
}

TEST_F(SpliceTest, ecn_urgent_data_and_unknown_options_stay_as_they_are) {
    for (const auto& family : families()) {
        const SpliceCase flow(family);
        flow.store();
        TcpFields fields = guest_says(kAck | 0x20 | 0x40 | 0x80, Bytes{'u'}); // URG, ECE, CWR
        fields.urgent = 1;
        fields.options = {253, 6, 1, 2, 3, 4, 1, 0};
        const Bytes sent = SpliceCase::frame(
            family.guest, flow.seen,
            [&] {
                TcpFields ports = fields;
                ports.source_port = kGuestPort;
                ports.destination_port = kServerPort + 1;
                return ports;
            }(),
            kGuestMac, kTapMac, 9, 0x03);
        const auto result = product().run("tap_ingress", sent);
        EXPECT_TRUE(forwarded(result)) << family.name;
        fields.sequence += 0xfff00000U;
        fields.acknowledgement -= 77777;
        fields.source_port = kUplinkPort;
        fields.destination_port = kServerPort;
        EXPECT_EQ(result.packet,
                  SpliceCase::frame(family.uplink, family.server, fields, kGuestMac, kTapMac, 8, 0x03))
            << family.name;
    }
}

TEST_F(SpliceTest, while_recording_packets_go_to_the_host_and_are_noted) {
    for (const auto& family : families()) {
        SpliceCase flow(family);
        flow.splice.state = TG_SPLICE_RECORDING;
        flow.splice.sides[TG_SPLICE_SERVER] = {};
        flow.store();
        TcpFields fields = server_says(kSyn | kAck);
        fields.options = timestamps_option(500, 7);
        const Bytes sent = flow.on_uplink(fields, false);
        EXPECT_TRUE(untouched(product().run_on("uplink_ingress", sent, Programs::uplink_ifindex()), sent));
        EXPECT_EQ(flow.side(TG_SPLICE_SERVER).end, 0xffffff01U);
        EXPECT_EQ(flow.side(TG_SPLICE_SERVER).ts_last, 500U);
        // Older ones do not count.
        fields.options = timestamps_option(499, 7);
        EXPECT_EQ(flow.from_server(fields).action, kNext);
        EXPECT_EQ(flow.side(TG_SPLICE_SERVER).ts_last, 500U);
        // There is no socket in a test run.
        EXPECT_TRUE(refused(flow.from_guest(guest_says()), TG_DROP_TCP_NO_FLOW));
        EXPECT_TRUE(refused(flow.from_guest(segment(1, 0, kSyn)), TG_DROP_NO_LISTENER));
        EXPECT_EQ(flow.now().state, static_cast<unsigned>(TG_SPLICE_RECORDING));
    }
}

TEST_F(SpliceTest, while_held_nothing_passes_in_either_direction) {
    for (const auto& family : families()) {
        SpliceCase flow(family);
        flow.splice.state = TG_SPLICE_HELD;
        flow.store();
        auto result = flow.from_guest(guest_says(kAck, Bytes(10)));
        EXPECT_TRUE(refused(result, TG_DROP_SPLICE_HELD));
        EXPECT_EQ(result.action, kShot);
        result = flow.from_server(server_says(kAck, Bytes(10)));
        EXPECT_TRUE(refused(result, TG_DROP_SPLICE_HELD));
        EXPECT_EQ(result.action, kShot);
        // What had passed is what the sockets may have.
        EXPECT_EQ(flow.side(TG_SPLICE_SERVER).end, 0xffffff00U);
    }
}

TEST_F(SpliceTest, B53_the_first_flight_sent_again_with_other_bytes_is_dropped) {
    for (const auto& family : families()) {
        SpliceCase flow(family);
        flow.splice.sides[TG_SPLICE_GUEST].acked = 500; // the server has none of 500 octets yet
        flow.store();
        const std::uint32_t ack = guest_says().acknowledgement;
        for (const auto& [sequence, size] : {std::pair(500U, 500U), std::pair(999U, 1U), std::pair(600U, 10U),
                                             std::pair(999U, 2U), std::pair(500U, 1200U)})
            EXPECT_TRUE(refused(flow.from_guest(segment(sequence, ack, kAck, Bytes(size, 'X'))),
                                TG_DROP_SPLICE_REPLAY))
                << family.name << sequence;
        EXPECT_TRUE(refused(flow.from_guest(segment(999, ack, kAck | kFin)), TG_DROP_SPLICE_REPLAY));
        // A keep-alive lies below and carries nothing.
        EXPECT_TRUE(forwarded(flow.from_guest(segment(999, ack))));
        EXPECT_TRUE(forwarded(flow.from_guest(segment(1000, ack, kAck, Bytes(10, 'n')))));
        // The guest cannot bring the numbers round to where they would count as new.
        EXPECT_TRUE(
            refused(flow.from_guest(segment(500 + kWindowMax, ack, kAck, Bytes(1))), TG_DROP_SPLICE_SEGMENT));
        EXPECT_TRUE(
            refused(flow.from_guest(segment(0x80000000U, ack, kAck, Bytes(1))), TG_DROP_SPLICE_SEGMENT));
        EXPECT_TRUE(
            refused(flow.from_guest(segment(500, ack, kAck, Bytes(500, 'X'))), TG_DROP_SPLICE_REPLAY));
    }
}

TEST_F(SpliceTest, the_floor_follows_a_flow_that_goes_on_for_longer_than_the_numbers_last) {
    for (const auto& family : families()) {
        const SpliceCase flow(family);
        flow.store();
        std::uint32_t sequence = 1000;
        const std::uint32_t ack = guest_says().acknowledgement;
        for (int round = 0; round < 24; ++round) {
            sequence += kWindowMax / 2;
            EXPECT_TRUE(forwarded(flow.from_guest(segment(sequence - 1, ack, kAck, Bytes(1))))) << round;
            EXPECT_TRUE(forwarded(flow.from_server(segment(0xffffff00U, sequence + 0xfff00000U)))) << round;
            // Sent again although it was acknowledged: the acknowledgement was lost.
            EXPECT_TRUE(forwarded(flow.from_guest(segment(sequence - 100, ack, kAck, Bytes(100))))) << round;
        }
        EXPECT_TRUE(refused(flow.from_guest(segment(sequence - kWindowMax - 2, ack, kAck, Bytes(1))),
                            TG_DROP_SPLICE_REPLAY));
    }
}

TEST_F(SpliceTest, segments_beyond_any_window_and_acks_of_what_was_never_sent_are_refused) {
    for (const auto& family : families()) {
        const SpliceCase flow(family);
        flow.store();
        const auto guest = guest_says();
        const auto server = server_says();
        EXPECT_TRUE(
            refused(flow.from_guest(segment(1000, guest.acknowledgement + 1)), TG_DROP_SPLICE_SEGMENT));
        EXPECT_TRUE(refused(flow.from_guest(segment(1000, guest.acknowledgement - kWindowMax - 1)),
                            TG_DROP_SPLICE_SEGMENT));
        EXPECT_TRUE(refused(flow.from_server(segment(server.sequence, server.acknowledgement + 1)),
                            TG_DROP_SPLICE_SEGMENT));
        EXPECT_TRUE(
            refused(flow.from_server(segment(server.sequence + kWindowMax + 1, server.acknowledgement)),
                    TG_DROP_SPLICE_SEGMENT));
        EXPECT_TRUE(
            refused(flow.from_server(segment(server.sequence - kWindowMax - 1, server.acknowledgement)),
                    TG_DROP_SPLICE_SEGMENT));
        const tg_splice_side now = flow.side(TG_SPLICE_SERVER);
        EXPECT_EQ(now.end, server.sequence) << "nothing that was refused has left a trace";
        EXPECT_EQ(now.acked, server.sequence);
        EXPECT_EQ(now.floor, server.sequence);
        // What is merely old goes on: the other end answers it.
        EXPECT_TRUE(forwarded(flow.from_guest(segment(1000, guest.acknowledgement - 5000))));
        EXPECT_TRUE(forwarded(flow.from_server(segment(server.sequence - 1, server.acknowledgement))));
    }
}

TEST_F(SpliceTest, malformed_headers_and_option_lists_are_refused) {
    const std::vector<Bytes> lists{
        {8, 10, 0, 0},                        // ends inside its value
        {1, 1, 1, 8},                         // ends before its length
        {253, 1, 0, 0},                       // a length below two
        {253, 0, 0, 0},                       //
        {8, 9, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1}, // timestamps of nine octets
        {5, 9, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1}, // a block and a bit
        {5, 2, 1, 1},                         // no block
        {253, 5, 0, 0},                       //
        [] {
            Bytes twice = timestamps_option(1, 1);
            append(twice, timestamps_option(2, 2));
            return twice;
        }(),
        [] {
            Bytes twice{1, 1, 5, 10, 0, 0, 0, 0, 0, 0, 0, 0};
            append(twice, Bytes(twice));
            return twice;
        }(),
        [] {
            Bytes five{1, 1, 5, 38};
            five.resize(40);
            return five;
        }(),
    };
    for (const auto& family : families()) {
        const SpliceCase flow(family);
        flow.store();
        for (std::size_t i = 0; i < lists.size(); ++i) {
            auto fields = guest_says();
            fields.options = lists[i];
            EXPECT_TRUE(refused(flow.from_guest(fields), TG_DROP_SPLICE_SEGMENT)) << i;
            fields = server_says();
            fields.options = lists[i];
            EXPECT_TRUE(refused(flow.from_server(fields), TG_DROP_SPLICE_SEGMENT)) << i;
        }
        // Behind the end of the list stands what nobody reads.
        auto fields = guest_says();
        fields.options = {0, 8, 9, 5};
        EXPECT_TRUE(forwarded(flow.from_guest(fields)));
        for (const std::uint8_t flags :
             {std::uint8_t{0}, std::uint8_t{kPsh}, std::uint8_t{kSyn | kFin | kAck},
              std::uint8_t{kRst | kFin | kAck}, std::uint8_t{kFin}})
            EXPECT_TRUE(refused(flow.from_server(server_says(flags)), TG_DROP_SPLICE_SEGMENT)) << int(flags);
        EXPECT_TRUE(refused(flow.from_guest(guest_says(kSyn | kAck)), TG_DROP_TCP_INGRESS));
    }
}

TEST_F(SpliceTest, tcp_behind_extension_headers_is_refused) {
    const SpliceCase flow(*std::next(families().begin()));
    flow.store();
    auto fields = guest_says();
    fields.source_port = kGuestPort;
    fields.destination_port = kServerPort + 1;
    Bytes extended{IPPROTO_TCP, 0, 1, 4, 0, 0, 0, 0};
    append(extended, tcp_segment(flow.family.guest, flow.seen, fields));
    EXPECT_TRUE(refused(product().run("tap_ingress", ip_frame(flow.family.guest, flow.seen, IPPROTO_DSTOPTS,
                                                              extended, kGuestMac, kTapMac)),
                        TG_DROP_SPLICE_SEGMENT));
}

TEST_F(SpliceTest, packets_without_hops_left_or_larger_than_the_next_interface_are_refused) {
    for (const auto& family : families()) {
        const SpliceCase flow(family);
        flow.store();
        for (const unsigned hops : {0U, 1U}) {
            EXPECT_TRUE(refused(product().run("tap_ingress", flow.on_tap(guest_says(), true, hops)),
                                TG_DROP_SPLICE_FORWARD));
            EXPECT_TRUE(refused(product().run_on("uplink_ingress", flow.on_uplink(server_says(), false, hops),
                                                 Programs::uplink_ifindex()),
                                TG_DROP_SPLICE_FORWARD));
        }
        const std::size_t fits = 1500 - (family.guest.is_v4() ? 40 : 60);
        EXPECT_TRUE(forwarded(flow.from_guest(guest_says(kAck, Bytes(fits)))));
        EXPECT_TRUE(refused(flow.from_guest(guest_says(kAck, Bytes(fits + 1))), TG_DROP_SPLICE_FORWARD));
        // A GSO packet may be larger than what it is cut into.
        const Bytes large = flow.on_tap(guest_says(kAck, Bytes(2 * fits)), true);
        const auto size = static_cast<std::uint32_t>(fits);
        EXPECT_TRUE(forwarded(product().run_on("tap_ingress", large, Programs::tap_ifindex(), 0, size)));
        EXPECT_TRUE(refused(product().run_on("tap_ingress", large, Programs::tap_ifindex(), 0, size + 1),
                            TG_DROP_SPLICE_FORWARD));
    }
}

TEST_F(SpliceTest, what_lies_behind_the_packet_in_its_frame_stays_behind) {
    for (const auto& family : families()) {
        const SpliceCase flow(family);
        flow.store();
        Bytes frame = flow.on_tap(guest_says(), true);
        append(frame, Bytes(40, 0xee));
        const auto result = product().run("tap_ingress", frame);
        EXPECT_TRUE(forwarded(result));
        EXPECT_EQ(result.packet, flow.on_uplink(segment(1000 + 0xfff00000U, 0xffffff00U), true, 63));
    }
}

TEST_F(SpliceTest, half_closed_flows_go_on_and_are_closed_by_the_second_acknowledged_fin) {
    for (const auto& family : families()) {
        const SpliceCase flow(family);
        flow.store();
        static_cast<void>(events_of_changes());
        const auto guest = guest_says();
        const auto server = server_says();
        EXPECT_TRUE(forwarded(flow.from_guest(guest_says(kAck | kFin, Bytes(9)))));
        EXPECT_TRUE(forwarded(flow.from_server(segment(server.sequence, server.acknowledgement + 10))));
        EXPECT_EQ(flow.now().state, static_cast<unsigned>(TG_SPLICE_FORWARDING));
        EXPECT_TRUE(forwarded(
            flow.from_server(segment(server.sequence, server.acknowledgement + 10, kAck, Bytes(700)))));
        EXPECT_TRUE(forwarded(flow.from_guest(segment(1010, guest.acknowledgement + 700))));
        EXPECT_TRUE(forwarded(
            flow.from_server(segment(server.sequence + 700, server.acknowledgement + 10, kAck | kFin))));
        EXPECT_TRUE(forwarded(flow.from_guest(segment(1010, guest.acknowledgement + 700))));
        EXPECT_EQ(flow.now().state, static_cast<unsigned>(TG_SPLICE_FORWARDING));
        EXPECT_EQ(events_of_changes(), 2U); // of each side's FIN
        EXPECT_TRUE(forwarded(flow.from_guest(segment(1010, guest.acknowledgement + 701))));
        EXPECT_EQ(flow.now().state, static_cast<unsigned>(TG_SPLICE_CLOSED));
        EXPECT_NE(flow.now().changed_ns, 0U);
        EXPECT_EQ(events_of_changes(), 1U);
        // The last acknowledgement was lost.
        EXPECT_TRUE(forwarded(
            flow.from_server(segment(server.sequence + 700, server.acknowledgement + 10, kAck | kFin))));
        EXPECT_TRUE(forwarded(flow.from_guest(segment(1010, guest.acknowledgement + 701))));
        EXPECT_EQ(events_of_changes(), 0U);
    }
}

TEST_F(SpliceTest, a_reset_closes_the_flow_only_where_the_other_end_obeys_it) {
    for (const auto& family : families()) {
        for (const bool by_guest : {true, false}) {
            const SpliceCase flow(family);
            flow.store();
            const auto send = [&](std::uint32_t offset) {
                auto fields = by_guest ? guest_says(kRst) : server_says(kRst);
                fields.sequence += offset;
                return by_guest ? flow.from_guest(fields) : flow.from_server(fields);
            };
            EXPECT_TRUE(forwarded(send(7)));
            EXPECT_EQ(flow.now().state, static_cast<unsigned>(TG_SPLICE_FORWARDING));
            EXPECT_TRUE(refused(send(0x80000000U), TG_DROP_SPLICE_SEGMENT));
            EXPECT_TRUE(forwarded(send(0)));
            EXPECT_EQ(flow.now().state, static_cast<unsigned>(TG_SPLICE_CLOSED));
        }
    }
}

TEST_F(SpliceTest, a_new_syn_of_the_guest_ends_the_splice_before_it_is_judged) {
    for (const auto& family : families()) {
        for (const auto state : {TG_SPLICE_FORWARDING, TG_SPLICE_CLOSED}) {
            SpliceCase flow(family);
            flow.splice.state = state;
            flow.store();
            static_cast<void>(events_of_changes());
            EXPECT_TRUE(refused(flow.from_guest(segment(5, 0, kSyn)), TG_DROP_NO_LISTENER));
            EXPECT_EQ(flow.now().state, static_cast<unsigned>(TG_SPLICE_ENDED));
            EXPECT_EQ(flow.side(TG_SPLICE_GUEST).flags, TG_SPLICE_REUSED);
            EXPECT_EQ(events_of_changes(), 1U);
            EXPECT_TRUE(refused(flow.from_guest(guest_says()), TG_DROP_TCP_NO_FLOW));
            const Bytes late = flow.on_uplink(server_says(), false);
            EXPECT_TRUE(
                untouched(product().run_on("uplink_ingress", late, Programs::uplink_ifindex()), late));
        }
    }
}

TEST_F(SpliceTest, a_handshake_that_the_server_repeats_makes_the_guest_acknowledge_it) {
    for (const auto& family : families()) {
        const SpliceCase flow(family);
        flow.store();
        auto fields = server_says(kSyn | kAck);
        fields.sequence -= 1;
        const auto result = flow.from_server(fields);
        EXPECT_TRUE(forwarded(result));
        EXPECT_EQ(result.packet, flow.on_tap(segment(0xffffff00U + 77777U - 1, 1000), false, 63));
        // Any other SYN is of another connection.
        fields.sequence += 1;
        EXPECT_TRUE(refused(flow.from_server(fields), TG_DROP_SPLICE_SEGMENT));
        EXPECT_TRUE(refused(flow.from_server(server_says(kSyn)), TG_DROP_SPLICE_SEGMENT));
        EXPECT_TRUE(forwarded(flow.from_server(server_says(kAck, Bytes(1)))));
        fields.sequence -= 1;
        EXPECT_TRUE(refused(flow.from_server(fields), TG_DROP_SPLICE_SEGMENT)) << "it has sent data since";
    }
}

TEST_F(SpliceTest, clocks_go_on_from_those_of_the_hosts_sockets) {
    for (const auto& family : families()) {
        SpliceCase flow(family);
        flow.splice.sides[TG_SPLICE_GUEST].ts_base = 0xfffffff0; // wraps during the flow
        flow.splice.sides[TG_SPLICE_SERVER].ts_base = 10'000;
        flow.store();
        auto fields = guest_says();
        fields.options = timestamps_option(300, 9'999);
        auto sent = segment(1000 + 0xfff00000U, 0xffffff00U);
        sent.options = timestamps_option(0xfffffff0, 0);
        EXPECT_EQ(flow.from_guest(fields).packet, flow.on_uplink(sent, true, 63))
            << "the server's is unknown";

        fields = server_says();
        fields.options = timestamps_option(700'000, 0xfffffff0);
        sent = segment(0xffffff00U + 77777U, 1000);
        sent.options = timestamps_option(10'000, 300);
        EXPECT_EQ(flow.from_server(fields).packet, flow.on_tap(sent, false, 63));

        fields = guest_says();
        fields.options = timestamps_option(320, 10'000);
        sent = segment(1000 + 0xfff00000U, 0xffffff00U);
        sent.options = timestamps_option(4, 700'000);
        EXPECT_EQ(flow.from_guest(fields).packet, flow.on_uplink(sent, true, 63));
        EXPECT_EQ(flow.side(TG_SPLICE_GUEST).ts_last, 320U);
    }
}

TEST_F(SpliceTest, windows_are_rescaled_and_never_grow) {
    struct Case {
        std::uint8_t scale, shown;
        std::uint16_t window, expected;
    };

    for (const auto& [scale, shown, window, expected] :
         {Case{7, 7, 500, 500}, Case{8, 7, 500, 1000}, Case{7, 9, 503, 125}, Case{14, 0, 65535, 65535},
          Case{0, 14, 65535, 3}, Case{7, 8, 1, 0}, Case{0, 0, 0, 0}, Case{9, 7, 40000, 65535}}) {
        SpliceCase flow(*families().begin());
        flow.splice.sides[TG_SPLICE_GUEST].scale = scale;
        flow.splice.sides[TG_SPLICE_GUEST].shown_scale = shown;
        flow.store();
        auto fields = guest_says();
        fields.window = window;
        auto sent = segment(1000 + 0xfff00000U, 0xffffff00U);
        sent.window = expected;
        EXPECT_EQ(flow.from_guest(fields).packet, flow.on_uplink(sent, true, 63)) << window;
    }
}

TEST_F(SpliceTest, the_hosts_own_sockets_are_not_heard_by_the_guest_any_more) {
    for (const auto& family : families()) {
        for (const auto state :
             {TG_SPLICE_ENDED, TG_SPLICE_RECORDING, TG_SPLICE_HELD, TG_SPLICE_FORWARDING, TG_SPLICE_CLOSED}) {
            SpliceCase flow(family);
            flow.splice.state = state;
            flow.store();
            const bool ours = state != TG_SPLICE_ENDED && state != TG_SPLICE_RECORDING;
            const bool forwarding = ours && state != TG_SPLICE_HELD;
            const Bytes ack = flow.on_tap(server_says(), false);
            const auto from = [&](unsigned ingress, std::uint32_t mark, const Bytes& packet) {
                return product().run_on("tap_egress", packet, Programs::tap_ifindex(), ingress, 0, mark);
            };
            if (ours)
                EXPECT_TRUE(refused(from(0, 0, ack), TG_DROP_EGRESS_SPLICED));
            else
                EXPECT_TRUE(passed(from(0, 0, ack)));
            const Bytes data = flow.on_tap(server_says(kAck, Bytes(10)), false);
            const unsigned uplink = Programs::uplink_ifindex();
            if (forwarding)
                EXPECT_TRUE(passed(from(uplink, kMark, data)));
            else
                EXPECT_TRUE(refused(from(uplink, kMark, data), TG_DROP_EGRESS_NOT_OURS));
            EXPECT_EQ(from(uplink, 0, data).action, kShot) << "forwarded by the host";
        }
    }
}

TEST_F(SpliceTest, entries_that_are_not_of_this_guest_or_this_connection_do_not_count) {
    for (const auto& family : families()) {
        SpliceCase flow(family);
        flow.splice.guest_id = kGuestId - 1;
        flow.store();
        EXPECT_TRUE(refused(flow.from_guest(guest_says()), TG_DROP_TCP_NO_FLOW));

        // The memory of an entry has become another's since the way to it was looked up.
        SpliceCase other(family);
        other.splice.upstream.guest_port = htons(kUplinkPort + 1);
        other.store();
        const Bytes sent = other.on_uplink(server_says(), false);
        EXPECT_TRUE(untouched(product().run_on("uplink_ingress", sent, Programs::uplink_ifindex()), sent));
        other.splice.flow.guest_port = htons(kGuestPort + 1);
        product().store("flows", other.flow(), other.splice);
        EXPECT_TRUE(refused(other.from_guest(guest_says()), TG_DROP_TCP_NO_FLOW));
    }
}

TEST_F(SpliceTest, an_uplink_passes_what_is_not_spliced) {
    for (const auto& family : families()) {
        const SpliceCase flow(family);
        flow.store();
        auto another = server_says();
        another.source_port = kServerPort;
        another.destination_port = kUplinkPort + 1;
        Bytes tagged = flow.on_uplink(server_says(), false);
        const Bytes tag{0x81, 0x00, 0x00, 0x05};
        tagged.insert(tagged.begin() + 12, tag.begin(), tag.end());
        Bytes elsewhere = flow.on_uplink(server_says(), false);
        elsewhere[5] = 0x77; // a port in promiscuous mode
        const Mac& to = kUplinkMac;
        for (const Bytes& packet :
             {SpliceCase::frame(family.server, family.uplink, another, kServerMac, to, 64),
              ip_frame(family.server, family.uplink, IPPROTO_UDP,
                       udp_datagram(family.server, family.uplink, kServerPort, kUplinkPort, Bytes(5)),
                       kServerMac, to),
              ip_frame(family.server, family.uplink, IPPROTO_TCP, Bytes(19), kServerMac, to),
              ip_frame(family.server, family.uplink, 47, Bytes(50), kServerMac, to),
              ethernet(kEtherArp, Bytes(28), kServerMac, to), ethernet(0x88cc, Bytes(50), kServerMac, to),
              elsewhere}) {
            EXPECT_TRUE(
                untouched(product().run_on("uplink_ingress", packet, Programs::uplink_ifindex()), packet));
        }
        EXPECT_EQ(product().run_on("uplink_ingress", tagged, Programs::uplink_ifindex()).action, kNext);
    }
}

TEST_F(SpliceTest, fragments_and_ip_options_do_not_reach_the_hosts_socket_past_a_splice) {
    for (const auto& family : families()) {
        const auto hidden = [&family](std::uint16_t port, unsigned fragment, bool with_options) {
            auto fields = server_says(kAck, Bytes(100));
            fields.source_port = kServerPort;
            fields.destination_port = port;
            const Bytes whole = tcp_segment(family.server, family.uplink, fields);
            if (family.guest.is_v4()) {
                Ipv4Fields ip;
                ip.fragment = fragment;
                if (with_options)
                    ip.options = {1, 1, 1, 0};
                return ethernet(kEtherIpv4, ipv4(family.server, family.uplink, IPPROTO_TCP, whole, ip),
                                kServerMac, kUplinkMac);
            }
            Bytes fragmented{IPPROTO_TCP, 0};
            put16(fragmented, fragment == 0x2000 ? 1 : fragment << 3U);
            put32(fragmented, 4711);
            append(fragmented, whole);
            return ip_frame(family.server, family.uplink, IPPROTO_FRAGMENT, fragmented, kServerMac,
                            kUplinkMac);
        };
        const auto send = [](const Bytes& frame) {
            return product().run_on("uplink_ingress", frame, Programs::uplink_ifindex());
        };
        SpliceCase flow(family);
        flow.store();
        EXPECT_TRUE(refused(send(hidden(kUplinkPort, 0x2000, false)), TG_DROP_SPLICE_SEGMENT));
        EXPECT_TRUE(refused(send(hidden(kUplinkPort, 0, true)), TG_DROP_SPLICE_SEGMENT));
        // A later fragment has no ports; and others' are others'.
        for (const Bytes& other : {hidden(kUplinkPort, 3, false), hidden(kUplinkPort + 1, 0x2000, false)})
            EXPECT_TRUE(untouched(send(other), other)) << family.name;
        flow.splice.state = TG_SPLICE_RECORDING;
        flow.store();
        const Bytes early = hidden(kUplinkPort, 0x2000, false);
        EXPECT_TRUE(untouched(send(early), early)) << family.name;
    }
}

TEST_F(SpliceTest, the_daemon_changes_a_flow_only_from_the_state_that_it_takes_it_to_be_in) {
    for (const auto& family : families()) {
        SpliceCase flow(family);
        EXPECT_EQ(change(flow, TG_CHANGE_HOLD), static_cast<unsigned>(TG_CHANGE_NO_FLOW));
        flow.splice.state = TG_SPLICE_RECORDING;
        flow.store();
        const auto state = [&] { return flow.now().state; };
        EXPECT_EQ(change(flow, TG_CHANGE_HOLD, kSpliceId + 1), static_cast<unsigned>(TG_CHANGE_NO_FLOW));
        for (const auto early : {TG_CHANGE_RELEASE, TG_CHANGE_FORWARD})
            EXPECT_EQ(change(flow, early), static_cast<unsigned>(TG_CHANGE_STATE));
        EXPECT_EQ(state(), static_cast<unsigned>(TG_SPLICE_RECORDING));
        EXPECT_EQ(change(flow, TG_CHANGE_HOLD), static_cast<unsigned>(TG_CHANGED));
        EXPECT_EQ(state(), static_cast<unsigned>(TG_SPLICE_HELD));
        EXPECT_EQ(change(flow, TG_CHANGE_RELEASE), static_cast<unsigned>(TG_CHANGED));
        EXPECT_EQ(state(), static_cast<unsigned>(TG_SPLICE_RECORDING));
        EXPECT_EQ(change(flow, TG_CHANGE_HOLD), static_cast<unsigned>(TG_CHANGED));
        tg_flow_change numbers{};
        numbers.sides[TG_SPLICE_GUEST] = {1, 2, 3, 4, 5, 6, {}};
        numbers.sides[TG_SPLICE_SERVER] = {11, 12, 13, 14, 15, 16, {}};
        EXPECT_EQ(change(flow, TG_CHANGE_FORWARD, kSpliceId, numbers), static_cast<unsigned>(TG_CHANGED));
        EXPECT_EQ(state(), static_cast<unsigned>(TG_SPLICE_FORWARDING));
        for (const unsigned end : {0U, 1U}) {
            const auto& side = flow.now().sides[end];
            const unsigned first = end == 0 ? 0 : 10;
            EXPECT_EQ(side.floor, first + 1);
            EXPECT_EQ(side.end, first + 1);
            EXPECT_EQ(side.acked, first + 2);
            EXPECT_EQ(side.delta, first + 3);
            EXPECT_EQ(side.ts_base, first + 4);
            EXPECT_EQ(side.scale, first + 5);
            EXPECT_EQ(side.shown_scale, first + 6);
        }
        for (const auto late : {TG_CHANGE_HOLD, TG_CHANGE_RELEASE, TG_CHANGE_FORWARD})
            EXPECT_EQ(change(flow, late), static_cast<unsigned>(TG_CHANGE_STATE));
        tg_flow_change route{};
        route.uplink_ifindex = 4711;
        route.next_hop = to_tg(*IpAddress::parse("2001:db8:2::7"));
        EXPECT_EQ(change(flow, TG_CHANGE_ROUTE, kSpliceId, route), static_cast<unsigned>(TG_CHANGED));
        const tg_splice routed = flow.now();
        EXPECT_EQ(routed.uplink_ifindex, 4711U);
        EXPECT_EQ(0, std::memcmp(&routed.next_hop, &route.next_hop, sizeof route.next_hop));
        EXPECT_EQ(change(flow, TG_CHANGE_END), static_cast<unsigned>(TG_CHANGED));
        EXPECT_EQ(state(), static_cast<unsigned>(TG_SPLICE_ENDED));
        EXPECT_EQ(change(flow, TG_CHANGE_END), static_cast<unsigned>(TG_CHANGE_STATE));
        EXPECT_EQ(change(flow, static_cast<tg_change>(99)), static_cast<unsigned>(TG_CHANGE_STATE));
    }
}

} // namespace

} // namespace tapgate::test
