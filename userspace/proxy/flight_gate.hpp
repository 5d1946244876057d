// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "net/gated_relay.hpp"
#include "policy/decide.hpp"
#include "proto/http_request.hpp"
#include "proto/tls_client_hello.hpp"
#include "proxy/first_flight.hpp"
#include "proxy/http_framing.hpp"

#include <chrono>
#include <cstddef>
#include <optional>
#include <string_view>
#include <vector>

namespace tapgate::proxy {

/// Has what a guest says on an admitted connection judged before it goes upstream.
///
///     kFirstFlight   the guest was silent when the bindings admitted it: its first bytes are still judged
///         | HTTP  | TLS       \ anything else: open
///         v       +--> kHello
///     kHttp          each request head is judged, then its body passes
///         ^  |
///         |  +-- Upgrade or CONNECT, at its end: nothing more passes before the server has answered
///         +--- declined               \ 101 or 2xx: open
///
///     kHello         a ClientHello passes, and early data behind it. Should the server ask for another one
///         |          (HelloRetryRequest, RFC 8446 4.1.4), that is judged too (B54)
///         +--- any other answer, or the second hello is admitted: open
///
/// What does not parse counts as `http-bad` here, also where it might be another protocol: only a first
/// flight can be `plain`. A pipeline of more than kMaxPipelined unanswered requests waits.
class FlightGate final : public net::RelayGate {
  public:
    static constexpr std::size_t kMaxPipelined = 256;

    /// Whom the gate asks.
    class Judge {
      public:
        Judge() = default;
        Judge(const Judge&) = delete;
        Judge& operator=(const Judge&) = delete;
        virtual ~Judge() = default;

        /// Whether what the guest has begun may go upstream. `reason` says why a flight is bad. After false
        /// the gate refuses everything.
        virtual bool admits(const policy::FirstFlight& flight, std::string_view reason) = 0;
        /// Whether requests are judged one by one ([http] host is "every").
        [[nodiscard]] virtual bool judges_every_request() const = 0;
    };

    enum class Stage : std::uint8_t { kFirstFlight, kHttp, kHello };

    struct Limits {
        std::size_t bytes;                 ///< a first flight or request head has to end within
        std::chrono::milliseconds timeout; ///< from its first byte
    };

    FlightGate(Judge& judge, Stage stage, const Limits& limits)
        : judge_(judge), limits_(limits), stage_(stage), reader_(limits.bytes), head_(limits.bytes),
          hello_(limits.bytes), second_hello_(limits.bytes) {}

    net::GateStep offer(ByteView held, net::GateCue cue) override;
    void answered(ByteView bytes) override;
    void answer_ended() override;

    [[nodiscard]] std::size_t capacity() const override { return limits_.bytes; }

    /// True if the guest can be told of a refusal in the language that it speaks: nothing that the server has
    /// begun to say would be mistaken for a part of it.
    [[nodiscard]] bool may_speak() const;

  private:
    net::GateStep read_first_flight(ByteView held, net::GateCue cue);
    net::GateStep read_requests(ByteView held, net::GateCue cue);
    net::GateStep read_hellos(ByteView held, net::GateCue cue);
    void read_server_hello(ByteView bytes);
    /// Takes the head that has been read to its end; false: refused.
    bool begin_request(ByteView head);
    /// The step for something that is no request: what it brings about hangs on the policy.
    net::GateStep bad_request(std::size_t passed, std::string_view reason);
    net::GateStep wait_for_more(std::size_t passed);

    Judge& judge_;
    Limits limits_;
    Stage stage_;
    FirstFlightReader reader_;
    /// When the first byte of what is being read came.
    std::optional<std::chrono::steady_clock::time_point> began_;
    bool has_answer_ = false;

    proto::HttpRequestParser head_;
    std::optional<HttpBody> body_; ///< of the request whose head has passed
    HttpAnswers answers_;
    bool awaits_switch_ = false; ///< a request for Upgrade or CONNECT has passed
    bool may_switch_ = true;     ///< what it asks for can be let through

    proto::TlsClientHelloParser hello_;
    bool has_hello_passed_ = false;
    std::vector<std::uint8_t> record_header_; ///< of a record that passes, as far as it has come
    std::size_t record_left_ = 0;             ///< of its content
    enum class ServerHello : std::uint8_t { kNone, kRetry, kOther } server_hello_ = ServerHello::kNone;
    std::vector<std::uint8_t> server_bytes_; ///< the first, as many as tell
    FirstFlightReader second_hello_;
};

} // namespace tapgate::proxy
