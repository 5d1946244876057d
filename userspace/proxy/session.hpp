// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "net/relay.hpp"
#include "policy/decide.hpp"
#include "proxy/events.hpp"
#include "proxy/first_flight.hpp"
#include "proxy/guest.hpp"
#include "proxy/kernel_state.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/ip/tcp.hpp>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tapgate::proxy {

struct SessionSettings {
    std::chrono::milliseconds peek_timeout{5000};
    std::size_t peek_bytes = proto::kDefaultPeekCap;
    std::chrono::milliseconds connect_timeout{10000};
    std::chrono::seconds idle_timeout{3600};
    std::chrono::seconds half_closed_timeout{300};
};

/// What the sessions of one worker share. References outlive the sessions.
struct SessionContext {
    SessionSettings settings;
    KernelState& kernel;
    EventSink& events;
    net::Relay& relay;
    std::function<std::shared_ptr<const Guest>(GuestId)> find_guest;
    /// Every address of the host itself, never null.
    std::function<std::shared_ptr<const std::vector<IpAddress>>()> host_addresses;
};

/// A line of `flow show`.
struct FlowInfo {
    std::uint64_t id = 0;
    std::string guest;
    Endpoint source;
    Endpoint destination;
    std::string state; ///< "peek", "dial" or "relay"
    std::string name;
    std::string name_source;
    std::string verdict;
    std::string rule;
    std::string splice;
    std::uint64_t bytes_up = 0;
    std::uint64_t bytes_down = 0;
    std::chrono::steady_clock::duration age{};
};

/// One proxied connection, from accept to close (DESIGN 3).
///
///     accepted -> Peek (only if the SYN verdict is defer) -> Dial -> Relay -> ended
///
/// Every state may end the session; each end is recorded once, as a verdict event that denies or as a
/// flow-end event. Whatever is not said by name ends in a reset of the guest's connection.
class Session {
  public:
    Session(SessionContext& context, boost::asio::ip::tcp::socket guest_socket, std::uint64_t id);

    /// The session's whole life; the caller keeps the object until it returns. Cancelling (type terminal)
    /// resets both ends.
    boost::asio::awaitable<void> run();

    [[nodiscard]] FlowInfo info() const;

    [[nodiscard]] std::uint64_t id() const { return id_; }

    [[nodiscard]] GuestId guest_id() const { return guest_ ? guest_->id : 0; }

  private:
    enum class State : std::uint8_t { kAccepted, kPeek, kDial, kRelay };

    /// Finds out whose connection this is and takes a place under the guest's cap; false: to be reset.
    bool admit();
    boost::asio::awaitable<std::optional<policy::Decision>> judge();
    boost::asio::awaitable<bool> peek(FirstFlightReader& reader);
    boost::asio::awaitable<void> deny_readably(const policy::Decision& decision);
    boost::asio::awaitable<void> say_and_close(std::string_view bytes);
    boost::asio::awaitable<Result<boost::asio::ip::tcp::socket>> dial() const;
    boost::asio::awaitable<void> relay(boost::asio::ip::tcp::socket upstream);

    void learn_bound_names();
    [[nodiscard]] policy::FlowFacts facts() const;
    [[nodiscard]] std::string rule_text(const policy::Decision& decision) const;
    void publish_verdict(const policy::Decision& decision);
    void publish_end(std::string how, std::string_view who);
    void reset_guest();

    SessionContext& context_;
    boost::asio::ip::tcp::socket socket_;
    std::uint64_t id_;
    std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
    State state_ = State::kAccepted;
    Endpoint source_;
    Endpoint destination_;
    std::shared_ptr<const Guest> guest_;
    std::shared_ptr<const PolicyGeneration> policy_; // the one generation this session is judged by
    CapTicket ticket_;
    std::vector<IpAddress> host_addresses_;
    std::vector<policy::BoundName> bound_;
    std::optional<policy::FirstFlight> flight_;
    std::string_view flight_reason_;
    std::string rule_;
    net::RelayCounters counters_;
};

} // namespace tapgate::proxy
