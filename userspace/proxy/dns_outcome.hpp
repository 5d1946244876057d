// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace tapgate::proxy {

/// What became of a guest's DNS question. Exactly one; counted for each guest.
enum class DnsOutcome : std::uint8_t {
    kAnswered,   ///< NOERROR, with or without records
    kTruncated,  ///< too large for UDP: the guest comes back over TCP
    kNxDomain,   ///< a trusted resolver says that there is no such name
    kServFail,   ///< no trusted resolver had an answer, or it cannot be used
    kDenied,     ///< by the policy
    kRefused,    ///< of a kind that is not served, or malformed
    kRebinding,  ///< the answer carried an address that the name may not have
    kLimited,    ///< over a limit of the policy's [dns]
    kUnrecorded, ///< the answer's bindings could not be written
    kOverCap,    ///< over the guest's rate or number in flight
    kUndelivered ///< the guest was gone, or had waited too long
};

inline constexpr std::size_t kDnsOutcomes = 11;

/// The word for it in events and counters.
[[nodiscard]] constexpr std::string_view dns_outcome_name(DnsOutcome outcome) {
    constexpr std::array<std::string_view, kDnsOutcomes> kNames = {
        "answered",  "truncated", "nxdomain",   "servfail", "denied",     "refused",
        "rebinding", "limited",   "unrecorded", "over-cap", "undelivered"};
    return kNames.at(static_cast<std::size_t>(outcome));
}

} // namespace tapgate::proxy
