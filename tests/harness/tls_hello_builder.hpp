// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

namespace tapgate::test {

using Bytes = std::vector<std::uint8_t>;

inline void append_u16(Bytes& bytes, std::size_t value) {
    bytes.push_back(static_cast<std::uint8_t>(value >> 8U));
    bytes.push_back(static_cast<std::uint8_t>(value));
}

inline void append(Bytes& bytes, const Bytes& more) {
    bytes.insert(bytes.end(), more.begin(), more.end());
}

/// Builds the bytes of a TLS 1.3 ClientHello. What is not set gets a value that servers accept for parsing;
/// the key share is not a real key.
///
///     const Bytes hello = TlsHelloBuilder().sni("example.com").padding(4000).records({1, 100}).build();
class TlsHelloBuilder {
  public:
    struct Extension {
        std::uint16_t type;
        Bytes data;
    };

    /// What `message`, a well-formed one, says: build() makes the same bytes of it, in records of its own.
    /// Empty if it is no ClientHello.
    static std::optional<TlsHelloBuilder> of(const Bytes& message) {
        TlsHelloBuilder builder;
        std::size_t at = 4;
        bool is_whole = message.size() >= at && message[0] == 1;
        const auto take = [&](std::size_t size) {
            is_whole = is_whole && size <= message.size() - at;
            if (!is_whole)
                return Bytes();
            at += size;
            const auto end = message.begin() + static_cast<std::ptrdiff_t>(at);
            return Bytes(end - static_cast<std::ptrdiff_t>(size), end);
        };
        const auto number = [&](std::size_t width) {
            std::size_t value = 0;
            for (const std::uint8_t byte : take(width))
                value = value << 8U | byte;
            return value;
        };
        builder.version_and_random_ = take(kVersionAndRandom);
        builder.session_id_ = take(number(1));
        builder.cipher_suites_ = take(number(2));
        builder.compression_ = take(number(1));
        builder.with_extensions_ = at < message.size();
        if (builder.with_extensions_) {
            const std::size_t size = number(2);
            is_whole = is_whole && size == message.size() - at;
        }
        while (is_whole && at < message.size()) {
            const auto type = static_cast<std::uint16_t>(number(2));
            builder.extension(type, take(number(2)));
        }
        return is_whole ? std::optional(builder) : std::nullopt;
    }

    /// In their order, to be changed.
    std::vector<Extension>& extensions() { return extensions_; }

    /// The server_name extension with one host_name; the text is not checked.
    TlsHelloBuilder& sni(std::string_view name) { return extension(0, server_name({{0, name}})); }

    /// Pads with the padding extension (RFC 7685) by `size` bytes of zeros.
    TlsHelloBuilder& padding(std::size_t size) { return extension(21, Bytes(size, 0)); }

    /// A key share of the size of X25519MLKEM768 (1216 bytes), as browsers send it.
    TlsHelloBuilder& post_quantum() {
        Bytes data;
        append_u16(data, 4 + 1216);
        append_u16(data, 0x11ec);
        append_u16(data, 1216);
        data.resize(data.size() + 1216, 0x5a);
        return extension(51, std::move(data));
    }

    /// Any extension, in the order of the calls.
    TlsHelloBuilder& extension(std::uint16_t type, Bytes data) {
        extensions_.push_back({type, std::move(data)});
        return *this;
    }

    /// No extensions field at all, as in TLS 1.2 and before.
    TlsHelloBuilder& without_extensions() {
        with_extensions_ = false;
        return *this;
    }

    /// legacy_version and random.
    TlsHelloBuilder& version_and_random(Bytes value) {
        version_and_random_ = std::move(value);
        return *this;
    }

    TlsHelloBuilder& session_id(Bytes value) {
        session_id_ = std::move(value);
        return *this;
    }

    TlsHelloBuilder& cipher_suites(Bytes value) {
        cipher_suites_ = std::move(value);
        return *this;
    }

    TlsHelloBuilder& compression(Bytes value) {
        compression_ = std::move(value);
        return *this;
    }

    /// Splits the handshake message into records of these sizes; what remains goes into records of at most
    /// 16384.
    TlsHelloBuilder& records(std::vector<std::size_t> sizes) {
        record_sizes_ = std::move(sizes);
        return *this;
    }

    /// Splits the whole handshake message into records of `size` bytes.
    TlsHelloBuilder& records_of(std::size_t size) {
        record_limit_ = size;
        return *this;
    }

