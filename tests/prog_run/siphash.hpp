// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

namespace tapgate::test {

/// SipHash-2-4, byte by byte: written apart from the one in bpf/include/tapgate.
inline std::uint64_t siphash24(std::uint64_t k0, std::uint64_t k1, std::span<const std::uint8_t> bytes) {
    std::uint64_t v[4] = {0x736f6d6570736575 ^ k0, 0x646f72616e646f6d ^ k1, 0x6c7967656e657261 ^ k0,
                          0x7465646279746573 ^ k1};
    const auto rounds = [&v](int count) {
        for (int i = 0; i < count; ++i) {
            v[0] += v[1];
            v[2] += v[3];
            v[1] = std::rotl(v[1], 13) ^ v[0];
            v[3] = std::rotl(v[3], 16) ^ v[2];
            v[0] = std::rotl(v[0], 32);
            v[2] += v[1];
            v[0] += v[3];
            v[1] = std::rotl(v[1], 17) ^ v[2];
            v[3] = std::rotl(v[3], 21) ^ v[0];
            v[2] = std::rotl(v[2], 32);
        }
    };
    std::uint64_t word = 0;
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        word |= static_cast<std::uint64_t>(bytes[i]) << (i % 8 * 8);
        if (i % 8 == 7) {
            v[3] ^= word;
            rounds(2);
            v[0] ^= word;
            word = 0;
        }
    }
    word |= static_cast<std::uint64_t>(bytes.size() & 0xffU) << 56U;
    v[3] ^= word;
    rounds(2);
    v[0] ^= word;
    v[2] ^= 0xff;
    rounds(4);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

} // namespace tapgate::test
