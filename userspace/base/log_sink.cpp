// SPDX-License-Identifier: Apache-2.0
#include "base/log_sink.hpp"

#include <fmt/format.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/base_sink.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

#include <sys/stat.h>
#include <unistd.h>

namespace tapgate {

namespace {

constexpr std::size_t kMaxMessage = 4096;

/// The message as one line of printable ASCII; with `in_json` as it stands between the quotes of a string.
std::string one_line(std::string_view message, bool in_json) {
    std::string line;
    for (const char c : message) {
        const auto byte = static_cast<unsigned char>(c);
        const bool prints = byte >= 0x20 && byte < 0x7f;
        if (line.size() >= kMaxMessage)
            return line + "...";
        if (in_json && (c == '"' || c == '\\'))
            line += '\\';
        if (prints)
            line += c;
        else
            line += fmt::format("{}x{:02x}", in_json ? "\\\\" : "\\", byte);
    }
    return line;
}

/// The pattern flag for a message.
class MessageFlag final : public spdlog::custom_flag_formatter {
  public:
    explicit MessageFlag(bool in_json) : in_json_(in_json) {}

    void format(const spdlog::details::log_msg& message, const std::tm&, spdlog::memory_buf_t& out) override {
        const std::string line = one_line({message.payload.data(), message.payload.size()}, in_json_);
        out.append(line.data(), line.data() + line.size());
    }

    [[nodiscard]] std::unique_ptr<custom_flag_formatter> clone() const override {
        return std::make_unique<MessageFlag>(in_json_);
    }

  private:
    bool in_json_;
};

/// The pattern flag for a level as syslog(3) numbers it.
class PriorityFlag final : public spdlog::custom_flag_formatter {
  public:
    void format(const spdlog::details::log_msg& message, const std::tm&, spdlog::memory_buf_t& out) override {
        out.push_back(priority(message.level));
    }

    [[nodiscard]] std::unique_ptr<custom_flag_formatter> clone() const override {
        return std::make_unique<PriorityFlag>();
    }

  private:
    static char priority(spdlog::level::level_enum level) {
        switch (level) {
        case spdlog::level::trace:
        case spdlog::level::debug:
            return '7';
        case spdlog::level::info:
            return '6';
        case spdlog::level::warn:
            return '4';
        case spdlog::level::err:
            return '3';
        case spdlog::level::critical:
        case spdlog::level::off:
        case spdlog::level::n_levels:
            break;
        }
        return '2';
    }
};

class LimitedSink final : public spdlog::sinks::base_sink<std::mutex> {
  public:
    explicit LimitedSink(std::shared_ptr<spdlog::sinks::sink> inner) : inner_(std::move(inner)) {}

  protected:
    void sink_it_(const spdlog::details::log_msg& message) override {
        if (message.level >= spdlog::level::info) {
            const LogLimit::Admission admission = limit_.admit(message.level, message.time);
            if (!admission.admitted)
                return;
            if (admission.suppressed > 0) {
                const std::string text = fmt::format(
                    "{} lines of this level were left out: there were too many", admission.suppressed);
                inner_->log(spdlog::details::log_msg(message.time, message.source, message.logger_name,
                                                     message.level, text));
            }
        }
        inner_->log(message);
    }

    void flush_() override { inner_->flush(); }

    void set_pattern_(const std::string& pattern) override { inner_->set_pattern(pattern); }

    void set_formatter_(std::unique_ptr<spdlog::formatter> formatter) override {
        inner_->set_formatter(std::move(formatter));
    }

  private:
    std::shared_ptr<spdlog::sinks::sink> inner_;
    LogLimit limit_;
};

} // namespace

bool stderr_is_journal() {
    const char* stream = std::getenv("JOURNAL_STREAM");
    struct stat file{};
    return stream != nullptr && ::fstat(STDERR_FILENO, &file) == 0 &&
           fmt::format("{}:{}", file.st_dev, file.st_ino) == stream;
}

std::unique_ptr<spdlog::formatter> make_log_formatter(LogFormat format, bool for_journal) {
    constexpr std::string_view kTime = "%Y-%m-%dT%H:%M:%S.%e%z";
    constexpr char kMessage = '*';
    constexpr char kPriority = 'N';
    const bool in_json = format == LogFormat::kJson;
    std::string pattern;
    if (in_json)
        pattern = fmt::format(R"({{"time":"{}","level":"%l","message":"%{}"}})", kTime, kMessage);
    else if (for_journal)
        pattern = fmt::format("%{}", kMessage);
    else
        pattern = fmt::format("{} %^%l%$ %{}", kTime, kMessage);
    if (for_journal)
        pattern = fmt::format("<%{}>", kPriority) + pattern;
    auto formatter = std::make_unique<spdlog::pattern_formatter>();
    formatter->add_flag<MessageFlag>(kMessage, in_json).add_flag<PriorityFlag>(kPriority);
    formatter->set_pattern(pattern);
    return formatter;
}

LogLimit::Admission LogLimit::admit(spdlog::level::level_enum level, Time now) {
    Bucket& bucket = buckets_.at(static_cast<std::size_t>(level));
    // A clock that was set back fills nothing.
    const double passed = std::max(0.0, std::chrono::duration<double>(now - bucket.filled).count());
    bucket.filled = now;
    bucket.tokens = std::min<double>(kBurst, bucket.tokens + passed * kPerSecond);
    if (bucket.tokens < 1) {
        ++bucket.suppressed;
        return {};
    }
    bucket.tokens -= 1;
    return {true, std::exchange(bucket.suppressed, 0)};
}

std::shared_ptr<spdlog::sinks::sink> make_limited_sink(std::shared_ptr<spdlog::sinks::sink> inner) {
    return std::make_shared<LimitedSink>(std::move(inner));
}

} // namespace tapgate
