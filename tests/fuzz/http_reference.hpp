// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

// Where the body of a request ends, by the letter of RFC 9112 6 and 7.1 and without Boost.Beast: a second
// opinion on proxy::HttpBody.
namespace tapgate::proxy {

struct BodyEnd {
    enum class How : std::uint8_t {
        kAt,         ///< at `at`
        kUnfinished, ///< more has to come
        kNowhere,    ///< what is there is no body; the line that shows it begins at `at`
    };
    How how = How::kAt;
    std::size_t at = 0;
};

/// The value of the header `name` (in lower case) in a head that proto::HttpRequestParser accepts, which has
/// each of those that matter here at most once.
inline std::optional<std::string_view> header_value(std::string_view head, std::string_view name) {
    while (!head.empty()) {
        const std::string_view line = head.substr(0, head.find("\r\n"));
        head.remove_prefix(std::min(head.size(), line.size() + 2));
        const bool is_it = line.size() > name.size() && line[name.size()] == ':' &&
                           std::ranges::equal(line.substr(0, name.size()), name, {},
                                              [](unsigned char c) { return std::tolower(c); });
        if (!is_it)
            continue;
        std::string_view value = line.substr(name.size() + 1);
        while (!value.empty() && (value.front() == ' ' || value.front() == '\t'))
            value.remove_prefix(1);
        while (!value.empty() && (value.back() == ' ' || value.back() == '\t'))
            value.remove_suffix(1);
        return value;
    }
    return std::nullopt;
}

/// A line that ends in CRLF, taken off `rest`; nothing if it is unfinished. `is_bad`: a CR or LF of its own
/// is in it.
inline std::optional<std::string_view> reference_line(std::string_view& rest, bool& is_bad) {
    const std::size_t end = rest.find_first_of("\r\n");
    is_bad = end != std::string_view::npos &&
             (rest[end] == '\n' || (end + 1 < rest.size() && rest[end + 1] != '\n'));
    if (is_bad || end == std::string_view::npos || end + 1 == rest.size())
        return std::nullopt;
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(end + 2);
    return line;
}

/// RFC 9110 5.6.4.
inline bool has_closed_quotes(std::string_view text) {
    bool is_open = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (is_open && text[i] == '\\')
            ++i;
        else if (text[i] == '"')
            is_open = !is_open;
    }
    return !is_open;
}

//     chunked-body := (size [chunk-ext] CRLF data{size} CRLF)* 0* [chunk-ext] CRLF (field-line CRLF)* CRLF
//     size         := 1*HEXDIG, not 0
//     chunk-ext    := BWS ";" anything but CR and LF, here, with its quotes closed
inline BodyEnd chunked_end(std::string_view body) {
    std::string_view rest = body;
    std::size_t line_start = 0;
    bool is_bad = false;
    const auto stopped = [&] {
        return BodyEnd{is_bad ? BodyEnd::How::kNowhere : BodyEnd::How::kUnfinished, line_start};
    };
    for (;;) {
        line_start = body.size() - rest.size();
        const auto line = reference_line(rest, is_bad);
        if (!line)
            return stopped();
        std::uint64_t size = 0;
        const auto [behind, error] = std::from_chars(line->data(), line->data() + line->size(), size, 16);
        std::string_view extension = line->substr(static_cast<std::size_t>(behind - line->data()));
        while (!extension.empty() && (extension.front() == ' ' || extension.front() == '\t'))
            extension.remove_prefix(1);
        is_bad = error != std::errc() || line->front() == '-' ||
                 (!extension.empty() && extension.front() != ';') || !has_closed_quotes(extension);
        if (is_bad)
            return stopped();
        if (size == 0)
            break;
        if (rest.size() < size)
            return stopped();
        rest.remove_prefix(size);
        line_start = body.size() - rest.size();
        const std::string_view after = rest.substr(0, 2);
        is_bad = after != std::string_view("\r\n").substr(0, after.size());
        if (is_bad || after.size() < 2)
            return stopped();
        rest.remove_prefix(2);
    }
    for (;;) {
        line_start = body.size() - rest.size();
        const auto line = reference_line(rest, is_bad);
        if (!line)
            return stopped();
        if (line->empty())
            return {BodyEnd::How::kAt, body.size() - rest.size()};
        // A folded line (5.2) is one that a server may refuse, or take for the end.
        is_bad = line->find(':') == std::string_view::npos || line->front() == ' ' || line->front() == '\t';
        if (is_bad)
            return stopped();
    }
}

/// `head`: as for header_value(); `body`: all that follows it.
inline BodyEnd body_end(std::string_view head, std::string_view body) {
    if (header_value(head, "transfer-encoding"))
        return chunked_end(body);
    std::uint64_t length = 0;
    if (const auto value = header_value(head, "content-length"))
        std::from_chars(value->data(), value->data() + value->size(), length);
    if (body.size() < length)
        return {BodyEnd::How::kUnfinished, 0};
    return {BodyEnd::How::kAt, static_cast<std::size_t>(length)};
}

} // namespace tapgate::proxy
