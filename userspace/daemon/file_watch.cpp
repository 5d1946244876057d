// SPDX-License-Identifier: Apache-2.0
#include "daemon/file_watch.hpp"

#include <algorithm>
#include <array>
#include <filesystem>

#include <sys/inotify.h>
#include <unistd.h>

namespace tapgate::daemon {

namespace {

bool is_symlink(const std::string& path) {
    std::error_code ignored;
    return std::filesystem::is_symlink(path, ignored);
}

/// Whether `event`, in the file's directory, may have changed what `path` leads to. A file that was only
/// created is still being written; a symlink is complete when it appears.
bool concerns(const std::string& path, std::string_view name, const inotify_event& event) {
    const std::string_view changed = event.len == 0 ? std::string_view() : std::string_view(event.name);
    if (changed == name)
        return (event.mask & IN_CREATE) == 0 || is_symlink(path);
    return (event.mask & IN_CLOSE_WRITE) == 0 && is_symlink(path);
}

} // namespace

Result<FileWatch> FileWatch::open() {
    UniqueFd inotify(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
    if (!inotify)
        return fail_errno("inotify_init1");
    return FileWatch(std::move(inotify));
}

void FileWatch::add(const std::string& path) {
    if (std::ranges::find(files_, path, &File::path) != files_.end())
        return;
    const std::filesystem::path whole(path);
    const std::string directory = whole.has_parent_path() ? whole.parent_path().string() : ".";
    files_.push_back({path, directory, whole.filename().string(), -1});
    restore();
}

std::set<std::string> FileWatch::restore() {
    std::set<std::string> changed;
    for (File& file : files_) {
        if (file.watch != -1)
            continue;
        file.watch = ::inotify_add_watch(inotify_.get(), file.directory.c_str(),
                                         IN_CLOSE_WRITE | IN_MOVED_TO | IN_CREATE | IN_DELETE_SELF |
                                             IN_MOVE_SELF | IN_ONLYDIR);
        if (file.watch != -1)
            changed.insert(file.path);
    }
    return changed;
}

void FileWatch::directory_is_gone(int watch) {
    ::inotify_rm_watch(inotify_.get(), watch); // fails if the kernel has removed it itself
    for (File& file : files_) {
        if (file.watch == watch)
            file.watch = -1;
    }
}

std::set<std::string> FileWatch::read_changes() {
    std::set<std::string> changed;
    alignas(inotify_event) std::array<char, 16384> buffer;
    for (;;) {
        const ssize_t length = ::read(inotify_.get(), buffer.data(), buffer.size());
        if (length <= 0)
            return changed;
        for (const char* at = buffer.data(); at < buffer.data() + length;) {
            const auto& event = *reinterpret_cast<const inotify_event*>(at);
            at += sizeof event + event.len;
            if ((event.mask & (IN_IGNORED | IN_DELETE_SELF | IN_MOVE_SELF)) != 0) {
                directory_is_gone(event.wd);
                continue;
            }
            for (const File& file : files_) {
                const bool overflow = (event.mask & IN_Q_OVERFLOW) != 0;
                if (overflow || (file.watch == event.wd && concerns(file.path, file.name, event)))
                    changed.insert(file.path);
            }
        }
    }
}

} // namespace tapgate::daemon
