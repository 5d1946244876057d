// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"
#include "proxy/flight_gate.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace tapgate::proxy::test {

inline constexpr FlightGate::Limits kLimits{4096, std::chrono::milliseconds(1000)};

/// Lets pass what names good.test or nobody.
class GoodOnly final : public FlightGate::Judge {
  public:
    bool admits(const policy::FirstFlight& flight, std::string_view reason) override {
        using policy::FirstFlightKind;
        asked.push_back(flight.name ? flight.name->text()
                                    : std::string(policy::first_flight_kind_name(flight.kind)));
        last_reason = reason;
        if (flight.kind == FirstFlightKind::kHttpBad || flight.kind == FirstFlightKind::kTlsBad)
            return false;
        return !flight.name || flight.name->text() == "good.test";
    }

    [[nodiscard]] bool judges_every_request() const override { return every; }

    std::vector<std::string> asked;
    std::string last_reason;
    bool every = true;
};

/// What the relay does with a gate, without sockets, and with the relay's own assertions.
class GatedGuest {
  public:
    /// `piece`: the most bytes that arrive at a time.
    GatedGuest(FlightGate& gate, std::size_t piece) : gate_(gate), piece_(piece) {
        offer(net::GateCue::kBytes);
    }

    void says(std::string_view bytes) {
        for (std::size_t at = 0; at < bytes.size(); at += std::min(piece_, bytes.size())) {
            // Nothing is read while the gate waits for an answer; it waits in the socket.
            socket_ += bytes.substr(at, piece_);
            read();
        }
    }

    void is_answered(std::string_view bytes) {
        if (then_ != Then::kOpen)
            gate_.answered(view(bytes));
        wake();
    }

    void answer_ends() {
        if (then_ != Then::kOpen)
            gate_.answer_ended();
        wake();
    }

    /// After what it has said. Nothing may follow.
    void finishes() {
        is_finished_ = true;
        read();
    }

    /// If the gate has set a deadline, it passes.
    void is_late() {
        if (then_ == Then::kMore && has_deadline_)
            offer(net::GateCue::kLate);
    }

    [[nodiscard]] const std::string& passed() const { return passed_; }

    /// Those of passed() that the gate has let through one by one.
    [[nodiscard]] std::size_t passed_closed() const { return passed_closed_; }

    [[nodiscard]] net::GateStep::Then then() const { return then_; }

  private:
    using Then = net::GateStep::Then;

    static ByteView view(std::string_view bytes) {
        return {reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()};
    }

    void wake() {
        if (then_ != Then::kAnswer)
            return;
        offer(has_ended_ ? net::GateCue::kEnd : net::GateCue::kBytes);
        read();
    }

    void read() {
        while (!socket_.empty() && (then_ == Then::kMore || then_ == Then::kOpen)) {
            const std::size_t room = then_ == Then::kOpen ? SIZE_MAX : gate_.capacity() - held_.size();
            held_ += socket_.substr(0, room);
            socket_.erase(0, room);
            offer(net::GateCue::kBytes);
        }
        if (is_finished_ && !has_ended_ && socket_.empty() && then_ == Then::kMore) {
            has_ended_ = true;
            offer(net::GateCue::kEnd);
        }
    }

    void offer(net::GateCue cue) {
        if (then_ == Then::kRefuse)
            return;
        if (then_ != Then::kOpen) {
            const net::GateStep step = gate_.offer(view(held_), cue);
            TAPGATE_ASSERT(step.pass <= held_.size());
            passed_ += held_.substr(0, step.pass);
            passed_closed_ = passed_.size();
            held_.erase(0, step.pass);
            then_ = step.then;
            has_deadline_ = step.deadline.has_value();
            TAPGATE_ASSERT(then_ != Then::kMore || held_.size() < gate_.capacity());
            TAPGATE_ASSERT(then_ != Then::kMore || !has_ended_ || held_.empty());
        }
        if (then_ == Then::kOpen) {
            passed_ += held_;
            held_.clear();
        }
    }

    FlightGate& gate_;
    std::size_t piece_;
    std::string socket_;
    std::string held_;
    std::string passed_;
    std::size_t passed_closed_ = 0;
    Then then_ = Then::kMore;
    bool has_deadline_ = false;
    bool is_finished_ = false; ///< a FIN is in the socket
    bool has_ended_ = false;   ///< and was read
};

} // namespace tapgate::proxy::test
