// SPDX-License-Identifier: Apache-2.0
#include "proxy/dns_resolver.hpp"

#include "net/async.hpp"
#include "policy/decide.hpp"
#include "policy/ground.hpp"
#include "policy/remedy.hpp"
#include "proto/dns_answer.hpp"
#include "proto/dns_message.hpp"
#include "proto/dns_svcb.hpp"
#include "proxy/judgement.hpp"

#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <utility>

namespace tapgate::proxy {

namespace asio = boost::asio;
using Clock = std::chrono::steady_clock;

namespace {

/// Resolvers asked for one query.
constexpr std::size_t kMaxAttempts = 3;
/// A query's life with us, whatever the configured timeout: tap_egress does not deliver an answer that comes
/// ten seconds after the question (TG_DNS_PENDING_SECONDS).
constexpr std::chrono::milliseconds kMaxQueryTime{9000};
/// Connections to resolvers on behalf of one guest; queries over it get SERVFAIL.
constexpr std::uint32_t kMaxUpstreamConnections = 16;
/// What tap_egress takes of an answer over UDP; beyond it the guest is sent to TCP.
constexpr proto::DnsLimits kUdpLimits{};

constexpr std::chrono::milliseconds kFirstProbePause{1000};
constexpr std::chrono::milliseconds kLongestProbePause{30'000};

/// The main thread makes room; should it be too busy, the guest is not kept waiting.
constexpr std::chrono::seconds kRoomTime{1};
/// A guest at its cap of bindings loses this part of them at once, so that room is not made for each answer.
constexpr std::uint32_t kEvictedPart = 16;

constexpr std::uint32_t kEventsPerSecond = 128; // of one guest, as for BPF's events

/// Firefox turns its own DNS over HTTPS off if this name does not exist.
constexpr std::string_view kCanaryName = "use-application-dns.net";

std::uint32_t second_of(Clock::time_point time) {
    return static_cast<std::uint32_t>(
        std::chrono::duration_cast<std::chrono::seconds>(time.time_since_epoch()).count());
}

bool is_truncated(ByteView message) {
    const auto header = proto::read_dns_header(message);
    return header && header->truncated;
}

/// Another resolver may do better after one of these (RFC 1035 4.1.1): they speak of the resolver.
bool is_resolver_failure(ByteView message) {
    const auto header = proto::read_dns_header(message);
    return header && header->rcode != static_cast<std::uint8_t>(proto::DnsRcode::kNoError) &&
           header->rcode != static_cast<std::uint8_t>(proto::DnsRcode::kNxDomain);
}

/// A rule on names, not one on `any` or `dns`, allows queries for `name`.
bool is_allowed_by_name(const policy::CompiledPolicy& policy, const policy::Name& name) {
    std::vector<policy::RuleIndex> rules;
    policy.append_domain_rules(name, rules);
    return std::ranges::any_of(rules, [&policy](policy::RuleIndex index) {
        const policy::Rule& rule = policy.policy().rules[index];
        return rule.action == policy::Action::kAllow && rule.direction != policy::Direction::kIngress;
    });
}

std::vector<std::uint8_t> bytes_of(const proto::DnsName& name) {
    const proto::DnsName lower = name.lower();
    return {lower.wire().begin(), lower.wire().end()};
}

KernelState::Recording recording_of(const Guest& guest, const proto::DnsQuestion& question,
                                    const proto::DnsAddresses& derived,
                                    const std::optional<Endpoint>& upstream) {
    KernelState::Recording recording;
    recording.guest = guest.id;
    recording.name = bytes_of(question.name);
    for (const proto::DnsName& alias : derived.aliases)
        recording.aliases.push_back(bytes_of(alias));
    for (const proto::DnsAddress& address : derived.addresses)
        recording.addresses.push_back({address.address, address.ttl_seconds});
    if (upstream)
        recording.resolver = upstream->address;
    return recording;
}

/// The addresses that a client may take from `record`; nothing if it is malformed.
std::optional<std::vector<IpAddress>> addresses_in(const proto::DnsRecord& record) {
    if (proto::is_svcb(record))
        return proto::svcb_hints(record);
    std::vector<IpAddress> addresses;
    if (record.type == static_cast<std::uint16_t>(proto::DnsType::kA) && record.rdata.size() == 4) {
        addresses.push_back(IpAddress::from_v4(*ByteReader(record.rdata).u32()));
    } else if (record.type == static_cast<std::uint16_t>(proto::DnsType::kAaaa) &&
               record.rdata.size() == 16) {
        IpAddress::Bytes bytes{};
        std::ranges::copy(record.rdata, bytes.begin());
        addresses.emplace_back(bytes);
    }
    return addresses;
}

/// An upstream's answer, taken apart.
struct Reading {
    proto::DnsMessage message;
    proto::DnsAddresses derived;
    std::string_view reason; ///< why there is none; empty if there is
};

Reading read_answer(ByteView bytes, const proto::DnsLimits& limits) {
    Reading reading;
    proto::DnsParse parse = proto::parse_dns_message(bytes, limits);
    reading.reason = parse.reason;
    if (!parse.message)
        return reading;
    reading.message = std::move(*parse.message);
    reading.derived = proto::derive_addresses(reading.message, limits);
    reading.reason = reading.derived.reason;
    return reading;
}

} // namespace

/// One query while it is with us.
struct DnsResolver::Inquiry {
    std::shared_ptr<const Guest> guest;
    std::shared_ptr<DnsChannel> channel;
    Clock::time_point started = Clock::now();
    proto::DnsQuery query;
    policy::Name name;
    /// The policy that judges it, from the question to the answer.
    std::shared_ptr<const PolicyGeneration> policy;
    DnsEvent event;

