// SPDX-License-Identifier: Apache-2.0
#include "daemon/sandbox.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <thread>

#include <fcntl.h>
#include <linux/bpf.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

// The sandbox binds a process for good, so that each test enters it in a child, and the child's end is what
// is looked at.

namespace tapgate::daemon {
namespace {

constexpr int kNoSandbox = 100; ///< the child could not enter it
constexpr int kNoLandlock = 101;

/// A directory in which the sandbox allows writing, and one in which it does not.
class Sandbox : public testing::Test {
  protected:
    void SetUp() override {
        char name[] = "/tmp/tapgate-sandbox-XXXXXX";
        ASSERT_NE(::mkdtemp(name), nullptr);
        root_ = name;
        std::filesystem::create_directories(root_ + "/in");
        std::filesystem::create_directories(root_ + "/out");
        std::filesystem::copy_file("/proc/self/comm", root_ + "/out/file");
    }

    void TearDown() override { std::filesystem::remove_all(root_); }

    [[nodiscard]] std::string in(const std::string& name) const { return root_ + "/in/" + name; }

    [[nodiscard]] std::string out(const std::string& name) const { return root_ + "/out/" + name; }

    /// Runs `act` in a child that has entered the sandbox; the wait status. The exit code is what `act`
    /// returns.
    [[nodiscard]] int in_sandbox(const std::function<int()>& act) const {
        const pid_t child = ::fork();
        if (child == 0) {
            const auto entered = enter_sandbox({root_ + "/in"});
            if (!entered) {
                std::fprintf(stderr, "%s\n", entered.error().message().c_str());
                ::_exit(kNoSandbox);
            }
            has_landlock() = entered->find("no Landlock") == std::string::npos;
            ::_exit(act());
        }
        int status = -1;
        EXPECT_EQ(::waitpid(child, &status, 0), child);
        return status;
    }

    /// Whether this kernel has Landlock; in the child.
    static bool& has_landlock() {
        static bool has = false;
        return has;
    }

