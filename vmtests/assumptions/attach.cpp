// SPDX-License-Identifier: Apache-2.0
#include "attach.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <cerrno>
#include <system_error>

#include <net/if.h>

namespace tapgate::assumptions {

namespace {

// UAPI of Linux 6.6 that older headers lack.
constexpr auto kTcxIngress = static_cast<bpf_attach_type>(46);
constexpr auto kTcxEgress = static_cast<bpf_attach_type>(47);

} // namespace

unsigned interface_index(const test::NetNs& ns, const std::string& interface) {
    return ns.run([&] {
        const unsigned index = ::if_nametoindex(interface.c_str());
        if (index == 0)
            throw std::system_error(errno, std::generic_category(), interface);
        return index;
    });
}

void attach_clsact(const test::NetNs& ns, const std::string& interface, Direction direction, int program) {
    const unsigned index = interface_index(ns, interface);
    ns.run([&] {
        bpf_tc_hook hook{};
        hook.sz = sizeof hook;
        hook.ifindex = static_cast<int>(index);
        hook.attach_point = direction == Direction::kIngress ? BPF_TC_INGRESS : BPF_TC_EGRESS;
        // The other direction may have made the qdisc; libbpf would print that.
        const libbpf_print_fn_t print = ::libbpf_set_print(nullptr);
        int result = ::bpf_tc_hook_create(&hook);
        ::libbpf_set_print(print);
        if (result != 0 && result != -EEXIST)
            throw std::system_error(-result, std::generic_category(), "add clsact to " + interface);
        bpf_tc_opts options{};
        options.sz = sizeof options;
        options.prog_fd = program;
        result = ::bpf_tc_attach(&hook, &options);
        if (result != 0)
            throw std::system_error(-result, std::generic_category(), "attach a filter to " + interface);
    });
}

bool has_tcx() {
    std::uint32_t count = 0;
    return ::bpf_prog_query(1, kTcxIngress, 0, nullptr, nullptr, &count) == 0 || errno != EINVAL;
}

UniqueFd attach_tcx(const test::NetNs& ns, const std::string& interface, Direction direction, int program) {
    const int index = static_cast<int>(interface_index(ns, interface));
    return ns.run([&] {
        UniqueFd link(::bpf_link_create(
            program, index, direction == Direction::kIngress ? kTcxIngress : kTcxEgress, nullptr));
        if (!link)
            throw std::system_error(errno, std::generic_category(), "attach a tcx link to " + interface);
        return link;
    });
}

} // namespace tapgate::assumptions
