// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"

#include <array>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

// The fixed vocabulary of policy files, and what is said about words that are not in it.
namespace tapgate::policy {

template <typename Value>
struct Word {
    std::string_view text;
    Value value;
};

template <typename Value, std::size_t Count>
using Words = std::array<Word<Value>, Count>;

/// The entry of `valid` that `word` was most likely meant to be, by edit distance without regard to case;
/// empty if none is near.
[[nodiscard]] std::string_view nearest_word(std::string_view word, std::span<const std::string_view> valid);

/// "unknown WHAT 'WORD'; did you mean 'NEAREST'? valid: A, B, C".
[[nodiscard]] std::string unknown_word(std::string_view what, std::string_view word,
                                       std::span<const std::string_view> valid);

/// The value of `text` among `words`; an unknown word is an error that names the nearest one.
template <typename Value, std::size_t Count>
Result<Value> find_word(std::string_view what, std::string_view text, const Words<Value, Count>& words) {
    for (const auto& word : words)
        if (word.text == text)
            return word.value;
    std::array<std::string_view, Count> valid;
    for (std::size_t i = 0; i < Count; ++i)
        valid.at(i) = words.at(i).text;
    return fail(ErrorCode::kInvalid, unknown_word(what, text, valid));
}

/// The word for `value`; every value of the enumeration must be listed.
template <typename Value, std::size_t Count>
std::string_view word_for(const Value& value, const Words<Value, Count>& words) {
    for (const auto& word : words)
        if (word.value == value)
            return word.text;
    TAPGATE_ASSERT(!"value without a word");
    return {};
}

} // namespace tapgate::policy
