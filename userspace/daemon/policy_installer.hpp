// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"
#include "proxy/guest.hpp"

#include <cstdint>
#include <string_view>

namespace tapgate::daemon {

/// Puts a policy in force in the kernel; implemented over the datapath.
class PolicyInstaller {
  public:
    PolicyInstaller() = default;
    PolicyInstaller(const PolicyInstaller&) = delete;
    PolicyInstaller& operator=(const PolicyInstaller&) = delete;
    virtual ~PolicyInstaller() = default;

    /// Makes `policy`, compiled from `text`, the one that tap_ingress decides by for every guest under that
    /// name, in one step. Its generation: that of `policy`, or the one by which an earlier daemon has left
    /// the same in force. On failure the generation before it stays in force. Main thread.
    virtual Result<std::uint64_t> install(const proxy::PolicyGeneration& policy, std::string_view text) = 0;
};

} // namespace tapgate::daemon
