// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/ip.hpp"
#include "base/result.hpp"
#include "datapath/datapath.hpp"
#include "policy/decide.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

namespace tapgate::datapath {

/// tap_ingress as a function from the first packet of a flow, or a DNS query, to the policy's verdict: the
/// program is loaded with maps of its own, attached to nothing, and run on built packets (BPF_PROG_TEST_RUN).
/// For `policy test` and for tests that compare the kernel's verdicts with ours. One thread.
class VerdictEngine {
  public:
    /// kPermission, kUnsupported: as Datapath::open().
    static Result<std::unique_ptr<VerdictEngine>> open();

    VerdictEngine() = default;
    VerdictEngine(const VerdictEngine&) = delete;
    VerdictEngine& operator=(const VerdictEngine&) = delete;
    virtual ~VerdictEngine() = default;

    /// Judges by `policy` from now on.
    virtual Result<void> use(const policy::CompiledPolicy& policy) = 0;

    /// The judgement on a flow from a guest whose gateways are the first `host_addresses` of `facts`. Empty
    /// if BPF asks no policy for such packets: flows to the guest, and name services.
    virtual Result<std::optional<Judgement>> judge(const policy::FlowFacts& facts) = 0;

    /// The judgement on a DNS question for `name` over UDP. kDefer: an alias that is not known yet may still
    /// allow what the policy denies by the name alone.
    virtual Result<Judgement> judge_question(const policy::Name& name) = 0;
};

} // namespace tapgate::datapath