    [[nodiscard]] bool is_on_stream() const { return channel->transport() == policy::Protocol::kTcp; }
};

DnsResolver::DnsResolver(asio::io_context& context, KernelState& kernel, EventSink& events,
                         HostAddressSource host_addresses, std::chrono::milliseconds timeout)
    : context_(context), kernel_(kernel), events_(events), host_addresses_(std::move(host_addresses)),
      timeout_(timeout) {}

asio::awaitable<void> DnsResolver::serve(std::shared_ptr<const Guest> guest, std::vector<std::uint8_t> bytes,
                                         std::shared_ptr<DnsChannel> channel) {
    Inquiry inquiry;
    inquiry.guest = std::move(guest);
    inquiry.channel = std::move(channel);
    inquiry.policy = inquiry.guest->policy;
    inquiry.event.guest = inquiry.guest->name;
    inquiry.event.transport = inquiry.is_on_stream() ? "tcp" : "udp";
    proto::DnsQueryParse parsed = proto::parse_dns_query(bytes);
    if (parsed.status == proto::DnsQueryStatus::kDropped) {
        // Guest sees: nothing, there is no header to answer to. Operator sees: dns-refused.
        kernel_.count_refusal(inquiry.guest->ifindex, Refusal::kDnsRefused);
        inquiry.event.reason = parsed.reason;
        finish(inquiry, DnsOutcome::kRefused);
        co_return;
    }
    inquiry.query = std::move(parsed.query);
    if (inquiry.query.question) {
        inquiry.event.name = inquiry.query.question->name.text();
        inquiry.event.type = proto::dns_type_text(inquiry.query.question->type);
    }
    if (parsed.status == proto::DnsQueryStatus::kRefused) {
        // Guest sees: FORMERR, NOTIMP, REFUSED or BADVERS. Operator sees: dns-refused.
        refuse(inquiry, parsed.rcode, Refusal::kDnsRefused, DnsOutcome::kRefused, std::string(parsed.reason));
        co_return;
    }
    auto name = policy::Name::from_wire(inquiry.query.question->name.text());
    if (!name) {
        refuse(inquiry, proto::DnsRcode::kRefused, Refusal::kDnsRefused, DnsOutcome::kRefused,
               "not a host name");
        co_return;
    }
    inquiry.name = std::move(*name);
    co_await inquire(inquiry);
}

asio::awaitable<void> DnsResolver::inquire(Inquiry& inquiry) {
    if (settle_at_once(inquiry))
        co_return;
    const UpstreamAnswer answer = co_await ask_upstreams(inquiry);
    std::optional<DnsReply> reply = judge(inquiry, answer);
    if (reply)
        co_await deliver(inquiry, std::move(*reply));
}

bool DnsResolver::settle_at_once(Inquiry& inquiry) {
    const policy::CompiledPolicy& compiled = *inquiry.policy->compiled;
    const policy::Decision decision =
        policy::decide_query(compiled, inquiry.name, inquiry.channel->transport());
    inquiry.event.rule = deciding_rule(compiled, decision);
    inquiry.event.generation = inquiry.policy->generation;
    if (decision.verdict != policy::Verdict::kAllow && !policy::alias_could_allow(compiled, decision)) {
        deny(inquiry, decision, {});
        return true;
    }
    if (inquiry.name.text() == kCanaryName && !is_allowed_by_name(compiled, inquiry.name)) {
        // Guest sees: NXDOMAIN, and its browser leaves DNS to us. Operator sees: dns-policy.
        refuse(inquiry, proto::DnsRcode::kNxDomain, Refusal::kDnsPolicy, DnsOutcome::kDenied,
               "the canary of DNS over HTTPS, which no rule names");
        return true;
    }
    if (is_over_limit(inquiry)) {
        // Guest sees: NXDOMAIN. Operator sees: dns-limit and which limit.
        refuse(inquiry, proto::DnsRcode::kNxDomain, Refusal::kDnsLimit, DnsOutcome::kLimited,
               std::move(inquiry.event.reason));
        return true;
    }
    const bool wants_v6 = inquiry.query.question->type == static_cast<std::uint16_t>(proto::DnsType::kAaaa);
    if (wants_v6 && !inquiry.guest->has_family(false)) {
        // A guest without IPv6 would only lose time on addresses it cannot reach: NODATA.
        inquiry.event.allowed = true;
        const DnsReply reply{proto::build_error_answer(inquiry.query, proto::DnsRcode::kNoError), {}};
        const bool is_delivered = inquiry.channel->deliver(reply) == DnsChannel::Delivery::kDelivered;
        finish(inquiry, is_delivered ? DnsOutcome::kAnswered : DnsOutcome::kUndelivered);
        return true;
    }
    inquiry.event.allowed = true;
    return false;
}

bool DnsResolver::is_over_limit(Inquiry& inquiry) const {
    const policy::DnsSettings& limits = inquiry.policy->compiled->policy().dns;
    inquiry.event.reason = policy::over_length(limits, inquiry.name);
    if (!inquiry.event.reason.empty())
        return true;
    if (limits.names_per_zone != 0 &&
        !inquiry.guest->counters->dns_names.admit(inquiry.name, limits.names_per_zone, inquiry.started)) {
        inquiry.event.reason = fmt::format("more names of its zone in a minute than dns.names_per_zone, {}",
                                           limits.names_per_zone);
        return true;
    }
    return false;
}

asio::awaitable<DnsResolver::UpstreamAnswer> DnsResolver::ask_upstreams(const Inquiry& inquiry) {
    UpstreamAnswer answer;
    const Clock::time_point last =
        inquiry.started + std::min<std::chrono::milliseconds>(kMaxAttempts * timeout_, kMaxQueryTime);
    const std::vector<Endpoint> order = upstreams_.in_order();
    for (std::size_t i = 0; i < std::min(order.size(), kMaxAttempts); ++i) {
        // Nobody waits for a dead resolver who has an answer already, if only that a live one failed.
        if (answer.from && !upstreams_.is_healthy(order[i]))
            break;
        const Clock::time_point now = Clock::now();
        if (now >= last)
            break;
        const Clock::time_point deadline = std::min(now + timeout_, last);
        DnsExchange exchange = co_await ask(order[i], inquiry, deadline);
        if (exchange.end != DnsExchange::End::kAnswer)
            continue;
        answer.from = order[i];
        answer.bytes = std::move(exchange.bytes);
        if (!is_resolver_failure(answer.bytes))
            break;
    }
    co_return answer;
}

asio::awaitable<DnsExchange> DnsResolver::ask(Endpoint upstream, const Inquiry& inquiry,
                                              Clock::time_point deadline) {
    DnsExchange exchange = co_await ask_over_udp(upstream, inquiry.query, deadline);
    switch (exchange.end) {
    case DnsExchange::End::kAnswer:
        upstreams_.succeeded(upstream);
        // What does not fit a datagram for us does not fit one for the guest either.
        if (!is_truncated(exchange.bytes) || !inquiry.is_on_stream())
            co_return exchange;
        break;
    case DnsExchange::End::kForged:
        break;
    case DnsExchange::End::kNothing:
        upstream_failed(upstream);
        co_return exchange;
    }
    exchange = co_await ask_on_stream(upstream, inquiry, deadline);
    co_return exchange;
}

asio::awaitable<DnsExchange> DnsResolver::ask_on_stream(Endpoint upstream, const Inquiry& inquiry,
                                                        Clock::time_point deadline) {
    DnsExchange exchange;
    const CapTicket ticket = CapTicket::take(
        inquiry.guest->counters, &GuestCounters::dns_upstream_connections, kMaxUpstreamConnections);
    // Guest sees: SERVFAIL. Operator sees: dns-upstream with the outcome.
    if (ticket)
        exchange = co_await ask_over_tcp(upstream, inquiry.query, deadline);
    co_return exchange;
}

void DnsResolver::upstream_failed(const Endpoint& upstream) {
    if (upstreams_.failed(upstream, Clock::now()))
        net::spawn(context_.get_executor(), "dns probe", probe(upstream));
}

asio::awaitable<void> DnsResolver::probe(Endpoint upstream) {
    // At once: a query may also have timed out because the resolver waits for a slow zone, which says nothing
    // of the resolver and is for a guest to choose.
    for (std::chrono::milliseconds pause = kFirstProbePause; upstreams_.is_known(upstream);
         pause = std::min(2 * pause, kLongestProbePause)) {
        const Clock::time_point deadline = Clock::now() + timeout_;
        if (co_await is_answering(upstream, deadline)) {
            upstreams_.succeeded(upstream);
            co_return;
        }
        asio::steady_timer timer(context_, pause);
        const auto [error] = co_await timer.async_wait(net::kAsTuple);
        // A query may have reached it meanwhile, when all others had failed too.
        if (error || upstreams_.is_healthy(upstream))
            co_return;
    }
}

std::optional<DnsReply> DnsResolver::judge(Inquiry& inquiry, const UpstreamAnswer& answer) {
    // Guest sees: SERVFAIL. Operator sees: dns-upstream and what is wrong.
    const auto unusable = [&](std::string reason) {
        refuse(inquiry, proto::DnsRcode::kServFail, Refusal::kDnsUpstream, DnsOutcome::kServFail,
               std::move(reason));
        return std::nullopt;
    };
    if (!answer.from)
        return unusable("no trusted resolver answered");
    inquiry.event.upstream = answer.from->to_string();
    if (is_resolver_failure(answer.bytes))
        return unusable(fmt::format("the resolver answers with code {}", answer.bytes[3] & 0xfU));
    // Within the limits of tap_egress if it has to pass there; what is over them, the guest gets over TCP.
    const bool is_on_stream = inquiry.is_on_stream();
    Reading reading = read_answer(answer.bytes, is_on_stream ? proto::kDnsTcpLimits : kUdpLimits);
    bool fits = reading.reason.empty();
    if (!fits && !is_on_stream)
        reading = read_answer(answer.bytes, proto::kDnsTcpLimits);
    if (!reading.reason.empty())
        return unusable(std::string(reading.reason));
    std::vector<policy::Name> aliases;
    for (const proto::DnsName& alias : reading.derived.aliases) {
        if (auto name = policy::Name::from_wire(alias.text()))
            aliases.push_back(std::move(*name));
    }
    proto::DnsMessage& message = reading.message;
    for (const proto::DnsRecord& record : message.records) {
        if (!addresses_in(record))
            return unusable("a service record is malformed");
    }
    // The question was asked for what its name may be an alias of; now that is known.
    const policy::CompiledPolicy& compiled = *inquiry.policy->compiled;
    const policy::Decision decision =
        policy::decide_query(compiled, inquiry.name, inquiry.channel->transport(), aliases);
    inquiry.event.rule = deciding_rule(compiled, decision);
    if (decision.verdict != policy::Verdict::kAllow) {
        deny(inquiry, decision, aliases);
        return std::nullopt;
    }
    if (is_rebinding(inquiry, message, aliases)) {
        // Guest sees: NXDOMAIN. Operator sees: dns-rebinding and the address.
        refuse(inquiry, proto::DnsRcode::kNxDomain, Refusal::kDnsRebinding, DnsOutcome::kRebinding,
               std::move(inquiry.event.reason));
        return std::nullopt;
    }

    std::vector<std::uint8_t> stripped; // what `message` borrows from then
    if (compiled.policy().ech == policy::Ech::kStrip && proto::carries_ech(message)) {
        auto rewritten = proto::without_ech(message);
        if (!rewritten)
            return unusable("ech cannot be taken out of the answer");
        stripped = std::move(*rewritten);
        proto::DnsParse again = proto::parse_dns_message(stripped, proto::kDnsTcpLimits);
        if (!again.message)
            return unusable("the answer is too large without compression");
        message = std::move(*again.message);
        fits = fits && proto::parse_dns_message(stripped, kUdpLimits).message.has_value();
    }
    inquiry.event.answers = static_cast<unsigned>(
        std::ranges::count(message.records, proto::DnsSection::kAnswer, &proto::DnsRecord::section));
    // One record more than it has: our OPT.
    fits = fits && message.records.size() < kUdpLimits.records;
    if (!is_on_stream && !fits)
        message.header.truncated = true;
    const std::size_t limit = is_on_stream ? proto::kMaxDnsTcpPayload : inquiry.query.udp_limit();
    auto bytes = proto::build_guest_answer(message, inquiry.query, limit);
    if (!bytes)
        return unusable("the answer has another question, or a name made of its OPT record");
    const bool is_cut = is_truncated(*bytes);
    if (is_cut && is_on_stream)
        return unusable("the answer does not fit a message");
    DnsReply reply{std::move(*bytes), std::nullopt};
    if (!is_cut && !reading.derived.addresses.empty())
        reply.recording = recording_of(*inquiry.guest, *inquiry.query.question, reading.derived, answer.from);
    return reply;
}

bool DnsResolver::is_rebinding(Inquiry& inquiry, const proto::DnsMessage& message,
                               const std::vector<policy::Name>& aliases) const {
    const auto host = host_addresses_();
    const policy::HostAddresses host_and_gateways(*host, inquiry.guest->gateways);
    // Every address in the message counts, not only those that bind: the guest sees them all.
    for (const proto::DnsRecord& record : message.records) {
        const auto addresses = addresses_in(record);
        for (const IpAddress& address : addresses ? *addresses : std::vector<IpAddress>()) {
            if (policy::answer_address_permitted(*inquiry.policy->compiled, inquiry.name, address,
                                                 host_and_gateways, aliases))
                continue;
            inquiry.event.reason = fmt::format("the answer carries {}", address.to_string());
            return true;
        }
    }
    return false;
}

asio::awaitable<void> DnsResolver::deliver(Inquiry& inquiry, DnsReply reply) {
    DnsChannel::Delivery delivery = inquiry.channel->deliver(reply);
    if (delivery == DnsChannel::Delivery::kNoRoom) {
        co_await make_room(*inquiry.guest, reply.recording->addresses.size());
        // Also if it was another query of the guest, a moment ago, for which room was made.
        delivery = inquiry.channel->deliver(reply);
    }
    switch (delivery) {
    case DnsChannel::Delivery::kDelivered: {
        const auto header = proto::read_dns_header(reply.bytes);
        const bool no_name = header && header->rcode == static_cast<std::uint8_t>(proto::DnsRcode::kNxDomain);
        finish(inquiry, is_truncated(reply.bytes) ? DnsOutcome::kTruncated
                        : no_name                 ? DnsOutcome::kNxDomain
                                                  : DnsOutcome::kAnswered);
        co_return;
    }
    case DnsChannel::Delivery::kLost:
        // Guest sees: nothing, it has gone or given up. Operator sees: outcome `undelivered`.
        finish(inquiry, DnsOutcome::kUndelivered);
        co_return;
    case DnsChannel::Delivery::kUnrecorded:
    case DnsChannel::Delivery::kNoRoom:
        break;
    }
    // Guest sees: SERVFAIL, and asks again. Operator sees: dns-unrecorded; [limits] bindings raises the cap.
    refuse(inquiry, proto::DnsRcode::kServFail, Refusal::kDnsUnrecorded, DnsOutcome::kUnrecorded,
           "the answer could not be recorded");
}

asio::awaitable<void> DnsResolver::make_room(const Guest& guest, std::size_t needed) {
    const auto timer = std::make_shared<asio::steady_timer>(context_, kRoomTime);
    const std::size_t count = std::max<std::size_t>(needed, guest.limits.bindings / kEvictedPart);
    // The other thread must not be the last to hold the timer, nor touch it.
    kernel_.make_room(guest.id, count, [executor = context_.get_executor(), weak = std::weak_ptr(timer)] {
        asio::post(executor, [weak] {
            if (const auto waiting = weak.lock())
                waiting->cancel();
        });
    });
    co_await timer->async_wait(net::kAsTuple);
}

void DnsResolver::deny(Inquiry& inquiry, const policy::Decision& decision,
                       std::span<const policy::Name> aliases) {
    const policy::CompiledPolicy& compiled = *inquiry.policy->compiled;
    inquiry.event.to_allow = policy::remedy_text(
        compiled.policy(), policy::remedy_for_query(compiled, inquiry.name, policy::kLikelyPort, aliases));
    // Guest sees: NXDOMAIN. Operator sees: dns-policy and the rule.
    refuse(inquiry, proto::DnsRcode::kNxDomain, Refusal::kDnsPolicy, DnsOutcome::kDenied,
           std::string(policy::basis_name(decision.basis)));
}

void DnsResolver::refuse(Inquiry& inquiry, proto::DnsRcode rcode, Refusal refusal, DnsOutcome outcome,
                         std::string reason) {
    kernel_.count_refusal(inquiry.guest->ifindex, refusal);
    std::optional<proto::DnsExtendedError> extended;
    if (refusal == Refusal::kDnsPolicy || refusal == Refusal::kDnsRebinding ||
        refusal == Refusal::kDnsLimit) {
        extended.emplace();
        extended->code = refusal == Refusal::kDnsRebinding ? proto::DnsExtendedError::kFiltered
                                                           : proto::DnsExtendedError::kProhibited;
        extended->text = inquiry.policy->compiled->policy().deny_text;
    }
    const DnsReply reply{proto::build_error_answer(inquiry.query, rcode, extended), {}};
    inquiry.channel->deliver(reply);
    inquiry.event.allowed = false;
    inquiry.event.reason = std::move(reason);
    finish(inquiry, outcome);
}

void DnsResolver::finish(Inquiry& inquiry, DnsOutcome outcome) {
    const Clock::time_point now = Clock::now();
    const auto latency = std::chrono::duration_cast<std::chrono::microseconds>(now - inquiry.started);
    count(*inquiry.guest, outcome, latency);
    if (!inquiry.guest->counters->admit_event(second_of(now), kEventsPerSecond))
        return;
    inquiry.event.outcome = dns_outcome_name(outcome);
    inquiry.event.latency = latency;
    events_.publish(std::move(inquiry.event));
}

void DnsResolver::count(const Guest& guest, DnsOutcome outcome, std::chrono::microseconds latency) {
    guest.counters->count(outcome);
    events_.count_dns(outcome, latency);
}

} // namespace tapgate::proxy
