// SPDX-License-Identifier: Apache-2.0
#include "proto/host_name.hpp"

#include <algorithm>
#include <cstddef>

namespace tapgate::proto {

namespace {

constexpr std::size_t kMaxHostName = 253; // 255 octets on the wire of DNS, less the first length and the root
constexpr std::size_t kMaxLabel = 63;

constexpr bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

constexpr bool is_hex_digit(char c) {
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

constexpr bool is_label_octet(char c) {
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_';
}

bool is_number(std::string_view label) {
    if (label.starts_with("0x") || label.starts_with("0X"))
        return std::ranges::all_of(label.substr(2), is_hex_digit);
    return std::ranges::all_of(label, is_digit);
}

} // namespace

bool is_host_name(std::string_view text) {
    if (text.ends_with('.'))
        text.remove_suffix(1);
    if (text.empty() || text.size() > kMaxHostName)
        return false;
    while (true) {
        const std::size_t dot = text.find('.');
        const std::string_view label = text.substr(0, dot);
        if (label.empty() || label.size() > kMaxLabel || !std::ranges::all_of(label, is_label_octet))
            return false;
        if (dot == std::string_view::npos)
            return !is_number(label);
        text.remove_prefix(dot + 1);
    }
}

} // namespace tapgate::proto
