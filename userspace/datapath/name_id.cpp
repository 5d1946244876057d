// SPDX-License-Identifier: Apache-2.0
#include "datapath/name_id.hpp"

#include "base/log.hpp"
#include "tapgate/siphash.h"

#include <algorithm>
#include <array>
#include <cstddef>

namespace tapgate::datapath {

std::uint64_t name_id(const tg_hash_key& key, std::string_view name) {
    TAPGATE_ASSERT(name.size() + 2 <= kWireNameMax);
    // The wire form: each label behind its length, then the root.
    std::array<std::uint8_t, kWireNameMax + 1> wire{};
    std::size_t length_at = 0;
    for (std::size_t i = 0; i < name.size(); ++i) {
        if (name[i] == '.')
            length_at = i + 1;
        else {
            wire[i + 1] = static_cast<std::uint8_t>(name[i]);
            ++wire[length_at];
        }
    }
    const std::size_t length = name.size() + 2;

    tg_siphash hash{};
    tg_siphash_start(&hash, key.k0, key.k1);
    std::uint64_t word = 0;
    for (std::size_t i = 0; i < length; ++i) {
        word |= std::uint64_t{wire[i]} << (i % 8 * 8);
        if (i % 8 == 7) {
            tg_siphash_word(&hash, word);
            word = 0;
        }
    }
    const std::uint64_t id = tg_siphash_finish(&hash, word, static_cast<__u32>(length));
    return id != 0 ? id : 1;
}

std::uint64_t chain_id(const tg_hash_key& key, std::span<const __u64> alias_ids) {
    if (alias_ids.empty())
        return 0;
    tg_siphash hash{};
    tg_siphash_start(&hash, key.k0, key.k1);
    for (const __u64 id : alias_ids)
        tg_siphash_word(&hash, id);
    const std::uint64_t id = tg_siphash_finish(&hash, 0, static_cast<__u32>(alias_ids.size_bytes()));
    return id != 0 ? id : 1;
}

tg_name name_entry(const tg_hash_key& key, std::string_view name) {
    tg_name entry{};
    TAPGATE_ASSERT(name.size() < sizeof entry.text);
    entry.length = static_cast<__u16>(name.size());
    std::ranges::copy(name, entry.text);
    // The zones around the name from the last two labels up, without the name itself.
    std::size_t dot = name.rfind('.');
    while (dot != std::string_view::npos && dot != 0 && entry.suffix_count < TG_NAME_SUFFIXES_MAX) {
        dot = name.rfind('.', dot - 1);
        if (dot != std::string_view::npos)
            entry.suffix_ids[entry.suffix_count++] = name_id(key, name.substr(dot + 1));
    }
    return entry;
}

} // namespace tapgate::datapath
