// SPDX-License-Identifier: Apache-2.0
#include "daemon/sandbox.hpp"

#include "base/unique_fd.hpp"

#include <fmt/format.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>

#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define TAPGATE_UNDER_SANITIZER 1
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define TAPGATE_UNDER_SANITIZER 1
#endif

namespace tapgate::daemon {

namespace {

#ifdef TAPGATE_UNDER_SANITIZER
constexpr bool kUnderSanitizer = true;
#else
constexpr bool kUnderSanitizer = false;
#endif

// CAP_BPF: maps and links. CAP_NET_ADMIN: attachment, rules and routes, transparent sockets.
// CAP_NET_BIND_SERVICE: answers come from port 53. What loading took besides (CAP_PERFMON, for the verifier)
// is gone.
constexpr std::array<unsigned, 3> kCapabilities = {CAP_BPF, CAP_NET_ADMIN, CAP_NET_BIND_SERVICE};

Result<void> drop_capabilities() {
    __user_cap_header_struct header{};
    header.version = _LINUX_CAPABILITY_VERSION_3;
    std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> held{};
    if (::syscall(SYS_capget, &header, held.data()) != 0)
        return fail_errno("read the capabilities of this process");
    std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> kept{};
    for (const unsigned capability : kCapabilities) {
        const std::uint32_t bit = held[CAP_TO_INDEX(capability)].permitted & CAP_TO_MASK(capability);
        kept[CAP_TO_INDEX(capability)].permitted |= bit;
        kept[CAP_TO_INDEX(capability)].effective |= bit;
    }
    if (::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0 ||
        ::syscall(SYS_capset, &header, kept.data()) != 0)
        return fail_errno("give up capabilities");
    return {};
}

// --- Landlock (Documentation/userspace-api/landlock.rst) ------------------------------------------------

// Of version 3 of its interface (Linux 6.2); the headers of Debian 12 have version 2.
constexpr std::uint64_t kTruncate = std::uint64_t{1} << 14U;
constexpr int kAbiWithTruncate = 3;
constexpr std::uint64_t kWrites = LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR |
                                  LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_CHAR |
                                  LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG |
                                  LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO |
                                  LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_MAKE_SYM;

/// The version of Landlock's interface; 0 if the kernel has it not, or not enabled.
int landlock_abi() {
    const auto abi = ::syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
    return abi < 0 ? 0 : static_cast<int>(abi);
}

Result<void> restrict_files(int abi, const std::vector<std::string>& writable) {
    const std::uint64_t writes = kWrites | (abi >= kAbiWithTruncate ? kTruncate : 0);
    landlock_ruleset_attr attributes{};
    attributes.handled_access_fs = writes | LANDLOCK_ACCESS_FS_EXECUTE;
    const UniqueFd rules(
        static_cast<int>(::syscall(SYS_landlock_create_ruleset, &attributes, sizeof attributes, 0)));
    if (!rules)
        return fail_errno("make a Landlock ruleset");
    for (const std::string& directory : writable) {
        const UniqueFd fd(::open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
        if (!fd)
            return fail_errno(fmt::format("open {}", directory));
        landlock_path_beneath_attr rule{};
        rule.allowed_access = writes;
        rule.parent_fd = fd.get();
        if (::syscall(SYS_landlock_add_rule, rules.get(), LANDLOCK_RULE_PATH_BENEATH, &rule, 0) != 0)
            return fail_errno(fmt::format("allow writing below {}", directory));
    }
    if (::syscall(SYS_landlock_restrict_self, rules.get(), 0) != 0)
        return fail_errno("restrict the process by Landlock");
    return {};
}

// --- seccomp --------------------------------------------------------------------------------------------

// What the netns suite was seen to use, and what belongs to it: a C library or a libbpf that is a little
// newer takes another call of the same family.
constexpr int kAllowed[] = {
    // memory and threads; mmap, mprotect and clone are below
    SCMP_SYS(brk), SCMP_SYS(futex), SCMP_SYS(madvise), SCMP_SYS(membarrier), SCMP_SYS(mremap),
    SCMP_SYS(munmap), SCMP_SYS(rseq), SCMP_SYS(sched_getaffinity), SCMP_SYS(sched_yield),
    SCMP_SYS(set_robust_list),
    // the process
    SCMP_SYS(exit), SCMP_SYS(exit_group), SCMP_SYS(getegid), SCMP_SYS(geteuid), SCMP_SYS(getgid),
    SCMP_SYS(getpid), SCMP_SYS(getrandom), SCMP_SYS(getrusage), SCMP_SYS(gettid), SCMP_SYS(getuid),
    SCMP_SYS(restart_syscall), SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn),
    SCMP_SYS(sigaltstack), SCMP_SYS(sysinfo), SCMP_SYS(tgkill), SCMP_SYS(umask), SCMP_SYS(uname),
    // time
    SCMP_SYS(clock_getres), SCMP_SYS(clock_gettime), SCMP_SYS(clock_nanosleep), SCMP_SYS(gettimeofday),
    SCMP_SYS(nanosleep), SCMP_SYS(timerfd_create), SCMP_SYS(timerfd_settime),
    // waiting
    SCMP_SYS(epoll_create1), SCMP_SYS(epoll_ctl), SCMP_SYS(epoll_pwait), SCMP_SYS(epoll_wait),
    SCMP_SYS(eventfd2), SCMP_SYS(io_uring_enter), SCMP_SYS(io_uring_register), SCMP_SYS(io_uring_setup),
    SCMP_SYS(pipe2), SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(pselect6), SCMP_SYS(select),
    // files; Landlock says where writing is possible
    SCMP_SYS(access), SCMP_SYS(close), SCMP_SYS(dup), SCMP_SYS(dup3), SCMP_SYS(faccessat),
    SCMP_SYS(faccessat2), SCMP_SYS(fcntl), SCMP_SYS(flock), SCMP_SYS(fstat), SCMP_SYS(fstatfs),
    SCMP_SYS(ftruncate), SCMP_SYS(getcwd), SCMP_SYS(getdents64), SCMP_SYS(inotify_add_watch),
    SCMP_SYS(inotify_init1), SCMP_SYS(inotify_rm_watch), SCMP_SYS(ioctl), SCMP_SYS(lseek), SCMP_SYS(lstat),
    SCMP_SYS(mkdir), SCMP_SYS(mkdirat), SCMP_SYS(newfstatat), SCMP_SYS(open), SCMP_SYS(openat),
    SCMP_SYS(pread64), SCMP_SYS(read), SCMP_SYS(readlink), SCMP_SYS(readlinkat), SCMP_SYS(readv),
    SCMP_SYS(rename), SCMP_SYS(renameat), SCMP_SYS(renameat2), SCMP_SYS(rmdir), SCMP_SYS(splice),
    SCMP_SYS(stat), SCMP_SYS(statfs), SCMP_SYS(statx), SCMP_SYS(unlink), SCMP_SYS(unlinkat), SCMP_SYS(write),
    SCMP_SYS(writev),
    // sockets; socket is below
    SCMP_SYS(accept), SCMP_SYS(accept4), SCMP_SYS(bind), SCMP_SYS(connect), SCMP_SYS(getpeername),
    SCMP_SYS(getsockname), SCMP_SYS(getsockopt), SCMP_SYS(listen), SCMP_SYS(recvfrom), SCMP_SYS(recvmmsg),
    SCMP_SYS(recvmsg), SCMP_SYS(sendmmsg), SCMP_SYS(sendmsg), SCMP_SYS(sendto), SCMP_SYS(setsockopt),
    SCMP_SYS(shutdown), SCMP_SYS(socketpair)};

// Maps, links, and test runs of the programs that are loaded. BPF_PROG_LOAD is not among them.
constexpr bpf_cmd kBpfCommands[] = {BPF_MAP_CREATE,       BPF_MAP_LOOKUP_ELEM,
                                    BPF_MAP_UPDATE_ELEM,  BPF_MAP_DELETE_ELEM,
                                    BPF_MAP_GET_NEXT_KEY, BPF_MAP_LOOKUP_AND_DELETE_ELEM,
                                    BPF_MAP_LOOKUP_BATCH, BPF_MAP_LOOKUP_AND_DELETE_BATCH,
                                    BPF_MAP_UPDATE_BATCH, BPF_MAP_DELETE_BATCH,
                                    BPF_MAP_FREEZE,       BPF_OBJ_PIN,
                                    BPF_OBJ_GET,          BPF_OBJ_GET_INFO_BY_FD,
                                    BPF_PROG_TEST_RUN,    BPF_PROG_QUERY,
                                    BPF_LINK_CREATE,      BPF_LINK_UPDATE,
                                    BPF_LINK_DETACH};

constexpr int kSocketFamilies[] = {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK};

// LeakSanitizer traces its own process at exit, and sanitizers map and name what they like.
constexpr int kForSanitizers[] = {SCMP_SYS(clone),  SCMP_SYS(getdents),  SCMP_SYS(getppid),
                                  SCMP_SYS(mmap),   SCMP_SYS(mprotect),  SCMP_SYS(prctl),
                                  SCMP_SYS(ptrace), SCMP_SYS(prlimit64), SCMP_SYS(sched_setaffinity),
                                  SCMP_SYS(wait4)};

/// SIGSYS: says which call it was, since the kernel's own line is in another log, and ends the process.
void report_forbidden_call(int, siginfo_t* info, void*) {
    std::array<char, 128> line{};
    const auto end = fmt::format_to_n(
        line.data(), line.size(), "tapgate: bug at system call {}: not in the sandbox's list (sandbox.cpp)\n",
        info->si_syscall);
    [[maybe_unused]] const auto written = ::write(STDERR_FILENO, line.data(), end.size);
    ::signal(SIGSYS, SIG_DFL);
    ::raise(SIGSYS);
}

Result<void> filter_system_calls() {
    struct sigaction action{};
    action.sa_sigaction = report_forbidden_call;
    action.sa_flags = SA_SIGINFO;
    if (::sigaction(SIGSYS, &action, nullptr) != 0)
        return fail_errno("handle SIGSYS");

    const std::unique_ptr<void, void (*)(void*)> filter(::seccomp_init(SCMP_ACT_TRAP), ::seccomp_release);
    if (!filter)
        return fail(ErrorCode::kIo, "make a seccomp filter");
    int error = 0;
    const auto add = [&](int call, std::span<const scmp_arg_cmp> conditions, std::uint32_t action_of_rule) {
        const int added = ::seccomp_rule_add_array(
            filter.get(), action_of_rule, call, static_cast<unsigned>(conditions.size()), conditions.data());
        if (error == 0)
            error = added;
    };
    const auto allow_if = [&](int call, scmp_arg_cmp condition) {
        add(call, {&condition, 1}, SCMP_ACT_ALLOW);
    };

    for (const int call : kAllowed)
        add(call, {}, SCMP_ACT_ALLOW);
    for (const bpf_cmd command : kBpfCommands)
        allow_if(SCMP_SYS(bpf), SCMP_A0_64(SCMP_CMP_EQ, static_cast<std::uint64_t>(command), 0));
    for (const int family : kSocketFamilies)
        allow_if(SCMP_SYS(socket), SCMP_A0_64(SCMP_CMP_EQ, static_cast<std::uint64_t>(family), 0));
    // Its flags are behind a pointer, where a filter cannot look: the C library takes clone instead.
    add(SCMP_SYS(clone3), {}, SCMP_ACT_ERRNO(ENOSYS));
    if constexpr (kUnderSanitizer) {
        for (const int call : kForSanitizers)
            add(call, {}, SCMP_ACT_ALLOW);
    } else {
        // Threads, not processes; and no code but what was loaded at start.
        allow_if(SCMP_SYS(clone), SCMP_A0_64(SCMP_CMP_MASKED_EQ, std::uint64_t{CLONE_THREAD}, CLONE_THREAD));
        allow_if(SCMP_SYS(mmap), SCMP_A2_64(SCMP_CMP_MASKED_EQ, std::uint64_t{PROT_EXEC}, 0));
        allow_if(SCMP_SYS(mprotect), SCMP_A2_64(SCMP_CMP_MASKED_EQ, std::uint64_t{PROT_EXEC}, 0));
        allow_if(SCMP_SYS(prctl), SCMP_A0_64(SCMP_CMP_EQ, std::uint64_t{PR_SET_NAME}, 0));
        // Reading limits, not changing them.
        allow_if(SCMP_SYS(prlimit64), SCMP_A2_64(SCMP_CMP_EQ, 0, 0));
    }
    if (error == 0)
        error = ::seccomp_load(filter.get());
    if (error != 0)
        return fail(Error::from_errno(-error, "filter system calls"));
    return {};
}

} // namespace

Result<std::string> enter_sandbox(const std::vector<std::string>& writable) {
    if (const auto dropped = drop_capabilities(); !dropped)
        return fail(dropped.error());
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return fail_errno("set no_new_privs");
    const int abi = landlock_abi();
    if (abi > 0) {
        if (const auto restricted = restrict_files(abi, writable); !restricted)
            return fail(restricted.error());
    }
    if (const auto filtered = filter_system_calls(); !filtered)
        return fail(filtered.error());
    return fmt::format("capabilities, seccomp, {}", abi > 0 ? fmt::format("Landlock {}", abi)
                                                            : "no Landlock (not enabled in this kernel)");
}

} // namespace tapgate::daemon
