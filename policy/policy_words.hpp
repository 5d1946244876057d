// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "policy/model.hpp"
#include "policy/words.hpp"

// The words of `splice` and of the [dns], [tls], [http] and [deny] tables.
namespace tapgate::policy {

/// The daemon's configuration has them too.
inline constexpr Words<Splice, 4> kSpliceWords = {{{"auto", Splice::kAuto},
                                                   {"kernel", Splice::kKernel},
                                                   {"uring", Splice::kUring},
                                                   {"copy", Splice::kCopy}}};
/// Of `resolve`, for DnsSettings::only_allowed_names.
inline constexpr Words<bool, 2> kResolveWords = {{{"all", false}, {"allowed", true}}};
inline constexpr Words<NoSni, 2> kNoSniWords = {{{"deny", NoSni::kDeny}, {"cache", NoSni::kCache}}};
inline constexpr Words<Ech, 3> kEchWords = {
    {{"outer", Ech::kOuter}, {"deny", Ech::kDeny}, {"strip", Ech::kStrip}}};
inline constexpr Words<HttpHost, 3> kHttpHostWords = {
    {{"every", HttpHost::kEvery}, {"first", HttpHost::kFirst}, {"ignore", HttpHost::kIgnore}}};
inline constexpr Words<DenyStyle, 2> kDenyStyleWords = {
    {{"readable", DenyStyle::kReadable}, {"reset", DenyStyle::kReset}}};

} // namespace tapgate::policy
