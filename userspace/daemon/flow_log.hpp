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
    std::string file; ///< absolute path; empty: no flow log
    std::size_t bytes = std::size_t{64} << 20U;
    unsigned files = 8; ///< full ones that are kept, FILE.1 being the youngest; at least 1
};

/// Records of flows that ended, an object a line, in a file that makes room for a fresh one before it grows
/// beyond its size. Each record is written at once and whole or not at all. Main thread only.
class FlowLog {
  public:
    /// Opens the file, or goes on with it. Its directory has to be there.
    static Result<std::unique_ptr<FlowLog>> open(const FlowLogSettings& settings);

    /// Never fails: a record that cannot be written (a full disk, a directory that went away) is counted, and
    /// the log says so once; the next one tries again.
    void write(const boost::json::object& record);

    /// Records that were not written.
    [[nodiscard]] std::uint64_t failures() const { return failures_; }

  private:
    explicit FlowLog(const FlowLogSettings& settings) : settings_(settings) {}

    Result<void> open_file();
    void rotate();
    Result<void> append(const std::string& line);

    FlowLogSettings settings_;
    UniqueFd file_;
    std::size_t size_ = 0;
    std::uint64_t failures_ = 0;
    bool is_failing_ = false;
};

} // namespace tapgate::daemon
