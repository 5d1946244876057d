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

/// RFC 9112 3.2.
enum class HttpTargetForm : std::uint8_t { kOrigin, kAbsolute, kAuthority, kAsterisk };

/// Whom a request is for (RFC 9110 4.2, 7.2).
struct HttpAuthority {
    /// A host name (is_host_name(), any case, perhaps a trailing dot), or an IP address: IPv4, or IPv6
    /// without its brackets.
    std::string host;
    bool is_address = false;
    /// The port that stands in the request; empty if none does.
    std::optional<std::uint16_t> port;
};

struct HttpRequest {
    std::string method;
    HttpTargetForm target_form = HttpTargetForm::kOrigin;
    /// From the target in absolute-form and authority-form, else from Host. Empty only for an HTTP/1.0
    /// request that names nobody.
    std::optional<HttpAuthority> authority;
    /// The protocols that Upgrade offers, in lower case: "websocket", "h2c", "tls/1.0".
    std::vector<std::string> upgrades;
};

/// Recognises an HTTP/1 request head at the start of a stream.
///
/// A stream is HTTP as soon as its first line is `token SP ... SP HTTP/...` (or an HTTP/0.9 `GET /...`),
/// white space in front or not. From there on everything that two readers could take differently is
/// kMalformed: bare LF or CR, control bytes, obs-fold, space before a colon, several Hosts, no Host in
/// HTTP/1.1, user information, a Host that differs from the target's authority, CONNECT without a port, and
/// whatever leaves the end of the body open to dispute (RFC 9112 6.3): more than one Content-Length or
/// Transfer-Encoding, both, a length that is no plain number, an encoding other than chunked, any encoding in
/// HTTP/1.0. So is a control byte behind a first word, before it is clear whether a request stands there. A
/// stream that cannot become such a line is kOtherProtocol at the first byte that shows it, at the latest at
/// the end of its first line; the HTTP/2 preface is another protocol.
///
/// Give update() the whole prefix of the stream each time. All calls together cost linear time; only the
/// values returned are kept.
class HttpRequestParser {
  public:
    /// `cap` counts stream bytes; the head must end within it.
    explicit HttpRequestParser(std::size_t cap = kDefaultPeekCap) : cap_(cap) {}

    /// Judges `prefix`, which must begin with the bytes given before; a shorter one is a bug that ends the
    /// process. Once the result is not kNeedMore it stays what it is, whatever is given.
    PeekStatus update(ByteView prefix);

    [[nodiscard]] PeekStatus status() const { return status_; }

    /// Short stable text for operators; empty unless kMalformed or kTooLarge. Lives forever.
    [[nodiscard]] std::string_view reason() const { return reason_; }

    /// Only when kDone.
    [[nodiscard]] const HttpRequest& request() const { return request_; }

    /// Bytes of the stream that the head takes, its empty line included. Only when kDone.
    [[nodiscard]] std::size_t head_size() const { return scanned_; }

  private:
    enum class Expect : std::uint8_t { kMethod, kRequestLine, kHeader };

    PeekStatus finish(PeekStatus status, std::string_view reason = {});

    PeekStatus malformed(std::string_view reason) { return finish(PeekStatus::kMalformed, reason); }

    PeekStatus read_byte(std::string_view text);
    PeekStatus read_method_byte(char byte);
    PeekStatus read_request_line(std::string_view line);
    PeekStatus read_target(std::string_view target);
    PeekStatus read_header(std::string_view line);
    PeekStatus read_content_length(std::string_view value);
    PeekStatus read_transfer_encoding(std::string_view value);
    PeekStatus read_upgrade(std::string_view value);
    PeekStatus read_end_of_head();

    std::size_t cap_;
    Expect expect_ = Expect::kMethod;
    /// Bytes that were looked at, and where the current line begins among them.
    std::size_t scanned_ = 0;
    std::size_t line_start_ = 0;
    bool blank_first_ = false;
    bool http_1_0_ = false;
    /// The port that `authority` means when it names none.
    std::optional<std::uint16_t> default_port_;
    std::optional<HttpAuthority> host_;
    bool has_length_ = false;
    bool is_chunked_ = false;
    PeekStatus status_ = PeekStatus::kNeedMore;
    std::string_view reason_;
    HttpRequest request_;
};

} // namespace tapgate::proto
