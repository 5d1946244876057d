// SPDX-License-Identifier: Apache-2.0
#include "netns/raw_tcp.hpp"

#include <algorithm>

namespace tapgate::test {

namespace {

constexpr Mac kGuestMac = {2, 0, 0, 0, 0, 2};
constexpr Mac kTapMac = {2, 0, 0, 0, 1, 1};
constexpr std::uint8_t kTcpUrg = 0x20;

} // namespace

RawTcp::RawTcp(const NetNs& guest, const Endpoint& from, const Endpoint& to)
    : guest_(guest), from_(from), to_(to), wire_(guest, "eth0") {
    // The guest's kernel knows nothing of this connection and would reset it.
    must_run({"nft", "add table inet mute; add chain inet mute out { type filter hook output priority 0; }; "
                     "add rule inet mute out tcp flags & rst == rst drop"},
             &guest_);
}

RawTcp::~RawTcp() {
    emit(kTcpRst | kTcpAck, kInitialSequence + sent_end_, {});
    must_run({"nft", "delete table inet mute"}, &guest_);
}

bool RawTcp::connect(const RawSyn& syn) {
    window_ = syn.window;
    emit(kTcpSyn, kInitialSequence, syn.payload, TcpOptions{window_, 0, syn.options});
    const auto reply = wire_.wait_for(
        [this](const Seen& seen) {
            return seen.from == to_ && seen.to == from_ && seen.tcp_flags == (kTcpSyn | kTcpAck);
        },
        kPatience);
    if (!reply)
        return false;
    acknowledged_ = reply->tcp_seq + 1;
    // What a SYN carries is not accepted (B23): the stream begins behind it.
    EXPECT_EQ(reply->tcp_ack, kInitialSequence + 1);
    emit(kTcpAck, kInitialSequence + 1, {});
    return true;
}

void RawTcp::send(std::uint32_t offset, std::string_view bytes, std::uint8_t flags) {
    const auto fin = static_cast<std::uint32_t>((flags & kTcpFin) != 0 ? 1 : 0);
    sent_end_ = std::max(sent_end_, 1 + offset + static_cast<std::uint32_t>(bytes.size()) + fin);
    emit(flags, sequence(offset), bytes);
}

void RawTcp::send_urgent(std::uint32_t offset, std::string_view bytes) {
    sent_end_ = std::max(sent_end_, 1 + offset + static_cast<std::uint32_t>(bytes.size()));
    emit(kTcpAck | kTcpPsh | kTcpUrg, sequence(offset), bytes,
         TcpOptions{window_, static_cast<std::uint16_t>(bytes.size()), {}});
}

void RawTcp::send_damaged(std::uint32_t offset, std::string_view bytes) {
    emit(kTcpAck | kTcpPsh, sequence(offset), bytes, TcpOptions{window_, 0, {}}, true);
}

bool RawTcp::is_acknowledged(std::uint32_t offset, std::chrono::milliseconds time) {
    const auto acknowledges = [&](const Seen& frame) {
        return frame.from == to_ && frame.to == from_ && (frame.tcp_flags & kTcpAck) != 0 &&
               frame.tcp_ack == sequence(offset);
    };
    return wire_.wait_for(acknowledges, time).has_value();
}

Outcome RawTcp::receive_to_end(std::chrono::milliseconds time) {
    Outcome outcome;
    const auto deadline = std::chrono::steady_clock::now() + time;
    for (;;) {
        const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
            deadline - std::chrono::steady_clock::now());
        const auto seen =
            wire_.wait_for([this](const Seen& frame) { return frame.from == to_ && frame.to == from_; },
                           std::max(left, std::chrono::milliseconds(0)));
        if (!seen)
            return outcome;
        if ((seen->tcp_flags & kTcpRst) != 0) {
            outcome.end = End::kReset;
            return outcome;
        }
        // A retransmission may carry something new behind what is known.
        const auto size = static_cast<std::uint32_t>(seen->payload.size());
        const std::uint32_t known = acknowledged_ - seen->tcp_seq;
        if (known <= size) {
            outcome.answer.append(seen->payload.begin() + known, seen->payload.end());
            acknowledged_ += size - known;
            if ((seen->tcp_flags & kTcpFin) != 0) {
                ++acknowledged_;
                outcome.end = End::kFin;
            }
        }
        if (size != 0 || outcome.end == End::kFin)
            emit(kTcpAck, kInitialSequence + sent_end_, {});
        if (outcome.end == End::kFin)
            return outcome;
    }
}

void RawTcp::emit(std::uint8_t flags, std::uint32_t seq, std::string_view payload, const TcpOptions& options,
                  bool is_damaged) {
    constexpr std::size_t kChecksum = 16;
    const std::uint32_t ack = (flags & kTcpAck) != 0 ? acknowledged_ : 0;
    Bytes segment = tcp_segment(from_, to_, flags, seq, ack, Bytes(payload.begin(), payload.end()), options);
    if (is_damaged)
        segment.at(kChecksum) ^= 0x5aU;
    wire_.send(
        frame(kTapMac, kGuestMac, ip_packet(from_.address, to_.address, kProtocolTcp, segment, hops_)));
}

} // namespace tapgate::test
