// SPDX-License-Identifier: Apache-2.0
#include "daemon/event_relay.hpp"

#include "daemon/reply_json.hpp"
#include "policy/decide.hpp"
#include "policy/remedy.hpp"
#include "proto/dns_name.hpp"
#include "proto/dns_query.hpp"
#include "proxy/judgement.hpp"

#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <fmt/chrono.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <iterator>
#include <mutex>
#include <utility>
#include <vector>

namespace tapgate::daemon {

namespace {

constexpr std::size_t kMaxWaiting = 8192;
/// Events that the main thread takes before others get their turn.
constexpr std::size_t kMostAtOnce = 256;
/// Between two looks at what has come, while events come.
constexpr std::chrono::milliseconds kPause{2};

json::object head(std::string_view type, std::string_view guest,
                  std::chrono::system_clock::time_point time = std::chrono::system_clock::now()) {
    json::object object;
    object["time"] = rfc3339(time);
    object["type"] = type;
    object["guest"] = guest;
    return object;
}

json::object event_json(const proxy::VerdictEvent& event, std::chrono::system_clock::time_point time) {
    json::object object = head("verdict", event.guest, time);
    object["source"] = event.source.to_string();
    object["destination"] = event.destination.to_string();
    object["name"] = event.name;
    object["name_source"] = event.name_source;
    object["verdict"] = event.allowed ? "allow" : "deny";
    put_rule(object, event.rule);
    object["basis"] = event.basis;
    object["generation"] = event.generation;
    object["to_allow"] = event.to_allow;
    return object;
}

json::object event_json(const proxy::FlowEndEvent& event, std::chrono::system_clock::time_point time) {
    json::object object = head("flow-end", event.guest, time);
    object["source"] = event.source.to_string();
    object["destination"] = event.destination.to_string();
    object["name"] = event.name;
    object["name_source"] = event.name_source;
    object["verdict"] = event.verdict;
    object["splice"] = event.splice;
    object["bytes_up"] = event.bytes_up;
    object["bytes_down"] = event.bytes_down;
    object["duration_ms"] = event.duration.count();
    object["how"] = event.how;
    object["who"] = event.who;
    object["generation"] = event.generation;
    put_rule(object, event.rule);
    object["reason"] = event.reason;
    return object;
}

json::object event_json(const proxy::DnsEvent& event, std::chrono::system_clock::time_point time) {
    json::object object = head("dns", event.guest, time);
    object["name"] = event.name;
    object["qtype"] = event.type;
    object["transport"] = event.transport;
    object["verdict"] = event.allowed ? "allow" : "deny";
    object["outcome"] = event.outcome;
    object["generation"] = event.generation;
    put_rule(object, event.rule);
    object["to_allow"] = event.to_allow;
    object["reason"] = event.reason;
    object["upstream"] = event.upstream;
    object["answers"] = event.answers;
    object["latency_us"] = event.latency.count();
    return object;
}

} // namespace

std::string rfc3339(std::chrono::system_clock::time_point time) {
    const auto seconds = std::chrono::floor<std::chrono::seconds>(time);
    const auto millis = std::chrono::duration_cast<std::chrono::milliseconds>(time - seconds);
    return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z",
                       fmt::gmtime(std::chrono::system_clock::to_time_t(seconds)), millis.count());
}

json::object to_json(const proxy::Event& event, std::chrono::system_clock::time_point time) {
    return std::visit([time](const auto& alternative) { return event_json(alternative, time); }, event);
}

json::object to_json(const datapath::DropEvent& event, std::string_view guest,
                     const proxy::DecidingRule& rule, std::string_view to_allow) {
    json::object object = head("drop", guest);
    object["reason"] = datapath::drop_reason_name(event.reason);
    object["text"] = datapath::drop_reason_text(event.reason);
    object["source"] = event.flow.guest.to_string();
    object["destination"] = event.flow.peer.to_string();
    object["protocol"] = event.protocol;
    if (event.judgement.verdict != TG_VERDICT_NONE) {
        const std::string_view verdict = policy::verdict_name(event.judgement.policy_verdict());
        object["verdict"] = json::string_view(verdict.data(), verdict.size());
        object["generation"] = event.judgement.generation;
        put_rule(object, rule);
        object["to_allow"] = to_allow;
    }
    return object;
}

