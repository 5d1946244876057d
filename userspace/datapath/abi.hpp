// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/clock.hpp"
#include "base/ip.hpp"
#include "datapath/datapath.hpp"
#include "tapgate/bpf_abi.h"

#include <algorithm>
#include <chrono>
#include <cstdint>

#include <arpa/inet.h>

// Conversions between the types of the ABI and our own.
namespace tapgate::datapath {

inline tg_address to_abi(const IpAddress& address) {
    tg_address out{};
    std::ranges::copy(address.bytes(), out.bytes);
    return out;
}

inline IpAddress from_abi(const tg_address& address) {
    IpAddress::Bytes bytes{};
    std::ranges::copy(address.bytes, bytes.begin());
    return IpAddress(bytes);
}

inline FlowTuple from_abi(const tg_flow& flow) {
    return {{from_abi(flow.guest_address), ntohs(flow.guest_port)},
            {from_abi(flow.peer_address), ntohs(flow.peer_port)}};
}

inline BootClock::time_point from_abi_time(std::uint64_t boot_ns) {
    return BootClock::time_point(std::chrono::nanoseconds(static_cast<std::int64_t>(boot_ns)));
}

inline std::uint64_t to_abi_time(BootClock::time_point time) {
    return static_cast<std::uint64_t>(time.time_since_epoch().count());
}

inline Judgement from_abi(const tg_judgement& judgement) {
    Judgement out;
    out.verdict = static_cast<tg_verdict>(judgement.verdict);
    out.generation = judgement.generation;
    if (judgement.group != TG_NO_RULE_GROUP && out.verdict != TG_VERDICT_NONE)
        out.rule_group = judgement.group;
    return out;
}

} // namespace tapgate::datapath
