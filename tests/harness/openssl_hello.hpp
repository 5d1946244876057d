// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

namespace tapgate::test {

/// What a server made with OpenSSL makes of the first bytes of a connection.
struct OpensslHello {
    enum class Outcome : std::uint8_t {
        kWaits,   ///< for more bytes
        kRefuses, ///< before its client-hello callback, or because of what is in server_name
        kReads,   ///< the callback is called, and server_name is none or one that it takes
    };
    Outcome outcome = Outcome::kRefuses;
    /// Only with kReads: as SSL_get_servername() gives it; empty if the hello has none.
    std::optional<std::string> server_name;
    bool is_sslv2 = false; ///< only with kReads: a hello in the form of SSLv2, which has no names
    int reason = 0;        ///< with kRefuses: SSL_R_...
    std::string error;     ///< with kRefuses: the same in words, for people
};

/// Reads `stream` with an OpenSSL server up to its client-hello callback, and the server_name extension found
/// there with another server's own parser of it, so that what this OpenSSL thinks of versions, ciphers and
/// key shares does not matter. Thread: any, one at a time.
[[nodiscard]] OpensslHello read_by_openssl(std::span<const std::uint8_t> stream);

} // namespace tapgate::test
