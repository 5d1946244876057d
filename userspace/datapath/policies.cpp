// SPDX-License-Identifier: Apache-2.0
#include "datapath/policies.hpp"

#include "base/unique_fd.hpp"

#include <bpf/bpf.h>

#include <algorithm>
#include <cerrno>

#include <sys/mman.h>

namespace tapgate::datapath {

Result<Policies> Policies::open(int policies_fd, int generations_fd) {
    Policies policies(policies_fd, generations_fd);
    std::vector<std::uint32_t> slots(TG_POLICIES_MAX);
    std::vector<tg_generation> generations(TG_POLICIES_MAX);
    std::uint32_t count = TG_POLICIES_MAX;
    std::uint32_t next = 0;
    if (::bpf_map_lookup_batch(generations_fd, nullptr, &next, slots.data(), generations.data(), &count,
                               nullptr) != 0 &&
        errno != ENOENT) // the end
        return fail_errno("read the BPF map generations");
    for (std::uint32_t i = 0; i < count; ++i) {
        if (generations[i].generation == 0)
            continue;
        policies.found_[slots[i]] = generations[i];
        policies.last_generation_ =
            std::max<std::uint64_t>(policies.last_generation_, generations[i].generation);
    }
    return policies;
}

Result<void> Policies::note(std::uint32_t slot, const tg_generation& generation) const {
    if (::bpf_map_update_elem(generations_fd_, &slot, &generation, BPF_ANY) != 0)
        return fail_errno("note the generation of a policy");
    return {};
}

Result<std::uint32_t> Policies::take_slot() {
    for (std::uint32_t slot = 0; slot < TG_POLICIES_MAX; ++slot) {
        if (found_.contains(slot) || taken_.contains(slot))
            continue;
        taken_.insert(slot);
        return slot;
    }
    return fail(ErrorCode::kLimit, "there are as many policies as the kernel's table holds");
}

std::optional<Policies::Adopted> Policies::adopt(std::uint64_t digest) {
    TAPGATE_ASSERT(digest != 0); // which says nothing of what is in the slot
    const auto found =
        std::ranges::find_if(found_, [digest](const auto& entry) { return entry.second.digest == digest; });
    if (found == found_.end())
        return std::nullopt;
    const Adopted adopted{found->first, found->second.generation};
    taken_.insert(adopted.slot);
    found_.erase(found);
    return adopted;
}

Result<void> Policies::install(std::uint32_t slot, const PolicyImage& image, std::uint64_t digest) {
    bpf_map_create_opts options{};
    options.sz = sizeof options;
    options.map_flags = BPF_F_INNER_MAP | BPF_F_MMAPABLE;
    const auto blocks = static_cast<std::uint32_t>(image.size());
    const UniqueFd inner(::bpf_map_create(BPF_MAP_TYPE_ARRAY, "policy", sizeof(std::uint32_t),
                                          sizeof(tg_policy_block), blocks, &options));
    if (!inner)
        return fail_errno("create a BPF map for the policy");
    const std::size_t bytes = image.size() * sizeof(tg_policy_block);
    void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, inner.get(), 0);
    if (memory == MAP_FAILED)
        return fail_errno("map the policy's BPF map into memory");
    std::ranges::copy(image, static_cast<tg_policy_block*>(memory));
    ::munmap(memory, bytes);
    if (::bpf_map_freeze(inner.get()) != 0)
        return fail_errno("freeze the policy's BPF map");
    // First, so that no slot in use looks free, whenever this process dies; without the digest, so that no
    // other image is ever taken for this one.
    const std::uint64_t generation = image.front().head.generation;
    if (auto noted = note(slot, {generation, 0}); !noted)
        return noted;
    // The kernel waits here until no program reads the old generation any more.
    const int fd = inner.get();
    if (::bpf_map_update_elem(policies_fd_, &slot, &fd, BPF_ANY) != 0)
        return fail_errno("put the policy in force");
    static_cast<void>(
        note(slot, {generation, digest})); // if that fails the next daemon makes a new generation
    return {};
}

void Policies::release(std::uint32_t slot) {
    ::bpf_map_delete_elem(policies_fd_, &slot);
    static_cast<void>(note(slot, {})); // if that fails the slot stays unused until the next daemon
    found_.erase(slot);
    taken_.erase(slot);
}

void Policies::drop_all_but(const std::set<std::uint32_t>& used) {
    std::vector<std::uint32_t> unused;
    for (const auto& [slot, generation] : found_) {
        if (!used.contains(slot))
            unused.push_back(slot);
    }
    for (const std::uint32_t slot : unused)
        release(slot);
}

} // namespace tapgate::datapath
