// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/bytes.hpp"
#include "policy/decide.hpp"
#include "proto/http_request.hpp"
#include "proto/tls_client_hello.hpp"

#include <cstddef>
#include <string>
#include <string_view>

namespace tapgate::proxy {

/// What a policy is asked of a request; kHttpBad if its host is none.
[[nodiscard]] policy::FirstFlight flight_of(const proto::HttpRequest& request);

/// Works out what kind of first flight a guest sends, from the growing prefix of its stream.
class FirstFlightReader {
  public:
    /// `cap`: the most stream bytes that are looked at.
    explicit FirstFlightReader(std::size_t cap) : tls_(cap), http_(cap) {}

    /// Judges the whole prefix received so far; true when its kind is settled.
    bool update(ByteView prefix);

    /// No more will come, or it came too late (deadline): settles what is left open. Nothing at all is plain;
    /// what began like TLS or HTTP and is unfinished is bad, never demoted to plain.
    void finish();

    /// Only once settled.
    [[nodiscard]] const policy::FirstFlight& flight() const { return flight_; }

    /// Why the flight is bad; empty otherwise.
    [[nodiscard]] std::string_view reason() const { return reason_; }

  private:
    void settle_tls();
    void settle_http();
    void settle(policy::FirstFlightKind kind, std::string_view reason = {});

    proto::TlsClientHelloParser tls_;
    proto::HttpRequestParser http_;
    policy::FirstFlight flight_;
    std::string_view reason_;
    bool began_ = false;
    bool settled_ = false;
};

} // namespace tapgate::proxy
