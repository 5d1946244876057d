// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "harness/tls_hello_builder.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <random>
#include <string_view>
#include <utility>
#include <vector>

namespace tapgate::test {

/// Makes other streams out of those that begin with a ClientHello: with extensions doubled, exchanged,
/// removed and retyped, names of many kinds, wrong lengths at each level, other versions, other cuts into
/// records, and bytes changed anywhere. The same seed gives the same streams everywhere.
class HelloMutator {
  public:
    explicit HelloMutator(std::uint32_t seed) : random_(seed) {}

    /// `stream` with one to four changes; only bytes are changed if it is no hello.
    Bytes mutate(const Bytes& stream) {
        const std::size_t changes = 1 + below(4);
        const auto parts = hello_parts(stream);
        auto hello = parts ? TlsHelloBuilder::of(parts->message) : std::nullopt;
        Bytes changed = stream;
        if (hello && below(8) != 0) {
            for (std::size_t i = 0; i < changes; ++i)
                change(*hello);
            Bytes message = hello->message();
            if (below(3) == 0)
                bend_a_length(message);
            if (below(6) == 0)
                append(message, Bytes(message)); // another one behind it, perhaps in its record
            changed = in_records(*hello, message);
            append(changed, parts->rest);
        }
        if (!hello || below(4) == 0)
            for (std::size_t i = 0; i < changes; ++i)
                change_bytes(changed);
        return changed;
    }

  private:
    using Extension = TlsHelloBuilder::Extension;

    std::size_t below(std::size_t bound) { return random_() % bound; }

    std::uint8_t octet() { return static_cast<std::uint8_t>(random_()); }

    template <typename T, std::size_t N>
    const T& one_of(const std::array<T, N>& of) {
        return of[below(N)];
    }

    Bytes octets(std::size_t size) {
        Bytes bytes(size);
        std::ranges::generate(bytes, [this] { return octet(); });
        return bytes;
    }

    /// Of those that mean something to one of the two readers, and those that mean nothing to either.
    std::uint16_t type() {
        static constexpr std::array<std::uint16_t, 24> kTypes = {0,  0,  1,  5,  10, 11, 13,    14,
                                                                 15, 16, 18, 21, 22, 23, 35,    41,
                                                                 42, 43, 44, 45, 49, 51, 65000, 0xfe0d};
        return below(6) == 0 ? static_cast<std::uint16_t>(random_()) : one_of(kTypes);
    }

    Bytes name() {
        static constexpr std::array<std::string_view, 14> kNames = {"a.example",
                                                                    "b.example",
                                                                    "EXAMPLE.com",
                                                                    "example.com.",
                                                                    "",
                                                                    ".",
                                                                    "a..b",
                                                                    "xn--e1afmk",
                                                                    "\xc3\xa9.test",
                                                                    "192.0.2.1",
                                                                    "[2001:db8::1]",
                                                                    "a b.test",
                                                                    "*.test",
                                                                    std::string_view("a.test\0b", 8)};
        switch (below(4)) {
        case 0: {
            static constexpr std::array<std::size_t, 6> kLengths = {63, 64, 253, 254, 255, 256};
            const Bytes long_name(one_of(kLengths), 'a');
            return TlsHelloBuilder::server_name({{0, text(long_name)}});
        }
        case 1:
            return TlsHelloBuilder::server_name(
                {{octet() % 2, one_of(kNames)}, {octet() % 2, one_of(kNames)}});
        case 2:
            return TlsHelloBuilder::server_name({});
        default:
            return TlsHelloBuilder::server_name({{0, one_of(kNames)}});
        }
    }

    static std::string_view text(const Bytes& bytes) {
        return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
    }

    void change(TlsHelloBuilder& hello) {
        auto& extensions = hello.extensions();
        const auto insert = [&](Extension extension) {
            const auto place = static_cast<std::ptrdiff_t>(below(extensions.size() + 1));
            extensions.insert(extensions.begin() + place, std::move(extension));
        };
        if (extensions.empty()) {
            extensions.push_back({type(), name()});
            return;
        }
        Extension& one = extensions[below(extensions.size())];
        switch (below(14)) {
        case 0:
        case 1:
            insert(one);
            break;
        case 2:
            std::swap(one, extensions[below(extensions.size())]);
            break;
        case 3:
            extensions.erase(extensions.begin() + (&one - extensions.data()));
            break;
        case 4:
            one.type = type();
            break;
        case 5:
            one.data.resize(below(one.data.size() + 1));
            break;
        case 6:
            one.data.push_back(octet());
            break;
        case 7:
            change_bytes(one.data);
            break;
        case 8:
            insert({type(), octets(below(40))});
            break;
        case 9:
        case 10:
            insert({0, name()});
            break;
        case 11:
            for (Extension& each : extensions)
                if (each.type == 0)
                    each.data = name();
            break;
        case 12:
            change_fields(hello);
            break;
        default:
            // Another hello as the data: what a reader that looks for one by its bytes would find.
            one.data = TlsHelloBuilder().sni("inner.example").build();
        }
    }

