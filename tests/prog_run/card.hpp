// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/unique_fd.hpp"
#include "program_fixture.hpp"

#include <bpf/libbpf.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <functional>
#include <stdexcept>

#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <sys/socket.h>

// Packets that really go through the programs on the veth pairs of main().
namespace tapgate::test {

/// struct virtio_net_hdr, whose header is not C++.
struct VnetHeader {
    std::uint8_t flags;
    std::uint8_t gso_type;
    std::uint16_t hdr_len;
    std::uint16_t gso_size;
    std::uint16_t csum_start;
    std::uint16_t csum_offset;
};

static_assert(sizeof(VnetHeader) == 10);
inline constexpr std::uint8_t kNeedsChecksum = 1; // VIRTIO_NET_HDR_F_NEEDS_CSUM

/// The network card at the far end of a pair: sends and receives whole frames.
class Card {
  public:
    explicit Card(const char* name) : fd_(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL))) {
        const int on = 1;
        sockaddr_ll address{};
        address.sll_family = AF_PACKET;
        address.sll_protocol = htons(ETH_P_ALL);
        address.sll_ifindex = static_cast<int>(::if_nametoindex(name));
        if (!fd_ || ::setsockopt(fd_.get(), SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on) != 0 ||
            ::bind(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
            throw std::runtime_error(std::string("open ") + name);
    }

    void send(const Bytes& frame, const VnetHeader& offload = {}) const {
        Bytes all(sizeof offload);
        std::memcpy(all.data(), &offload, sizeof offload);
        append(all, frame);
        ASSERT_EQ(::send(fd_.get(), all.data(), all.size(), 0), static_cast<ssize_t>(all.size()));
    }

    /// The first frame from the host that satisfies `wanted`, checksums filled in; empty after `patience`.
    Bytes receive(const std::function<bool(const Bytes&)>& wanted,
                  std::chrono::milliseconds patience = std::chrono::seconds(5)) const {
        const auto deadline = std::chrono::steady_clock::now() + patience;
        while (true) {
            const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
                deadline - std::chrono::steady_clock::now());
            pollfd waiting{fd_.get(), POLLIN, 0};
            if (left.count() <= 0 || ::poll(&waiting, 1, static_cast<int>(left.count())) != 1)
                return {};
            Bytes all(sizeof(VnetHeader) + 14 + 65535);
            sockaddr_ll from{};
            socklen_t length = sizeof from;
            const auto size =
                ::recvfrom(fd_.get(), all.data(), all.size(), 0, reinterpret_cast<sockaddr*>(&from), &length);
            VnetHeader offload{};
            if (size < static_cast<ssize_t>(sizeof offload) || from.sll_pkttype == PACKET_OUTGOING)
                continue;
            std::memcpy(&offload, all.data(), sizeof offload);
            Bytes frame(all.begin() + sizeof offload, all.begin() + size);
            if ((offload.flags & kNeedsChecksum) != 0) {
                const Bytes covered(frame.begin() + offload.csum_start, frame.end());
                set16(frame, static_cast<std::size_t>(offload.csum_start) + offload.csum_offset,
                      internet_checksum(covered));
            }
            if (wanted(frame))
                return frame;
        }
    }

  private:
    UniqueFd fd_;
};

inline bool is_transport(const Bytes& frame, std::uint8_t protocol) {
    return frame.size() >= 42 && frame[frame[12] == 0x86 ? 20 : 23] == protocol;
}

inline Bytes transport_of(const Bytes& frame) {
    return Bytes(frame.begin() + (frame[12] == 0x86 ? 54 : 34), frame.end());
}

inline void attach(unsigned ifindex, bpf_tc_attach_point point, const char* program) {
    bpf_tc_hook hook{};
    hook.sz = sizeof hook;
    hook.ifindex = static_cast<int>(ifindex);
    hook.attach_point = static_cast<bpf_tc_attach_point>(BPF_TC_INGRESS | BPF_TC_EGRESS);
    const int made = bpf_tc_hook_create(&hook);
    ASSERT_TRUE(made == 0 || made == -EEXIST) << made;
    hook.attach_point = point;
    bpf_tc_opts options{};
    options.sz = sizeof options;
    options.prog_fd = bpf_program__fd(bpf_object__find_program_by_name(product().object(), program));
    ASSERT_EQ(bpf_tc_attach(&hook, &options), 0);
}

inline void detach_all(unsigned ifindex) {
    bpf_tc_hook hook{};
    hook.sz = sizeof hook;
    hook.ifindex = static_cast<int>(ifindex);
    hook.attach_point = static_cast<bpf_tc_attach_point>(BPF_TC_INGRESS | BPF_TC_EGRESS);
    EXPECT_EQ(bpf_tc_hook_destroy(&hook), 0);
}

} // namespace tapgate::test
