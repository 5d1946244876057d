/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef TAPGATE_RESET_BPF_H
#define TAPGATE_RESET_BPF_H

/*
 * A refused TCP segment becomes its own answer: cut to bare headers, turned round and sent back out of the
 * guest's interface, so that the guest fails at once instead of retrying for minutes.
 */
#include "lib/tcp.bpf.h"

#define RESET_TTL	    64
#define IPV4_DONT_FRAGMENT  0x4000
#define TCP_CHECKSUM_OFFSET offsetof(struct tcphdr, check)

struct reset_ipv4 {
	struct ethhdr ethernet;
	struct iphdr ip;
	struct tcp_header tcp;
} __attribute__((packed));

struct reset_ipv6 {
	struct ethhdr ethernet;
	struct ipv6hdr ip;
	struct tcp_header tcp;
} __attribute__((packed));

/* Refusals after which the guest should know that there is no connection. The rest is silence: it answers
 * nothing to packets that are forged or broken. */
static __always_inline bool is_answered_with_reset(verdict_t verdict)
{
	switch (verdict) {
	case TG_DROP_TCP_NO_FLOW:
	case TG_DROP_TCP_INGRESS:
	case TG_DROP_NO_LISTENER:
	case TG_DROP_STEER_FAILED:
	case TG_DROP_HALF_OPEN_CAP:
	case TG_DROP_PENDING_FULL:
	case TG_DROP_DNS_TRANSPORT:
	case TG_DROP_POLICY_FIRST_PACKET:
	case TG_DROP_REFUSED_ADDRESS:
	case TG_DROP_NO_POLICY:
		return true;
	default:
		return false;
	}
}

static __always_inline __u16 fold(__s64 sum)
{
	__u32 folded = sum;

	folded = (folded & 0xffff) + (folded >> 16);
	folded = (folded & 0xffff) + (folded >> 16);
	return folded;
}

/* RFC 9293 3.10.7.1 */
static __always_inline void fill_reset(struct tcp_header *reset, const struct tcp_segment *segment)
{
	const struct tcp_header *tcp = &segment->header;
	__u32 length = segment->payload_length + !!(tcp->flags & TCP_SYN) + !!(tcp->flags & TCP_FIN);

	__builtin_memset(reset, 0, sizeof(*reset));
	reset->source_port = tcp->destination_port;
	reset->destination_port = tcp->source_port;
	reset->data_offset = sizeof(*reset) / 4 << 4;
	if (tcp->flags & TCP_ACK) {
		reset->sequence = tcp->acknowledgement;
		reset->flags = TCP_RST;
	} else {
		reset->acknowledgement = bpf_htonl(bpf_ntohl(tcp->sequence) + length);
		reset->flags = TCP_RST | TCP_ACK;
	}
}

/*
 * Whether the checksum of this packet is left to the device (CHECKSUM_PARTIAL): its field must then hold the
 * sum of the pseudo-header. The packet does not say, but bpf_l4_csum_replace() changes the field only if it
 * does not.
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

/* Sends the reset whose headers, all but the TCP checksum, were written; `pseudo` is the sum of its
 * pseudo-header and `tcp` that header. */
static __always_inline int send_reset(struct __sk_buff *skb, struct tcp_header *tcp, __u32 offset,
				      __s64 pseudo)
{
	bool partial = checksum_is_partial(skb, offset + TCP_CHECKSUM_OFFSET);

	if (partial)
		tcp->checksum = fold(pseudo);
	else
		tcp->checksum = ~fold(bpf_csum_diff(NULL, 0, (__be32 *)tcp, sizeof(*tcp), fold(pseudo)));
	if (bpf_skb_store_bytes(skb, offset, tcp, sizeof(*tcp), 0))
		return -1;
	/* tap_egress knows it by the mark and by the interface it came in from. */
	skb->mark = tg_mark;
	return bpf_redirect(skb->ifindex, 0);
}

/* The sum over the words of a pseudo-header: both addresses as they lie in the IP header, then length and
 * protocol. */
static __always_inline __s64 pseudo_sum(__be32 *addresses, __u32 size)
{
	__be32 rest[2] = {bpf_htonl(sizeof(struct tcp_header)), bpf_htonl(IPPROTO_TCP)};

	return bpf_csum_diff(NULL, 0, rest, sizeof(rest), bpf_csum_diff(NULL, 0, addresses, size, 0));
}

