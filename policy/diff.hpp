// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"
#include "policy/compile.hpp"
#include "policy/model.hpp"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

// What changes between two policies: in what is written, and in the verdicts on given cases.
namespace tapgate::policy {

/// A rule that both policies have, at another place among the rules they share.
struct MovedRule {
    RuleIndex before = 0;
    RuleIndex after = 0;
};

/// A setting other than a rule, by its key: "default_egress", "tls.ech", "groups.corp". Empty text for a
/// group that a policy does not have.
struct ChangedSetting {
    std::string key;
    std::string before;
    std::string after;
};

struct PolicyDiff {
    std::vector<RuleIndex> removed; ///< positions in the first policy, ascending
    std::vector<RuleIndex> added;   ///< positions in the second policy, ascending
    std::vector<MovedRule> moved;   ///< ascending by `after`; as few as make up the difference
    std::vector<ChangedSetting> settings;

    [[nodiscard]] bool empty() const {
        return removed.empty() && added.empty() && moved.empty() && settings.empty();
    }
};

/// Rules are the same if their canonical forms are; a rule that stands twice is two rules. Takes time in
/// n log n of the number of rules.
[[nodiscard]] PolicyDiff diff(const Policy& before, const Policy& after);

/// A case on which two policies differ.
struct ChangedVerdict {
    std::string id;
    /// "deny (rule 2: deny@any)"; for a connection "syn SYN, FINAL" where the verdicts at SYN differ too.
    std::string before;
    std::string after;
};

struct VerdictDiff {
    std::size_t same = 0;
    std::vector<ChangedVerdict> changed;
};

/// Judges the cases in `text` (the shape of run_conformance(); their own policies and expectations are not
/// looked at and may be missing) under both policies. Fails on a case that cannot be read.
[[nodiscard]] Result<VerdictDiff> diff_verdicts(const CompiledPolicy& before, const CompiledPolicy& after,
                                                std::string_view text, std::string_view file);

} // namespace tapgate::policy
