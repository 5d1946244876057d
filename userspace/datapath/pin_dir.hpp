// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"
#include "base/unique_fd.hpp"

#include <optional>
#include <set>
#include <string>
#include <vector>

namespace tapgate::datapath {

/// The directory on bpffs that keeps maps and links alive without a daemon, held under an exclusive lock for
/// as long as this object lives:
///
///     PIN_DIR/maps/NAME                     a map of the ABI; `abi` says whose they are
///     PIN_DIR/links/IFINDEX-DIRECTION       a tcx link
///
/// Until keep() is called, the destructor removes every file and directory that was not there at open().
class PinDir {
  public:
    /// Makes what is missing, mounting bpffs at /sys/fs/bpf if `path` lies below and none is mounted there.
    /// kInvalid: not an absolute path, or not on bpffs; kExists: another process holds it.
    static Result<PinDir> open(const std::string& path);
    /// The directory as it is, nothing if it does not exist. Errors as open().
    static Result<std::optional<PinDir>> open_existing(const std::string& path);

    /// The directory of a daemon that runs, without its lock: for reading until lock(). kNotFound.
    static Result<PinDir> open_beside(const std::string& path);

    /// Takes the lock that the other daemon has given up by unlock(). kExists: it has not.
    Result<void> lock();

    /// Leaves the directory to another process.
    void unlock() { lock_.reset(); }

    PinDir(PinDir&&) noexcept = default;
    PinDir& operator=(PinDir&&) = delete;
    PinDir(const PinDir&) = delete;
    PinDir& operator=(const PinDir&) = delete;
    ~PinDir();

    [[nodiscard]] std::string map_path(std::string_view name) const;

    [[nodiscard]] std::string links_path() const { return path_ + "/links"; }

    /// Names of the pinned maps that were there at open().
    [[nodiscard]] const std::set<std::string>& maps_before() const { return maps_before_; }

    void keep() { keep_ = true; }

    /// Removes all map pins, then the directories. Links must be gone.
    Result<void> remove_all();

  private:
    explicit PinDir(std::string path) : path_(std::move(path)) {}

    [[nodiscard]] std::string maps_path() const { return path_ + "/maps"; }

    void roll_back() noexcept;

    std::string path_;
    UniqueFd lock_;
    std::set<std::string> maps_before_;
    std::vector<std::string> made_; // directories, outermost first
    bool keep_ = false;
};

/// The names in a directory, without "." and "..", sorted; empty if it cannot be read.
[[nodiscard]] std::set<std::string> list_directory(const std::string& path);

} // namespace tapgate::datapath
