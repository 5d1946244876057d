// SPDX-License-Identifier: Apache-2.0
#include "proxy/flight_gate.hpp"

#include <algorithm>
#include <array>
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

constexpr std::size_t kRecordHeaderSize = 5;
constexpr std::uint8_t kHandshakeRecord = 22;
/// SHA-256 of "HelloRetryRequest" in the place of a ServerHello's random (RFC 8446 4.1.3), behind the headers
/// of record and message and the version.
constexpr std::size_t kRandomAt = kRecordHeaderSize + 4 + 2;
constexpr std::array<std::uint8_t, 32> kRetryRandom = {
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
    0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c};
constexpr std::uint8_t kServerHello = 2;

bool is_tls(const policy::FirstFlight& flight) {
    return flight.kind == FirstFlightKind::kTls || flight.kind == FirstFlightKind::kTlsNoSni;
}

constexpr GateStep kRefuse{.pass = 0, .then = Then::kRefuse};

} // namespace

GateStep FlightGate::offer(ByteView held, GateCue cue) {
    switch (stage_) {
    case Stage::kHttp:
        return read_requests(held, cue);
    case Stage::kHello:
        return read_hellos(held, cue);
    case Stage::kFirstFlight:
        break;
    }
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
    if (is_tls(flight)) {
        stage_ = Stage::kHello;
        began_.reset();
        return read_hellos(held, cue);
    }
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

GateStep FlightGate::read_hellos(ByteView held, GateCue cue) {
    std::size_t passed = 0;
    if (!has_hello_passed_) {
        if (hello_.update(held) == PeekStatus::kNeedMore && cue == GateCue::kBytes)
            return wait_for_more(0);
        // It was whole when it was judged.
        if (hello_.status() != PeekStatus::kDone)
            return kRefuse;
        has_hello_passed_ = true;
        began_.reset();
        passed = hello_.size();
    }
    while (server_hello_ != ServerHello::kOther) {
        const ByteView rest = held.subspan(passed);
        if (record_left_ != 0) {
            const std::size_t count = std::min(record_left_, rest.size());
            passed += count;
            record_left_ -= count;
            if (record_left_ != 0)
                return {.pass = passed};
            continue;
        }
        if (rest.empty())
            return {.pass = passed};
        if (!record_header_.empty() || rest[0] != kHandshakeRecord) {
            // Early data, change_cipher_spec, alerts: in them nobody reads a hello.
            const ByteView taken =
                rest.first(std::min(rest.size(), kRecordHeaderSize - record_header_.size()));
            record_header_.insert(record_header_.end(), taken.begin(), taken.end());
            passed += taken.size();
            if (record_header_.size() == kRecordHeaderSize) {
                record_left_ = (std::size_t{record_header_[3]} << 8U) + record_header_[4];
                record_header_.clear();
            }
            continue;
        }
        if (server_hello_ == ServerHello::kNone)
            return {.pass = passed, .then = Then::kAnswer};
        if (!second_hello_.update(rest)) {
            if (cue == GateCue::kBytes)
                return wait_for_more(passed);
            second_hello_.finish();
        }
        const bool is_admitted = judge_.admits(second_hello_.flight(), second_hello_.reason());
        return {.pass = passed, .then = is_admitted ? Then::kOpen : Then::kRefuse};
    }
    return {.pass = passed, .then = Then::kOpen};
}

void FlightGate::read_server_hello(ByteView bytes) {
    if (server_hello_ != ServerHello::kNone)
        return;
    constexpr std::size_t kEnough = kRandomAt + kRetryRandom.size();
    const ByteView taken = bytes.first(std::min(bytes.size(), kEnough - server_bytes_.size()));
    server_bytes_.insert(server_bytes_.end(), taken.begin(), taken.end());
    if (server_bytes_[0] == kHandshakeRecord && server_bytes_.size() < kEnough)
        return;
    const bool is_retry = server_bytes_[0] == kHandshakeRecord &&
                          server_bytes_[kRecordHeaderSize] == kServerHello &&
                          std::ranges::equal(ByteView(server_bytes_).subspan(kRandomAt), kRetryRandom);
    server_hello_ = is_retry ? ServerHello::kRetry : ServerHello::kOther;
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
    if (stage_ == Stage::kHello)
        read_server_hello(bytes);
    else
        answers_.take(bytes);
}

void FlightGate::answer_ended() {
    has_answer_ = true;
    answers_.end();
    if (server_hello_ == ServerHello::kNone)
        server_hello_ = ServerHello::kOther;
}

bool FlightGate::may_speak() const {
    switch (stage_) {
    case Stage::kHttp:
        return answers_.is_between_answers();
    case Stage::kHello:
        return !has_answer_ || server_hello_ == ServerHello::kRetry; // nothing is encrypted yet
    case Stage::kFirstFlight:
        break;
    }
    return !has_answer_;
}

} // namespace tapgate::proxy
