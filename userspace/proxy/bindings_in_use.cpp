// SPDX-License-Identifier: Apache-2.0
#include "proxy/bindings_in_use.hpp"

namespace tapgate::proxy {

namespace {

/// Three times what the worker waits between two calls, so that a busy worker does not lose one.
constexpr std::chrono::seconds kKeepTime{60};

} // namespace

void keep(KernelState& kernel, const std::set<BindingInUse>& in_use) {
    const BootClock::time_point until = BootClock::now() + kKeepTime;
    for (const BindingInUse& binding : in_use)
        kernel.keep_binding(binding.guest, binding.address, binding.name, until);
}

} // namespace tapgate::proxy
