/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef TAPGATE_DNS_REFUSAL_BPF_H
#define TAPGATE_DNS_REFUSAL_BPF_H

/*
 * Answers to refused DNS queries, and the events about them. An answer is the query itself in the scratch
 * value with another header, cut behind its question, and an OPT record if the query had one:
 *
 *     header(12) question? OPT?          as proto::build_error_answer() builds it, octet by octet
 */
#include "lib/dns_query.bpf.h"
#include "lib/reply.bpf.h"

#define DNS_RCODE_FORMERR  1
#define DNS_RCODE_SERVFAIL 2
#define DNS_RCODE_NXDOMAIN 3
#define DNS_RCODE_NOTIMP   4
#define DNS_RCODE_REFUSED  5
#define DNS_RCODE_BADVERS  16 /* its high bits are in the OPT record (RFC 6891 6.1.3) */

#define DNS_OPT_SIZE (1 + DNS_OPT_FIXED)
/* Offset of the octet with the DO bit in an OPT record whose owner is the root. */
#define DNS_OPT_DO	  7
#define DNS_OPT_DO_BIT	  0x80
#define DNS_OPT_RCODE	  5
#define UDP_CHECKSUM_ZERO 0xffff /* a sum of zero is written so (RFC 768) */

/* Header, the longest question and the longest OPT record; the bound also of what bpf_csum_diff() takes
 * before 6.13. */
#define DNS_REFUSAL_MAX 512
/* Where an OPT record may begin; the scratch buffer has room behind for one of TG_DENIAL_BLOCKS blocks. */
#define DNS_QUESTION_END_MASK 511

/* What the guest is told; 0: nothing. */
static __always_inline __u32 dns_refusal_rcode(verdict_t verdict)
{
	switch (verdict) {
	case TG_DROP_DNS_QUERY_MALFORMED:
		return DNS_RCODE_FORMERR;
	case TG_DROP_NO_POLICY:
		return DNS_RCODE_SERVFAIL;
	case TG_DROP_DNS_POLICY:
		return DNS_RCODE_NXDOMAIN;
	case TG_DROP_DNS_OPCODE:
		return DNS_RCODE_NOTIMP;
	case TG_DROP_DNS_CLASS:
	case TG_DROP_DNS_TYPE:
	case TG_DROP_DNS_NAME:
		return DNS_RCODE_REFUSED;
	case TG_DROP_DNS_EDNS_VERSION:
		return DNS_RCODE_BADVERS;
	default:
		return 0;
	}
}

static __always_inline void dns_put_u16(struct dns_scratch *s, __u32 offset, __u32 value)
{
	s->packet[offset & DNS_PACKET_MASK] = value >> 8;
	s->packet[(offset + 1) & DNS_PACKET_MASK] = value;
}

/* Writes the OPT record of the answer to `opt` and returns its length. */
static __always_inline __u32 dns_refusal_opt(const struct tg_guest *guest, struct dns_scratch *s, __u8 *opt,
					     __u32 rcode)
{
	__u32 length = 0;

	if (rcode == DNS_RCODE_NXDOMAIN)
		length = policy_denial_record(guest, (__u64 *)opt);
	if (!length) {
		length = DNS_OPT_SIZE;
		__builtin_memset(opt, 0, DNS_OPT_SIZE);
		opt[2] = DNS_TYPE_OPT;
		opt[3] = TG_DNS_PAYLOAD_MAX >> 8;
		opt[4] = TG_DNS_PAYLOAD_MAX & 0xff;
		opt[DNS_OPT_RCODE] = rcode >> 4;
	}
	if (s->dnssec_ok)
		opt[DNS_OPT_DO] |= DNS_OPT_DO_BIT;
	return length;
}

/* Turns the query in the scratch value into the answer, with zeros behind it up to a whole word, and returns
 * its length. */
