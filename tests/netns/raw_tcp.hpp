// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "netns/world.hpp"

#include <cstdint>
#include <string>
#include <string_view>

namespace tapgate::test {

/// What a SYN may say that no kernel's would.
struct RawSyn {
    std::string payload = {};
    std::uint16_t window = 65535;
    Bytes options = {}; ///< a multiple of four octets
};

/// A TCP client of guest 0 made of single segments, so that it can do what no kernel does. It acknowledges
/// what it gets and never retransmits. While one exists the guest's kernel sends no RST.
class RawTcp {
  public:
    RawTcp(const NetNs& guest, const Endpoint& from, const Endpoint& to);
    RawTcp(const RawTcp&) = delete;
    RawTcp& operator=(const RawTcp&) = delete;
    /// Resets the connection.
    ~RawTcp();

    /// The handshake; false if it is not completed in time.
    bool connect(const RawSyn& syn = {});

    /// Sends `bytes` as the part of the stream at `offset`, whatever was sent before.
    void send(std::uint32_t offset, std::string_view bytes, std::uint8_t flags = kTcpAck | kTcpPsh);
    /// The same with an urgent pointer behind `bytes`.
    void send_urgent(std::uint32_t offset, std::string_view bytes);
    /// The same with a checksum that is wrong.
    void send_damaged(std::uint32_t offset, std::string_view bytes);

    /// RST or FIN at `offset`.
    void send_flag(std::uint32_t offset, std::uint8_t flag) { send(offset, {}, flag | kTcpAck); }

    void set_window(std::uint16_t window) { window_ = window; }

    /// TTL or hop limit of what is sent from now on.
    void set_hops(std::uint8_t hops) { hops_ = hops; }

    /// The sequence number of the byte at `offset`.
    [[nodiscard]] static std::uint32_t sequence(std::uint32_t offset) {
        return kInitialSequence + 1 + offset;
    }

    /// What was acknowledged to the other side last.
    [[nodiscard]] std::uint32_t acknowledged() const { return acknowledged_; }

    /// Whether the other side acknowledges all before `offset`, and no more, from now on until `time` is
    /// over.
    bool is_acknowledged(std::uint32_t offset, std::chrono::milliseconds time);

    /// What comes until the other side has ended the connection or `time` is over.
    Outcome receive_to_end(std::chrono::milliseconds time = kPatience);

  private:
    static constexpr std::uint32_t kInitialSequence = 1000;

    void emit(std::uint8_t flags, std::uint32_t seq, std::string_view payload) {
        emit(flags, seq, payload, TcpOptions{window_, 0, {}});
    }

    void emit(std::uint8_t flags, std::uint32_t seq, std::string_view payload, const TcpOptions& options,
              bool is_damaged = false);

    const NetNs& guest_;
    Endpoint from_;
    Endpoint to_;
    PacketTap wire_;
    std::uint16_t window_ = 65535;
    std::uint8_t hops_ = kHops;
    std::uint32_t acknowledged_ = 0; ///< the next byte expected of the other side
    std::uint32_t sent_end_ = 1;     ///< behind the last byte sent, from the initial sequence number
};

} // namespace tapgate::test
