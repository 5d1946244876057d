// SPDX-License-Identifier: Apache-2.0
#include "datapath/events.hpp"

#include "datapath/abi.hpp"

#include <bpf/libbpf.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace tapgate::datapath {

namespace {

constexpr unsigned kMaxPerRead = 1024;

DropEvent event_from_abi(const tg_event& event) {
    DropEvent out;
    out.time = from_abi_time(event.time_ns);
    out.guest = event.guest_id;
    out.ifindex = event.ifindex;
    out.reason = static_cast<tg_drop_reason>(event.reason);
    out.flow = from_abi(event.flow);
    out.protocol = event.flow.protocol;
    out.judgement = from_abi(event.judgement);
    return out;
}

RefusedQuestion question_from_abi(const tg_dns_event& event) {
    const std::size_t length = std::min<std::size_t>(event.name_length, sizeof event.name);
    return {{event.name, event.name + length}, event.question_type};
}

/// Whether a record holds all of `Record`, and if so what it is.
template <typename Record>
std::optional<Record> read_record(const void* data, std::size_t size) {
    if (size < sizeof(Record))
        return std::nullopt;
    Record record{};
    std::memcpy(&record, data, sizeof record);
    return record;
}

/// Hands the event in a record of the ring buffer on, unless it is too short or of an unknown type or reason.
void hand_on(const void* data, std::size_t size, const Events::Sinks& sinks) {
    const auto event = read_record<tg_event>(data, size);
    if (!event || event->reason >= TG_DROP_REASON_MAX)
        return;
    if (event->type == TG_EVENT_SPLICE) {
        if (sinks.splice_changed)
            sinks.splice_changed(from_abi(event->flow));
        return;
    }
    DropEvent out = event_from_abi(*event);
    if (event->type == TG_EVENT_DNS_REFUSED) {
        const auto dns = read_record<tg_dns_event>(data, size);
        if (!dns)
            return;
        out.question = question_from_abi(*dns);
    } else if (event->type != TG_EVENT_DROP) {
        return;
    }
    if (sinks.dropped)
        sinks.dropped(out);
}

} // namespace

Result<std::unique_ptr<Events>> Events::open(int events_fd) {
    std::unique_ptr<Events> events(new Events());
    events->ring_ = ::ring_buffer__new(events_fd, on_record, events.get(), nullptr);
    if (events->ring_ == nullptr)
        return fail_errno("open the ring buffer of events");
    return events;
}

Events::~Events() {
    ::ring_buffer__free(ring_);
}

int Events::fd() const {
    return ::ring_buffer__epoll_fd(ring_);
}

void Events::read(const Sinks& sinks) {
    sinks_ = &sinks;
    seen_ = 0;
    ::ring_buffer__consume(ring_);
    sinks_ = nullptr;
}

int Events::on_record(void* context, void* data, std::size_t size) {
    Events& self = *static_cast<Events*>(context);
    hand_on(data, size, *self.sinks_);
    // A negative result ends the read; this record is consumed nevertheless.
    return ++self.seen_ < kMaxPerRead ? 0 : -EAGAIN;
}

} // namespace tapgate::datapath
