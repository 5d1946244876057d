// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/bytes.hpp"
#include "proto/peek.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tapgate::proto {

/// What a ClientHello says that an egress policy can use.
struct TlsClientHello {
    /// host_name of the server_name extension as it stands on the wire: a valid host name (is_host_name()),
    /// any case, perhaps with a trailing dot. Empty if the hello has no server_name extension.
    std::optional<std::string> server_name;
    /// encrypted_client_hello (0xfe0d) is present, GREASE included: `server_name` may be only the outer name.
    bool ech = false;
};

/// Recognises a TLS ClientHello at the start of a stream, cut into TCP segments and TLS records in any way.
///
/// Strict: RFC 8446 and RFC 5246 lengths must be met exactly at every level, and only the reassembled
/// handshake bytes are judged, so no two readers of the same bytes can see different names.
///
///  - First byte 22 (handshake): TLS; whatever is wrong from here on is kMalformed, never another protocol.
///  - First byte 20, 21, 23 or 24 (another TLS record type) and then 3 (the version): kMalformed. No client
///  sends it, and a
///    server may go on after a warning alert (RFC 5246 7.2.2): as another protocol it could hide the hello
///    behind it.
///  - Any other beginning, SSLv2 hellos included: kOtherProtocol, on the first byte.
///
/// Give update() the whole prefix of the stream each time (as MSG_PEEK returns it). All calls together cost
/// time linear in the number of bytes and memory of at most the cap.
class TlsClientHelloParser {
  public:
    /// `cap` counts stream bytes, record headers included; the hello must end within it.
    explicit TlsClientHelloParser(std::size_t cap = kDefaultPeekCap) : cap_(cap) {}

    /// Judges `prefix`, which must begin with the bytes given before; a shorter one is a bug that ends the
    /// process. Once the result is not kNeedMore it stays what it is, whatever is given.
    PeekStatus update(ByteView prefix);

    [[nodiscard]] PeekStatus status() const { return status_; }

    /// Short stable text for operators; empty unless kMalformed or kTooLarge. Lives forever.
    [[nodiscard]] std::string_view reason() const { return reason_; }

    /// Only when kDone.
    [[nodiscard]] const TlsClientHello& hello() const { return hello_; }

    /// The bytes of the stream that the hello takes, record headers included. Only when kDone.
    [[nodiscard]] std::size_t size() const { return consumed_; }

  private:
    PeekStatus finish(PeekStatus status, std::string_view reason = {});

    PeekStatus malformed(std::string_view reason) { return finish(PeekStatus::kMalformed, reason); }

    PeekStatus read_first_bytes(ByteView prefix);
    PeekStatus read_record_header(ByteView header);
    PeekStatus read_fragment(ByteView bytes);
    [[nodiscard]] std::optional<std::size_t> message_size() const;

    std::size_t cap_;
    /// Stream bytes that were taken into account.
    std::size_t consumed_ = 0;
    /// What the current record still owes of its declared length.
    std::size_t fragment_left_ = 0;
    /// The handshake message so far, its header included.
    std::vector<std::uint8_t> message_;
    PeekStatus status_ = PeekStatus::kNeedMore;
    std::string_view reason_;
    TlsClientHello hello_;
};

} // namespace tapgate::proto