static __always_inline __u32 dns_refusal_build(const struct tg_guest *guest, struct dns_scratch *s,
					       __u32 rcode)
{
	__u32 kept = dns_u16(s, DNS_FLAGS) & (DNS_OPCODE_MASK | DNS_FLAG_RD | DNS_FLAG_CD);
	__u32 length = s->question_end ? s->question_end : DNS_HEADER_SIZE;

	dns_put_u16(s, DNS_FLAGS, DNS_FLAG_QR | DNS_FLAG_RA | kept | (rcode & DNS_RCODE_MASK));
	dns_put_u16(s, DNS_QDCOUNT, !!s->question_end);
	dns_put_u16(s, DNS_ANCOUNT, 0);
	dns_put_u16(s, DNS_NSCOUNT, 0);
	dns_put_u16(s, DNS_ARCOUNT, s->has_edns);
	if (s->has_edns)
		length += dns_refusal_opt(guest, s, &s->packet[length & DNS_QUESTION_END_MASK], rcode);
	dns_put_u16(s, length, 0);
	dns_put_u16(s, length + 2, 0);
	return length;
}

/*
 * Answers the query that was refused for `verdict`. Returns the program's return code, or a negative number
 * if there is no answer.
 *
 * A global function: the verifier walks it once.
 */
__noinline int dns_answer_refused(struct __sk_buff *skb, const struct tg_guest *guest,
				  const struct packet *packet, __u32 verdict)
{
	struct dns_scratch *s = dns_scratch_get();
	__u32 rcode = dns_refusal_rcode(verdict);
	struct udphdr udp = {};
	__u32 length, padded;
	__s64 sum;
	int pseudo;

	if (!s || !guest || !packet || !rcode || !is_answerable(packet))
		return -1;
	length = dns_refusal_build(guest, s, rcode);
	/* One register for both comparisons, as in dns_load(). */
	asm volatile("" : "+r"(length));
	if (length < DNS_HEADER_SIZE || length > DNS_REFUSAL_MAX)
		return -1;
	pseudo = reply_turn(skb, packet->ethertype, IPPROTO_UDP, sizeof(udp) + length);
	if (pseudo < 0)
		return -1;
	if (bpf_skb_store_bytes(skb, packet->l4_offset + sizeof(udp), s->packet, length, 0))
		return -1;
	udp.source = packet->flow.peer_port;
	udp.dest = packet->flow.guest_port;
	udp.len = bpf_htons(sizeof(udp) + length);
	if (checksum_is_partial(skb, packet->l4_offset + offsetof(struct udphdr, check))) {
		udp.check = pseudo;
	} else {
		padded = (length + 3) & ~3U & (2 * DNS_REFUSAL_MAX - 1);
		sum = bpf_csum_diff(NULL, 0, (__be32 *)&udp, sizeof(udp), pseudo);
		udp.check = ~fold(bpf_csum_diff(NULL, 0, (__be32 *)s->packet, padded, fold(sum)));
		if (!udp.check)
			udp.check = UDP_CHECKSUM_ZERO;
	}
	if (bpf_skb_store_bytes(skb, packet->l4_offset, &udp, sizeof(udp), 0))
		return -1;
	return reply_send(skb);
}

/* Whether the datagram, which comes from port 53, is an answer of dns_answer_refused(): without records. */
static __always_inline bool is_own_dns_refusal(struct __sk_buff *skb, const struct packet *packet)
{
	__be16 header[DNS_HEADER_SIZE / 2];

	if (!is_own_reply(skb) ||
	    bpf_skb_load_bytes(skb, packet->l4_offset + sizeof(struct udphdr), header, sizeof(header)))
		return false;
	return header[DNS_FLAGS / 2] & bpf_htons(DNS_FLAG_QR) && !header[DNS_ANCOUNT / 2] &&
	       !header[DNS_NSCOUNT / 2];
}

/* Tells the operator of a refused query, with its question if that could be read. */
static __always_inline void send_dns_event(const struct guest_context *context, __u32 ifindex,
					   verdict_t reason, const struct packet *packet)
{
	struct dns_scratch *s = dns_scratch_get();
	struct tg_dns_event *event;

	if (!s || event_rate_exceeded(context->state))
		return;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		count_lost_event();
		return;
	}
	fill_event(&event->event, TG_EVENT_DNS_REFUSED, context, ifindex, reason, &packet->flow,
		   &packet->judgement);
	event->question_type = s->question_end ? s->question_type : 0;
	event->name_length = s->question_end ? s->name_length : 0;
	event->pad = 0;
	__builtin_memcpy(event->name, s->name, sizeof(event->name));
	bpf_ringbuf_submit(event, 0);
}

#endif
