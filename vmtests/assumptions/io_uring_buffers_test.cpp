// SPDX-License-Identifier: Apache-2.0
//
// Asserts: io_uring takes a ring of provided buffers (Linux 5.19), receives from a socket into one of them,
// and says which.
//
// The design needs it for the `uring` relay (userspace/net/buffer_pool.cpp): idle sessions hold no buffer.
// Where io_uring is off (a sysctl, a container's filter) the relay is `copy`; then this skips, saying why.
#include <gtest/gtest.h>
#include <liburing.h>

#include <array>
#include <cstring>
#include <string_view>

#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

namespace tapgate::assumptions {
namespace {

TEST(IoUringBuffers, a_receive_takes_a_provided_buffer) {
    constexpr unsigned kCount = 4;
    constexpr unsigned kBytes = 4096;
    constexpr int kGroup = 7;
    io_uring ring{};
    if (const int error = -::io_uring_queue_init(8, &ring, 0); error != 0)
        GTEST_SKIP() << "io_uring is not to be had: " << std::strerror(error);

    void* pages = ::mmap(nullptr, kCount * sizeof(io_uring_buf), PROT_READ | PROT_WRITE,
                         MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
    ASSERT_NE(pages, MAP_FAILED);
    auto* buffers = static_cast<io_uring_buf_ring*>(pages);
    io_uring_buf_reg registration{};
    registration.ring_addr = reinterpret_cast<std::uintptr_t>(buffers);
    registration.ring_entries = kCount;
    registration.bgid = kGroup;
    ASSERT_EQ(::io_uring_register_buf_ring(&ring, &registration, 0), 0);
    std::array<std::array<char, kBytes>, kCount> memory{};
    ::io_uring_buf_ring_init(buffers);
    for (unsigned id = 0; id < kCount; ++id) {
        ::io_uring_buf_ring_add(buffers, memory[id].data(), kBytes, static_cast<unsigned short>(id),
                                ::io_uring_buf_ring_mask(kCount), static_cast<int>(id));
    }
    ::io_uring_buf_ring_advance(buffers, kCount);

    std::array<int, 2> sockets{};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, sockets.data()), 0);
    io_uring_sqe* entry = ::io_uring_get_sqe(&ring);
    ::io_uring_prep_recv(entry, sockets[0], nullptr, 0, 0);
    ::io_uring_sqe_set_flags(entry, IOSQE_BUFFER_SELECT);
    entry->buf_group = kGroup;
    ASSERT_EQ(::io_uring_submit(&ring), 1);
    ASSERT_EQ(::write(sockets[1], "data", 4), 4);
    io_uring_cqe* completion = nullptr;
    ASSERT_EQ(::io_uring_wait_cqe(&ring, &completion), 0);
    EXPECT_EQ(completion->res, 4);
    ASSERT_TRUE(completion->flags & IORING_CQE_F_BUFFER);
    const unsigned id = completion->flags >> IORING_CQE_BUFFER_SHIFT;
    ASSERT_LT(id, kCount);
    EXPECT_EQ(std::string_view(memory[id].data(), 4), "data");

    ::close(sockets[0]);
    ::close(sockets[1]);
    ::io_uring_queue_exit(&ring);
    ::munmap(pages, kCount * sizeof(io_uring_buf));
}

} // namespace
} // namespace tapgate::assumptions
