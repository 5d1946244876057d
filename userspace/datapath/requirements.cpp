// SPDX-License-Identifier: Apache-2.0
#include "datapath/requirements.hpp"

#include "datapath/attach.hpp"
#include "tapgate/bpf_abi.h"

#include <bpf/libbpf.h>
#include <fmt/format.h>

#include <array>
#include <cstdint>

#include <linux/capability.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace tapgate::datapath {

namespace {

/// Classifiers come first: without them the other probes mean nothing.
constexpr const char* kClassifiers = "BPF classifiers (CONFIG_NET_CLS_BPF, CONFIG_BPF_SYSCALL)";

struct NeededMap {
    bpf_map_type type;
    const char* name;
    const char* text;
};

constexpr NeededMap kNeededMaps[] = {
    {BPF_MAP_TYPE_SOCKMAP, "sockmap", "BPF socket maps (CONFIG_BPF_STREAM_PARSER)"},
    {BPF_MAP_TYPE_SK_STORAGE, "sk_storage", "socket storage maps (Linux 5.2)"},
    {BPF_MAP_TYPE_RINGBUF, "ringbuf", "BPF ring buffers (Linux 5.8)"},
};

struct NeededHelper {
    bpf_func_id id;
    const char* name;
    const char* text;
};

constexpr NeededHelper kNeededHelpers[] = {
    {BPF_FUNC_sk_assign, "sk_assign", "bpf_sk_assign (Linux 5.7)"},
    {BPF_FUNC_skc_lookup_tcp, "skc_lookup_tcp", "bpf_skc_lookup_tcp (Linux 5.2)"},
    {BPF_FUNC_get_listener_sock, "get_listener_sock", "bpf_get_listener_sock (Linux 5.1)"},
    {BPF_FUNC_skc_to_tcp_timewait_sock, "skc_to_tcp_timewait_sock",
     "bpf_skc_to_tcp_timewait_sock (Linux 5.9)"},
    {BPF_FUNC_sk_storage_get, "sk_storage_get", "bpf_sk_storage_get in classifiers (Linux 5.2)"},
    {BPF_FUNC_ringbuf_reserve, "ringbuf_reserve", "bpf_ringbuf_reserve (Linux 5.8)"},
    {BPF_FUNC_ktime_get_boot_ns, "ktime_get_boot_ns", "bpf_ktime_get_boot_ns (Linux 5.8)"},
    {BPF_FUNC_spin_lock, "spin_lock", "bpf_spin_lock (Linux 5.1)"},
    {BPF_FUNC_redirect_neigh, "redirect_neigh", "bpf_redirect_neigh (Linux 5.10)"},
    {BPF_FUNC_check_mtu, "check_mtu", "bpf_check_mtu (Linux 5.12)"},
    {BPF_FUNC_loop, "loop", "bpf_loop (Linux 5.17)"},
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

std::vector<Feature> probe_features() {
    std::vector<Feature> features;
    const auto add = [&features](const char* name, const char* text, bool present, const char* instead = "") {
        features.push_back({name, text, present, instead, ""});
    };
    add("sched_cls", kClassifiers, ::libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_SCHED_CLS, nullptr) == 1);
    for (const NeededMap& map : kNeededMaps)
        add(map.name, map.text, ::libbpf_probe_bpf_map_type(map.type, nullptr) == 1);
    for (const NeededHelper& helper : kNeededHelpers)
        add(helper.name, helper.text,
            ::libbpf_probe_bpf_helper(BPF_PROG_TYPE_SCHED_CLS, helper.id, nullptr) == 1);
    add("tcx", "tcx links (Linux 6.6)", has_tcx(), "clsact");
    return features;
}

std::vector<std::string> built_with() {
    return {fmt::format("abi {}", TG_ABI_VERSION), fmt::format("libbpf {}", ::libbpf_version_string()), "tcx",
            "clsact"};
}

std::string missing_kernel_features() {
    std::string missing;
    for (const Feature& feature : probe_features()) {
        if (feature.present || !feature.required())
            continue;
        if (!missing.empty())
            missing += ", ";
        missing += feature.text;
        if (feature.text == kClassifiers)
            break;
    }
    return missing;
}

} // namespace tapgate::datapath