    void change_fields(TlsHelloBuilder& hello) {
        switch (below(6)) {
        case 0:
            hello.session_id(octets(below(40)));
            break;
        case 1:
            hello.cipher_suites(octets(below(9)));
            break;
        case 2:
            hello.compression(octets(below(4)));
            break;
        case 3:
            hello.without_extensions();
            break;
        case 4: {
            Bytes head = octets(34);
            head[0] = below(3) == 0 ? octet() : 3;
            hello.version_and_random(head);
            break;
        }
        default:
            hello.cipher_suites(octets(2 * below(300)));
        }
    }

    /// One of the lengths inside `message` a little off, or far.
    void bend_a_length(Bytes& message) {
        std::vector<std::size_t> last_octets = {3};
        std::size_t at = 38;
        const auto vector = [&](std::size_t width) {
            std::size_t size = 0;
            for (std::size_t i = 0; i < width && at < message.size(); ++i, ++at)
                size = size << 8U | message[at];
            last_octets.push_back(at - 1);
            return size;
        };
        at += vector(1);
        at += vector(2);
        at += vector(1);
        vector(2);
        while (at + 4 <= message.size()) {
            const bool is_name = message[at] == 0 && message[at + 1] == 0;
            at += 2;
            const std::size_t size = vector(2);
            if (is_name && size >= 5) {
                last_octets.push_back(at + 1);
                last_octets.push_back(at + 4);
            }
            at += size;
        }
        const std::size_t field = last_octets[below(last_octets.size())];
        if (field >= message.size())
            return;
        static constexpr std::array<std::uint8_t, 4> kBy = {1, 255, 2, 254};
        message[field] = below(6) == 0 ? one_of(std::array<std::uint8_t, 2>{0, 255})
                                       : static_cast<std::uint8_t>(message[field] + one_of(kBy));
        if (below(8) == 0)
            message[field - 1] = octet();
    }

    Bytes in_records(TlsHelloBuilder& hello, const Bytes& message) {
        std::vector<std::size_t> sizes;
        static constexpr std::array<std::size_t, 4> kAlike = {1, 4, 100, 16384};
        switch (below(4)) {
        case 0:
            for (std::size_t i = below(6); i > 0; --i)
                sizes.push_back(1 + below(message.size()));
            hello.records(sizes);
            break;
        case 1:
            hello.records_of(one_of(kAlike));
            break;
        default:
            break;
        }
        if (below(10) != 0)
            return hello.in_records(message);
        // Something between two records of it, or in front.
        const std::size_t cut = below(message.size());
        const auto middle = message.begin() + static_cast<std::ptrdiff_t>(cut);
        Bytes stream = hello.in_records(Bytes(message.begin(), middle));
        static const std::array<Bytes, 6> kBetween = {
            Bytes{22, 3, 1, 0, 0},    Bytes{21, 3, 1, 0, 2, 1, 90}, Bytes{20, 3, 3, 0, 1, 1},
            Bytes{23, 3, 3, 0, 1, 0}, Bytes{21, 3, 1, 0, 2, 2, 40}, Bytes{24, 3, 1, 0, 3, 1, 0, 0}};
        append(stream, one_of(kBetween));
        append(stream, hello.in_records(Bytes(middle, message.end())));
        return stream;
    }

    void change_bytes(Bytes& bytes) {
        if (bytes.empty())
            return;
        // Headers are where it matters.
        const std::size_t at = below(below(2) == 0 ? std::min<std::size_t>(bytes.size(), 60) : bytes.size());
        const auto place = bytes.begin() + static_cast<std::ptrdiff_t>(at);
        switch (below(6)) {
        case 0:
            *place = octet();
            break;
        case 1:
            *place = static_cast<std::uint8_t>(*place + (below(2) == 0 ? 1 : 255));
            break;
        case 2:
            *place = static_cast<std::uint8_t>(*place ^ (1U << below(8)));
            break;
        case 3:
            bytes.erase(place);
            break;
        case 4:
            bytes.insert(place, static_cast<std::uint8_t>(below(4)));
            break;
        default:
            bytes.resize(at);
        }
    }

    std::mt19937 random_;
};

} // namespace tapgate::test
