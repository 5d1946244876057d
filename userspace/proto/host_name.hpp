// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace tapgate::proto {

/// True if `text` is a DNS host name as clients put it on the wire in SNI and Host: labels of 1 to 63 ASCII
/// letters, digits, '-' and '_', joined by dots, at most 253 octets and then at most one trailing dot.
///
/// A name whose last label is a number (decimal, or hexadecimal with 0x) is refused: such text is an IPv4
/// address to some resolvers (inet_aton, WHATWG URL 3.5) and a name to others.
[[nodiscard]] bool is_host_name(std::string_view text);

} // namespace tapgate::proto
