// SPDX-License-Identifier: Apache-2.0
#include "proxy/flight_gate.hpp"

#include <algorithm>
#include <string>

namespace tapgate::proxy {

using net::GateCue;
using net::GateStep;
using policy::FirstFlightKind;
using proto::PeekStatus;
using std::chrono::steady_clock;
using Then = GateStep::Then;

namespace {

/// Protocols behind which there are requests, or names, that nobody judges: HTTP/2 in the clear (RFC
/// 7540 3.2) and TLS inside the connection (RFC 2817).
bool carries_requests(const std::string& protocol) {
    return protocol.starts_with("h2c") || protocol.starts_with("http") || protocol.starts_with("tls");
}

HttpAnswers::Asked asked_by(const proto::HttpRequest& request) {
    if (request.target_form == proto::HttpTargetForm::kAuthority)
        return HttpAnswers::Asked::kConnect;
    if (!request.upgrades.empty())
        return HttpAnswers::Asked::kUpgrade;
    return request.method == "HEAD" ? HttpAnswers::Asked::kHead : HttpAnswers::Asked::kOrdinary;
}

constexpr GateStep kRefuse{.pass = 0, .then = Then::kRefuse};

} // namespace

GateStep FlightGate::offer(ByteView held, GateCue cue) {
    if (stage_ == Stage::kHttp)
        return read_requests(held, cue);
    return read_first_flight(held, cue);
}

GateStep FlightGate::read_first_flight(ByteView held, GateCue cue) {
    if (held.empty())
        return {}; // silent still; a FIN may pass
    if (!reader_.update(held)) {
        if (cue == GateCue::kBytes)
            return wait_for_more(0);
        reader_.finish();
    }
    const policy::FirstFlight& flight = reader_.flight();
    if (!judge_.admits(flight, reader_.reason()))
        return kRefuse;
    if (flight.kind != FirstFlightKind::kHttp || !judge_.judges_every_request())
        return {.pass = 0, .then = Then::kOpen};
    stage_ = Stage::kHttp;
    began_.reset();
    return read_requests(held, cue);
}

GateStep FlightGate::read_requests(ByteView held, GateCue cue) {
    std::size_t passed = 0;
    for (;;) {
        const ByteView rest = held.subspan(passed);
        if (body_) {
            if (body_->status() == HttpBody::Status::kMore)
                passed += body_->take(rest);
            if (body_->status() == HttpBody::Status::kBroken)
                return bad_request(0, "the body of the request cannot be followed");
            if (body_->status() == HttpBody::Status::kMore) {
                if (held.size() - passed >= limits_.bytes)
                    return bad_request(0, "a chunk of the request has an endless line");
                if (cue == GateCue::kEnd && passed != held.size())
                    return bad_request(passed, "the request ends inside a chunk's line");
                return {.pass = passed};
            }
            body_.reset();
            continue;
        }
        if (awaits_switch_) {
            if (answers_.has_switched()) {
                // Guest sees: the connection is reset after the server's 101. Operator sees: http-bad, with
                // this reason.
                if (!may_switch_)
                    return bad_request(passed, "the server took up a protocol with requests of its own");
                return {.pass = passed, .then = Then::kOpen};
            }
            if (answers_.outstanding() != 0 && !answers_.is_over())
                return {.pass = passed, .then = Then::kAnswer};
            awaits_switch_ = false;
        }
        if (answers_.outstanding() >= kMaxPipelined && !answers_.is_over())
            return {.pass = passed, .then = Then::kAnswer};
        if (rest.empty())
            return {.pass = passed};

        switch (head_.update(rest)) {
        case PeekStatus::kNeedMore:
            if (cue == GateCue::kEnd)
                return bad_request(passed, "the request head was not finished");
            if (cue == GateCue::kLate)
                return bad_request(passed, "the request head was not finished in time");
            return wait_for_more(passed);
        case PeekStatus::kOtherProtocol:
            return bad_request(passed, "what follows a request is none");
        case PeekStatus::kMalformed:
        case PeekStatus::kTooLarge:
            return bad_request(passed, head_.reason());
        case PeekStatus::kDone:
            break;
        }
        const std::size_t size = head_.head_size();
        if (!begin_request(rest.first(size)))
            return {.pass = passed, .then = Then::kRefuse};
        passed += size;
    }
}

bool FlightGate::begin_request(ByteView head) {
    const proto::HttpRequest& request = head_.request();
    if (judge_.judges_every_request() && !judge_.admits(flight_of(request), {}))
        return false;
    const HttpAnswers::Asked asked = asked_by(request);
    awaits_switch_ = asked == HttpAnswers::Asked::kConnect || asked == HttpAnswers::Asked::kUpgrade;
    may_switch_ = std::ranges::none_of(request.upgrades, carries_requests);
    answers_.expect(asked);
    body_.emplace(head);
    head_ = proto::HttpRequestParser(limits_.bytes);
    began_.reset();
    return true;
}

GateStep FlightGate::bad_request(std::size_t passed, std::string_view reason) {
    // Where the policy in force lets every connection to this place pass, its requests are nobody's business.
    if (!judge_.judges_every_request() || judge_.admits({FirstFlightKind::kHttpBad}, reason))
        return {.pass = passed, .then = Then::kOpen};
    return {.pass = passed, .then = Then::kRefuse};
}

GateStep FlightGate::wait_for_more(std::size_t passed) {
    if (!began_)
        began_ = steady_clock::now();
    return {.pass = passed, .then = Then::kMore, .deadline = *began_ + limits_.timeout};
}

void FlightGate::answered(ByteView bytes) {
    has_answer_ = true;
    answers_.take(bytes);
}

void FlightGate::answer_ended() {
    has_answer_ = true;
    answers_.end();
}

bool FlightGate::may_speak() const {
    return stage_ == Stage::kHttp ? answers_.is_between_answers() : !has_answer_;
}

} // namespace tapgate::proxy
