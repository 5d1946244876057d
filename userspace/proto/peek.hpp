// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

namespace tapgate::proto {

/// What a parser of the first flight says of the bytes so far.
///
/// kNeedMore is the only status that a longer prefix can change. A guest can stay in it for as long as it
/// likes, so the caller that stops waiting (deadline, end of stream) must refuse: to fall back to a check
/// without a name there would let the guest choose the weaker check by being slow.
enum class PeekStatus : std::uint8_t {
    kNeedMore,      ///< a valid beginning
    kDone,          ///< complete and valid; nothing behind it counts
    kOtherProtocol, ///< not this protocol at all: the next parser's turn, in the end `plain`
    kMalformed,     ///< this protocol, but broken; reason() says how
    kTooLarge,      ///< this protocol, not complete within the cap
};

/// Default of the cap on the first flight, in stream bytes. Post-quantum hellos are 2 to 4 KiB; 64 KiB is
/// what one peer may make the gateway buffer before it is known to be allowed.
inline constexpr std::size_t kDefaultPeekCap = 64UL * 1024;

} // namespace tapgate::proto
