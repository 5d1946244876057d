// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "proto/dns_query.hpp"
#include "proxy/dns_exchange.hpp"
#include "proxy/dns_upstreams.hpp"
#include "proxy/events.hpp"
#include "proxy/guest.hpp"
#include "proxy/kernel_state.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace tapgate::proxy {

/// An answer as the guest gets it.
struct DnsReply {
    std::vector<std::uint8_t> bytes;
    /// The bindings that must be written before the guest has `bytes`.
    std::optional<KernelState::Recording> recording;
};

/// The way back to the guest of one query, over UDP or TCP.
class DnsChannel {
  public:
    enum class Delivery : std::uint8_t {
        kDelivered,
        kUnrecorded, ///< a binding could not be written; nothing was sent
        kNoRoom,     ///< the same, because the guest is at its cap or a table is full
        kLost,       ///< the guest cannot be reached, or has waited too long
    };

    DnsChannel() = default;
    DnsChannel(const DnsChannel&) = delete;
    DnsChannel& operator=(const DnsChannel&) = delete;
    virtual ~DnsChannel() = default;

    [[nodiscard]] virtual policy::Protocol transport() const = 0;

    /// Records what the reply binds, then sends it. To be called on the worker's thread.
    virtual Delivery deliver(const DnsReply& reply) = 0;
};

/// What happens to a guest's query between its bytes and its answer, whatever the transport (DESIGN 7).
///
///     parse ── policy on the name ── limits ── upstream ── policy on the aliases ── rebinding ── ech ──
///     deliver
///       └──────────┴─────────────────┴─────────┴───── an error answer, made by us ─┘
///
/// The query that goes to a trusted resolver is of our own making, and its answer is checked before the guest
/// gets it. Each query has one outcome, one event at most, and one drop reason if it was refused. Belongs to
/// one worker.
class DnsResolver {
  public:
    using HostAddressSource = std::function<std::shared_ptr<const std::vector<IpAddress>>()>;

    /// `timeout` is how long one resolver is waited for. All references outlive the io_context's run.
    DnsResolver(boost::asio::io_context& context, KernelState& kernel, EventSink& events,
                HostAddressSource host_addresses, std::chrono::milliseconds timeout);

    /// Answers `bytes`, a query of `guest`, through `channel`.
    boost::asio::awaitable<void> serve(std::shared_ptr<const Guest> guest, std::vector<std::uint8_t> bytes,
                                       std::shared_ptr<DnsChannel> channel);

    /// Counts the outcome of a query, for its guest and for all.
    void count(const Guest& guest, DnsOutcome outcome, std::chrono::microseconds latency);

    [[nodiscard]] DnsUpstreams& upstreams() { return upstreams_; }

    void set_timeout(std::chrono::milliseconds timeout) { timeout_ = timeout; }

  private:
    struct Inquiry;

    /// What a trusted resolver said, or why there is nothing.
    struct UpstreamAnswer {
        std::vector<std::uint8_t> bytes; ///< empty if nobody answered
        std::optional<Endpoint> from;
    };

    boost::asio::awaitable<void> inquire(Inquiry& inquiry);
    /// Answers what needs no resolver: true if that was done.
    bool settle_at_once(Inquiry& inquiry);
    [[nodiscard]] bool is_over_limit(Inquiry& inquiry) const;
    boost::asio::awaitable<UpstreamAnswer> ask_upstreams(const Inquiry& inquiry);
    boost::asio::awaitable<DnsExchange> ask(Endpoint upstream, const Inquiry& inquiry,
                                            std::chrono::steady_clock::time_point deadline);
    boost::asio::awaitable<DnsExchange> ask_on_stream(Endpoint upstream, const Inquiry& inquiry,
                                                      std::chrono::steady_clock::time_point deadline);
    void upstream_failed(const Endpoint& upstream);
    /// Asks `upstream` now and then until it answers or is not ours any more.
    boost::asio::awaitable<void> probe(Endpoint upstream);

    /// Makes of `answer` what the guest may have, or refuses; nothing then.
    std::optional<DnsReply> judge(Inquiry& inquiry, const UpstreamAnswer& answer);
    [[nodiscard]] bool is_rebinding(Inquiry& inquiry, const proto::DnsMessage& message,
                                    const std::vector<policy::Name>& aliases) const;
    boost::asio::awaitable<void> deliver(Inquiry& inquiry, DnsReply reply);
    boost::asio::awaitable<void> make_room(const Guest& guest, std::size_t needed);

    /// Refuses what the policy denies.
    void deny(Inquiry& inquiry, const policy::Decision& decision, std::span<const policy::Name> aliases);
    /// Counts the refusal and sends an error answer.
    void refuse(Inquiry& inquiry, proto::DnsRcode rcode, Refusal refusal, DnsOutcome outcome,
                std::string reason);
    /// Records the one outcome of the query.
    void finish(Inquiry& inquiry, DnsOutcome outcome);

    boost::asio::io_context& context_;
    KernelState& kernel_;
    EventSink& events_;
    HostAddressSource host_addresses_;
    std::chrono::milliseconds timeout_;
    DnsUpstreams upstreams_;
};

} // namespace tapgate::proxy
