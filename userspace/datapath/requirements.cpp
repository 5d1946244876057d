// SPDX-License-Identifier: Apache-2.0
#include "datapath/requirements.hpp"

#include <bpf/libbpf.h>
#include <fmt/format.h>

#include <array>
#include <cstdint>

#include <linux/capability.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace tapgate::datapath {

namespace {

struct NeededHelper {
    bpf_func_id id;
    const char* words;
};

constexpr NeededHelper kNeededHelpers[] = {
    {BPF_FUNC_sk_assign, "bpf_sk_assign (Linux 5.7)"},
    {BPF_FUNC_ktime_get_boot_ns, "bpf_ktime_get_boot_ns (Linux 5.8)"},
    {BPF_FUNC_ringbuf_reserve, "BPF ring buffers (Linux 5.8)"},
    {BPF_FUNC_sk_storage_get, "socket storage (Linux 5.2)"},
    {BPF_FUNC_spin_lock, "bpf_spin_lock (Linux 5.1)"},
    {BPF_FUNC_loop, "bpf_loop (Linux 5.17)"},
};

} // namespace

Result<void> check_capabilities() {
    __user_cap_header_struct header{};
    header.version = _LINUX_CAPABILITY_VERSION_3;
    std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> sets{};
    if (::syscall(SYS_capget, &header, sets.data()) != 0)
        return fail_errno("read the capabilities of this process");
    const auto has = [&](unsigned capability) {
        return (sets[CAP_TO_INDEX(capability)].effective & CAP_TO_MASK(capability)) != 0;
    };
    if ((has(CAP_BPF) || has(CAP_SYS_ADMIN)) && has(CAP_NET_ADMIN))
        return {};
    return fail(ErrorCode::kPermission, "load BPF programs: needs CAP_BPF and CAP_NET_ADMIN (run as root)");
}

std::string missing_kernel_features() {
    std::string missing;
    const auto add = [&missing](const char* words) {
        if (!missing.empty())
            missing += ", ";
        missing += words;
    };
    if (::libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_SCHED_CLS, nullptr) == 0) {
        add("BPF classifiers (CONFIG_NET_CLS_BPF, CONFIG_BPF_SYSCALL)");
        return missing;
    }
    if (::libbpf_probe_bpf_map_type(BPF_MAP_TYPE_SOCKMAP, nullptr) == 0)
        add("BPF socket maps (CONFIG_BPF_STREAM_PARSER)");
    if (::libbpf_probe_bpf_map_type(BPF_MAP_TYPE_SK_STORAGE, nullptr) == 0)
        add("socket storage maps (Linux 5.2)");
    for (const NeededHelper& helper : kNeededHelpers) {
        if (::libbpf_probe_bpf_helper(BPF_PROG_TYPE_SCHED_CLS, helper.id, nullptr) == 0)
            add(helper.words);
    }
    return missing;
}

} // namespace tapgate::datapath
