// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "policy/name.hpp"

namespace tapgate::policy {

/// True if anyone can register names directly below `name`, by the Public Suffix List that is built into
/// libpsl.
[[nodiscard]] bool is_public_suffix(const Name& name);

} // namespace tapgate::policy
