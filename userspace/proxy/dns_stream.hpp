// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/bytes.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace tapgate::proxy {

/// What is read from a stream at once.
constexpr std::size_t kStreamReadSize = 4096;

/// Cuts a TCP stream into DNS messages, however it was cut into segments. Holds at most the bytes of one
/// message that are not used up yet.
///
///     stream  := (length(2) message{length})*                              RFC 1035 4.2.2, RFC 7766 8
class DnsStreamReader {
  public:
    /// How many bytes are missing until there is a whole message, or its length: what may be read from the
    /// stream next. Never 0 once next() has given nothing.
    [[nodiscard]] std::size_t wanted() const;

    /// Takes bytes off the stream, at most wanted().
    void add(ByteView bytes);

    /// The message that is complete now, if one is. One of length 0 is a message too.
    [[nodiscard]] std::optional<std::vector<std::uint8_t>> next();

    /// True between two messages.
    [[nodiscard]] bool is_idle() const { return bytes_.empty(); }

  private:
    static constexpr std::size_t kLengthSize = 2;

    /// Length and message together; empty as long as the length is incomplete.
    [[nodiscard]] std::optional<std::size_t> whole() const;

    std::vector<std::uint8_t> bytes_;
};

/// `message`, at most 65535 bytes, with its length in front.
[[nodiscard]] std::vector<std::uint8_t> dns_frame(ByteView message);

} // namespace tapgate::proxy
