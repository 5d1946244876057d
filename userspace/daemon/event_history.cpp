// SPDX-License-Identifier: Apache-2.0
#include "daemon/event_history.hpp"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include <algorithm>
#include <utility>
#include <vector>

namespace tapgate::daemon {

namespace json = boost::json;

void EventHistory::Loss::count(Time time) {
    ++evicted;
    last = last ? std::max(*last, time) : time;
}

void EventHistory::add(const json::object& event, Time time) {
    const json::value* guest = event.if_contains("guest");
    const std::string_view name =
        guest != nullptr && guest->is_string()
            ? std::string_view(guest->get_string().data(), guest->get_string().size())
            : std::string_view();
    Entry entry{next_number_++, time, json::serialize(event)};
    entry.text.shrink_to_fit();
    auto ring = rings_.find(name);
    if (ring == rings_.end())
        ring = rings_.emplace(name, Ring()).first;
    const std::size_t size = entry.bytes();
    ring->second.entries.push_back(std::move(entry));
    ring->second.bytes += size;
    bytes_ += size;
    ++events_;
    while (events_ > limits_.events || bytes_ > limits_.bytes)
        evict_from(next_to_lose());
}

EventHistory::Rings::iterator EventHistory::next_to_lose() {
    const auto has_enough = [this](const Ring& ring) { return 2 * ring.bytes * rings_.size() >= bytes_; };
    auto chosen = rings_.end(); // somebody has the mean or more
    for (auto ring = rings_.begin(); ring != rings_.end(); ++ring) {
        if (has_enough(ring->second) && (chosen == rings_.end() || ring->second.entries.front().number <
                                                                       chosen->second.entries.front().number))
            chosen = ring;
    }
    return chosen;
}

void EventHistory::evict_from(Rings::iterator ring) {
    Ring& of_guest = ring->second;
    const Entry& oldest = of_guest.entries.front();
    of_guest.loss.count(oldest.time);
    all_.count(oldest.time);
    const std::size_t size = oldest.bytes();
    of_guest.bytes -= size;
    bytes_ -= size;
    --events_;
    of_guest.entries.pop_front();
    if (of_guest.entries.empty())
        rings_.erase(ring);
}

EventHistory::Found EventHistory::find(const control::EventFilter& filter, std::optional<Time> since) const {
    std::vector<const Entry*> wanted;
    const Loss* loss = &all_;
    for (const auto& [name, ring] : rings_) {
        // Notes of lost events have no guest and are for everybody.
        if (filter.guest() && name != *filter.guest() && !name.empty())
            continue;
        if (filter.guest() == name)
            loss = &ring.loss;
        for (const Entry& entry : ring.entries) {
            if (!since || entry.time >= *since)
                wanted.push_back(&entry);
        }
    }
    std::ranges::sort(wanted, {}, &Entry::number);
    Found found;
    found.evicted = loss->evicted;
    found.complete_since = loss->last;
    for (const Entry* entry : wanted) {
        json::value event = json::parse(entry->text);
        if (filter.matches(event.get_object()))
            found.events.push_back(std::move(event));
    }
    return found;
}

} // namespace tapgate::daemon
