// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
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
        Bytes body = {3, 3};
        body.resize(body.size() + 32, 0xa5);
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
    std::vector<Extension> extensions_;
    bool with_extensions_ = true;
    Bytes session_id_ = Bytes(32, 0x11);
    Bytes cipher_suites_ = {0x13, 0x01, 0x13, 0x02, 0xc0, 0x2f};
    Bytes compression_ = {0};
    std::vector<std::size_t> record_sizes_;
    std::size_t record_limit_ = 16384;
};

} // namespace tapgate::test
