// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace tapgate {

/// "0.1.0"
[[nodiscard]] std::string_view version();

/// What `--version` prints: "PROGRAM VERSION", and a line of what it was built with: `features`, and the
/// sanitizers if there are any.
[[nodiscard]] std::string version_text(std::string_view program, const std::vector<std::string>& features);

} // namespace tapgate
