// SPDX-License-Identifier: Apache-2.0
#include "datapath/events.hpp"

#include "datapath/abi.hpp"

#include <bpf/libbpf.h>

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
    out.flow.guest = {from_abi(event.flow.guest_address), ntohs(event.flow.guest_port)};
    out.flow.peer = {from_abi(event.flow.peer_address), ntohs(event.flow.peer_port)};
    out.protocol = event.flow.protocol;
    out.judgement = from_abi(event.judgement);
    return out;
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

void Events::read(const Sink& sink) {
    sink_ = &sink;
    seen_ = 0;
    ::ring_buffer__consume(ring_);
    sink_ = nullptr;
}

int Events::on_record(void* context, void* data, std::size_t size) {
    Events& self = *static_cast<Events*>(context);
    tg_event event{};
    if (size >= sizeof(event)) {
        std::memcpy(&event, data, sizeof(event));
        if (event.type == TG_EVENT_DROP && event.reason < TG_DROP_REASON_MAX)
            (*self.sink_)(event_from_abi(event));
    }
    // A negative result ends the read; this record is consumed nevertheless.
    return ++self.seen_ < kMaxPerRead ? 0 : -EAGAIN;
}

} // namespace tapgate::datapath
