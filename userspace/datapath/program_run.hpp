// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <span>

#include <linux/if_ether.h>

namespace tapgate::datapath {

/// `argument` behind an Ethernet header, which is how a program gets it that takes one (bpf_abi.h).
template <typename Argument>
[[nodiscard]] std::array<std::uint8_t, ETH_HLEN + sizeof(Argument)> packet_of(const Argument& argument) {
    std::array<std::uint8_t, ETH_HLEN + sizeof(Argument)> packet{};
    const auto bytes = std::bit_cast<std::array<std::uint8_t, sizeof(Argument)>>(argument);
    std::ranges::copy(bytes, packet.begin() + ETH_HLEN);
    return packet;
}

/// Runs the program (BPF_PROG_TEST_RUN) on `packet`, of at least an Ethernet header; returns what it returns.
/// What it has made of the packet is written to `changed`, as far as there is room.
Result<std::uint32_t> run_program(int program_fd, std::span<const std::uint8_t> packet,
                                  std::span<std::uint8_t> changed = {});

} // namespace tapgate::datapath
