// SPDX-License-Identifier: Apache-2.0
#include "policy/name.hpp"

#include "base/log.hpp"

#include <fmt/format.h>
#include <idn2.h>

#include <algorithm>
#include <cstdint>
#include <memory>

namespace tapgate::policy {

namespace {

constexpr std::size_t kMaxNameOctets = 253; // RFC 1035 2.3.4: 255 on the wire
constexpr std::size_t kMaxLabelOctets = 63;
/// A name of 253 octets takes at most a few bytes of UTF-8 for each; longer text is not worth converting.
constexpr std::size_t kMaxUserBytes = 1024;

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

/// WHATWG URL 3.5, "ends in a number": text that some resolvers read as an IPv4 address (inet_aton).
bool is_number(std::string_view label) {
    if (std::ranges::all_of(label, is_digit))
        return true;
    return label.starts_with("0x") &&
           label.substr(2).find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

/// What keeps lower-case `name` from being a name; empty if nothing does.
std::string_view defect_of(std::string_view name) {
    if (name.empty())
        return "it is empty";
    if (name.size() > kMaxNameOctets)
        return "it is longer than 253 octets";
    std::size_t begin = 0;
    while (true) {
        const std::size_t dot = std::min(name.find('.', begin), name.size());
        const std::string_view label = name.substr(begin, dot - begin);
        if (label.empty())
            return "it has an empty label";
        if (label.size() > kMaxLabelOctets)
            return "it has a label longer than 63 octets";
        if (label.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-_") != std::string_view::npos)
            return "only letters, digits, '-', '_' and dots stand in a name";
        if (dot == name.size())
            return is_number(label) ? "it ends in a number, as only IP addresses do: four numbers of 0 to "
                                      "255, without leading zeros"
                                    : std::string_view{};
        begin = dot + 1;
    }
}

std::string lower_without_final_dot(std::string_view text) {
    if (text.ends_with('.'))
        text.remove_suffix(1);
    std::string lower(text);
    for (char& c : lower)
        if (c >= 'A' && c <= 'Z')
            c = static_cast<char>(c - 'A' + 'a');
    return lower;
}

std::unexpected<Error> bad_name(std::string_view text, std::string_view why) {
    return fail(ErrorCode::kInvalid, fmt::format("'{}' is not a domain name: {}", printable(text, 80), why));
}

} // namespace

Result<Name> Name::from_user(std::string_view text) {
    if (text.size() > kMaxUserBytes)
        return bad_name(text, "it is longer than 253 octets");
    if (text.find('\0') != std::string_view::npos)
        return bad_name(text, "it has a NUL byte");
    std::string ascii(text);
    if (std::ranges::any_of(text, [](char c) { return static_cast<unsigned char>(c) >= 0x80; })) {
        std::uint8_t* converted = nullptr;
        const int status = ::idn2_lookup_u8(reinterpret_cast<const std::uint8_t*>(ascii.c_str()), &converted,
                                            IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL);
        const std::unique_ptr<std::uint8_t, decltype(&::idn2_free)> owner(converted, &::idn2_free);
        if (status != IDN2_OK)
            return bad_name(text, ::idn2_strerror(status));
        ascii = reinterpret_cast<const char*>(converted);
    }
    std::string lower = lower_without_final_dot(ascii);
    if (const std::string_view defect = defect_of(lower); !defect.empty())
        return bad_name(text, defect);
    return Name(std::move(lower));
}

std::optional<Name> Name::from_wire(std::string_view text) {
    if (text.size() > kMaxNameOctets + 1)
        return std::nullopt;
    std::string lower = lower_without_final_dot(text);
    if (!defect_of(lower).empty())
        return std::nullopt;
    return Name(std::move(lower));
}

bool Name::is_in(const Name& zone) const {
    if (zone.text_.empty() || !text_.ends_with(zone.text_))
        return false;
    const std::size_t above = text_.size() - zone.text_.size();
    return above == 0 || text_[above - 1] == '.';
}

} // namespace tapgate::policy
