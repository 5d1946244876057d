// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"
#include "policy/tables.hpp"
#include "tapgate/bpf_abi.h"

#include <cstdint>
#include <string_view>
#include <vector>

namespace tapgate::datapath {

/// One generation of a policy in the form in which BPF reads it: the blocks of an entry of `policies`.
using PolicyImage = std::vector<tg_policy_block>;

/// Lays out `tables`. `key` is that of the map `hash_key`. Fails with kLimit when the policy needs more than
/// TG_POLICY_BLOCKS_MAX blocks.
[[nodiscard]] Result<PolicyImage> build_policy_image(const policy::Tables& tables, std::uint64_t generation,
                                                     const tg_hash_key& key);

/// What tells policies apart across daemons: the same for the same name and text, laid out in the same
/// blocks, whatever the generation. Never 0. `key` is that of the map `hash_key`.
[[nodiscard]] std::uint64_t policy_digest(const tg_hash_key& key, std::string_view name,
                                          std::string_view text, const PolicyImage& image);

} // namespace tapgate::datapath
