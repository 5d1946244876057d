// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"
#include "base/unique_fd.hpp"

#include <optional>
#include <string>

#include <sys/types.h>
#include <sys/un.h>

namespace tapgate::control {

/// The address of a socket path; kInvalid if it is empty or does not fit.
Result<sockaddr_un> unix_address(const std::string& path);

/// The directory of a socket path, made (0755) if it is missing.
Result<std::string> make_socket_directory(const std::string& path);

/// A listening unix stream socket of mode 0600, or 0660 for a group, and its file. Destroying it removes the
/// file, unless another has taken the file's place.
class UnixListener {
  public:
    /// Makes the directory (0755) if it is missing. A socket file on which nobody answers is replaced;
    /// kExists if somebody answers, if the path is no socket, or if another process is doing this right now.
    /// The file's group is the process's effective one (or its directory's, if that is setgid): kInvalid if
    /// it is not `group`.
    static Result<UnixListener> open(const std::string& path, std::optional<gid_t> group = std::nullopt);

    UnixListener(UnixListener&&) = default;
    UnixListener& operator=(UnixListener&&) = delete;
    ~UnixListener();

    [[nodiscard]] int fd() const { return fd_.get(); }

  private:
    UnixListener(UniqueFd fd, std::string path, dev_t device, ino_t inode)
        : fd_(std::move(fd)), path_(std::move(path)), device_(device), inode_(inode) {}

    UniqueFd fd_;
    std::string path_;
    dev_t device_;
    ino_t inode_;
};

} // namespace tapgate::control
