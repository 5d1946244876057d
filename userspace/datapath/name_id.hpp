// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tapgate/bpf_abi.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace tapgate::datapath {

constexpr std::size_t kWireNameMax = 255; // RFC 1035 2.3.4, with the root octet

// Names are in lower case with dots between labels and no final dot, of 253 octets at most.

/// The id under which BPF knows `name` (bpf_abi.h). Never 0.
[[nodiscard]] std::uint64_t name_id(const tg_hash_key& key, std::string_view name);

/// The id of the chain of these aliases (bpf_abi.h); 0 if there are none.
[[nodiscard]] std::uint64_t chain_id(const tg_hash_key& key, std::span<const __u64> alias_ids);

/// The entry of the map `names` that BPF itself would make for `name`.
[[nodiscard]] tg_name name_entry(const tg_hash_key& key, std::string_view name);

} // namespace tapgate::datapath