  private:
    std::string root_;
};

int exit_code(int status) {
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

struct Forbidden {
    const char* name;
    std::function<void()> call;
};

std::vector<Forbidden> forbidden_calls() {
    static const char* const argv[] = {"/bin/true", nullptr};
    const auto bpf = [](bpf_cmd command) {
        bpf_attr attributes{};
        ::syscall(SYS_bpf, command, &attributes, sizeof attributes);
    };
    std::vector<Forbidden> calls = {
        {"execve", [] { ::execve(argv[0], const_cast<char**>(argv), nullptr); }},
        {"execveat", [] { ::syscall(SYS_execveat, AT_FDCWD, argv[0], argv, nullptr, 0); }},
        {"mount", [] { ::mount("none", "/", nullptr, MS_REMOUNT, nullptr); }},
        {"umount2", [] { ::umount2("/", MNT_DETACH); }},
        {"pivot_root", [] { ::syscall(SYS_pivot_root, "/", "/"); }},
        {"chroot", [] { static_cast<void>(::chroot("/")); }},
        {"unshare", [] { ::unshare(CLONE_NEWNET); }},
        {"setns", [] { ::setns(-1, 0); }},
        {"setuid", [] { ::syscall(SYS_setuid, 0); }},
        {"capset", [] { ::syscall(SYS_capset, nullptr, nullptr); }},
        {"kill", [] { ::kill(1, 0); }},
        {"init_module", [] { ::syscall(SYS_init_module, nullptr, 0, ""); }},
        {"kexec_load", [] { ::syscall(SYS_kexec_load, 0, 0, nullptr, 0); }},
        {"process_vm_readv", [] { ::syscall(SYS_process_vm_readv, 1, nullptr, 0, nullptr, 0, 0); }},
        {"pidfd_getfd", [] { ::syscall(SYS_pidfd_getfd, -1, 0, 0); }},
        {"open_by_handle_at", [] { ::syscall(SYS_open_by_handle_at, -1, nullptr, 0); }},
        {"perf_event_open", [] { ::syscall(SYS_perf_event_open, nullptr, 0, 0, -1, 0); }},
        {"userfaultfd", [] { ::syscall(SYS_userfaultfd, 0); }},
        {"keyctl", [] { ::syscall(SYS_keyctl, 0, 0, 0, 0, 0); }},
        {"fchmod", [] { ::fchmod(0, 0600); }},
        {"packet socket", [] { ::socket(AF_PACKET, SOCK_RAW, 0); }},
        {"vsock", [] { ::socket(AF_VSOCK, SOCK_STREAM, 0); }},
        {"loading a program", [=] { bpf(BPF_PROG_LOAD); }},
        {"loading types", [=] { bpf(BPF_BTF_LOAD); }},
        {"taking another's program", [=] { bpf(BPF_PROG_GET_FD_BY_ID); }},
        {"taking another's map", [=] { bpf(BPF_MAP_GET_FD_BY_ID); }},
    };
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    // Sanitizers need these themselves.
    calls.push_back({"fork", [] { ::fork(); }});
    calls.push_back({"ptrace", [] { ::syscall(SYS_ptrace, 0, 0, 0, 0); }});
    calls.push_back({"executable memory", [] {
                         static_cast<void>(::mmap(nullptr, 4096, PROT_READ | PROT_EXEC,
                                                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
                     }});
    calls.push_back({"setting a limit", [] { ::syscall(SYS_prlimit64, 0, 0, argv, nullptr); }});
#endif
    return calls;
}

TEST_F(Sandbox, a_call_that_the_daemon_does_not_need_ends_the_process) {
    for (const Forbidden& forbidden : forbidden_calls()) {
        const int status = in_sandbox([&] {
            forbidden.call();
            return 0;
        });
        EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS) << forbidden.name << ": " << status;
    }
}

TEST_F(Sandbox, no_capability_is_left_but_those_that_are_needed) {
    const int status = in_sandbox([] {
        std::FILE* file = std::fopen("/proc/self/status", "r");
        char line[256];
        unsigned long long permitted = ~0ULL;
        unsigned long long effective = ~0ULL;
        unsigned long long no_new_privs = 0;
        while (file != nullptr && std::fgets(line, sizeof line, file) != nullptr) {
            const std::string_view text(line);
            const std::size_t colon = std::min(text.find(':'), text.size() - 1);
            const auto value = [&](int base) { return std::strtoull(line + colon + 1, nullptr, base); };
            if (text.starts_with("CapPrm:"))
                permitted = value(16);
            if (text.starts_with("CapEff:"))
                effective = value(16);
            if (text.starts_with("NoNewPrivs:"))
                no_new_privs = value(10);
        }
        // net_bind_service, net_admin, bpf
        constexpr unsigned long long kNeeded = 1ULL << 10U | 1ULL << 12U | 1ULL << 39U;
        return (permitted & ~kNeeded) == 0 && effective == permitted && no_new_privs == 1 ? 0 : 1;
    });
    EXPECT_EQ(exit_code(status), 0);
}

TEST_F(Sandbox, files_are_written_only_where_it_was_said) {
    const std::string inside = in("made");
    const std::string outside = out("made");
    const std::string existing = out("file");
    const int status = in_sandbox([&] {
        if (!has_landlock())
            return kNoLandlock;
        const auto opens = [](const std::string& path, int flags) {
            return ::open(path.c_str(), flags | O_CLOEXEC, 0600) >= 0;
        };
        if (!opens(inside, O_WRONLY | O_CREAT) || ::unlink(inside.c_str()) != 0)
            return 1;
        if (opens(outside, O_WRONLY | O_CREAT) || errno != EACCES)
            return 2;
        if (opens(existing, O_WRONLY) || opens(existing, O_RDONLY | O_TRUNC))
            return 3;
        if (::unlink(existing.c_str()) == 0 || ::mkdir(outside.c_str(), 0700) == 0)
            return 4;
        return opens(existing, O_RDONLY) ? 0 : 5;
    });
    // Debian's kernels have Landlock enabled, and so has every machine this is tested on.
    EXPECT_EQ(exit_code(status), 0);
}

TEST_F(Sandbox, what_the_daemon_does_goes_on) {
    const std::string path = in("socket");
    const int status = in_sandbox([&] {
        bool ran = false;
        std::thread([&] { ran = true; }).join();
        if (!ran)
            return 1;
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        path.copy(address.sun_path, sizeof address.sun_path - 1);
        const int unix_socket = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (::bind(unix_socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
            return 2;
        for (const int family : {AF_INET, AF_INET6, AF_NETLINK})
            if (::socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0) < 0)
                return 3;
        return ::open("/etc/passwd", O_RDONLY | O_CLOEXEC) >= 0 ? 0 : 4;
    });
    EXPECT_EQ(exit_code(status), 0);
}

} // namespace
} // namespace tapgate::daemon
