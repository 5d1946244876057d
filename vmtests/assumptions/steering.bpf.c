// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Steering as bpf/tapgate.bpf.c does it, without policy: what the tests of it share. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <stdbool.h>

#include "steering.h"

char program_license[] SEC("license") = "Dual BSD/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, STEER_KINDS);
	__type(key, __u32);
	__type(value, __u64);
} listeners SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, __u32);
} owned SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, STEER_COUNTS);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

struct packet {
	__u8 protocol;
	__u8 is_v6;
	__u32 l4_offset;
};

static __always_inline void count(__u32 what)
{
	__u64 *counter = bpf_map_lookup_elem(&counts, &what);

	if (counter)
		__sync_fetch_and_add(counter, 1);
}

/* Neither IP options nor extension headers occur in these tests. */
static __always_inline bool parse(struct __sk_buff *skb, struct packet *packet)
{
	packet->is_v6 = skb->protocol == bpf_htons(ETH_P_IPV6);
	if (packet->is_v6) {
		packet->l4_offset = ETH_HLEN + sizeof(struct ipv6hdr);
		return !bpf_skb_load_bytes(skb, ETH_HLEN + __builtin_offsetof(struct ipv6hdr, nexthdr),
					   &packet->protocol, 1);
	}
	packet->l4_offset = ETH_HLEN + sizeof(struct iphdr);
	return skb->protocol == bpf_htons(ETH_P_IP) &&
	       !bpf_skb_load_bytes(skb, ETH_HLEN + __builtin_offsetof(struct iphdr, protocol),
				   &packet->protocol, 1);
}

static __always_inline int assign(struct __sk_buff *skb, __u32 kind)
{
	struct bpf_sock *listener = bpf_map_lookup_elem(&listeners, &kind);
	long error;

	if (!listener) {
		count(STEER_NO_LISTENER);
		return TC_ACT_SHOT;
	}
	error = bpf_sk_assign(skb, listener, 0);
	bpf_sk_release(listener);
	return error ? TC_ACT_SHOT : TC_ACT_OK;
}

SEC("tc")
int steer_ingress(struct __sk_buff *skb)
{
	struct packet packet;
	struct tcphdr tcp;

	if (!parse(skb, &packet))
		return TC_ACT_OK;
	if (packet.protocol == IPPROTO_UDP) {
		skb->mark = STEER_MARK;
		return assign(skb, STEER_UDP4 + packet.is_v6);
	}
	if (packet.protocol != IPPROTO_TCP || bpf_skb_load_bytes(skb, packet.l4_offset, &tcp, sizeof(tcp)))
		return TC_ACT_OK;
	skb->mark = STEER_MARK;
	if (tcp.syn && !tcp.ack)
		return assign(skb, STEER_TCP4 + packet.is_v6);
	return TC_ACT_OK;
}

static __always_inline bool is_owned(void *sk)
{
	return bpf_sk_storage_get(&owned, sk, NULL, 0) != NULL;
}

SEC("tc")
int steer_egress(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	struct bpf_sock *listener;
	struct packet packet;
	struct tcphdr tcp;

	if (!parse(skb, &packet))
		return TC_ACT_OK;
	if (packet.protocol == IPPROTO_UDP) {
		count(sk && is_owned(sk) ? STEER_DATAGRAM_OWNED : STEER_DATAGRAM_OTHER);
		return TC_ACT_OK;
	}
	if (packet.protocol != IPPROTO_TCP || bpf_skb_load_bytes(skb, packet.l4_offset, &tcp, sizeof(tcp)))
		return TC_ACT_OK;
	if (tcp.syn && tcp.ack) {
		listener = sk ? bpf_get_listener_sock(sk) : NULL;
		count(listener && is_owned(listener) ? STEER_SYN_ACK_OWNED : STEER_SYN_ACK_OTHER);
		return TC_ACT_OK;
	}
	count(sk && is_owned(sk) ? STEER_SEGMENT_OWNED : STEER_SEGMENT_OTHER);
	return TC_ACT_OK;
}
