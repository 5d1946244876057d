// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/bytes.hpp"
#include "base/result.hpp"
#include "proto/peek.hpp"

#include <cstddef>

namespace tapgate::proto {

/// Gives `stream` to a parser at once, and to another one in steps, and asserts that both come to the same
/// result and that a result, once there, stays. Returns the first.
template <typename Parser>
Parser check_peek(ByteView stream, std::size_t cap) {
    Parser whole(cap);
    whole.update(stream);
    Parser stepped(cap);
    // Single bytes where headers are, longer steps in long inputs.
    const std::size_t step = 1 + stream.size() / 512;
    for (std::size_t size = 0; size < stream.size(); size += step)
        stepped.update(stream.first(size));
    stepped.update(stream);
    TAPGATE_ASSERT(stepped.status() == whole.status());
    TAPGATE_ASSERT(stepped.reason() == whole.reason());
    if (whole.status() != PeekStatus::kNeedMore) {
        const PeekStatus decided = whole.status();
        TAPGATE_ASSERT(whole.update({}) == decided);
    }
    return whole;
}

} // namespace tapgate::proto
