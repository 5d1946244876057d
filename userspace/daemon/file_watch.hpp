// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"
#include "base/unique_fd.hpp"

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace tapgate::daemon {

/// Tells when files may have new content: written in place, replaced by a rename, or reached through a
/// symlink that now leads elsewhere, its own or one beside it (as Kubernetes swaps `..data`). One thread.
///
/// It watches the files' directories by inotify. Not noticed: a file changed in place behind a symlink into
/// another directory, and a symlink swapped in a directory above.
class FileWatch {
  public:
    static Result<FileWatch> open();

    /// Watches `path` from now on, if it does not already. Its directory may be missing for now, see
    /// restore().
    void add(const std::string& path);

    /// Polls readable when read_changes() has something to do.
    [[nodiscard]] int fd() const { return inotify_.get(); }

    /// The files that may have changed since the last call. A writer that has the file open is waited for.
    std::set<std::string> read_changes();

    /// Watches directories again that were replaced, or that did not exist; to be called now and then. Their
    /// files count as changed.
    std::set<std::string> restore();

  private:
    struct File {
        std::string path;
        std::string directory;
        std::string name;
        int watch = -1; ///< of the directory; -1: it is not watched
    };

    explicit FileWatch(UniqueFd inotify) : inotify_(std::move(inotify)) {}

    void directory_is_gone(int watch);

    UniqueFd inotify_;
    std::vector<File> files_;
};

} // namespace tapgate::daemon
