// SPDX-License-Identifier: Apache-2.0
#include "base/log.hpp"

#include "base/log_sink.hpp"

#include <fmt/format.h>
#include <spdlog/sinks/stdout_color_sinks.h>

#include <memory>

namespace tapgate {

Result<void> setup_logging(std::string_view level) {
    const auto parsed = spdlog::level::from_str(std::string(level));
    if (parsed == spdlog::level::off && level != "off")
        return fail(ErrorCode::kInvalid,
                    fmt::format("'{}' is not a log level (debug, info, warn, error)", level));
    spdlog::set_default_logger(std::make_shared<spdlog::logger>(
        "tapgate", make_limited_sink(std::make_shared<spdlog::sinks::stderr_color_sink_mt>())));
    spdlog::set_level(parsed);
    spdlog::set_formatter(make_log_formatter(LogFormat::kText, stderr_is_journal()));
    return {};
}

std::string printable(std::string_view untrusted, std::size_t max_length) {
    std::string text;
    for (const char c : untrusted) {
        const auto byte = static_cast<unsigned char>(c);
        const bool plain = byte >= 0x20 && byte < 0x7f && c != '"' && c != '\\';
        std::string piece = plain ? std::string(1, c) : fmt::format("\\x{:02x}", byte);
        if (text.size() + piece.size() > max_length)
            return text + "...";
        text += piece;
    }
    return text;
}

} // namespace tapgate
