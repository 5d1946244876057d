// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * A wire that loses TCP segments, doubles them and lets some come late: `wire` on an interface's egress, and
 * `back` where a detour ends that leads to the same interface.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char program_license[] SEC("license") = "Dual BSD/GPL";

/* Written before the programs are loaded. The shares are of 65536 packets. */
const volatile __u32 wire_ifindex;
const volatile __u32 detour_ifindex;
const volatile __u32 lost_share;
const volatile __u32 doubled_share;
const volatile __u32 late_share;

__u64 packets;
__u64 lost;
__u64 doubled;
__u64 late;

#define CAME_BY_DETOUR 0x6c617465

static __always_inline int is_tcp(struct __sk_buff *skb)
{
	/* Offsets of the protocol in IPv4 (RFC 791) and of the next header in IPv6 (RFC 8200). */
	__u32 offset = skb->protocol == bpf_htons(ETH_P_IP) ? 9 : 6;
	__u8 protocol;

	return (skb->protocol == bpf_htons(ETH_P_IP) || skb->protocol == bpf_htons(ETH_P_IPV6)) &&
	       !bpf_skb_load_bytes(skb, ETH_HLEN + offset, &protocol, 1) && protocol == IPPROTO_TCP;
}

SEC("tc")

int wire(struct __sk_buff *skb)
{
	__u32 draw = bpf_get_prandom_u32() & 0xffff;

	if (skb->mark == CAME_BY_DETOUR || !is_tcp(skb))
		return TC_ACT_UNSPEC;
	__sync_fetch_and_add(&packets, 1);
	if (draw < lost_share) {
		__sync_fetch_and_add(&lost, 1);
		return TC_ACT_STOLEN; /* TC_ACT_SHOT would tell the sender */
	}
	draw -= lost_share;
	if (draw < doubled_share) {
		__sync_fetch_and_add(&doubled, 1);
		skb->mark = CAME_BY_DETOUR;
		bpf_clone_redirect(skb, detour_ifindex, 0);
		skb->mark = 0;
		return TC_ACT_UNSPEC;
	}
	draw -= doubled_share;
	if (draw < late_share) {
		__sync_fetch_and_add(&late, 1);
		skb->mark = CAME_BY_DETOUR;
		return bpf_redirect(detour_ifindex, 0);
	}
	return TC_ACT_UNSPEC;
}

SEC("tc")

int back(struct __sk_buff *skb __attribute__((unused)))
{
	return bpf_redirect(wire_ifindex, 0);
}
