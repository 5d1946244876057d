/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef TAPGATE_DNS_MESSAGE_BPF_H
#define TAPGATE_DNS_MESSAGE_BPF_H

/* What queries and answers have in common: UDP, the DNS header and the question. */
#include <linux/udp.h>

#include "lib/dns_name.bpf.h"
#include "lib/steer.bpf.h"

#define DNS_ID	    0
#define DNS_FLAGS   2
#define DNS_QDCOUNT 4
#define DNS_ANCOUNT 6
#define DNS_NSCOUNT 8
#define DNS_ARCOUNT 10

#define DNS_FLAG_QR	0x8000
#define DNS_OPCODE_MASK 0x7800
#define DNS_FLAG_TC	0x0200
#define DNS_FLAG_RD	0x0100
#define DNS_FLAG_RA	0x0080
#define DNS_FLAG_CD	0x0010
#define DNS_RCODE_MASK	0x000f
#define DNS_CLASS_IN	1
#define DNS_TYPE_A	1
#define DNS_TYPE_CNAME	5
#define DNS_TYPE_AAAA	28
#define DNS_TYPE_OPT	41
#define DNS_TYPE_SVCB	64
#define DNS_TYPE_HTTPS	65

/* Parses the UDP header and sets the ports of the flow. Segmentation offload would make one packet of many
 * datagrams, of which only the first would be looked at. */
static __always_inline verdict_t parse_udp(struct __sk_buff *skb, struct packet *packet)
{
	struct udphdr udp;

	if (packet->l4_length < sizeof(udp) || bpf_skb_load_bytes(skb, packet->l4_offset, &udp, sizeof(udp)))
		return TG_DROP_TRUNCATED;
	packet->flow.guest_port = packet->from_guest ? udp.source : udp.dest;
	packet->flow.peer_port = packet->from_guest ? udp.dest : udp.source;
	if (bpf_ntohs(udp.len) != packet->l4_length || !udp.source || skb->gso_size)
		return TG_DROP_UDP_HEADER;
	return TG_DROP_NONE;
}

/* Copies the payload of the datagram to the scratch value. */
static __always_inline bool dns_load(struct __sk_buff *skb, const struct packet *packet,
				     struct dns_scratch *s)
{
	__u32 length = packet->l4_length - sizeof(struct udphdr);

	/*
	 * 6.1 learns no bound from "!= 0" or a mask; it does from these. It links no copies made by 32-bit
	 * moves, so both comparisons have to be of one register: the compiler must not see where the value
	 * comes from.
	 */
	asm volatile("" : "+r"(length));
	if (length < DNS_HEADER_SIZE || length > TG_DNS_PAYLOAD_MAX)
		return false;
	if (bpf_skb_load_bytes(skb, packet->l4_offset + sizeof(struct udphdr), s->packet, length))
		return false;
	s->length = length;
	s->limit = length;
	s->steps = TG_DNS_STEPS_MAX;
	s->position = DNS_HEADER_SIZE;
	return true;
}

/*
 * question := name type(2) class(2)                                                           RFC 1035 4.1.2
 *
 * A pointer in it would have nowhere to lead, so the name is always whole.
 */
static __always_inline bool dns_question_parse(struct dns_scratch *s)
{
	if (dns_name_parse(s) || s->position + 4 > s->length)
		return false;
	s->question_type = dns_u16(s, s->position);
	s->position += 4;
	s->question_id = dns_name_id(s);
	return true;
}

static __always_inline void dns_key_fill(struct tg_dns_key *key, const struct guest_context *context,
					 const struct packet *packet, const struct dns_scratch *s)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->guest_id = context->guest->id;
	key->guest_address = packet->flow.guest_address;
	key->server_address = packet->flow.peer_address;
	key->guest_port = packet->flow.guest_port;
	key->id = bpf_htons(dns_u16(s, DNS_ID));
}

#endif
