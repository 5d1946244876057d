// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/feature.hpp"

#include <vector>

namespace tapgate::net {

/// What relays and sockets use of the kernel. Opens a ring and a few sockets, which are gone on return.
[[nodiscard]] std::vector<Feature> probe_features();

/// For `--version`: the ways to relay.
[[nodiscard]] std::vector<std::string> built_with();

} // namespace tapgate::net
