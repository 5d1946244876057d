// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace tapgate {

using ByteView = std::span<const std::uint8_t>;

/// A bounds-checked cursor over untrusted bytes in network order. Owns nothing.
///
/// Every read either succeeds and advances, or returns nothing and leaves the cursor where it was.
class ByteReader {
  public:
    explicit ByteReader(ByteView bytes) : bytes_(bytes) {}

    [[nodiscard]] std::size_t position() const { return position_; }

    [[nodiscard]] std::size_t remaining() const { return bytes_.size() - position_; }

    [[nodiscard]] bool at_end() const { return remaining() == 0; }

    [[nodiscard]] std::optional<std::uint8_t> u8() { return number<std::uint8_t, 1>(); }

    [[nodiscard]] std::optional<std::uint16_t> u16() { return number<std::uint16_t, 2>(); }

    [[nodiscard]] std::optional<std::uint32_t> u24() { return number<std::uint32_t, 3>(); }

    [[nodiscard]] std::optional<std::uint32_t> u32() { return number<std::uint32_t, 4>(); }

    /// The next `count` bytes, as a view into the input.
    [[nodiscard]] std::optional<ByteView> take(std::size_t count) {
        if (count > remaining())
            return std::nullopt;
        const ByteView view = bytes_.subspan(position_, count);
        position_ += count;
        return view;
    }

  private:
    template <typename T, std::size_t Width>
    std::optional<T> number() {
        const auto view = take(Width);
        if (!view)
            return std::nullopt;
        std::uint32_t value = 0;
        for (const std::uint8_t byte : *view)
            value = (value << 8U) | byte;
        return static_cast<T>(value);
    }

    ByteView bytes_;
    std::size_t position_ = 0;
};

} // namespace tapgate
