// SPDX-License-Identifier: Apache-2.0
#include "datapath/libbpf_log.hpp"

#include "base/log.hpp"

#include <bpf/libbpf.h>

#include <cstdarg>
#include <cstdio>

namespace tapgate::datapath {

namespace {

// The verifier's log of one program is at most 16 MiB; the reason stands at its end.
constexpr std::size_t kMaxMessage = 17U << 20U;

thread_local std::string* current_capture = nullptr;

[[gnu::format(printf, 1, 0)]] std::string format(const char* pattern, va_list arguments) {
    va_list again;
    va_copy(again, arguments);
    const int length = std::vsnprintf(nullptr, 0, pattern, arguments);
    std::string text;
    if (length > 0 && static_cast<std::size_t>(length) < kMaxMessage) {
        text.resize(static_cast<std::size_t>(length) + 1);
        std::vsnprintf(text.data(), text.size(), pattern, again);
        text.resize(static_cast<std::size_t>(length));
    }
    va_end(again);
    return text;
}

[[gnu::format(printf, 2, 0)]] int print(libbpf_print_level level, const char* pattern, va_list arguments) {
    if (level == LIBBPF_DEBUG && !spdlog::should_log(spdlog::level::trace))
        return 0;
    const std::string text = format(pattern, arguments);
    const std::string_view line(text.data(), text.find_last_not_of('\n') + 1);
    spdlog::log(level == LIBBPF_DEBUG ? spdlog::level::trace : spdlog::level::debug, "{}", line);
    if (level == LIBBPF_WARN && current_capture != nullptr)
        *current_capture += text;
    return 0;
}

} // namespace

LibbpfCapture::LibbpfCapture() {
    ::libbpf_set_print(print);
    current_capture = &text_;
}

LibbpfCapture::~LibbpfCapture() {
    current_capture = nullptr;
}

std::string_view failure_line(std::string_view warnings) {
    constexpr std::string_view kBegin = "BEGIN PROG LOAD LOG --\n";
    constexpr std::string_view kEnd = "-- END PROG LOAD LOG";
    const std::size_t begin = warnings.find(kBegin);
    const bool verifier = begin != std::string_view::npos;
    if (verifier) {
        warnings.remove_prefix(begin + kBegin.size());
        warnings = warnings.substr(0, warnings.find(kEnd));
    }
    while (!warnings.empty()) {
        while (warnings.ends_with('\n'))
            warnings.remove_suffix(1);
        const std::size_t newline = warnings.rfind('\n');
        const std::size_t start = newline == std::string_view::npos ? 0 : newline + 1;
        const std::string_view line = warnings.substr(start);
        const bool statistics = verifier && line.starts_with("processed ");
        if (!line.empty() && !statistics)
            return line;
        warnings = warnings.substr(0, start);
    }
    return {};
}

} // namespace tapgate::datapath
