// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "policy/decide.hpp"
#include "policy/words.hpp"

// The words of decisions, as test cases, events and `explain` write them.
namespace tapgate::policy {

inline constexpr Words<Verdict, 3> kVerdictWords = {
    {{"allow", Verdict::kAllow}, {"deny", Verdict::kDeny}, {"defer", Verdict::kDefer}}};
inline constexpr Words<FirstFlightKind, 6> kFirstFlightKindWords = {
    {{"tls", FirstFlightKind::kTls},
     {"tls-no-sni", FirstFlightKind::kTlsNoSni},
     {"tls-bad", FirstFlightKind::kTlsBad},
     {"http", FirstFlightKind::kHttp},
     {"http-bad", FirstFlightKind::kHttpBad},
     {"plain", FirstFlightKind::kPlain}}};
inline constexpr Words<Basis, 8> kBasisWords = {{{"rule", Basis::kRule},
                                                 {"default", Basis::kDefault},
                                                 {"refused-address", Basis::kRefusedAddress},
                                                 {"tls-bad", Basis::kTlsBad},
                                                 {"no-sni", Basis::kNoSni},
                                                 {"ech", Basis::kEch},
                                                 {"http-bad", Basis::kHttpBad},
                                                 {"connect", Basis::kConnect}}};

} // namespace tapgate::policy
