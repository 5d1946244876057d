// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Programs that watch, drop and redirect packets of an interface. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <stdbool.h>

char program_license[] SEC("license") = "Dual BSD/GPL";

/* Written before the programs are loaded. */
const volatile __u32 redirect_ifindex;

__u64 passed;
__u64 dropped;
__u64 tcp_segments;
__u32 last_sequence_end; /* host order; behind the last TCP segment's data */
__u32 last_timestamp;	 /* host order; TSval of the last TCP segment, if it has just that option */

/* Everything but what neighbours need to find each other. */
static __always_inline bool is_ipv4_udp(struct __sk_buff *skb)
{
	__u8 protocol;

	return skb->protocol == bpf_htons(ETH_P_IP) &&
	       !bpf_skb_load_bytes(skb, ETH_HLEN + __builtin_offsetof(struct iphdr, protocol), &protocol,
				   1) &&
	       protocol == IPPROTO_UDP;
}

SEC("tc")
int pass_udp(struct __sk_buff *skb)
{
	if (is_ipv4_udp(skb))
		__sync_fetch_and_add(&passed, 1);
	return TC_ACT_UNSPEC; /* go on with the next program, and accept behind the last */
}

SEC("tc")
int drop_udp(struct __sk_buff *skb)
{
	if (!is_ipv4_udp(skb))
		return TC_ACT_UNSPEC;
	__sync_fetch_and_add(&dropped, 1);
	return TC_ACT_SHOT;
}

/* IPv6 without extension headers. */
SEC("tc")
int drop_ipv6_udp(struct __sk_buff *skb)
{
	__u8 protocol;

	if (skb->protocol != bpf_htons(ETH_P_IPV6) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + __builtin_offsetof(struct ipv6hdr, nexthdr), &protocol, 1) ||
	    protocol != IPPROTO_UDP)
		return TC_ACT_UNSPEC;
	__sync_fetch_and_add(&dropped, 1);
	return TC_ACT_SHOT;
}

/* IPv4 without options. */
SEC("tc")
int watch_tcp(struct __sk_buff *skb)
{
	const __u32 tcp_offset = ETH_HLEN + sizeof(struct iphdr);
	const __u32 nops_and_timestamp = 0x0101080a; /* RFC 7323, appendix A */
	__u32 options[2];
	struct tcphdr tcp;
	struct iphdr ip;

	if (skb->protocol != bpf_htons(ETH_P_IP) || bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) ||
	    ip.protocol != IPPROTO_TCP || bpf_skb_load_bytes(skb, tcp_offset, &tcp, sizeof(tcp)))
		return TC_ACT_UNSPEC;
	last_sequence_end =
	    bpf_ntohl(tcp.seq) + bpf_ntohs(ip.tot_len) - sizeof(ip) - tcp.doff * 4 + tcp.syn + tcp.fin;
	if (!bpf_skb_load_bytes(skb, tcp_offset + sizeof(tcp), options, sizeof(options)) &&
	    options[0] == bpf_htonl(nops_and_timestamp))
		last_timestamp = bpf_ntohl(options[1]);
	__sync_fetch_and_add(&tcp_segments, 1);
	return TC_ACT_UNSPEC;
}

SEC("tc")
int redirect_udp(struct __sk_buff *skb)
{
	__u8 next_header;

	if (is_ipv4_udp(skb))
		return bpf_redirect_neigh(redirect_ifindex, NULL, 0, 0);
	/* Offset 6 of the IPv6 header is its next header. */
	if (skb->protocol == bpf_htons(ETH_P_IPV6) &&
	    !bpf_skb_load_bytes(skb, ETH_HLEN + 6, &next_header, 1) && next_header == IPPROTO_UDP)
		return bpf_redirect_neigh(redirect_ifindex, NULL, 0, 0);
	return TC_ACT_UNSPEC;
}
