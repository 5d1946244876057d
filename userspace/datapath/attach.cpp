// SPDX-License-Identifier: Apache-2.0
#include "datapath/attach.hpp"

#include "base/unique_fd.hpp"
#include "datapath/pin_dir.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

#include <unistd.h>

namespace tapgate::datapath {

namespace {

// UAPI of Linux 6.6 that older headers lack. tcx's part of bpf_link_info begins with the interface index, as
// xdp's does.
constexpr auto kTcxIngress = static_cast<bpf_attach_type>(46);
constexpr auto kTcxEgress = static_cast<bpf_attach_type>(47);
constexpr std::uint32_t kLinkTypeTcx = 11;
constexpr std::uint32_t kBefore = 1U << 3U; // BPF_F_BEFORE: with no other program named, ahead of all

// Where our clsact filters are: ahead of all others, under a handle that nobody takes by accident ("tg").
constexpr std::uint32_t kClsactPriority = 1;
constexpr std::uint32_t kClsactHandle = 0x7467;

constexpr unsigned kLoopback = 1; // the index of `lo` in every network namespace

struct Direction {
    const char* name;
    bpf_attach_type tcx;
    bpf_tc_attach_point clsact;
};

constexpr Direction kIngress{"ingress", kTcxIngress, BPF_TC_INGRESS};
constexpr Direction kEgress{"egress", kTcxEgress, BPF_TC_EGRESS};

std::string link_path(const std::string& links_path, unsigned ifindex, const Direction& direction) {
    return fmt::format("{}/{}-{}", links_path, ifindex, direction.name);
}

std::string uplink_mark(const std::string& links_path, unsigned ifindex) {
    return fmt::format("{}/{}-uplink", links_path, ifindex);
}

/// False also for the link of an interface that was deleted.
bool is_link_on(int link_fd, unsigned ifindex) {
    bpf_link_info info{};
    std::uint32_t length = sizeof(info);
    return ::bpf_obj_get_info_by_fd(link_fd, &info, &length) == 0 && info.type == kLinkTypeTcx &&
           info.xdp.ifindex == ifindex;
}

bool has_link(const std::string& links_path, unsigned ifindex, const Direction& direction) {
    const UniqueFd link(::bpf_obj_get(link_path(links_path, ifindex, direction).c_str()));
    return link && is_link_on(link.get(), ifindex);
}

Result<void> attach_link(const std::string& links_path, unsigned ifindex, const Direction& direction,
                         int program_fd) {
    const std::string path = link_path(links_path, ifindex, direction);
    const UniqueFd pinned(::bpf_obj_get(path.c_str()));
    if (pinned && is_link_on(pinned.get(), ifindex)) {
        if (::bpf_link_update(pinned.get(), program_fd, nullptr) != 0)
            return fail_errno(fmt::format("replace the {} program of interface {}", direction.name, ifindex));
        return {};
    }
    if (pinned && ::unlink(path.c_str()) != 0)
        return fail_errno(fmt::format("remove {}", path));

    bpf_link_create_opts options{};
    options.sz = sizeof(options);
    options.flags = kBefore;
    const UniqueFd link(::bpf_link_create(program_fd, static_cast<int>(ifindex), direction.tcx, &options));
    if (!link)
        return fail_errno(
            fmt::format("attach the {} program to interface {} (tcx)", direction.name, ifindex));
    if (::bpf_obj_pin(link.get(), path.c_str()) != 0)
        return fail_errno(fmt::format("pin {}", path));
    return {};
}

Result<void> detach_link(const std::string& links_path, unsigned ifindex, const Direction& direction) {
    const std::string path = link_path(links_path, ifindex, direction);
    const UniqueFd pinned(::bpf_obj_get(path.c_str()));
    if (!pinned && errno == ENOENT)
        return {};
    if (!pinned)
        return fail_errno(fmt::format("open {}", path));
    // ENOLINK: the interface is gone, and the link with it.
    if (::bpf_link_detach(pinned.get()) != 0 && errno != ENOLINK)
        return fail_errno(fmt::format("detach the {} program from interface {}", direction.name, ifindex));
    if (::unlink(path.c_str()) != 0)
        return fail_errno(fmt::format("remove {}", path));
    return {};
}

bpf_tc_hook clsact_hook(unsigned ifindex, bpf_tc_attach_point point) {
    bpf_tc_hook hook{};
    hook.sz = sizeof(hook);
    hook.ifindex = static_cast<int>(ifindex);
    hook.attach_point = point;
    return hook;
}

bpf_tc_opts clsact_options() {
    bpf_tc_opts options{};
    options.sz = sizeof(options);
    options.handle = kClsactHandle;
    options.priority = kClsactPriority;
    return options;
}

bool has_filter(unsigned ifindex, const Direction& direction) {
    const bpf_tc_hook hook = clsact_hook(ifindex, direction.clsact);
    bpf_tc_opts options = clsact_options();
    return ::bpf_tc_query(&hook, &options) == 0;
}

Result<void> attach_filter(unsigned ifindex, const Direction& direction, int program_fd) {
    bpf_tc_hook qdisc = clsact_hook(ifindex, direction.clsact);
    const int made = ::bpf_tc_hook_create(&qdisc);
    if (made != 0 && made != -EEXIST)
        return fail(Error::from_errno(-made, fmt::format("add a clsact qdisc to interface {}", ifindex)));
    const bpf_tc_hook hook = clsact_hook(ifindex, direction.clsact);
    bpf_tc_opts options = clsact_options();
    options.prog_fd = program_fd;
    options.flags = BPF_TC_F_REPLACE;
    if (const int result = ::bpf_tc_attach(&hook, &options); result != 0)
        return fail(Error::from_errno(
            -result, fmt::format("attach the {} program to interface {} (clsact)", direction.name, ifindex)));
    return {};
}

Result<void> detach_filter(unsigned ifindex, const Direction& direction) {
    if (!has_filter(ifindex, direction))
        return {};
    const bpf_tc_hook hook = clsact_hook(ifindex, direction.clsact);
    const bpf_tc_opts options = clsact_options();
    if (const int result = ::bpf_tc_detach(&hook, &options); result != 0 && result != -ENOENT)
        return fail(Error::from_errno(
            -result, fmt::format("detach the {} filter from interface {}", direction.name, ifindex)));
    return {};
}

} // namespace

bool has_tcx() {
    // An unknown attach type is EINVAL in any kernel.
    std::uint32_t count = 0;
    return ::bpf_prog_query(static_cast<int>(kLoopback), kTcxIngress, 0, nullptr, nullptr, &count) == 0 ||
           errno != EINVAL;
}

Attacher::Attacher(std::string links_path, AttachKind kind, int ingress_fd, int egress_fd, int uplink_fd)
    : links_path_(std::move(links_path)), kind_(kind), ingress_fd_(ingress_fd), egress_fd_(egress_fd),
      uplink_fd_(uplink_fd) {}

bool Attacher::is_attached(unsigned ifindex) const {
    const auto has = [&](const Direction& direction) {
        return has_link(links_path_, ifindex, direction) || has_filter(ifindex, direction);
    };
    return has(kIngress) && has(kEgress);
}

namespace {

Result<void> attach_one(const std::string& links_path, AttachKind kind, unsigned ifindex,
                        const Direction& direction, int program_fd) {
    auto attached = kind == AttachKind::kTcx ? attach_link(links_path, ifindex, direction, program_fd)
                                             : attach_filter(ifindex, direction, program_fd);
    if (!attached)
        return attached;
    // An earlier daemon may have used the other kind; now that ours is in place it is superfluous.
    return kind == AttachKind::kTcx ? detach_filter(ifindex, direction)
                                    : detach_link(links_path, ifindex, direction);
}

} // namespace

Result<void> Attacher::attach(unsigned ifindex) const {
    const bool before = is_attached(ifindex);
    // Ingress first: it is what confines the guest.
    auto attached = attach_one(links_path_, kind_, ifindex, kIngress, ingress_fd_);
    if (attached)
        attached = attach_one(links_path_, kind_, ifindex, kEgress, egress_fd_);
    if (!attached && !before)
        static_cast<void>(detach(ifindex)); // the first failure is the one to report
    return attached;
}

Result<void> Attacher::attach_uplink(unsigned ifindex) const {
    auto attached = attach_one(links_path_, kind_, ifindex, kIngress, uplink_fd_);
    if (!attached || kind_ == AttachKind::kTcx)
        return attached;
    // A filter has no pin by which cleanup() would find the interface.
    const std::string mark = uplink_mark(links_path_, ifindex);
    if (::bpf_obj_pin(uplink_fd_, mark.c_str()) != 0 && errno != EEXIST)
        return fail_errno(fmt::format("pin {}", mark));
    return {};
}

Result<void> Attacher::detach(const std::string& links_path, unsigned ifindex) {
    Result<void> outcome;
    for (const Direction& direction : {kIngress, kEgress}) {
        auto unlinked = detach_link(links_path, ifindex, direction);
        auto unfiltered = detach_filter(ifindex, direction);
        if (outcome && !unlinked)
            outcome = std::move(unlinked);
        if (outcome && !unfiltered)
            outcome = std::move(unfiltered);
    }
    if (::unlink(uplink_mark(links_path, ifindex).c_str()) != 0 && errno != ENOENT && outcome)
        outcome = fail_errno(fmt::format("remove the mark of uplink {}", ifindex));
    return outcome;
}

std::vector<unsigned> Attacher::linked_interfaces(const std::string& links_path) {
    std::vector<unsigned> found;
    for (const std::string& name : list_directory(links_path)) {
        unsigned ifindex = 0;
        const char* end = name.data() + name.size();
        if (const auto [rest, error] = std::from_chars(name.data(), end, ifindex);
            error == std::errc() && rest != end && *rest == '-' &&
            std::ranges::find(found, ifindex) == found.end())
            found.push_back(ifindex);
    }
    return found;
}

} // namespace tapgate::datapath
