// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "policy/document_reader.hpp"
#include "policy/model.hpp"

namespace tapgate::policy {

/// Reads a whole policy from `node`; `policy` is complete only if true is returned.
bool read_policy(DocumentReader& reader, const DocumentNode& node, Policy& policy);

} // namespace tapgate::policy
