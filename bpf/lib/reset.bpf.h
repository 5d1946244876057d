/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef TAPGATE_RESET_BPF_H
#define TAPGATE_RESET_BPF_H

/* Resets as answers to refused TCP segments, so that the guest fails at once instead of retrying for
 * minutes. */
#include "lib/reply.bpf.h"
#include "lib/tcp.bpf.h"

#define TCP_CHECKSUM_OFFSET offsetof(struct tcphdr, check)

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
	case TG_DROP_SESSION_CAP:
		return true;
	default:
		return false;
	}
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
 * Answers `segment`, which is at `packet->l4_offset`, with a reset. Returns the program's return code, or a
 * negative number if there is no answer: a reset is never answered (RFC 9293 3.10.7.1).
 */
static __always_inline int answer_with_reset(struct __sk_buff *skb, const struct packet *packet,
					     const struct tcp_segment *segment)
{
	struct tcp_header tcp;
	int pseudo;

	if (segment->header.flags & TCP_RST || !is_answerable(packet))
		return -1;
	fill_reset(&tcp, segment);
	pseudo = reply_turn(skb, packet->ethertype, IPPROTO_TCP, sizeof(tcp));
	if (pseudo < 0)
		return -1;
	if (checksum_is_partial(skb, packet->l4_offset + TCP_CHECKSUM_OFFSET))
		tcp.checksum = pseudo;
	else
		tcp.checksum = ~fold(bpf_csum_diff(NULL, 0, (__be32 *)&tcp, sizeof(tcp), pseudo));
	if (bpf_skb_store_bytes(skb, packet->l4_offset, &tcp, sizeof(tcp), 0))
		return -1;
	return reply_send(skb);
}

#endif
