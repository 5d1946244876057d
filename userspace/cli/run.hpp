// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ostream>
#include <span>
#include <string>

namespace tapgate::cli {

/// Runs a command line, without the program's name; returns the exit code.
int run(std::span<const std::string> words, std::ostream& out, std::ostream& err);

} // namespace tapgate::cli
