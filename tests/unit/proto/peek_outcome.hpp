// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/bytes.hpp"
#include "proto/peek.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <ostream>
#include <string_view>

namespace tapgate::proto {

inline void PrintTo(PeekStatus status, std::ostream* out) {
    switch (status) {
    case PeekStatus::kNeedMore:
        *out << "need-more";
        return;
    case PeekStatus::kDone:
        *out << "done";
        return;
    case PeekStatus::kOtherProtocol:
        *out << "other protocol";
        return;
    case PeekStatus::kMalformed:
        *out << "malformed";
        return;
    case PeekStatus::kTooLarge:
        *out << "too large";
        return;
    }
}

/// The parser after it was given `stream` at once, checked to be in the same state when it is given one byte
/// at a time and to stay in need-more until the byte that decides.
template <typename Parser>
Parser run_parser(ByteView stream, std::size_t cap = kDefaultPeekCap) {
    Parser whole(cap);
    whole.update(stream);
    Parser stepped(cap);
    for (std::size_t size = 0; size <= stream.size(); ++size)
        stepped.update(stream.first(size));
    EXPECT_EQ(stepped.status(), whole.status());
    EXPECT_EQ(stepped.reason(), whole.reason());
    const bool has_reason =
        whole.status() == PeekStatus::kMalformed || whole.status() == PeekStatus::kTooLarge;
    EXPECT_EQ(whole.reason().empty(), !has_reason);
    return whole;
}

} // namespace tapgate::proto
