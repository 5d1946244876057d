// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/feature.hpp"
#include "base/result.hpp"

#include <string>
#include <vector>

namespace tapgate::datapath {

/// kPermission unless this thread has CAP_BPF and CAP_NET_ADMIN in effect (CAP_SYS_ADMIN implies CAP_BPF).
Result<void> check_capabilities();

/// What the programs and their attachment use of the kernel. Loads small probe programs and makes small maps,
/// which are gone on return; without the capabilities everything looks missing.
[[nodiscard]] std::vector<Feature> probe_features();

/// For `--version`: the number of the ABI, by which pinned maps are adopted or refused, the version of
/// libbpf, and the ways to attach.
[[nodiscard]] std::vector<std::string> built_with();

/// The required features that this kernel lacks, as words for a message; empty if nothing is missing. For
/// explaining a failure and not for every start, as probe_features() is.
[[nodiscard]] std::string missing_kernel_features();

} // namespace tapgate::datapath