    /// The data of a server_name extension with the entries given as (type, name).
    static Bytes server_name(std::initializer_list<std::pair<std::uint8_t, std::string_view>> entries) {
        Bytes list;
        for (const auto& [type, name] : entries) {
            list.push_back(type);
            append_u16(list, name.size());
            list.insert(list.end(), name.begin(), name.end());
        }
        Bytes data;
        append_u16(data, list.size());
        append(data, list);
        return data;
    }

    /// The handshake message: type, length, body.
    [[nodiscard]] Bytes message() const {
        Bytes body = version_and_random_;
        body.push_back(static_cast<std::uint8_t>(session_id_.size()));
        append(body, session_id_);
        append_u16(body, cipher_suites_.size());
        append(body, cipher_suites_);
        body.push_back(static_cast<std::uint8_t>(compression_.size()));
        append(body, compression_);
        if (with_extensions_) {
            Bytes list;
            for (const Extension& extension : extensions_) {
                append_u16(list, extension.type);
                append_u16(list, extension.data.size());
                append(list, extension.data);
            }
            append_u16(body, list.size());
            append(body, list);
        }
        Bytes message = {1, static_cast<std::uint8_t>(body.size() >> 16U)};
        append_u16(message, body.size() & 0xffffU);
        append(message, body);
        return message;
    }

    /// The records, as they go over the wire.
    [[nodiscard]] Bytes build() const { return in_records(message()); }

    /// Any handshake bytes in the records that were asked for.
    [[nodiscard]] Bytes in_records(const Bytes& message) const {
        Bytes stream;
        std::size_t at = 0;
        for (std::size_t i = 0; at < message.size(); ++i) {
            const std::size_t wanted = i < record_sizes_.size() ? record_sizes_[i] : record_limit_;
            const std::size_t size = std::min(wanted, message.size() - at);
            append(stream, {22, 3, 1});
            append_u16(stream, size);
            stream.insert(stream.end(), message.begin() + static_cast<std::ptrdiff_t>(at),
                          message.begin() + static_cast<std::ptrdiff_t>(at + size));
            at += size;
        }
        return stream;
    }

  private:
    static constexpr std::size_t kVersionAndRandom = 34;

    /// TLS 1.2, and a random number that none is.
    static Bytes ordinary_head() {
        Bytes head = {3, 3};
        head.resize(kVersionAndRandom, 0xa5);
        return head;
    }

    std::vector<Extension> extensions_;
    bool with_extensions_ = true;
    Bytes version_and_random_ = ordinary_head();
    Bytes session_id_ = Bytes(32, 0x11);
    Bytes cipher_suites_ = {0x13, 0x01, 0x13, 0x02, 0xc0, 0x2f};
    Bytes compression_ = {0};
    std::vector<std::size_t> record_sizes_;
    std::size_t record_limit_ = 16384;
};

/// The first handshake message of a stream, and what comes behind its last record.
struct HelloParts {
    Bytes message;
    Bytes rest;
};

/// Empty if `stream` is not a handshake message in records that end where it ends.
inline std::optional<HelloParts> hello_parts(const Bytes& stream) {
    constexpr std::size_t kRecordHeader = 5;
    constexpr std::size_t kMessageHeader = 4;
    HelloParts parts;
    std::size_t at = 0;
    std::size_t size = kMessageHeader;
    while (parts.message.size() < size) {
        if (stream.size() - at < kRecordHeader || stream[at] != 22)
            return std::nullopt;
        const std::size_t length = std::size_t{stream[at + 3]} << 8U | stream[at + 4];
        at += kRecordHeader;
        if (length > stream.size() - at)
            return std::nullopt;
        const auto begin = stream.begin() + static_cast<std::ptrdiff_t>(at);
        parts.message.insert(parts.message.end(), begin, begin + static_cast<std::ptrdiff_t>(length));
        at += length;
        if (parts.message.size() >= kMessageHeader)
            size = kMessageHeader + (std::size_t{parts.message[1]} << 16U |
                                     std::size_t{parts.message[2]} << 8U | parts.message[3]);
    }
    if (parts.message.size() != size)
        return std::nullopt;
    parts.rest.assign(stream.begin() + static_cast<std::ptrdiff_t>(at), stream.end());
    return parts;
}

} // namespace tapgate::test
