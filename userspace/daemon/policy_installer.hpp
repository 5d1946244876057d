// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"
#include "proxy/guest.hpp"

namespace tapgate::daemon {

/// Puts a policy in force in the kernel; implemented over the datapath.
class PolicyInstaller {
  public:
    PolicyInstaller() = default;
    PolicyInstaller(const PolicyInstaller&) = delete;
    PolicyInstaller& operator=(const PolicyInstaller&) = delete;
    virtual ~PolicyInstaller() = default;

    /// Makes `policy` the one that tap_ingress decides by for every guest under that name, in one step. On
    /// failure the generation before it stays in force. Main thread.
    virtual Result<void> install(const proxy::PolicyGeneration& policy) = 0;
};

} // namespace tapgate::daemon
