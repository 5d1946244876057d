// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/ip.hpp"
#include "proxy/kernel_state.hpp"

#include <compare>
#include <set>
#include <string>

namespace tapgate::proxy {

/// A binding by which a live session was admitted.
struct BindingInUse {
    GuestId guest = 0;
    IpAddress address;
    std::string name;

    auto operator<=>(const BindingInUse&) const = default;
};

/// Prolongs each of them beyond the next time that this is called.
void keep(KernelState& kernel, const std::set<BindingInUse>& in_use);

} // namespace tapgate::proxy
