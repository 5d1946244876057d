// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "netns/world.hpp"

#include <cstdint>
#include <string_view>

namespace tapgate::test {

/// A TCP client of guest 0 made of single segments, so that it can do what no kernel does. It acknowledges
/// what it gets and never retransmits. While one exists the guest's kernel sends no RST.
class RawTcp {
  public:
    RawTcp(const NetNs& guest, const Endpoint& from, const Endpoint& to);
    RawTcp(const RawTcp&) = delete;
    RawTcp& operator=(const RawTcp&) = delete;
    /// Resets the connection.
    ~RawTcp();

    /// The handshake, with `payload` in the SYN and `window` offered; false if it is not completed in time.
    bool connect(std::string_view payload = {}, std::uint16_t window = 65535);

    /// Sends `bytes` as the part of the stream at `offset`, whatever was sent before.
    void send(std::uint32_t offset, std::string_view bytes, std::uint8_t flags = kTcpAck | kTcpPsh);
    /// The same with an urgent pointer behind `bytes`.
    void send_urgent(std::uint32_t offset, std::string_view bytes);

    /// RST or FIN at `offset`.
    void send_flag(std::uint32_t offset, std::uint8_t flag) { send(offset, {}, flag | kTcpAck); }

    void set_window(std::uint16_t window) { window_ = window; }

    /// What comes until the other side has ended the connection or `time` is over.
    Outcome receive_to_end(std::chrono::milliseconds time = kPatience);

  private:
    void emit(std::uint8_t flags, std::uint32_t seq, std::string_view payload, std::uint16_t urgent = 0);

    const NetNs& guest_;
    Endpoint from_;
    Endpoint to_;
    PacketTap wire_;
    std::uint16_t window_ = 65535;
    std::uint32_t acknowledged_ = 0; ///< the next byte expected of the other side
    std::uint32_t sent_end_ = 1;     ///< behind the last byte sent, from the initial sequence number
};

} // namespace tapgate::test
