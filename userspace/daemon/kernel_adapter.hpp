// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "daemon/policy_installer.hpp"
#include "datapath/datapath.hpp"
#include "proxy/kernel_state.hpp"

namespace tapgate::daemon {

/// Lets the proxy and the policy store see the datapath without knowing it.
class KernelAdapter final : public proxy::KernelState, public PolicyInstaller {
  public:
    /// `datapath` outlives this.
    explicit KernelAdapter(datapath::Datapath& datapath) : datapath_(datapath) {}

    std::optional<Pending> take_pending(const Endpoint& guest, const Endpoint& destination) override {
        const auto pending = datapath_.take_pending({guest, destination});
        if (!pending)
            return std::nullopt;
        const datapath::Judgement& judgement = pending->judgement;
        return Pending{pending->guest, pending->ifindex, judgement.policy_verdict(), judgement.generation,
                       judgement.rule_group};
    }

    std::vector<BoundName> bound_names(proxy::GuestId guest, const IpAddress& address) override {
        std::vector<BoundName> names;
        for (datapath::BoundName& bound : datapath_.bound_names(guest, address))
            names.push_back({std::move(bound.name), std::move(bound.aliases)});
        return names;
    }

    void count_refusal(unsigned ifindex, proxy::Refusal refusal) override {
        datapath_.count_drop(ifindex == 0 ? std::nullopt : std::optional(ifindex), reason_of(refusal));
    }

    Result<void> install(const proxy::PolicyGeneration& policy) override {
        return datapath_.install_policy(policy.name, *policy.compiled, policy.generation);
    }

  private:
    static tg_drop_reason reason_of(proxy::Refusal refusal) {
        switch (refusal) {
        case proxy::Refusal::kNoPending:
            return TG_DROP_NO_PENDING;
        case proxy::Refusal::kPolicy:
            return TG_DROP_POLICY;
        case proxy::Refusal::kSessionCap:
            return TG_DROP_SESSION_CAP;
        case proxy::Refusal::kDnsPolicy:
            return TG_DROP_DNS_POLICY;
        case proxy::Refusal::kDnsRefused:
            return TG_DROP_DNS_REFUSED;
        case proxy::Refusal::kDnsRebinding:
            return TG_DROP_DNS_REBINDING;
        case proxy::Refusal::kDnsUpstream:
            return TG_DROP_DNS_UPSTREAM;
        case proxy::Refusal::kDnsRate:
            return TG_DROP_DNS_RATE;
        }
        return TG_DROP_POLICY;
    }

    datapath::Datapath& datapath_;
};

} // namespace tapgate::daemon
