/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef TAPGATE_REPLY_BPF_H
#define TAPGATE_REPLY_BPF_H

/*
 * A refused packet becomes its own answer: cut or grown to what the answer takes, turned round and sent back
 * out of the guest's interface. What is common to resets, DNS answers and ICMP errors: all but the transport.
 */
#include "lib/packet.bpf.h"

#define REPLY_TTL	   64
#define IPV4_DONT_FRAGMENT 0x4000

/* The headers in front of the transport, on a word so that bpf_csum_diff() can take them. */
struct reply_ipv4 {
	__be16 pad;
	struct ethhdr ethernet;
	struct iphdr ip;
} __attribute__((packed, aligned(8)));

struct reply_ipv6 {
	__be16 pad;
	struct ethhdr ethernet;
	struct ipv6hdr ip;
} __attribute__((packed, aligned(8)));

#define REPLY_IPV4_L4 (ETH_HLEN + sizeof(struct iphdr))
#define REPLY_IPV6_L4 (ETH_HLEN + sizeof(struct ipv6hdr))

static __always_inline __u16 fold(__s64 sum)
{
	__u32 folded = sum;

	folded = (folded & 0xffff) + (folded >> 16);
	folded = (folded & 0xffff) + (folded >> 16);
	return folded;
}

/*
 * Whether the checksum of this packet is left to the device (CHECKSUM_PARTIAL): its field must then hold the
 * sum of the pseudo-header. The packet does not say, but bpf_l4_csum_replace() changes the field only if it
 * does not. The two octets at `offset` are lost.
 */
static __always_inline bool checksum_is_partial(struct __sk_buff *skb, __u32 offset)
{
	__be16 before = bpf_htons(0x1234), after = 0;

	if (bpf_skb_store_bytes(skb, offset, &before, sizeof(before), 0) ||
	    bpf_l4_csum_replace(skb, offset, 0, bpf_htons(1), sizeof(__u16)) ||
	    bpf_skb_load_bytes(skb, offset, &after, sizeof(after)))
		return false;
	return before == after;
}

static __always_inline void turn_ethernet(struct ethhdr *ethernet)
{
	__u8 mac[ETH_ALEN];

	__builtin_memcpy(mac, ethernet->h_source, ETH_ALEN);
	__builtin_memcpy(ethernet->h_source, ethernet->h_dest, ETH_ALEN);
	__builtin_memcpy(ethernet->h_dest, mac, ETH_ALEN);
}

/* The sum over the words of a pseudo-header: both addresses as they lie in the IP header, then length and
 * protocol. */
static __always_inline __u16 pseudo_sum(__be32 *addresses, __u32 size, __u32 protocol, __u32 l4_length)
{
	__be32 rest[2] = {bpf_htonl(l4_length), bpf_htonl(protocol)};

	return fold(bpf_csum_diff(NULL, 0, rest, sizeof(rest), bpf_csum_diff(NULL, 0, addresses, size, 0)));
}

static __always_inline int reply_turn_ipv4(struct __sk_buff *skb, __u32 protocol, __u32 l4_length)
{
	const __u32 size = REPLY_IPV4_L4;
	struct reply_ipv4 reply = {};
	struct iphdr *ip = &reply.ip;
	__be32 addresses[2];

	if (bpf_skb_load_bytes(skb, 0, &reply.ethernet, size))
		return -1;
	addresses[0] = ip->daddr;
	addresses[1] = ip->saddr;
	turn_ethernet(&reply.ethernet);
	__builtin_memset(ip, 0, sizeof(*ip));
	ip->version = 4;
	ip->ihl = sizeof(*ip) / 4;
	ip->tot_len = bpf_htons(sizeof(*ip) + l4_length);
	ip->frag_off = bpf_htons(IPV4_DONT_FRAGMENT);
	ip->ttl = REPLY_TTL;
	ip->protocol = protocol;
	ip->saddr = addresses[0];
	ip->daddr = addresses[1];
	ip->check = ~fold(bpf_csum_diff(NULL, 0, (__be32 *)ip, sizeof(*ip), 0));
	if (bpf_skb_change_tail(skb, size + l4_length, 0) ||
	    bpf_skb_store_bytes(skb, 0, &reply.ethernet, size, 0))
		return -1;
	return pseudo_sum(addresses, sizeof(addresses), protocol, l4_length);
}

static __always_inline int reply_turn_ipv6(struct __sk_buff *skb, __u32 protocol, __u32 l4_length)
{
	const __u32 size = REPLY_IPV6_L4;
	struct reply_ipv6 reply = {};
	struct ipv6hdr *ip = &reply.ip;
	struct in6_addr source;

	if (bpf_skb_load_bytes(skb, 0, &reply.ethernet, size))
		return -1;
	turn_ethernet(&reply.ethernet);
	source = ip->daddr;
	ip->daddr = ip->saddr;
	ip->saddr = source;
	ip->priority = 0;
	__builtin_memset(ip->flow_lbl, 0, sizeof(ip->flow_lbl));
	ip->payload_len = bpf_htons(l4_length);
	ip->nexthdr = protocol;
	ip->hop_limit = REPLY_TTL;
	if (bpf_skb_change_tail(skb, size + l4_length, 0) ||
	    bpf_skb_store_bytes(skb, 0, &reply.ethernet, size, 0))
		return -1;
	return pseudo_sum((__be32 *)&ip->saddr, 2 * sizeof(ip->saddr), protocol, l4_length);
}

/*
 * Makes of a packet without IP options or extension headers the headers of its answer, with room for
 * `l4_length` octets behind them, and returns the sum of the answer's pseudo-header. Negative: the packet is
 * not fit to be answered, and no more to be used.
 *
 * A global function: the verifier walks it once for all kinds of answers.
 */
__noinline int reply_turn(struct __sk_buff *skb, __u32 ethertype, __u32 protocol, __u32 l4_length)
{
	if (l4_length > TG_DNS_PAYLOAD_MAX)
		return -1;
	return ethertype == ETH_P_IP ? reply_turn_ipv4(skb, protocol, l4_length)
				     : reply_turn_ipv6(skb, protocol, l4_length);
}

/*
 * Whether a packet can be answered at all: not if it went to more than one station or to an address that
 * nobody can have, and not if its transport lies behind extension headers, since a device that still has to
 * fill in a checksum would look for it there.
 */
static __always_inline bool is_answerable(const struct packet *packet)
{
	if (packet->group_mac || packet->unroutable)
		return false;
	return packet->l4_offset == (packet->ethertype == ETH_P_IP ? REPLY_IPV4_L4 : REPLY_IPV6_L4);
}

/* Sends the finished answer; returns the program's return code. tap_egress knows it by the mark and by the
 * interface it came in from. */
static __always_inline int reply_send(struct __sk_buff *skb)
{
	skb->mark = tg_mark;
	return bpf_redirect(skb->ifindex, 0);
}

/* What reply_send() has sent: nothing else comes in by the guest's interface and leaves by it again. */
static __always_inline bool is_own_reply(const struct __sk_buff *skb)
{
	return skb->ingress_ifindex == skb->ifindex && skb->mark == tg_mark;
}

#endif
