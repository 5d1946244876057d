// SPDX-License-Identifier: Apache-2.0
#include "datapath/pin_dir.hpp"

#include "base/log.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <memory>
#include <ranges>

#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

namespace tapgate::datapath {

namespace {

constexpr const char* kBpffs = "/sys/fs/bpf";
// The lock is retried only when the directory was removed between opening and locking it.
constexpr int kLockAttempts = 16;

bool on_bpffs(const std::string& path) {
    struct statfs info{};
    return ::statfs(path.c_str(), &info) == 0 && info.f_type == BPF_FS_MAGIC;
}

Result<void> mount_bpffs_for(const std::string& path) {
    if (!path.starts_with(std::string(kBpffs) + "/") || on_bpffs(kBpffs))
        return {};
    if (::mount("bpf", kBpffs, "bpf", 0, "mode=0700") != 0)
        return fail_errno(fmt::format("mount bpffs at {}", kBpffs), "mount it beforehand, or run as root");
    spdlog::info("mounted bpffs at {}", kBpffs);
    return {};
}

/// Normal form: absolute, no slash at the end.
Result<std::string> checked_path(std::string path) {
    while (path.size() > 1 && path.ends_with('/'))
        path.pop_back();
    if (path.size() < 2 || !path.starts_with('/'))
        return fail(ErrorCode::kInvalid, fmt::format("pin_dir '{}' is not an absolute path below a bpffs "
                                                     "(such as /sys/fs/bpf/tapgate)",
                                                     path));
    return path;
}

std::string parent_of(const std::string& path) {
    const std::size_t slash = path.rfind('/');
    return slash == 0 ? "/" : path.substr(0, slash);
}

Result<bool> make_directory(const std::string& path) {
    if (::mkdir(path.c_str(), 0700) == 0)
        return true;
    if (errno == EEXIST)
        return false;
    return fail_errno(fmt::format("make {}", path));
}

/// Opens and locks the directory. An empty descriptor: it does not exist.
Result<UniqueFd> lock_directory(const std::string& path) {
    for (int attempt = 0; attempt < kLockAttempts; ++attempt) {
        UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
        if (!fd) {
            if (errno == ENOENT)
                return UniqueFd();
            return fail_errno(fmt::format("open {}", path));
        }
        struct statfs file_system{};
        if (::fstatfs(fd.get(), &file_system) != 0)
            return fail_errno(fmt::format("look at {}", path));
        if (file_system.f_type != BPF_FS_MAGIC)
            return fail(ErrorCode::kInvalid,
                        fmt::format("pin_dir {} is not on a bpffs (mount -t bpf bpf DIRECTORY)", path));
        if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
            if (errno == EWOULDBLOCK)
                return fail(ErrorCode::kExists, fmt::format("another tapgated uses {}", path));
            return fail_errno(fmt::format("lock {}", path));
        }
        struct stat held{};
        struct stat named{};
        if (::fstat(fd.get(), &held) == 0 && ::stat(path.c_str(), &named) == 0 &&
            held.st_dev == named.st_dev && held.st_ino == named.st_ino)
            return fd;
    }
    return fail(ErrorCode::kUnavailable, fmt::format("lock {}: it keeps being replaced", path));
}

} // namespace

std::set<std::string> list_directory(const std::string& path) {
    std::set<std::string> names;
    const std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir(path.c_str()), ::closedir);
    if (!directory)
        return names;
    while (const dirent* entry = ::readdir(directory.get())) {
        std::string name = entry->d_name;
        if (name != "." && name != "..")
            names.insert(std::move(name));
    }
    return names;
}

Result<PinDir> PinDir::open(const std::string& path) {
    auto checked = checked_path(path);
    if (!checked)
        return fail(std::move(checked).error());
    if (auto mounted = mount_bpffs_for(*checked); !mounted)
        return fail(std::move(mounted).error());
    if (!on_bpffs(parent_of(*checked)))
        return fail(ErrorCode::kInvalid, fmt::format("pin_dir {} is not on a bpffs ({} is not a mounted one; "
                                                     "mount -t bpf bpf DIRECTORY)",
                                                     *checked, parent_of(*checked)));
    PinDir dir(std::move(*checked));
    auto made = make_directory(dir.path_);
    if (!made)
        return fail(std::move(made).error());
    auto lock = lock_directory(dir.path_);
    if (!lock)
        return fail(std::move(lock).error());
    if (!*lock)
        return fail(ErrorCode::kUnavailable, fmt::format("{} vanished while it was opened", dir.path_));
    dir.lock_ = std::move(*lock);
    if (*made)
        dir.made_.push_back(dir.path_);
    for (const std::string& below : {dir.maps_path(), dir.links_path()}) {
        made = make_directory(below);
        if (!made)
            return fail(std::move(made).error());
        if (*made)
            dir.made_.push_back(below);
    }
    dir.maps_before_ = list_directory(dir.maps_path());
    return dir;
}

Result<std::optional<PinDir>> PinDir::open_existing(const std::string& path) {
    auto checked = checked_path(path);
    if (!checked)
        return fail(std::move(checked).error());
    auto lock = lock_directory(*checked);
    if (!lock)
        return fail(std::move(lock).error());
    if (!*lock)
        return std::nullopt;
    PinDir dir(std::move(*checked));
    dir.lock_ = std::move(*lock);
    dir.maps_before_ = list_directory(dir.maps_path());
    dir.keep();
    return dir;
}

Result<PinDir> PinDir::open_beside(const std::string& path) {
    auto checked = checked_path(path);
    if (!checked)
        return fail(std::move(checked).error());
    PinDir dir(std::move(*checked));
    if (::access(dir.map_path({}).c_str(), F_OK) != 0)
        return fail_errno(fmt::format("open {}", dir.path_));
    dir.maps_before_ = list_directory(dir.maps_path());
    dir.keep();
    return dir;
}

Result<void> PinDir::lock() {
    auto lock = lock_directory(path_);
    if (!lock)
        return fail(std::move(lock).error());
    if (!*lock)
        return fail(ErrorCode::kUnavailable, fmt::format("{} vanished while it was handed over", path_));
    lock_ = std::move(*lock);
    return {};
}

PinDir::~PinDir() {
    // A moved-from object holds no lock and must not touch what its heir owns.
    if (lock_ && !keep_)
        roll_back();
}

std::string PinDir::map_path(std::string_view name) const {
    return fmt::format("{}/{}", maps_path(), name);
}

void PinDir::roll_back() noexcept {
    for (const std::string& name : list_directory(maps_path())) {
        if (!maps_before_.contains(name))
            ::unlink(map_path(name).c_str());
    }
    for (const std::string& directory : made_ | std::views::reverse)
        ::rmdir(directory.c_str());
}

Result<void> PinDir::remove_all() {
    for (const std::string& name : list_directory(maps_path())) {
        if (::unlink(map_path(name).c_str()) != 0)
            return fail_errno(fmt::format("remove {}", map_path(name)));
    }
    for (const std::string& directory : {maps_path(), links_path(), path_}) {
        if (::rmdir(directory.c_str()) != 0 && errno != ENOENT)
            return fail_errno(fmt::format("remove {}", directory));
    }
    return {};
}

} // namespace tapgate::datapath
