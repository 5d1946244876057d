// SPDX-License-Identifier: Apache-2.0
#include "net/buffer_pool.hpp"

#include <cerrno>

#include <sys/mman.h>

namespace tapgate::net {

namespace {

/// Anonymous pages, null on failure.
void* map_pages(std::size_t bytes) {
    void* pages =
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return pages == MAP_FAILED ? nullptr : pages;
}

} // namespace

Result<std::unique_ptr<BufferPool>> BufferPool::open(std::shared_ptr<Uring> ring, unsigned count,
                                                     std::size_t buffer_bytes) {
    std::unique_ptr<BufferPool> pool(new BufferPool(std::move(ring), count, buffer_bytes));
    pool->memory_ = static_cast<std::uint8_t*>(map_pages(count * buffer_bytes));
    if (pool->memory_ == nullptr)
        return fail_errno("reserve memory for relay buffers");
    pool->entries_bytes_ = count * sizeof(io_uring_buf);
    pool->entries_ = static_cast<io_uring_buf_ring*>(map_pages(pool->entries_bytes_));
    if (pool->entries_ == nullptr)
        return fail_errno("reserve memory for the relay buffer ring");

    io_uring_buf_reg registration{};
    registration.ring_addr = reinterpret_cast<std::uintptr_t>(pool->entries_);
    registration.ring_entries = count;
    registration.bgid = kGroup;
    const int error = -io_uring_register_buf_ring(&pool->ring_->native(), &registration, 0);
    if (error == EINVAL)
        return fail(ErrorCode::kUnsupported, "register an io_uring buffer ring: needs Linux 5.19");
    if (error != 0)
        return fail(Error::from_errno(error, "register an io_uring buffer ring"));
    pool->is_registered_ = true;
    io_uring_buf_ring_init(pool->entries_);
    for (unsigned id = 0; id < count; ++id)
        pool->put(static_cast<std::uint16_t>(id));
    return pool;
}

BufferPool::~BufferPool() {
    if (is_registered_)
        (void)io_uring_unregister_buf_ring(&ring_->native(), kGroup);
    if (entries_ != nullptr)
        ::munmap(entries_, entries_bytes_);
    if (memory_ != nullptr)
        ::munmap(memory_, count_ * buffer_bytes_);
}

std::uint8_t* BufferPool::take(std::uint16_t id) {
    TAPGATE_ASSERT(id < count_ && available_ > 0);
    --available_;
    return memory_ + id * buffer_bytes_;
}

void BufferPool::put(std::uint16_t id) {
    io_uring_buf_ring_add(entries_, memory_ + id * buffer_bytes_, static_cast<unsigned>(buffer_bytes_), id,
                          io_uring_buf_ring_mask(count_), 0);
    io_uring_buf_ring_advance(entries_, 1);
    ++available_;
    TAPGATE_ASSERT(available_ <= count_);
}

} // namespace tapgate::net
