// SPDX-License-Identifier: Apache-2.0
//
// Asserts: when the update of a map-in-map has returned, no program on any CPU still uses the inner map that
// was replaced; a program sees one inner map or the other, never none.
//
// The design needs it for the atomic policy swap (DESIGN 5, I6): the replaced generation may be judged dead,
// and freed or changed, as soon as the swap returns.
#include "base/unique_fd.hpp"
#include "map_semantics.skel.h"

#include <bpf/bpf.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <thread>

namespace tapgate::assumptions {
namespace {

constexpr std::uint32_t kZero = 0;

struct Unload {
    void operator()(map_semantics* bpf) const { map_semantics::destroy(bpf); }
};

void set_generation(int map, std::uint64_t number) {
    ASSERT_EQ(::bpf_map_update_elem(map, &kZero, &number, BPF_ANY), 0);
}

UniqueFd make_generation(std::uint64_t number) {
    UniqueFd map(::bpf_map_create(BPF_MAP_TYPE_ARRAY, "generation", sizeof kZero, sizeof number, 1, nullptr));
    set_generation(map.get(), number);
    return map;
}

TEST(MapInMap, a_replaced_inner_map_is_in_no_program_s_hands_when_the_update_returns) {
    constexpr std::uint64_t kSwaps = 200;
    const std::unique_ptr<map_semantics, Unload> bpf(map_semantics::open_and_load());
    ASSERT_NE(bpf, nullptr);
    const int policies = ::bpf_map__fd(bpf->maps.policies);
    std::atomic<bool> stop{false};
    std::map<int, unsigned> outcomes; // of the reader's thread, until it is joined
    std::thread reader([&] {
        std::array<char, 64> packet{};
        while (!stop) {
            bpf_test_run_opts options{};
            options.sz = sizeof options;
            options.data_in = packet.data();
            options.data_size_in = packet.size();
            const int error = ::bpf_prog_test_run_opts(::bpf_program__fd(bpf->progs.slow_reader), &options);
            ++outcomes[error != 0 ? error : static_cast<int>(options.retval)];
        }
    });
    UniqueFd old = make_generation(0);
    const int first = old.get();
    ASSERT_EQ(::bpf_map_update_elem(policies, &kZero, &first, BPF_ANY), 0);
    for (std::uint64_t number = 1; number <= kSwaps; ++number) {
        UniqueFd fresh = make_generation(number);
        const int inner = fresh.get();
        EXPECT_EQ(::bpf_map_update_elem(policies, &kZero, &inner, BPF_ANY), 0);
        set_generation(old.get(), number); // a reader of the old one would notice
        old = std::move(fresh);
    }
    stop = true;
    reader.join();
    EXPECT_GE(outcomes[0], 1U);
    EXPECT_EQ(outcomes.size(), 1U) << "1: changed while in use, 2: no inner map, negative: errno";
}

} // namespace
} // namespace tapgate::assumptions
