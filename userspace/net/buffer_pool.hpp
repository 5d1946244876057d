// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"
#include "net/uring.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>

namespace tapgate::net {

/// A fixed number of equal buffers that the kernel picks from when data arrives (io_uring provided-buffer
/// ring, 5.19).
///
/// Memory is reserved at once and gets pages when a buffer is first used.
class BufferPool {
  public:
    /// The group that requests name in buf_group.
    static constexpr std::uint16_t kGroup = 0;

    /// Registers the buffers with `ring`. `count` is a power of two up to 32768. kUnsupported before 5.19.
    static Result<std::unique_ptr<BufferPool>> open(std::shared_ptr<Uring> ring, unsigned count,
                                                    std::size_t buffer_bytes);

    BufferPool(const BufferPool&) = delete;
    BufferPool& operator=(const BufferPool&) = delete;
    /// Nothing may be receiving into a buffer any more.
    ~BufferPool();

    /// The kernel has picked `id` for a completed request: it is the caller's until put().
    [[nodiscard]] std::uint8_t* take(std::uint16_t id);
    /// Gives `id` back to the kernel.
    void put(std::uint16_t id);

    [[nodiscard]] std::size_t buffer_bytes() const { return buffer_bytes_; }

    [[nodiscard]] unsigned size() const { return count_; }

    /// Buffers the kernel can still pick, less those of completions not taken yet.
    [[nodiscard]] unsigned available() const { return available_; }

  private:
    BufferPool(std::shared_ptr<Uring> ring, unsigned count, std::size_t buffer_bytes)
        : ring_(std::move(ring)), count_(count), buffer_bytes_(buffer_bytes) {}

    std::shared_ptr<Uring> ring_;
    unsigned count_;
    std::size_t buffer_bytes_;
    unsigned available_ = 0;
    io_uring_buf_ring* entries_ = nullptr;
    std::size_t entries_bytes_ = 0;
    bool is_registered_ = false;
    std::uint8_t* memory_ = nullptr;
};

} // namespace tapgate::net
