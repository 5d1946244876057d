// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"
#include "policy/decide.hpp"

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tapgate::policy {

/// What `tapgate policy test` found in one file of cases.
struct ConformanceReport {
    std::size_t passed = 0;
    /// Cases that the second engine does not judge: queries over TCP, flows to the guest, name services.
    std::size_t not_judged = 0;
    /// One line per case whose verdict differs: "ID: expected deny, got allow (rule 2: ...)".
    std::vector<std::string> mismatches;
};

/// An engine other than the decision functions: the verdict on a flow's first packet; empty for what it does
/// not judge. An error ends the run.
using SynEngine = std::function<Result<std::optional<Verdict>>(const CompiledPolicy&, const FlowFacts&)>;

/// The same for a DNS question over UDP; kDefer leaves it to the decision functions.
using QueryEngine = std::function<Result<Verdict>(const CompiledPolicy&, const Name&)>;

struct ConformanceEngines {
    /// The decision functions.
    bool user = true;
    /// Judged besides, if there is one, under the name `other_name` in mismatches. First flights are judged
    /// by the decision functions, as in the daemon.
    SynEngine other;
    QueryEngine other_query; ///< asked for queries; empty: they are not judged
    std::string_view other_name;
};

/// Runs cases in JSON lines (the shape of DESIGN 10, `policy test`). Fails on a case that cannot be read,
/// with "FILE:LINE: why"; unknown keys are errors, `note` is allowed.
Result<ConformanceReport> run_conformance(std::string_view text, std::string_view file,
                                          const ConformanceEngines& engines = {});

} // namespace tapgate::policy
