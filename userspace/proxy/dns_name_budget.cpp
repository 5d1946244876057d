// SPDX-License-Identifier: Apache-2.0
#include "proxy/dns_name_budget.hpp"

#include "policy/public_suffix.hpp"

namespace tapgate::proxy {

bool DnsNameBudget::admit(const policy::Name& name, unsigned per_zone, Clock::time_point now) {
    const std::lock_guard lock(mutex_);
    forget_until(now);
    if (names_.contains(name.text()))
        return true;
    const std::string zone = policy::registrable_domain(name).text();
    const auto counted = per_zone_.find(zone);
    if (names_.size() >= kMaxNames || (counted != per_zone_.end() && counted->second >= per_zone))
        return false;
    const auto [entry, is_new] = names_.insert(name.text());
    order_.push_back({now, &*entry, zone});
    ++per_zone_[zone];
    return true;
}

void DnsNameBudget::forget_until(Clock::time_point now) {
    while (!order_.empty() && order_.front().asked + kWindow <= now) {
        const Entry& oldest = order_.front();
        const auto counted = per_zone_.find(oldest.zone);
        if (--counted->second == 0)
            per_zone_.erase(counted);
        names_.erase(*oldest.name);
        order_.pop_front();
    }
}

} // namespace tapgate::proxy
