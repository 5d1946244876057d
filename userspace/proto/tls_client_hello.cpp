// SPDX-License-Identifier: Apache-2.0
#include "proto/tls_client_hello.hpp"

#include "base/result.hpp"
#include "proto/host_name.hpp"

#include <algorithm>
#include <bitset>

// The wire format, from the stream inwards. Every length is exact: what a length covers must be used up.
//
//     record*                                             RFC 8446 5.1, RFC 5246 6.2.1
//       type(1)        22 handshake
//       version(2)     3.x; the minor number is to be ignored
//       length(2)      1..16384; empty handshake fragments are forbidden
//       fragment{length}
//     the fragments joined: one handshake message         RFC 8446 4, RFC 5246 7.4
//       type(1)        1 client_hello
//       length(3)
//       version(2)     3.x
//       random{32}
//       session_id     length(1) 0..32
//       cipher_suites  length(2) 2..65534, even
//       compression    length(1) 1..255, one of them 0 (null)
//       extensions     absent (TLS 1.2 and before), or length(2) and                   RFC 8446 4.2
//         type(2) length(2) data{length}                  each type at most once
//           0      server_name: length(2) and one entry   RFC 6066 3
//                    type(1)  0 host_name
//                    name     length(2) 1..
//           41     pre_shared_key: the last extension     RFC 8446 4.2.11
//           0xfe0d encrypted_client_hello                 RFC 9849
namespace tapgate::proto {

namespace {

constexpr std::uint8_t kFirstRecordType = 20; // change_cipher_spec
constexpr std::uint8_t kLastRecordType = 24;  // heartbeat
constexpr std::uint8_t kHandshakeRecord = 22;
constexpr std::uint8_t kTlsMajor = 3;
constexpr std::size_t kRecordHeaderSize = 5;
constexpr std::size_t kMaxFragment = 16384;

constexpr std::uint8_t kClientHello = 1;
constexpr std::size_t kMessageHeaderSize = 4;
constexpr std::size_t kRandomSize = 32;
constexpr std::size_t kMaxSessionId = 32;

constexpr std::uint16_t kServerName = 0;
constexpr std::uint16_t kPreSharedKey = 41;
constexpr std::uint16_t kEncryptedClientHello = 0xfe0d;
constexpr std::uint8_t kHostName = 0;

/// Empty if all is well, else the reason.
using Reason = std::string_view;

/// A vector with a length in front of it.
std::optional<ByteView> vector8(ByteReader& reader) {
    const auto length = reader.u8();
    return length ? reader.take(*length) : std::nullopt;
}

std::optional<ByteView> vector16(ByteReader& reader) {
    const auto length = reader.u16();
    return length ? reader.take(*length) : std::nullopt;
}

Reason read_server_name(ByteView data, TlsClientHello& hello) {
    ByteReader reader(data);
    const auto list = vector16(reader);
    if (!list || !reader.at_end())
        return "server_name has a wrong length";
    ByteReader entries(*list);
    const auto type = entries.u8();
    if (!type)
        return "server_name is empty";
    if (*type != kHostName)
        return "server_name of unknown type";
    const auto name = vector16(entries);
    if (!name)
        return "server_name has a wrong length";
    if (!entries.at_end())
        return "more than one server_name";
    std::string text(name->begin(), name->end());
    if (!is_host_name(text))
        return "server_name is not a host name";
    hello.server_name = std::move(text);
    return {};
}

Reason read_extensions(ByteView data, TlsClientHello& hello) {
    // One bit per possible type: a duplicate is found in constant time, however many extensions there are.
    std::bitset<65536> seen;
    ByteReader reader(data);
    while (!reader.at_end()) {
        const auto type = reader.u16();
        const auto body = vector16(reader);
        if (!type || !body)
            return "extension has a wrong length";
        if (seen.test(*type))
            return "duplicate extension";
        seen.set(*type);
        if (*type == kServerName) {
            if (const Reason reason = read_server_name(*body, hello); !reason.empty())
                return reason;
        } else if (*type == kEncryptedClientHello) {
            hello.ech = true;
        } else if (*type == kPreSharedKey && !reader.at_end()) {
            return "pre_shared_key is not the last extension";
        }
    }
    return {};
}

Reason read_client_hello(ByteView body, TlsClientHello& hello) {
    ByteReader reader(body);
    const auto version = reader.u16();
    if (!version || (*version >> 8U) != kTlsMajor)
        return "hello has an unknown version";
    if (!reader.take(kRandomSize))
        return "hello is too short";
    const auto session_id = vector8(reader);
    if (!session_id || session_id->size() > kMaxSessionId)
        return "session id has a wrong length";
    const auto cipher_suites = vector16(reader);
    if (!cipher_suites || cipher_suites->empty() || cipher_suites->size() % 2 != 0)
        return "cipher suites have a wrong length";
    const auto compression = vector8(reader);
    if (!compression || std::ranges::find(*compression, 0) == compression->end())
        return "compression methods lack null";
    if (reader.at_end())
        return {};
    const auto extensions = vector16(reader);
    if (!extensions || !reader.at_end())
        return "extensions have a wrong length";
    return read_extensions(*extensions, hello);
}

} // namespace

PeekStatus TlsClientHelloParser::finish(PeekStatus status, std::string_view reason) {
    status_ = status;
    reason_ = reason;
    message_ = std::vector<std::uint8_t>(); // {} would keep the memory
    if (status != PeekStatus::kDone)
        hello_ = {};
    return status;
}

PeekStatus TlsClientHelloParser::update(ByteView prefix) {
    if (status_ != PeekStatus::kNeedMore)
        return status_;
    TAPGATE_ASSERT(prefix.size() >= consumed_);
    if (consumed_ == 0 && read_first_bytes(prefix) != PeekStatus::kNeedMore)
        return status_;

    const ByteView visible = prefix.first(std::min(prefix.size(), cap_));
    while (true) {
        if (fragment_left_ == 0) {
            if (visible.size() < consumed_ + kRecordHeaderSize)
                break;
            if (read_record_header(visible.subspan(consumed_, kRecordHeaderSize)) != PeekStatus::kNeedMore)
                return status_;
            consumed_ += kRecordHeaderSize;
        }
        const std::size_t count = std::min(fragment_left_, visible.size() - consumed_);
        if (count == 0)
            break;
        const ByteView bytes = visible.subspan(consumed_, count);
        consumed_ += count;
        fragment_left_ -= count;
        if (read_fragment(bytes) != PeekStatus::kNeedMore)
            return status_;
    }
    if (visible.size() == cap_)
        return finish(PeekStatus::kTooLarge, "hello is larger than the cap");
    return status_;
}

PeekStatus TlsClientHelloParser::read_first_bytes(ByteView prefix) {
    if (prefix.empty())
        return status_;
    const std::uint8_t type = prefix[0];
    if (type == kHandshakeRecord)
        return status_;
    if (type < kFirstRecordType || type > kLastRecordType)
        return finish(PeekStatus::kOtherProtocol);
    if (prefix.size() < 2)
        return status_;
    return prefix[1] == kTlsMajor ? malformed("another TLS record comes before the hello")
                                  : finish(PeekStatus::kOtherProtocol);
}

PeekStatus TlsClientHelloParser::read_record_header(ByteView header) {
    ByteReader reader(header);
    if (reader.u8() != kHandshakeRecord)
        return malformed("another record inside the hello");
    if (reader.u16().value_or(0) >> 8U != kTlsMajor)
        return malformed("record has an unknown version");
    fragment_left_ = reader.u16().value_or(0);
    if (fragment_left_ == 0 || fragment_left_ > kMaxFragment)
        return malformed("record has a wrong length");
    return status_;
}

std::optional<std::size_t> TlsClientHelloParser::message_size() const {
    ByteReader reader(message_);
    const auto type = reader.u8();
    const auto length = reader.u24();
    if (!type || !length)
        return std::nullopt;
    return kMessageHeaderSize + *length;
}

PeekStatus TlsClientHelloParser::read_fragment(ByteView bytes) {
    message_.insert(message_.end(), bytes.begin(), bytes.end());
    if (message_[0] != kClientHello)
        return malformed("handshake does not begin with a hello");
    const auto size = message_size();
    if (!size)
        return status_;
    if (*size > cap_)
        return finish(PeekStatus::kTooLarge, "hello is larger than the cap");
    // The declared record length decides, not what has arrived: the result is the same for every
    // segmentation.
    if (message_.size() + fragment_left_ > *size)
        return malformed("bytes behind the hello in its record");
    if (message_.size() < *size)
        return status_;
    const Reason reason = read_client_hello(ByteView(message_).subspan(kMessageHeaderSize), hello_);
    return reason.empty() ? finish(PeekStatus::kDone) : malformed(reason);
}

} // namespace tapgate::proto
