// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"

#include <spdlog/spdlog.h>

#include <string>
#include <string_view>

namespace tapgate {

/// Sends log lines to stderr at `level` ("debug", "info", "warn", "error"); an unknown level is an error.
Result<void> setup_logging(std::string_view level);

/// Guest-supplied text made safe to print: control, quote, backslash and non-ASCII bytes as \xNN, cut at
/// `max_length` bytes of output with "..." at the end.
[[nodiscard]] std::string printable(std::string_view untrusted, std::size_t max_length = 256);

} // namespace tapgate
