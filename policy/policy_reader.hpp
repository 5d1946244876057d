// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "policy/document_reader.hpp"
#include "policy/model.hpp"

#include <vector>

namespace tapgate::policy {

/// Appends the rule in `node` to `rules`.
bool read_rule(DocumentReader& reader, const DocumentNode& node, std::vector<Rule>& rules);

/// Reads a whole policy from `node`; `policy` is complete only if true is returned. Rules that it has already
/// stay in front of those in `node`.
bool read_policy(DocumentReader& reader, const DocumentNode& node, Policy& policy);

} // namespace tapgate::policy
