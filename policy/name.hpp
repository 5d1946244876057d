// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"

#include <compare>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace tapgate::policy {

/// A domain name in the one form that is ever compared: lower-case A-labels joined by dots, without the
/// trailing dot; 1 to 253 octets, labels of 1 to 63 octets (RFC 1035 2.3.4, RFC 5890).
class Name {
  public:
    Name() = default;

    /// From a name an operator wrote: U-labels are converted (IDNA 2008, UTS 46 mapping), one trailing dot is
    /// dropped. The message of an error says what is wrong with the name.
    static Result<Name> from_user(std::string_view text);

    /// From a name seen on the wire: ASCII letters, digits, '-' and '_' only, any case, one trailing dot
    /// allowed. Raw UTF-8, empty labels and everything else give an empty result. An IP literal is not a
    /// name.
    static std::optional<Name> from_wire(std::string_view text);

    [[nodiscard]] const std::string& text() const { return text_; }

    /// True if this is `zone` or lies below it, on label boundaries.
    [[nodiscard]] bool is_in(const Name& zone) const;

    auto operator<=>(const Name&) const = default;

  private:
    explicit Name(std::string text) : text_(std::move(text)) {}

    std::string text_;
};

} // namespace tapgate::policy

template <>
struct std::hash<tapgate::policy::Name> {
    std::size_t operator()(const tapgate::policy::Name& name) const noexcept {
        return std::hash<std::string>{}(name.text());
    }
};
