/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef TAPGATE_PROHIBITED_BPF_H
#define TAPGATE_PROHIBITED_BPF_H

/*
 * ICMP "administratively prohibited" as the answer to refused UDP and ICMP, so that the guest fails at once:
 * QUIC falls back to TCP, a resolver to the next transport.
 *
 *     type code checksum(2) unused(4) quote           RFC 792 (type 3, code 13: RFC 1812 5.2.7.1), RFC
 * 4443 3.1 quote := IP header of the refused packet and its next 8 octets, in which the ports are
 */
#include "lib/reply.bpf.h"

#define ICMPV4_UNREACHABLE 3
#define ICMPV4_PROHIBITED  13
#define ICMPV6_UNREACHABLE 1
#define ICMPV6_PROHIBITED  1
#define ICMPV6_FIRST_QUERY 128 /* lower types are errors (RFC 4443 2.1) */

#define QUOTED_TRANSPORT 8

struct icmp_header {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be16 unused[2];
};

#define PROHIBITED_IPV4_SIZE (sizeof(struct icmp_header) + sizeof(struct iphdr) + QUOTED_TRANSPORT)
#define PROHIBITED_IPV6_SIZE (sizeof(struct icmp_header) + sizeof(struct ipv6hdr) + QUOTED_TRANSPORT)

struct prohibited {
	struct icmp_header icmp;
	__u8 quote[PROHIBITED_IPV6_SIZE - sizeof(struct icmp_header)];
} __attribute__((aligned(8)));

/* Refusals of well-formed packets for what they are. The rest is silence. */
static __always_inline bool is_answered_with_prohibited(verdict_t verdict)
{
	switch (verdict) {
	case TG_DROP_UDP:
	case TG_DROP_ICMP:
	case TG_DROP_DNS_TRANSPORT:
	case TG_DROP_POLICY_FIRST_PACKET:
	case TG_DROP_REFUSED_ADDRESS:
	case TG_DROP_NO_POLICY:
		return true;
	default:
		return false;
	}
}

/* An ICMP error is never answered with another (RFC 1122 3.2.2, RFC 4443 2.4). */
static __always_inline bool is_icmp_error(const struct packet *packet, __u8 type)
{
	if (packet->ethertype == ETH_P_IPV6)
		return type < ICMPV6_FIRST_QUERY;
	switch (type) {
	case ICMPV4_UNREACHABLE:
	case 4:	 /* source quench */
	case 5:	 /* redirect */
	case 11: /* time exceeded */
	case 12: /* parameter problem */
		return true;
	default:
		return false;
	}
}

/*
 * Where the device still has to fill in the UDP checksum (CHECKSUM_PARTIAL), it writes into `unused[1]`, as
 * if that were a UDP header, what makes the sum over the message complete. With the sum of the pseudo-header
 * there beforehand, which ICMPv6 has and ICMP has not, that is zero in ones' complement: the checksum stays
 * right.
 */
static __always_inline int send_prohibited(struct __sk_buff *skb, const struct packet *packet,
					   struct prohibited *message, __u32 size)
{
	bool v6 = packet->ethertype == ETH_P_IPV6;
	__u32 offset = packet->l4_offset;
	int pseudo = reply_turn(skb, packet->ethertype, v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP, size);

	if (pseudo < 0)
		return -1;
	if (!v6)
		pseudo = 0;
	if (checksum_is_partial(skb, offset + offsetof(struct udphdr, check))) {
		if (packet->flow.protocol != IPPROTO_UDP)
			return -1;
		message->icmp.unused[1] = pseudo;
	}
	message->icmp.checksum = ~fold(bpf_csum_diff(NULL, 0, (__be32 *)message, size, pseudo));
	if (bpf_skb_store_bytes(skb, offset, message, size, 0))
		return -1;
	return reply_send(skb);
}

/*
 * Answers a refused UDP or ICMP packet. Returns the program's return code, or a negative number if there is
 * no answer: to what is no single station's (RFC 1122 3.2.2), to errors, and beyond
 * TG_PROHIBITIONS_PER_SECOND of the guest.
 *
 * A global function: the verifier walks it once.
 */
__noinline int answer_with_prohibited(struct __sk_buff *skb, struct tg_guest_state *state,
				      const struct packet *packet)
{
	struct prohibited message = {};

	if (!state || !packet || !is_answerable(packet) || packet->l4_length < QUOTED_TRANSPORT)
		return -1;
	if (packet->flow.protocol != IPPROTO_UDP) {
		if (bpf_skb_load_bytes(skb, packet->l4_offset, message.quote, 1) ||
		    is_icmp_error(packet, message.quote[0]))
			return -1;
	}
	if (rate_exceeded(&state->prohibition_second, &state->prohibition_count, TG_PROHIBITIONS_PER_SECOND))
		return -1;
	if (packet->ethertype == ETH_P_IP) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN, message.quote, sizeof(struct iphdr) + QUOTED_TRANSPORT))
			return -1;
		message.icmp.type = ICMPV4_UNREACHABLE;
		message.icmp.code = ICMPV4_PROHIBITED;
		return send_prohibited(skb, packet, &message, PROHIBITED_IPV4_SIZE);
	}
	if (bpf_skb_load_bytes(skb, ETH_HLEN, message.quote, sizeof(message.quote)))
		return -1;
	message.icmp.type = ICMPV6_UNREACHABLE;
	message.icmp.code = ICMPV6_PROHIBITED;
	return send_prohibited(skb, packet, &message, PROHIBITED_IPV6_SIZE);
}

/* Whether the ICMP message is one of answer_with_prohibited(). */
static __always_inline bool is_own_prohibited(struct __sk_buff *skb, const struct packet *packet)
{
	struct icmp_header icmp;

	if (!is_own_reply(skb) || packet->l4_length < sizeof(icmp) ||
	    bpf_skb_load_bytes(skb, packet->l4_offset, &icmp, sizeof(icmp)))
		return false;
	return packet->ethertype == ETH_P_IP
		   ? icmp.type == ICMPV4_UNREACHABLE && icmp.code == ICMPV4_PROHIBITED
		   : icmp.type == ICMPV6_UNREACHABLE && icmp.code == ICMPV6_PROHIBITED;
}

#endif
