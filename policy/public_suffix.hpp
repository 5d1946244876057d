// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "policy/name.hpp"

namespace tapgate::policy {

/// True if anyone can register names directly below `name`, by the Public Suffix List that is built into
/// libpsl.
[[nodiscard]] bool is_public_suffix(const Name& name);

/// The zone that `name` is registered in: one label more than its public suffix, by the same list. A public
/// suffix is its own zone.
[[nodiscard]] Name registrable_domain(const Name& name);

} // namespace tapgate::policy
