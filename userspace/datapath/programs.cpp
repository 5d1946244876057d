// SPDX-License-Identifier: Apache-2.0
#include "datapath/programs.hpp"

#include "base/unique_fd.hpp"
#include "datapath/libbpf_log.hpp"
#include "datapath/requirements.hpp"
#include "datapath/skeleton.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fmt/format.h>

#include <cerrno>
#include <cstring>

#include <sys/random.h>
#include <sys/socket.h>

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

namespace tapgate::datapath {

namespace {

constexpr const char* kAbiMap = "abi";
constexpr const char* kCleanupHint = "run `tapgated --cleanup` first; it takes all guests off the network";

/// The only value of the pinned map `abi`: whose maps these are.
struct AbiRecord {
    std::uint32_t version;
    std::uint32_t pad;
    /// Interface indexes, the keys of everything, mean nothing in another network namespace.
    std::uint64_t netns_cookie;

    bool operator==(const AbiRecord&) const = default;
};

Result<std::uint64_t> netns_cookie() {
    const UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    std::uint64_t cookie = 0;
    socklen_t length = sizeof(cookie);
    if (!socket || ::getsockopt(socket.get(), SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &length) != 0)
        return fail_errno("read the cookie of the network namespace", "needs Linux 5.14");
    return cookie;
}

/// Pins a new record, or checks the one that is there.
Result<void> claim_maps(const PinDir& pins) {
    const auto cookie = netns_cookie();
    if (!cookie)
        return fail(cookie.error());
    const AbiRecord ours{TG_ABI_VERSION, 0, *cookie};
    constexpr std::uint32_t kOnly = 0;
    const std::string path = pins.map_path(kAbiMap);

    const UniqueFd pinned(::bpf_obj_get(path.c_str()));
    if (pinned) {
        AbiRecord theirs{};
        bpf_map_info info{};
        std::uint32_t length = sizeof(info);
        if (::bpf_obj_get_info_by_fd(pinned.get(), &info, &length) != 0)
            return fail_errno(fmt::format("look at {}", path));
        if (info.value_size != sizeof(theirs) || info.key_size != sizeof(kOnly) ||
            ::bpf_map_lookup_elem(pinned.get(), &kOnly, &theirs) != 0 || theirs.version != ours.version)
            return fail(ErrorCode::kInvalid,
                        fmt::format("the pinned maps are of ABI version {}, this tapgated has {}: {}",
                                    theirs.version, ours.version, kCleanupHint));
        if (theirs != ours)
            return fail(
                ErrorCode::kInvalid,
                fmt::format("the pinned maps belong to another network namespace: use another pin_dir, "
                            "or {}",
                            kCleanupHint));
        return {};
    }
    if (errno != ENOENT)
        return fail_errno(fmt::format("open {}", path));
    if (!pins.maps_before().empty())
        return fail(ErrorCode::kInvalid,
                    fmt::format("there are pinned maps of unknown origin beside {}: {}", path, kCleanupHint));

    const UniqueFd made(
        ::bpf_map_create(BPF_MAP_TYPE_ARRAY, "tg_abi", sizeof(kOnly), sizeof(AbiRecord), 1, nullptr));
    if (!made)
        return fail(load_error(errno, "create a BPF map", {}));
    if (::bpf_map_update_elem(made.get(), &kOnly, &ours, BPF_ANY) != 0)
        return fail_errno("write the ABI version");
    if (::bpf_obj_pin(made.get(), path.c_str()) != 0)
        return fail_errno(fmt::format("pin {}", path));
    return {};
}

/// A pinned map that differs in shape would make libbpf fail with a bare "Invalid argument".
Result<void> check_pinned_map(const bpf_map* map, const std::string& path) {
    const UniqueFd pinned(::bpf_obj_get(path.c_str()));
    if (!pinned) {
        if (errno == ENOENT)
            return {};
        return fail_errno(fmt::format("open {}", path));
    }
    bpf_map_info info{};
    std::uint32_t length = sizeof(info);
    if (::bpf_obj_get_info_by_fd(pinned.get(), &info, &length) != 0)
        return fail_errno(fmt::format("look at {}", path));
    if (info.type != static_cast<std::uint32_t>(::bpf_map__type(map)) ||
        info.key_size != ::bpf_map__key_size(map) || info.value_size != ::bpf_map__value_size(map) ||
        info.max_entries != ::bpf_map__max_entries(map))
        return fail(
            ErrorCode::kInvalid,
            fmt::format("the pinned map {} differs from what this tapgated needs: {}", path, kCleanupHint));
    return {};
}

} // namespace

Error load_error(int error, std::string_view operation, std::string_view warnings) {
    if (error == EPERM)
        return Error::from_errno(error, operation, "needs CAP_BPF and CAP_NET_ADMIN (run as root)");
    const std::string missing = missing_kernel_features();
    if (!missing.empty())
        return Error(
            ErrorCode::kUnsupported,
            fmt::format("{}: this kernel is too old or lacks options: {} missing", operation, missing));
    return Error::from_errno(error, operation, failure_line(warnings));
}

Result<tg_hash_key> ensure_hash_key(int fd) {
    constexpr std::uint32_t kOnly = 0;
    tg_hash_key key{};
    if (::bpf_map_lookup_elem(fd, &kOnly, &key) != 0)
        return fail_errno("read the hash key");
    if (key.k0 != 0 || key.k1 != 0)
        return key;
    if (::getrandom(&key, sizeof(key), 0) != sizeof(key))
        return fail_errno("make a random hash key");
    if (::bpf_map_update_elem(fd, &kOnly, &key, BPF_ANY) != 0)
        return fail_errno("write the hash key");
    return key;
}

Result<std::unique_ptr<Programs>> Programs::load(const Settings& settings, const PinDir& pins) {
    if (auto claimed = claim_maps(pins); !claimed)
        return fail(std::move(claimed).error());
    std::unique_ptr<Programs> programs(new Programs());
    if (auto loaded = programs->load_object(settings, pins); !loaded)
        return fail(std::move(loaded).error());
    return programs;
}

Programs::~Programs() {
    tapgate__destroy(skeleton_);
}

int Programs::tap_ingress_fd() const {
    return ::bpf_program__fd(skeleton_->progs.tap_ingress);
}

int Programs::tap_egress_fd() const {
    return ::bpf_program__fd(skeleton_->progs.tap_egress);
}

int Programs::record_answer_fd() const {
    return ::bpf_program__fd(skeleton_->progs.record_answer);
}

int Programs::forget_binding_fd() const {
    return ::bpf_program__fd(skeleton_->progs.forget_binding);
}

int Programs::judge_flow_fd() const {
    return ::bpf_program__fd(skeleton_->progs.judge_flow);
}

int Programs::uplink_ingress_fd() const {
    return ::bpf_program__fd(skeleton_->progs.uplink_ingress);
}

int Programs::change_flow_fd() const {
    return ::bpf_program__fd(skeleton_->progs.change_flow);
}

Result<void> Programs::load_object(const Settings& settings, const PinDir& pins) {
    const LibbpfCapture capture;
    skeleton_ = tapgate__open();
    if (skeleton_ == nullptr)
        return fail(load_error(errno, "open the BPF object", capture.text()));
    skeleton_->rodata->tg_mark = settings.mark;
    skeleton_->rodata->tg_workers = settings.workers;
    skeleton_->rodata->tg_min_ttl_seconds = static_cast<std::uint32_t>(settings.min_ttl.count());
    skeleton_->rodata->tg_max_ttl_seconds = static_cast<std::uint32_t>(settings.max_ttl.count());

    auto& maps = skeleton_->maps;
    for (bpf_map* map :
         {maps.guests,     maps.guest_state, maps.pending,        maps.flows,       maps.upstream_flows,
          maps.flow_facts, maps.dns_pending, maps.names,          maps.chains,      maps.bindings,
          maps.policies,   maps.generations, maps.host_addresses, maps.listeners,   maps.owned_sockets,
          maps.drops,      maps.guest_drops, maps.events,         maps.events_lost, maps.hash_key}) {
        const std::string path = pins.map_path(::bpf_map__name(map));
        if (auto same = check_pinned_map(map, path); !same)
            return same;
        if (::bpf_map__set_pin_path(map, path.c_str()) != 0)
            return fail_errno(fmt::format("choose {} for a map", path));
    }
    if (const int result = tapgate__load(skeleton_); result != 0)
        return fail(load_error(-result, "load the BPF programs", capture.text()));

    maps_.guests = ::bpf_map__fd(maps.guests);
    maps_.guest_state = ::bpf_map__fd(maps.guest_state);
    maps_.pending = ::bpf_map__fd(maps.pending);
    maps_.flows = ::bpf_map__fd(maps.flows);
    maps_.upstream_flows = ::bpf_map__fd(maps.upstream_flows);
    maps_.flow_facts = ::bpf_map__fd(maps.flow_facts);
    maps_.dns_pending = ::bpf_map__fd(maps.dns_pending);
    maps_.names = ::bpf_map__fd(maps.names);
    maps_.chains = ::bpf_map__fd(maps.chains);
    maps_.bindings = ::bpf_map__fd(maps.bindings);
    maps_.recordings = ::bpf_map__fd(maps.recordings);
    maps_.policies = ::bpf_map__fd(maps.policies);
    maps_.generations = ::bpf_map__fd(maps.generations);
    maps_.host_addresses = ::bpf_map__fd(maps.host_addresses);
    maps_.listeners = ::bpf_map__fd(maps.listeners);
    maps_.owned_sockets = ::bpf_map__fd(maps.owned_sockets);
    maps_.drops = ::bpf_map__fd(maps.drops);
    maps_.guest_drops = ::bpf_map__fd(maps.guest_drops);
    maps_.events = ::bpf_map__fd(maps.events);
    maps_.events_lost = ::bpf_map__fd(maps.events_lost);
    maps_.hash_key = ::bpf_map__fd(maps.hash_key);
    const auto key = ensure_hash_key(maps_.hash_key);
    if (!key)
        return fail(key.error());
    hash_key_ = *key;
    return {};
}

} // namespace tapgate::datapath
