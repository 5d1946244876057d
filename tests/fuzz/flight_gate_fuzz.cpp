// SPDX-License-Identifier: Apache-2.0
#include "proxy/flight_gate.hpp"
#include "tests/fuzz/http_reference.hpp"
#include "tests/unit/proxy/gate_guest.hpp"

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

// An input is a play: what is said, and marks between, each an octet that HTTP has no use for. The first
// octet chooses how it begins.
namespace tapgate::proxy {
namespace {

using test::GatedGuest;
using test::GoodOnly;
using Then = net::GateStep::Then;

enum Mark : std::uint8_t {
    kGuest = 0xfb,  ///< what follows is said by the guest, as at the beginning
    kServer = 0xfc, ///< what follows is said by the server
    kServerEnds = 0xfd,
    kDeadline = 0xfe,
    kGuestEnds = 0xff, ///< and says no more
};

bool is_mark(char octet) {
    return static_cast<std::uint8_t>(octet) >= kGuest;
}

struct Played {
    std::string said; ///< by the guest
    std::string passed;
    std::size_t passed_closed = 0;
    Then then = Then::kMore;
    bool may_speak = false;
    std::vector<std::string> asked;
};

Played play(std::string_view script, FlightGate::Stage stage, bool every, std::size_t piece) {
    GoodOnly judge;
    judge.every = every;
    FlightGate gate(judge, stage, test::kLimits);
    GatedGuest guest(gate, piece);
    Played played;
    bool is_guest = true;
    bool guest_has_ended = false;
    bool server_has_ended = false;
    while (!script.empty()) {
        // Not find_first_of(): clang 19 compiles it wrongly for characters below 0.
        const auto mark_at = std::ranges::find_if(script, is_mark);
        const auto size = static_cast<std::size_t>(mark_at - script.begin());
        if (is_guest && !guest_has_ended) {
            guest.says(script.substr(0, size));
            played.said += script.substr(0, size);
        } else if (!is_guest && !server_has_ended && size != 0) {
            guest.is_answered(script.substr(0, size));
        }
        script.remove_prefix(size);
        if (script.empty())
            break;
        const auto mark = static_cast<std::uint8_t>(script.front());
        script.remove_prefix(1);
        if (mark == kGuest || mark == kServer) {
            is_guest = mark == kGuest;
        } else if (mark == kDeadline) {
            guest.is_late();
        } else if (mark == kServerEnds && !server_has_ended) {
            server_has_ended = true;
            guest.answer_ends();
        } else if (mark == kGuestEnds && !guest_has_ended) {
            guest_has_ended = true;
            guest.finishes();
        }
    }
    played.passed = guest.passed();
    played.passed_closed = guest.passed_closed();
    played.then = guest.then();
    played.may_speak = gate.may_speak();
    played.asked = judge.asked;
    return played;
}

/// Reads what has passed again, and by other means: every byte is of a request for good.test.
void check_requests(std::string_view passed) {
    while (!passed.empty()) {
        const ByteView bytes(reinterpret_cast<const std::uint8_t*>(passed.data()), passed.size());
        proto::HttpRequestParser head;
        TAPGATE_ASSERT(head.update(bytes) == proto::PeekStatus::kDone);
        const policy::FirstFlight flight = flight_of(head.request());
        TAPGATE_ASSERT(!flight.name || flight.name->text() == "good.test");
        const std::string_view rest = passed.substr(head.head_size());
        const BodyEnd end = body_end(passed.substr(0, head.head_size()), rest);
        TAPGATE_ASSERT(end.how != BodyEnd::How::kNowhere);
        if (end.how == BodyEnd::How::kUnfinished)
            return;
        passed = rest.substr(end.at);
    }
}

/// A hello for good.test, and behind it, as long as the gate was closed, no other handshake.
void check_hello(std::string_view passed) {
    const ByteView bytes(reinterpret_cast<const std::uint8_t*>(passed.data()), passed.size());
    proto::TlsClientHelloParser hello;
    TAPGATE_ASSERT(hello.update(bytes) == proto::PeekStatus::kDone);
    if (hello.hello().server_name) {
        const auto name = policy::Name::from_wire(*hello.hello().server_name);
        TAPGATE_ASSERT(name && name->text() == "good.test");
    }
    for (ByteView rest = bytes.subspan(hello.size()); !rest.empty();) {
        TAPGATE_ASSERT(rest[0] != 22);
        if (rest.size() < 5)
            return;
        rest = rest.subspan(std::min<std::size_t>(rest.size(), 5U + 256U * rest[3] + rest[4]));
    }
}

void check_passed(std::string_view passed, bool every) {
    if (passed.starts_with('\x16'))
        check_hello(passed);
    else if (every)
        check_requests(passed);
}

void check(std::string_view script, FlightGate::Stage stage, bool every) {
    const Played whole = play(script, stage, every, SIZE_MAX);
    TAPGATE_ASSERT(whole.said.starts_with(whole.passed));
    check_passed(std::string_view(whole.passed).substr(0, whole.passed_closed), every);
    for (const std::size_t piece : {std::size_t{1}, std::size_t{7}, 1 + script.size() / 2}) {
        const Played cut = play(script, stage, every, piece);
        TAPGATE_ASSERT(cut.then == whole.then);
        TAPGATE_ASSERT(cut.asked == whole.asked);
        TAPGATE_ASSERT(cut.may_speak == whole.may_speak);
        TAPGATE_ASSERT(cut.said.starts_with(cut.passed));
        check_passed(std::string_view(cut.passed).substr(0, cut.passed_closed), every);
        // Of a body that breaks, what came before the break may have passed.
        TAPGATE_ASSERT(cut.then == Then::kRefuse || cut.passed == whole.passed);
    }
}

} // namespace
} // namespace tapgate::proxy

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using tapgate::proxy::FlightGate;
    if (size == 0)
        return 0;
    const std::string_view script(reinterpret_cast<const char*>(data + 1), size - 1);
    tapgate::proxy::check(script,
                          (data[0] & 1U) != 0 ? FlightGate::Stage::kFirstFlight : FlightGate::Stage::kHttp,
                          (data[0] & 2U) == 0);
    return 0;
}
