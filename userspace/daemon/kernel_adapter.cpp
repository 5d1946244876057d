// SPDX-License-Identifier: Apache-2.0
#include "daemon/kernel_adapter.hpp"

#include <boost/asio/post.hpp>

#include <utility>

namespace tapgate::daemon {

namespace {

constexpr std::chrono::seconds kEvictionPause{1};

tg_drop_reason reason_of(proxy::Refusal refusal) {
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
    case proxy::Refusal::kDnsLimit:
        return TG_DROP_DNS_LIMIT;
    case proxy::Refusal::kDnsUnrecorded:
        return TG_DROP_DNS_UNRECORDED;
    case proxy::Refusal::kDnsConnectionCap:
        return TG_DROP_DNS_CONNECTION_CAP;
    }
    return TG_DROP_POLICY;
}

} // namespace

std::optional<proxy::KernelState::Pending> KernelAdapter::take_pending(const Endpoint& guest,
                                                                       const Endpoint& destination) {
    const auto pending = datapath_.take_pending({guest, destination});
    if (!pending)
        return std::nullopt;
    const datapath::Judgement& judgement = pending->judgement;
    return Pending{pending->guest, pending->ifindex, judgement.policy_verdict(), judgement.generation,
                   judgement.rule_group};
}

Result<std::vector<proxy::KernelState::BoundName>> KernelAdapter::bound_names(proxy::GuestId guest,
                                                                              const IpAddress& address) {
    auto found = datapath_.bound_names(guest, address);
    if (!found)
        return fail(std::move(found.error()));
    std::vector<BoundName> names;
    for (datapath::BoundName& bound : *found)
        names.push_back({std::move(bound.name), std::move(bound.aliases)});
    return names;
}

Result<void> KernelAdapter::record_answer(unsigned ifindex, const Recording& recording) {
    datapath::Recording copy;
    copy.guest = recording.guest;
    copy.name = recording.name;
    copy.aliases = recording.aliases;
    for (const Recording::Address& address : recording.addresses)
        copy.addresses.push_back({address.address, address.ttl_seconds});
    copy.resolver = recording.resolver;
    return datapath_.record_answer(ifindex, copy);
}

bool KernelAdapter::set_resolver(const Question& question, const IpAddress& resolver) {
    return datapath_.set_resolver({question.guest, question.client, question.server, question.id}, resolver);
}

void KernelAdapter::make_room(proxy::GuestId guest, std::size_t count, std::function<void()> done) {
    boost::asio::post(context_, [this, guest, count, done = std::move(done)] {
        evict(guest, count);
        done();
    });
}

void KernelAdapter::evict(proxy::GuestId guest, std::size_t count) {
    const auto now = std::chrono::steady_clock::now();
    std::erase_if(evicted_, [now](const auto& entry) { return entry.second + kEvictionPause <= now; });
    if (evicted_.emplace(guest, now).second)
        datapath_.evict_bindings(guest, count);
}

void KernelAdapter::keep_binding(proxy::GuestId guest, const IpAddress& address, std::string_view name,
                                 BootClock::time_point until) {
    if (!exact_lifetimes_)
        datapath_.keep_binding(guest, address, name, until);
}

void KernelAdapter::count_refusal(unsigned ifindex, proxy::Refusal refusal) {
    datapath_.count_drop(ifindex == 0 ? std::nullopt : std::optional(ifindex), reason_of(refusal));
}

Result<std::uint64_t> KernelAdapter::install(const proxy::PolicyGeneration& policy, std::string_view text) {
    return datapath_.install_policy(policy.name, *policy.compiled, text, policy.generation);
}

} // namespace tapgate::daemon
