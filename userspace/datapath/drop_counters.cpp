// SPDX-License-Identifier: Apache-2.0
#include "datapath/drop_counters.hpp"

#include "base/log.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <cerrno>
#include <cstddef>
#include <numeric>

namespace tapgate::datapath {

namespace {

constexpr std::uint32_t kFirstUserspaceReason = 100; // drop_reason.h

std::uint32_t guest_index(std::uint32_t slot, std::uint32_t reason) {
    return slot * TG_DROP_REASON_MAX + reason;
}

} // namespace

DropCounters::DropCounters(int drops_fd, int guest_drops_fd, int events_lost_fd)
    : drops_fd_(drops_fd), guest_drops_fd_(guest_drops_fd), events_lost_fd_(events_lost_fd) {
    const int cpus = ::libbpf_num_possible_cpus();
    TAPGATE_ASSERT(cpus > 0);
    cpus_ = static_cast<std::size_t>(cpus);
}

std::uint64_t DropCounters::sum(int fd, std::uint32_t index) const {
    std::vector<std::uint64_t> values(cpus_);
    if (::bpf_map_lookup_elem(fd, &index, values.data()) != 0)
        return 0;
    return std::accumulate(values.begin(), values.end(), std::uint64_t{0});
}

std::vector<DropCount> DropCounters::read(std::optional<std::uint32_t> slot) const {
    // In one system call: with many guests their number counts.
    std::uint32_t before = slot ? guest_index(*slot, 0) : 0; // the index behind which the reasons begin
    const std::size_t cpus = slot ? 1 : cpus_;
    std::uint32_t count = TG_DROP_REASON_MAX - 1;
    std::vector<std::uint32_t> indexes(count);
    std::vector<std::uint64_t> values(count * cpus);
    std::uint32_t next = 0;
    const int fd = slot ? guest_drops_fd_ : drops_fd_;
    std::vector<DropCount> counts;
    if (::bpf_map_lookup_batch(fd, &before, &next, indexes.data(), values.data(), &count, nullptr) != 0 &&
        errno != ENOENT) // the end of the table
        return counts;
    for (std::uint32_t i = 0; i < count; ++i) {
        const auto first = values.begin() + static_cast<std::ptrdiff_t>(i * cpus);
        const std::uint64_t packets =
            std::accumulate(first, first + static_cast<std::ptrdiff_t>(cpus), std::uint64_t{0});
        if (packets != 0)
            counts.push_back({static_cast<tg_drop_reason>(i + 1), packets});
    }
    return counts;
}

void DropCounters::add_one(int fd, std::uint32_t index) {
    std::vector<std::uint64_t> values(cpus_);
    if (::bpf_map_lookup_elem(fd, &index, values.data()) == 0) {
        ++values.front();
        if (::bpf_map_update_elem(fd, &index, values.data(), BPF_EXIST) == 0)
            return;
    }
    spdlog::debug("a refusal was not counted");
}

void DropCounters::count(std::optional<std::uint32_t> slot, tg_drop_reason reason) {
    TAPGATE_ASSERT(reason >= kFirstUserspaceReason && reason < TG_DROP_REASON_MAX);
    const std::lock_guard lock(mutex_);
    add_one(drops_fd_, reason);
    if (slot)
        add_one(guest_drops_fd_, guest_index(*slot, reason));
}

void DropCounters::reset(std::uint32_t slot) {
    const std::vector<std::uint64_t> zeros(cpus_);
    const std::lock_guard lock(mutex_);
    for (std::uint32_t reason = 0; reason < TG_DROP_REASON_MAX; ++reason) {
        const std::uint32_t index = guest_index(slot, reason);
        ::bpf_map_update_elem(guest_drops_fd_, &index, zeros.data(), BPF_EXIST);
    }
}

std::uint64_t DropCounters::events_lost() const {
    return sum(events_lost_fd_, 0);
}

} // namespace tapgate::datapath