proxy::DnsEvent dns_event(const datapath::DropEvent& event, const proxy::Guest* guest) {
    proxy::DnsEvent out;
    out.guest = guest != nullptr ? guest->name : "";
    out.generation = event.judgement.generation;
    out.reason = datapath::drop_reason_text(event.reason);
    const auto read = proto::DnsNameReader(event.question->name).read(0);
    if (!read)
        return out;
    out.name = read->name.text();
    out.type = proto::dns_type_text(event.question->type);
    // Of an older generation only the number is known by now.
    const auto name = policy::Name::from_wire(out.name);
    if (event.reason != TG_DROP_DNS_POLICY || guest == nullptr || !name ||
        guest->policy->generation != out.generation)
        return out;
    const policy::CompiledPolicy& compiled = *guest->policy->compiled;
    const policy::Decision decision = policy::decide_query(compiled, *name, policy::Protocol::kUdp);
    out.rule = proxy::deciding_rule(compiled, decision);
    out.to_allow = policy::remedy_text(compiled.policy(),
                                       policy::remedy_for_query(compiled, *name, policy::kLikelyPort));
    out.reason = policy::basis_name(decision.basis);
    return out;
}

json::object change_event(std::string_view type, std::string_view guest, std::string_view what) {
    json::object object = head(type, guest);
    object["what"] = what;
    return object;
}

json::object lost_event(std::uint64_t count) {
    json::object object = head("lost", "");
    object["count"] = count;
    object["where"] = "daemon";
    return object;
}

struct EventRelay::Queue {
    struct Waiting {
        proxy::Event event;
        std::chrono::system_clock::time_point time;
    };

    Queue(boost::asio::io_context& context, Consumer consume)
        : consumer(std::move(consume)), pause(context) {}

    /// Not all of them, so that others get their turn; false: nothing waits, and the next event is to be told
    /// of. On the main thread.
    bool consume_some();

    const Consumer consumer;
    std::atomic<std::uint64_t> lost{0};
    boost::asio::steady_timer pause; ///< the main thread's

    std::mutex mutex;
    std::deque<Waiting> waiting; // guarded by mutex
    bool is_awaited = false;     // guarded by mutex; deliver() will run, without being called
};

EventRelay::EventRelay(boost::asio::io_context& context, Consumer consumer)
    : context_(context), queue_(std::make_shared<Queue>(context, std::move(consumer))) {}

void EventRelay::publish(proxy::Event event) {
    tally_.count(event);
    {
        const std::lock_guard lock(queue_->mutex);
        if (queue_->waiting.size() >= kMaxWaiting) {
            queue_->lost.fetch_add(1, std::memory_order_relaxed);
            return;
        }
        queue_->waiting.push_back({std::move(event), std::chrono::system_clock::now()});
        if (std::exchange(queue_->is_awaited, true))
            return;
    }
    boost::asio::post(context_, [queue = queue_] { deliver(queue); });
}

std::uint64_t EventRelay::lost() const {
    return queue_->lost.load(std::memory_order_relaxed);
}

bool EventRelay::Queue::consume_some() {
    std::vector<Waiting> batch;
    {
        const std::lock_guard lock(mutex);
        const auto end = waiting.begin() + static_cast<std::ptrdiff_t>(std::min(waiting.size(), kMostAtOnce));
        std::move(waiting.begin(), end, std::back_inserter(batch));
        waiting.erase(waiting.begin(), end);
        is_awaited = !batch.empty();
    }
    for (const Waiting& each : batch)
        consumer(each.event, each.time);
    return !batch.empty();
}

void EventRelay::flush() {
    while (queue_->consume_some()) {
    }
}

void EventRelay::deliver(const std::shared_ptr<Queue>& queue) {
    if (!queue->consume_some())
        return;
    // Where there was one, more are likely: they need not wake this thread each.
    queue->pause.expires_after(kPause);
    queue->pause.async_wait([queue](const boost::system::error_code& error) {
        if (!error)
            deliver(queue);
    });
}

} // namespace tapgate::daemon
