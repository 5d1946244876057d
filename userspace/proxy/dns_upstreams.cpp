// SPDX-License-Identifier: Apache-2.0
#include "proxy/dns_upstreams.hpp"

#include <algorithm>
#include <sstream>
#include <string>
#include <utility>

namespace tapgate::proxy {

void DnsUpstreams::set(const std::vector<Endpoint>& endpoints) {
    std::vector<Entry> entries;
    for (const Endpoint& endpoint : endpoints) {
        const Entry* known = find(endpoint);
        entries.push_back(known != nullptr ? *known : Entry{endpoint, {}});
    }
    entries_ = std::move(entries);
}

std::vector<Endpoint> DnsUpstreams::in_order(Clock::time_point now) const {
    // Healthy ones share the least key; among equals the configured place decides.
    std::vector<std::pair<Clock::time_point, std::size_t>> order;
    for (std::size_t place = 0; place < entries_.size(); ++place) {
        const Clock::time_point end = entries_[place].penalty_end;
        order.emplace_back(end <= now ? Clock::time_point{} : end, place);
    }
    std::ranges::sort(order);
    std::vector<Endpoint> endpoints;
    for (const auto& [end, place] : order)
        endpoints.push_back(entries_[place].endpoint);
    return endpoints;
}

void DnsUpstreams::succeeded(const Endpoint& endpoint) {
    if (Entry* entry = find(endpoint))
        entry->penalty_end = {};
}

void DnsUpstreams::failed(const Endpoint& endpoint, Clock::time_point now) {
    if (Entry* entry = find(endpoint))
        entry->penalty_end = now + kPenalty;
}

std::vector<DnsUpstreams::Status> DnsUpstreams::status(Clock::time_point now) const {
    std::vector<Status> status;
    for (const Entry& entry : entries_)
        status.push_back({entry.endpoint, entry.penalty_end <= now});
    return status;
}

DnsUpstreams::Entry* DnsUpstreams::find(const Endpoint& endpoint) {
    const auto found = std::ranges::find(entries_, endpoint, &Entry::endpoint);
    return found == entries_.end() ? nullptr : &*found;
}

std::vector<Endpoint> parse_resolv_conf(std::string_view text) {
    constexpr std::uint16_t kDnsPort = 53;
    std::vector<Endpoint> endpoints;
    std::istringstream lines{std::string(text)};
    for (std::string line; std::getline(lines, line);) {
        std::istringstream words(line);
        std::string keyword;
        std::string value;
        if (!(words >> keyword >> value) || keyword != "nameserver")
            continue;
        if (const auto address = IpAddress::parse(value))
            endpoints.push_back({*address, kDnsPort});
    }
    return endpoints;
}

} // namespace tapgate::proxy
