// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace tapgate::policy {

/// What `tapgate policy test` found in one file of cases.
struct ConformanceReport {
    std::size_t passed = 0;
    /// One line per case whose verdict differs: "ID: expected deny, got allow (rule 2: ...)".
    std::vector<std::string> mismatches;
};

/// Runs cases in JSON lines (the shape of DESIGN 10, `policy test`) through the userspace decision function.
/// Fails on a case that cannot be read, with "FILE:LINE: why"; unknown keys are errors, `note` is allowed.
Result<ConformanceReport> run_conformance(std::string_view text, std::string_view file);

} // namespace tapgate::policy
