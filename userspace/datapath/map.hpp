// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"

#include <bpf/bpf.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace tapgate::datapath {

/// Entries looked at in a table per sweep: a quarter of full tables of what is pending, so that all are seen
/// in four sweeps; full tables of bindings take 32.
constexpr std::size_t kSweepBudget = 16384;

/// Typed access to a hash map of the ABI. Borrows the descriptor. Every operation is one system call, except
/// walk(), and may run while BPF programs change the map.
///
/// With `kLocked` the value carries a bpf_spin_lock: values are copied under it, never torn.
template <typename Key, typename Value, bool kLocked = false>
class HashMap {
  public:
    /// Where a walk goes on; a fresh one starts at the beginning.
    class Position {
        friend class HashMap;
        std::uint32_t bucket_ = 0;
        bool started_ = false;
    };

    explicit HashMap(int fd) : fd_(fd) {}

    [[nodiscard]] std::optional<Value> find(const Key& key) const {
        Value value{};
        if (::bpf_map_lookup_elem_flags(fd_, &key, &value, kLockFlag) != 0)
            return std::nullopt;
        return value;
    }

    /// As find(), for those to whom an entry that cannot be read is not one that does not exist.
    [[nodiscard]] Result<std::optional<Value>> read(const Key& key) const {
        const std::optional<Value> value = find(key);
        if (!value && errno != ENOENT)
            return fail_errno("read a BPF map");
        return value;
    }

    /// Creates or replaces.
    Result<void> put(const Key& key, const Value& value) {
        if (::bpf_map_update_elem(fd_, &key, &value, BPF_ANY | kLockFlag) != 0)
            return fail_errno("write to a BPF map");
        return {};
    }

    /// False, with nothing changed, if the key exists already or the map is full.
    bool insert(const Key& key, const Value& value) {
        return ::bpf_map_update_elem(fd_, &key, &value, BPF_NOEXIST | kLockFlag) == 0;
    }

    /// False, with nothing changed, if the key does not exist.
    bool replace(const Key& key, const Value& value) {
        return ::bpf_map_update_elem(fd_, &key, &value, BPF_EXIST | kLockFlag) == 0;
    }

    bool erase(const Key& key) { return ::bpf_map_delete_elem(fd_, &key) == 0; }

    /// Removes and returns the value in one step: of several callers exactly one gets it.
    std::optional<Value> take(const Key& key) {
        Value value{};
        if (::bpf_map_lookup_and_delete_elem_flags(fd_, &key, &value, kLockFlag) != 0)
            return std::nullopt;
        return value;
    }

    /// Calls visit(key, value) for the entries from `position` on, until about `budget` were seen. True when
    /// the end was reached; `position` is then at the beginning again. An entry that exists all the while is
    /// visited exactly once, whatever is inserted or removed beside it (the kernel hands out whole buckets).
    /// `visit` may change the map. A failing system call ends the walk as if the end was reached.
    template <typename Visit>
    bool walk(Position& position, std::size_t budget, Visit&& visit) const {
        std::uint32_t room = kBatch;
        std::vector<Key> keys(room);
        std::vector<Value> values(room);
        bpf_map_batch_opts options{};
        options.sz = sizeof(options);
        options.elem_flags = kLockFlag;
        for (std::size_t seen = 0; seen < budget;) {
            std::uint32_t count = room;
            std::uint32_t next = 0;
            const int result = ::bpf_map_lookup_batch(fd_, position.started_ ? &position.bucket_ : nullptr,
                                                      &next, keys.data(), values.data(), &count, &options);
            const int error = result == 0 ? 0 : errno;
            if (error == ENOSPC && room < kLargestBatch) {
                // One bucket holds more than there was room for.
                room *= 2;
                keys.resize(room);
                values.resize(room);
                continue;
            }
            if (error != 0 && error != ENOENT) {
                position = Position();
                return true;
            }
            count = std::min(count, room);
            for (std::uint32_t i = 0; i < count; ++i)
                visit(keys[i], values[i]);
            if (error == ENOENT) {
                position = Position();
                return true;
            }
            position.bucket_ = next;
            position.started_ = true;
            seen += count;
        }
        return false;
    }

    template <typename Visit>
    void for_each(Visit&& visit) const {
        Position start;
        while (!walk(start, kLargestBatch, visit)) {
        }
    }

  private:
    static constexpr std::uint64_t kLockFlag = kLocked ? BPF_F_LOCK : 0;
    static constexpr std::uint32_t kBatch = 256;
    static constexpr std::uint32_t kLargestBatch = 1U << 19U; // more than any map of the ABI holds

    int fd_;
};

} // namespace tapgate::datapath
