// SPDX-License-Identifier: Apache-2.0
#include "netns/pattern.hpp"

#include <algorithm>
#include <cerrno>
#include <random>
#include <string>
#include <string_view>

namespace tapgate::test {

namespace {

constexpr std::chrono::minutes kStall{1};
constexpr std::size_t kChunk = 256 * 1024;
/// A prime, so that no lost, doubled or swapped buffer of a round size leaves the pattern in step.
constexpr std::size_t kPeriod = 1'000'003;

/// One period and a chunk, so that any chunk of the pattern is one contiguous view.
const std::string& pattern() {
    static const std::string bytes = [] {
        std::mt19937_64 random(7); // NOLINT(cert-msc51-cpp): the same in every run
        std::string made(kPeriod + kChunk, '\0');
        std::ranges::generate(made, [&] { return static_cast<char>(random()); });
        std::copy_n(made.begin(), kChunk, made.begin() + kPeriod);
        return made;
    }();
    return bytes;
}

std::string_view pattern_at(std::uint64_t offset, std::size_t size) {
    return std::string_view(pattern()).substr(offset % kPeriod, size);
}

} // namespace

int send_pattern(TcpStream& stream, std::uint64_t total) {
    for (std::uint64_t sent = 0; sent < total;) {
        const std::size_t size = std::min<std::uint64_t>(kChunk, total - sent);
        if (const int error = stream.send(pattern_at(sent, size), kStall); error != 0)
            return error;
        sent += size;
    }
    return 0;
}

PatternResult receive_pattern(TcpStream& stream, std::chrono::milliseconds stall) {
    PatternResult result;
    std::string buffer(kChunk, '\0');
    for (;;) {
        const long count = stream.receive_into(buffer, stall);
        if (count <= 0) {
            result.end = count == 0 ? End::kFin : count == -ETIMEDOUT ? End::kNone : End::kReset;
            return result;
        }
        const auto size = static_cast<std::size_t>(count);
        if (std::string_view(buffer).substr(0, size) != pattern_at(result.verified, size)) {
            result.intact = false;
            return result;
        }
        result.verified += size;
    }
}

} // namespace tapgate::test
