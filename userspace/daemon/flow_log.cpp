// SPDX-License-Identifier: Apache-2.0
#include "daemon/flow_log.hpp"

#include "base/log.hpp"

#include <boost/json/serialize.hpp>
#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace tapgate::daemon {

namespace {

/// Who talked to whom is not for every user of the host.
constexpr mode_t kMode = 0640;

} // namespace

void FlowLog::write(const boost::json::object& record) {
    if (const auto written = append(boost::json::serialize(record)); !written)
        count_lost(1, written.error());
    else if (std::exchange(is_failing_, false))
        spdlog::info("records of flows are written again");
}

void FlowLog::count_lost(std::uint64_t records, const Error& error) {
    // Operator sees: one line, and the counter tapgate_flow_log_failures. Flows are not held up.
    failures_ += records;
    if (!std::exchange(is_failing_, true))
        spdlog::error("records of flows are lost: {}", error.message());
}

Result<std::unique_ptr<FlowFile>> FlowFile::open(const FlowLogSettings& settings) {
    TAPGATE_ASSERT(settings.files > 0);
    std::unique_ptr<FlowFile> log(new FlowFile(settings));
    if (const auto opened = log->open_file(); !opened)
        return fail(opened.error());
    return log;
}

Result<void> FlowFile::open_file() {
    UniqueFd file(
        ::open(settings_.file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, kMode));
    struct stat status{};
    if (!file || ::fstat(file.get(), &status) != 0)
        return fail_errno(fmt::format("open the flow log {}", settings_.file));
    if (!S_ISREG(status.st_mode))
        return fail(ErrorCode::kInvalid, fmt::format("the flow log {} is not a file", settings_.file));
    file_ = std::move(file);
    size_ = static_cast<std::size_t>(status.st_size);
    return {};
}

void FlowFile::rotate() {
    const auto name = [this](unsigned number) { return fmt::format("{}.{}", settings_.file, number); };
    for (unsigned number = settings_.files; number > 1; --number)
        ::rename(name(number - 1).c_str(), name(number).c_str());
    ::rename(settings_.file.c_str(), name(1).c_str());
    file_ = UniqueFd();
}

Result<void> FlowFile::append(const std::string& record) {
    const std::string line = record + "\n";
    const auto is_full = [&] { return rotates() && size_ != 0 && size_ + line.size() > settings_.bytes; };
    if (file_ && is_full())
        rotate();
    if (!file_) {
        if (auto opened = open_file(); !opened)
            return opened;
        // Another record may find it renamed.
        if (is_full())
            return fail(ErrorCode::kIo, fmt::format("{} is full and cannot be renamed", settings_.file));
    }
    const ssize_t written = ::write(file_.get(), line.data(), line.size());
    if (written == static_cast<ssize_t>(line.size())) {
        size_ += line.size();
        return {};
    }
    Error error = written < 0
                      ? Error::from_errno(errno, fmt::format("write to the flow log {}", settings_.file))
                      : Error(ErrorCode::kIo, fmt::format("the disk of {} is full", settings_.file));
    // Half a record must not stand before the next.
    if (written > 0 && ::ftruncate(file_.get(), static_cast<off_t>(size_)) != 0)
        file_ = UniqueFd();
    return fail(std::move(error));
}

} // namespace tapgate::daemon
