// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"

#include <cstddef>
#include <string>

namespace tapgate::cli {

/// Of a policy file: what the policy library accepts.
constexpr std::size_t kMaxPolicyBytes = std::size_t{256} << 20U;

/// The whole of a file; "-" is standard input. kLimit if it has more than `most` bytes.
Result<std::string> read_file(const std::string& path, std::size_t most);

} // namespace tapgate::cli
