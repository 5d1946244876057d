// SPDX-License-Identifier: Apache-2.0
#include "control/unix_listener.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

namespace tapgate::control {

namespace {

const sockaddr* generic(const sockaddr_un& address) {
    return reinterpret_cast<const sockaddr*>(&address);
}

/// Makes room at `path`: removes a socket file that a dead process left behind.
Result<void> remove_stale(const std::string& path, const sockaddr_un& address) {
    struct stat found{};
    if (::lstat(path.c_str(), &found) != 0) {
        if (errno == ENOENT)
            return {};
        return fail_errno(fmt::format("look at {}", path));
    }
    if (!S_ISSOCK(found.st_mode))
        return fail(ErrorCode::kExists,
                    fmt::format("{} is not a socket (choose another control_socket)", path));

    const UniqueFd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!probe)
        return fail_errno("open a unix socket");
    // EAGAIN is a full backlog: somebody is there, only busy.
    if (::connect(probe.get(), generic(address), sizeof address) == 0 || errno == EAGAIN)
        return fail(ErrorCode::kExists, fmt::format("another daemon answers on {} (stop it first)", path));
    if (errno != ECONNREFUSED)
        return fail_errno(fmt::format("try {}", path));
    if (::unlink(path.c_str()) != 0)
        return fail_errno(fmt::format("remove the stale {}", path));
    return {};
}

} // namespace

Result<sockaddr_un> unix_address(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.empty() || path.size() >= sizeof address.sun_path || path.find('\0') != std::string::npos)
        return fail(ErrorCode::kInvalid, fmt::format("the path of the control socket must have 1 to {} bytes",
                                                     sizeof address.sun_path - 1));
    std::memcpy(address.sun_path, path.data(), path.size());
    return address;
}

Result<std::string> make_socket_directory(const std::string& path) {
    std::string directory = std::filesystem::path(path).parent_path().string();
    if (directory.empty())
        directory = ".";
    if (::mkdir(directory.c_str(), 0755) != 0 && errno != EEXIST)
        return fail_errno(fmt::format("make the directory {}", directory));
    return directory;
}

Result<UnixListener> UnixListener::open(const std::string& path, std::optional<gid_t> group) {
    const auto address = unix_address(path);
    if (!address)
        return fail(address.error());

    const auto directory = make_socket_directory(path);
    if (!directory)
        return fail(directory.error());

    // Held from the look at the old file to the end of bind(), so that two daemons that start at once do not
    // each remove the other's socket.
    const UniqueFd lock(::open(directory->c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!lock)
        return fail_errno(fmt::format("open the directory {}", *directory));
    if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0)
        return fail(
            ErrorCode::kExists,
            fmt::format("another process holds a lock on {} (is another daemon starting?)", *directory));

    if (const auto removed = remove_stale(path, *address); !removed)
        return fail(removed.error());
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd)
        return fail_errno("open a unix socket");
    // bind() gives the file what the umask leaves of 0777 (net/unix/af_unix.c, unix_bind_bsd), so there is no
    // moment in which others could connect. A file that another thread makes meanwhile is closed to others,
    // at worst.
    const mode_t mask = ::umask(group ? 0117 : 0177);
    const int bound = ::bind(fd.get(), generic(*address), sizeof *address);
    const int bind_error = errno;
    ::umask(mask);
    if (bound != 0) {
        errno = bind_error;
        return fail_errno(fmt::format("bind {}", path));
    }
    struct stat made{};
    if (::lstat(path.c_str(), &made) != 0)
        return fail_errno(fmt::format("look at {}", path));
    UnixListener listener(std::move(fd), path, made.st_dev, made.st_ino);
    if (group && made.st_gid != *group)
        return fail(ErrorCode::kInvalid,
                    fmt::format("{} belongs to group {} instead of {}", path, made.st_gid, *group));
    if (::listen(listener.fd(), SOMAXCONN) != 0)
        return fail_errno(fmt::format("listen on {}", path));
    return listener;
}

UnixListener::~UnixListener() {
    if (!fd_)
        return;
    struct stat found{};
    if (::lstat(path_.c_str(), &found) == 0 && found.st_dev == device_ && found.st_ino == inode_)
        ::unlink(path_.c_str());
}

} // namespace tapgate::control
