// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "daemon/policy_installer.hpp"
#include "datapath/datapath.hpp"
#include "proxy/kernel_state.hpp"

#include <boost/asio/io_context.hpp>

#include <chrono>
#include <unordered_map>

namespace tapgate::daemon {

/// Lets the proxy and the policy store see the datapath without knowing it.
class KernelAdapter final : public proxy::KernelState, public PolicyInstaller {
  public:
    /// `context` is the main thread's; `datapath` outlives this. Under exact lifetimes nothing is kept beyond
    /// its TTL, whoever uses it.
    KernelAdapter(boost::asio::io_context& context, datapath::Datapath& datapath, bool exact_lifetimes)
        : context_(context), datapath_(datapath), exact_lifetimes_(exact_lifetimes) {}

    std::optional<Pending> take_pending(const Endpoint& guest, const Endpoint& destination) override;

    bool take_session(proxy::GuestId guest, std::uint32_t cap) override {
        return datapath_.take_session(guest, cap);
    }

    void give_back_session(proxy::GuestId guest) override { datapath_.give_back_session(guest); }

    Result<std::vector<BoundName>> bound_names(proxy::GuestId guest, const IpAddress& address) override;
    Result<void> record_answer(unsigned ifindex, const Recording& recording) override;
    bool set_resolver(const Question& question, const IpAddress& resolver) override;
    void make_room(proxy::GuestId guest, std::size_t count, std::function<void()> done) override;
    void keep_binding(proxy::GuestId guest, const IpAddress& address, std::string_view name,
                      BootClock::time_point until) override;
    void count_refusal(unsigned ifindex, proxy::Refusal refusal) override;
    Result<std::uint64_t> install(const proxy::PolicyGeneration& policy, std::string_view text) override;

  private:
    /// Main thread.
    void evict(proxy::GuestId guest, std::size_t count);

    boost::asio::io_context& context_;
    datapath::Datapath& datapath_;
    bool exact_lifetimes_;
    /// For whom room was made in the last second.
    std::unordered_map<proxy::GuestId, std::chrono::steady_clock::time_point> evicted_;
};

} // namespace tapgate::daemon
