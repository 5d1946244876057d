// SPDX-License-Identifier: Apache-2.0
#include "daemon/event_tally.hpp"

#include <algorithm>
#include <string_view>
#include <variant>

namespace tapgate::daemon {

namespace {

/// The word at the beginning: what follows is detail, such as an errno's text.
std::string first_word(std::string_view text) {
    return std::string(text.substr(0, text.find_first_of(": (")));
}

} // namespace

void EventTally::count(const proxy::Event& event) {
    const std::lock_guard lock(mutex_);
    std::visit([this](const auto& alternative) { add(alternative); }, event);
}

void EventTally::add(const proxy::VerdictEvent& event) {
    ++sums_.verdicts[{event.allowed ? "allow" : "deny", first_word(event.basis)}];
}

void EventTally::add(const proxy::FlowEndEvent& event) {
    ++sums_.ends[{first_word(event.how), event.who}];
    Carried& carried = sums_.carried[event.splice.empty() ? "none" : std::string(event.splice)];
    ++carried.flows;
    carried.bytes_up += event.bytes_up;
    carried.bytes_down += event.bytes_down;
}

void EventTally::add(const proxy::DnsEvent&) {}

void EventTally::count_dns(proxy::DnsOutcome outcome, std::chrono::microseconds latency) {
    const std::lock_guard lock(mutex_);
    ++sums_.dns_outcomes.at(static_cast<std::size_t>(outcome));
    switch (outcome) {
    case proxy::DnsOutcome::kAnswered:
    case proxy::DnsOutcome::kTruncated:
    case proxy::DnsOutcome::kNxDomain:
    case proxy::DnsOutcome::kServFail:
        break;
    case proxy::DnsOutcome::kDenied:
    case proxy::DnsOutcome::kRefused:
    case proxy::DnsOutcome::kRebinding:
    case proxy::DnsOutcome::kLimited:
    case proxy::DnsOutcome::kUnrecorded:
    case proxy::DnsOutcome::kOverCap:
    case proxy::DnsOutcome::kUndelivered:
        return; // not what a resolver took
    }
    const double seconds = std::chrono::duration<double>(latency).count();
    const auto bound = std::ranges::lower_bound(kLatencyBounds, seconds);
    ++sums_.dns_latency.at(static_cast<std::size_t>(bound - kLatencyBounds.begin()));
    sums_.dns_latency_seconds += seconds;
}

EventTally::Sums EventTally::sums() const {
    const std::lock_guard lock(mutex_);
    return sums_;
}

} // namespace tapgate::daemon
