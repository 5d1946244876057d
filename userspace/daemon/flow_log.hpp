// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"
#include "base/unique_fd.hpp"

#include <boost/json/object.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace tapgate::daemon {

struct FlowLogSettings {
    std::string file; ///< absolute path; empty: no file
    std::size_t bytes = std::size_t{64} << 20U;
    unsigned files = 8; ///< full ones that are kept, FILE.1 being the youngest; at least 1
    std::string syslog; ///< absolute path of the socket; empty: nothing to syslog
};

/// Where records of flows that ended go, an object each. Main thread only.
class FlowLog {
  public:
    FlowLog() = default;
    FlowLog(const FlowLog&) = delete;
    FlowLog& operator=(const FlowLog&) = delete;
    virtual ~FlowLog() = default;

    /// Never fails and never waits: a record that cannot be written (a full disk, a directory or a reader
    /// that went away) is counted, and the log says so once; the next one tries again.
    void write(const boost::json::object& record);

    /// Records that were not written.
    [[nodiscard]] std::uint64_t failures() const { return failures_; }

    /// For a file that another process rotates from now on.
    void stop_rotating() { rotates_ = false; }

  protected:
    /// Counts records that were lost after append() had taken them.
    void count_lost(std::uint64_t records, const Error& error);

    [[nodiscard]] bool rotates() const { return rotates_; }

  private:
    virtual Result<void> append(const std::string& record) = 0;

    std::uint64_t failures_ = 0;
    bool is_failing_ = false;
    bool rotates_ = true;
};

/// Records as lines of a file that makes room for a fresh one before it grows beyond its size. Each is
/// written at once and whole or not at all.
class FlowFile final : public FlowLog {
  public:
    /// Opens the file, or goes on with it. Its directory has to be there.
    static Result<std::unique_ptr<FlowFile>> open(const FlowLogSettings& settings);

  private:
    explicit FlowFile(const FlowLogSettings& settings) : settings_(settings) {}

    Result<void> open_file();
    void rotate();
    Result<void> append(const std::string& record) override;

    FlowLogSettings settings_;
    UniqueFd file_;
    std::size_t size_ = 0;
};

} // namespace tapgate::daemon
