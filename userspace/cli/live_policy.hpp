// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"
#include "policy/model.hpp"

#include <string>

namespace tapgate::cli {

/// The policy that the daemon behind `socket` has loaded under `name`. kNotFound; kUnavailable without a
/// daemon.
Result<policy::Policy> live_policy(const std::string& socket, const std::string& name);

} // namespace tapgate::cli
