// SPDX-License-Identifier: Apache-2.0
//
// Asserts: a hash whose values hold a bpf_spin_lock can be read under the lock (BPF_F_LOCK) and taken out in
// one step by userspace (lookup_and_delete), while a program changes values: nothing counted is lost.
//
// The design needs it for bindings and their collection (bpf/lib/dns_answer.bpf.h, userspace/datapath): an
// entry that is taken out is judged as it was at that moment.
#include "map_semantics.skel.h"

#include <bpf/bpf.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <memory>
#include <thread>

namespace tapgate::assumptions {
namespace {

struct Unload {
    void operator()(map_semantics* bpf) const { map_semantics::destroy(bpf); }
};

struct Locked {
    std::uint32_t lock = 0;
    std::uint32_t number = 0;
};

constexpr std::uint32_t kKey = 0;

/// Runs a program on a packet of zeros; what it returned, or -errno.
int run(const bpf_program* program) {
    std::array<char, 64> packet{};
    bpf_test_run_opts options{};
    options.sz = sizeof options;
    options.data_in = packet.data();
    options.data_size_in = packet.size();
    const int error = ::bpf_prog_test_run_opts(::bpf_program__fd(program), &options);
    return error != 0 ? error : static_cast<int>(options.retval);
}

TEST(LockedHash, an_entry_is_taken_out_whole_and_once) {
    const std::unique_ptr<map_semantics, Unload> bpf(map_semantics::open_and_load());
    ASSERT_NE(bpf, nullptr);
    const int map = ::bpf_map__fd(bpf->maps.locked);
    const Locked seven{.number = 7};
    Locked value;
    ASSERT_EQ(::bpf_map_update_elem(map, &kKey, &seven, BPF_NOEXIST), 0);
    ASSERT_EQ(::bpf_map_lookup_elem_flags(map, &kKey, &value, BPF_F_LOCK), 0);
    EXPECT_EQ(value.number, 7U);
    value = {};
    ASSERT_EQ(::bpf_map_lookup_and_delete_elem_flags(map, &kKey, &value, BPF_F_LOCK), 0);
    EXPECT_EQ(value.number, 7U);
    EXPECT_EQ(value.lock, 0U);
    EXPECT_EQ(::bpf_map_lookup_and_delete_elem_flags(map, &kKey, &value, BPF_F_LOCK), -ENOENT);
}

TEST(LockedHash, what_a_program_adds_meanwhile_is_not_lost_or_counted_twice) {
    constexpr int kRounds = 2000;
    const std::unique_ptr<map_semantics, Unload> bpf(map_semantics::open_and_load());
    ASSERT_NE(bpf, nullptr);
    const int map = ::bpf_map__fd(bpf->maps.locked);
    std::atomic<bool> stop{false};
    std::uint64_t added = 0; // of the program's thread, until it is joined
    std::thread program([&] {
        while (!stop)
            added += run(bpf->progs.add_one) == 1 ? 1 : 0;
    });
    std::uint64_t taken = 0;
    Locked value;
    for (int round = 0; round < kRounds; ++round) {
        const Locked fresh;
        EXPECT_EQ(::bpf_map_update_elem(map, &kKey, &fresh, BPF_NOEXIST), 0);
        std::this_thread::yield();
        EXPECT_EQ(::bpf_map_lookup_and_delete_elem_flags(map, &kKey, &value, BPF_F_LOCK), 0);
        taken += value.number;
    }
    stop = true;
    program.join();
    // A program that found the entry just before it was taken out adds to what nobody reads again: at most
    // one for each time.
    EXPECT_LE(taken, added);
    EXPECT_LE(added, taken + kRounds);
}

} // namespace
} // namespace tapgate::assumptions
