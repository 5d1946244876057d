// SPDX-License-Identifier: Apache-2.0
#include "policy/words.hpp"

#include "base/log.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>

namespace tapgate::policy {

namespace {

/// Longer words are nobody's misspelling of a keyword; also bounds the quadratic distance.
constexpr std::size_t kMaxCompared = 48;

/// Levenshtein distance, ASCII letters compared without case.
std::size_t edit_distance(std::string_view a, std::string_view b) {
    std::vector<std::size_t> row(b.size() + 1);
    for (std::size_t j = 0; j < row.size(); ++j)
        row[j] = j;
    for (std::size_t i = 1; i <= a.size(); ++i) {
        std::size_t diagonal = row[0];
        row[0] = i;
        for (std::size_t j = 1; j <= b.size(); ++j) {
            const bool same = std::tolower(static_cast<unsigned char>(a[i - 1])) ==
                              std::tolower(static_cast<unsigned char>(b[j - 1]));
            const std::size_t replaced = diagonal + (same ? 0 : 1);
            diagonal = row[j];
            row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
        }
    }
    return row[b.size()];
}

} // namespace

std::string_view nearest_word(std::string_view word, std::span<const std::string_view> valid) {
    if (word.empty() || word.size() > kMaxCompared)
        return {};
    std::string_view nearest;
    std::size_t best = std::max<std::size_t>(2, word.size() / 2) + 1;
    for (const std::string_view candidate : valid) {
        // What shares no letter with a word is not a misspelling of it.
        const std::size_t limit = std::max(word.size(), candidate.size());
        // A word that was cut short ("icmp") is nearer than one with other letters ("tcp").
        const std::size_t distance = candidate.starts_with(word) ? 1 : edit_distance(word, candidate);
        if (distance < limit && distance < best) {
            best = distance;
            nearest = candidate;
        }
    }
    return nearest;
}

std::string unknown_word(std::string_view what, std::string_view word,
                         std::span<const std::string_view> valid) {
    const std::string_view nearest = nearest_word(word, valid);
    const std::string hint = nearest.empty() ? std::string{} : fmt::format("did you mean '{}'? ", nearest);
    return fmt::format("unknown {} '{}'; {}valid: {}", what, printable(word, 80), hint,
                       fmt::join(valid, ", "));
}

} // namespace tapgate::policy
