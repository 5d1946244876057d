// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace tapgate::proxy {

/// A fatal access_denied alert in a TLS 1.2 record (RFC 8446 6.2, RFC 5246 7.2), which clients report as an
/// error of their own instead of a connection that died.
inline constexpr std::array<std::uint8_t, 7> kTlsAccessDenied = {
    21,    // record type alert
    3,  3, // version
    0,  2, // length
    2,     // fatal
    49,    // access_denied
};

/// An HTTP/1.1 403 that closes the connection, with one line of text: the host that was asked for, the rule
/// or other ground that denied it, and the policy's own text (may be empty). What the guest wrote is escaped.
[[nodiscard]] std::string http_forbidden(std::string_view host, std::string_view ground,
                                         std::string_view policy_text);

} // namespace tapgate::proxy
