// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "daemon/event_tally.hpp"
#include "datapath/datapath.hpp"
#include "proxy/events.hpp"
#include "proxy/guest.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/json/object.hpp>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>

namespace tapgate::daemon {

/// The wall-clock time as RFC 3339 text in UTC with milliseconds.
[[nodiscard]] std::string rfc3339(std::chrono::system_clock::time_point time);

/// The events as `event monitor` prints them. `time`: when it happened.
[[nodiscard]] boost::json::object to_json(const proxy::Event& event,
                                          std::chrono::system_clock::time_point time);
/// `rule` is the one that denied, if the policy was asked and one did; `to_allow` as in proxy::VerdictEvent.
[[nodiscard]] boost::json::object to_json(const datapath::DropEvent& event, std::string_view guest,
                                          const proxy::DecidingRule& rule, std::string_view to_allow);
/// What BPF says of a DNS query that it has refused, as the proxy says it of those that it refuses. `guest`
/// is the one that asked; null if it is gone.
[[nodiscard]] proxy::DnsEvent dns_event(const datapath::DropEvent& event, const proxy::Guest* guest);
/// A guest that was attached or detached, or a policy that was loaded.
[[nodiscard]] boost::json::object change_event(std::string_view type, std::string_view guest,
                                               std::string_view what);
/// That `count` events came faster than they could be taken.
[[nodiscard]] boost::json::object lost_event(std::uint64_t count);

/// Counts the workers' events and carries them to the main thread, several at a time where many come: waking
/// a thread costs more than an event. What waits there is bounded; over the bound events are counted as lost,
/// never waited for.
class EventRelay final : public proxy::EventSink {
  public:
    using Consumer = std::function<void(const proxy::Event&, std::chrono::system_clock::time_point)>;

    /// `consumer` runs on the thread of `context`, which must outlive the workers.
    EventRelay(boost::asio::io_context& context, Consumer consumer);

    void publish(proxy::Event event) override;

    /// Carries what waits at once. On the main thread, once the context has stopped.
    void flush();

    void count_dns(proxy::DnsOutcome outcome, std::chrono::microseconds latency) override {
        tally_.count_dns(outcome, latency);
    }

    [[nodiscard]] const EventTally& tally() const { return tally_; }

    [[nodiscard]] std::uint64_t lost() const;

  private:
    struct Queue;

    /// On the main thread, until nothing waits.
    static void deliver(const std::shared_ptr<Queue>& queue);

    boost::asio::io_context& context_;
    EventTally tally_;
    std::shared_ptr<Queue> queue_;
};

} // namespace tapgate::daemon
