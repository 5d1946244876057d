// SPDX-License-Identifier: Apache-2.0
#include "harness/sandbox.hpp"

#include <cerrno>
#include <fstream>
#include <system_error>

#include <sched.h>
#include <sys/mount.h>

namespace tapgate::test {

namespace {

void check(int result, const char* what) {
    if (result != 0)
        throw std::system_error(errno, std::generic_category(), what);
}

} // namespace

void enter_sandbox(std::string_view resolvers) {
    check(::unshare(CLONE_NEWNS | CLONE_NEWNET), "unshare mount and network namespaces (needs root)");
    check(::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr), "make mounts private");
    // Both mount points exist on every Linux, so that nothing is created outside of the sandbox.
    check(::mount("tmpfs", scratch_dir().c_str(), "tmpfs", 0, "mode=0755"), "mount tmpfs");
    check(::mount("bpf", "/sys/fs/bpf", "bpf", 0, nullptr), "mount bpffs");
    const auto file = write_scratch("resolv.conf", resolvers);
    check(::mount(file.c_str(), "/etc/resolv.conf", nullptr, MS_BIND, nullptr), "mount resolv.conf");
}

std::filesystem::path scratch_dir() {
    return "/dev/shm";
}

std::filesystem::path write_scratch(const std::filesystem::path& name, std::string_view text) {
    const auto path = scratch_dir() / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream file(path, std::ios::binary | std::ios::trunc);
    file << text;
    file.close();
    if (!file)
        throw std::system_error(EIO, std::generic_category(), "write " + path.string());
    return path;
}

} // namespace tapgate::test
