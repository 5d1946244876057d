// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "control/open_metrics.hpp"

#include <vector>

namespace tapgate::daemon {

class Daemon;

/// Everything that can be counted of a running daemon, now. Label values are words of this program and names
/// that the operator chose (guests, policies, resolvers), never a guest's: so the number of series is bounded
/// by the configuration. Main thread only; asks the workers.
[[nodiscard]] std::vector<control::MetricFamily> collect_metrics(Daemon& daemon);

} // namespace tapgate::daemon
