// SPDX-License-Identifier: Apache-2.0
#include "proxy/first_flight.hpp"

namespace tapgate::proxy {

using policy::FirstFlightKind;
using proto::PeekStatus;

policy::FirstFlight flight_of(const proto::HttpRequest& request) {
    policy::FirstFlight flight{FirstFlightKind::kHttp};
    const auto& authority = request.authority;
    if (!authority)
        return flight;
    if (authority->is_address)
        flight.literal = IpAddress::parse(authority->host);
    else
        flight.name = policy::Name::from_wire(authority->host);
    if (!flight.literal && !flight.name)
        flight.kind = FirstFlightKind::kHttpBad;
    if (request.target_form == proto::HttpTargetForm::kAuthority)
        flight.connect_port = authority->port;
    return flight;
}

bool FirstFlightReader::update(ByteView prefix) {
    if (settled_ || prefix.empty())
        return settled_;
    began_ = true;
    tls_.update(prefix);
    if (tls_.status() != PeekStatus::kOtherProtocol) {
        settle_tls();
        return settled_;
    }
    http_.update(prefix);
    settle_http();
    return settled_;
}

void FirstFlightReader::finish() {
    if (settled_)
        return;
    if (!began_)
        settle(FirstFlightKind::kPlain);
    else if (tls_.status() != PeekStatus::kOtherProtocol)
        settle(FirstFlightKind::kTlsBad, "the TLS hello was not finished in time");
    else
        settle(FirstFlightKind::kHttpBad, "the HTTP request head was not finished in time");
}

void FirstFlightReader::settle_tls() {
    switch (tls_.status()) {
    case PeekStatus::kNeedMore:
    case PeekStatus::kOtherProtocol:
        return;
    case PeekStatus::kMalformed:
    case PeekStatus::kTooLarge:
        settle(FirstFlightKind::kTlsBad, tls_.reason());
        return;
    case PeekStatus::kDone:
        break;
    }
    flight_.ech = tls_.hello().ech;
    if (!tls_.hello().server_name) {
        settle(FirstFlightKind::kTlsNoSni);
        return;
    }
    flight_.name = policy::Name::from_wire(*tls_.hello().server_name);
    if (flight_.name)
        settle(FirstFlightKind::kTls);
    else
        settle(FirstFlightKind::kTlsBad, "the server name is not a host name");
}

void FirstFlightReader::settle_http() {
    switch (http_.status()) {
    case PeekStatus::kNeedMore:
        return;
    case PeekStatus::kOtherProtocol:
        settle(FirstFlightKind::kPlain);
        return;
    case PeekStatus::kMalformed:
    case PeekStatus::kTooLarge:
        settle(FirstFlightKind::kHttpBad, http_.reason());
        return;
    case PeekStatus::kDone:
        break;
    }
    flight_ = flight_of(http_.request());
    settle(flight_.kind, flight_.kind == FirstFlightKind::kHttpBad ? "the host is not a host name" : "");
}

void FirstFlightReader::settle(FirstFlightKind kind, std::string_view reason) {
    flight_.kind = kind;
    reason_ = reason;
    settled_ = true;
}

} // namespace tapgate::proxy
