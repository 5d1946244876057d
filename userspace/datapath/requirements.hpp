// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"

#include <string>

namespace tapgate::datapath {

/// kPermission unless this thread has CAP_BPF and CAP_NET_ADMIN in effect (CAP_SYS_ADMIN implies CAP_BPF).
Result<void> check_capabilities();

/// What the programs need and this kernel lacks, as words for a message; empty if nothing is missing. Loads
/// small probe programs, so it is for explaining a failure and not for every start.
[[nodiscard]] std::string missing_kernel_features();

} // namespace tapgate::datapath