static __always_inline void turn_ethernet(struct ethhdr *ethernet)
{
	__u8 mac[ETH_ALEN];

	__builtin_memcpy(mac, ethernet->h_source, ETH_ALEN);
	__builtin_memcpy(ethernet->h_source, ethernet->h_dest, ETH_ALEN);
	__builtin_memcpy(ethernet->h_dest, mac, ETH_ALEN);
}

static __always_inline int reset_ipv4(struct __sk_buff *skb, const struct tcp_segment *segment)
{
	const __u32 offset = offsetof(struct reset_ipv4, tcp);
	struct {
		__be16 pad; /* so that the IP header lies on a word */
		struct reset_ipv4 headers;
	} __attribute__((packed, aligned(8))) reset = {};
	struct iphdr *ip = &reset.headers.ip;
	struct tcp_header tcp;
	__be32 addresses[2];

	if (bpf_skb_load_bytes(skb, 0, &reset.headers, offset))
		return -1;
	addresses[0] = ip->daddr;
	addresses[1] = ip->saddr;
	turn_ethernet(&reset.headers.ethernet);
	__builtin_memset(ip, 0, sizeof(*ip));
	ip->version = 4;
	ip->ihl = sizeof(*ip) / 4;
	ip->tot_len = bpf_htons(sizeof(*ip) + sizeof(tcp));
	ip->frag_off = bpf_htons(IPV4_DONT_FRAGMENT);
	ip->ttl = RESET_TTL;
	ip->protocol = IPPROTO_TCP;
	ip->saddr = addresses[0];
	ip->daddr = addresses[1];
	ip->check = ~fold(bpf_csum_diff(NULL, 0, (__be32 *)ip, sizeof(*ip), 0));
	fill_reset(&tcp, segment);
	if (bpf_skb_change_tail(skb, sizeof(struct reset_ipv4), 0) ||
	    bpf_skb_store_bytes(skb, 0, &reset.headers, offset, 0))
		return -1;
	return send_reset(skb, &tcp, offset, pseudo_sum(addresses, sizeof(addresses)));
}

static __always_inline int reset_ipv6(struct __sk_buff *skb, const struct tcp_segment *segment)
{
	const __u32 offset = offsetof(struct reset_ipv6, tcp);
	struct {
		__be16 pad; /* so that the IP header lies on a word */
		struct reset_ipv6 headers;
	} __attribute__((packed, aligned(8))) reset = {};
	struct ipv6hdr *ip = &reset.headers.ip;
	struct in6_addr source;
	struct tcp_header tcp;

	if (bpf_skb_load_bytes(skb, 0, &reset.headers, offset))
		return -1;
	turn_ethernet(&reset.headers.ethernet);
	source = ip->daddr;
	ip->daddr = ip->saddr;
	ip->saddr = source;
	ip->priority = 0;
	__builtin_memset(ip->flow_lbl, 0, sizeof(ip->flow_lbl));
	ip->payload_len = bpf_htons(sizeof(tcp));
	ip->nexthdr = IPPROTO_TCP;
	ip->hop_limit = RESET_TTL;
	fill_reset(&tcp, segment);
	if (bpf_skb_change_tail(skb, sizeof(struct reset_ipv6), 0) ||
	    bpf_skb_store_bytes(skb, 0, &reset.headers, offset, 0))
		return -1;
	return send_reset(skb, &tcp, offset, pseudo_sum((__be32 *)&ip->saddr, 2 * sizeof(ip->saddr)));
}

/*
 * Answers `segment`, which is at `packet->l4_offset`, with a reset. Returns the program's return code, or a
 * negative number if there is no answer: a reset is never answered (RFC 9293 3.10.7.1), an address that
 * nobody can have answers nothing, and a segment behind extension headers stays unanswered because a device
 * that still has to fill in its checksum would look for it there.
 */
static __always_inline int answer_with_reset(struct __sk_buff *skb, const struct packet *packet,
					     const struct tcp_segment *segment)
{
	if (segment->header.flags & TCP_RST || packet->group_mac || packet->unroutable)
		return -1;
	if (packet->ethertype == ETH_P_IP)
		return reset_ipv4(skb, segment);
	if (packet->l4_offset == offsetof(struct reset_ipv6, tcp))
		return reset_ipv6(skb, segment);
	return -1;
}

#endif
