// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"

#include <cstdint>
#include <span>

namespace tapgate::datapath {

/// Runs the program (BPF_PROG_TEST_RUN) on `packet`, of at least an Ethernet header; returns what it returns.
/// What it has made of the packet is written to `changed`, as far as there is room.
Result<std::uint32_t> run_program(int program_fd, std::span<const std::uint8_t> packet,
                                  std::span<std::uint8_t> changed = {});

} // namespace tapgate::datapath
