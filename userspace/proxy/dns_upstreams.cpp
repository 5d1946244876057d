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
        entries.push_back(known != nullptr ? *known : Entry{endpoint, std::nullopt});
    }
    entries_ = std::move(entries);
}

std::vector<Endpoint> DnsUpstreams::in_order() const {
    std::vector<const Entry*> order;
    for (const Entry& entry : entries_)
        order.push_back(&entry);
    // An empty time sorts before any other; among equals the configured place decides.
    std::ranges::sort(order, {}, [](const Entry* entry) { return std::pair(entry->failed_at, entry); });
    std::vector<Endpoint> endpoints;
    for (const Entry* entry : order)
        endpoints.push_back(entry->endpoint);
    return endpoints;
}

bool DnsUpstreams::is_healthy(const Endpoint& endpoint) const {
    const Entry* entry = find(endpoint);
    return entry != nullptr && !entry->failed_at;
}

bool DnsUpstreams::is_known(const Endpoint& endpoint) const {
    return find(endpoint) != nullptr;
}

void DnsUpstreams::succeeded(const Endpoint& endpoint) {
    if (Entry* entry = find(endpoint))
        entry->failed_at.reset();
}

bool DnsUpstreams::failed(const Endpoint& endpoint, Clock::time_point now) {
    Entry* entry = find(endpoint);
    if (entry == nullptr)
        return false;
    return !std::exchange(entry->failed_at, now).has_value();
}

std::vector<DnsUpstreams::Status> DnsUpstreams::status() const {
    std::vector<Status> status;
    for (const Entry& entry : entries_)
        status.push_back({entry.endpoint, !entry.failed_at});
    return status;
}

const DnsUpstreams::Entry* DnsUpstreams::find(const Endpoint& endpoint) const {
    const auto found = std::ranges::find(entries_, endpoint, &Entry::endpoint);
    return found == entries_.end() ? nullptr : &*found;
}

DnsUpstreams::Entry* DnsUpstreams::find(const Endpoint& endpoint) {
    return const_cast<Entry*>(std::as_const(*this).find(endpoint));
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
