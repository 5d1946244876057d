// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "harness/tcp_stream.hpp"

#include <chrono>
#include <cstdint>

// Bulk data whose every byte is known: stronger than a hash, and the first wrong byte has a position.
namespace tapgate::test {

/// Sends bytes `0..total` of the pattern; the errno that stopped it, 0 if none.
int send_pattern(TcpStream& stream, std::uint64_t total);

struct PatternResult {
    std::uint64_t verified = 0; ///< bytes that were right, from the beginning
    bool intact = true;         ///< false: the byte at `verified` or soon after was wrong
    End end = End::kNone;
};

/// Reads to the end of the stream and compares; gives up when nothing comes for `stall`.
PatternResult receive_pattern(TcpStream& stream, std::chrono::milliseconds stall = std::chrono::minutes(1));

} // namespace tapgate::test
