/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef TAPGATE_DNS_QUERY_BPF_H
#define TAPGATE_DNS_QUERY_BPF_H

/*
 * A guest's DNS query: its question is kept in `dns_pending`, and the packet goes to the daemon whatever its
 * destination. The daemon reads the query again and strictly; what is of no use but has a question (other
 * classes, types, opcodes) goes there too, since the daemon can say why it refuses.
 */
#include "lib/dns_message.bpf.h"

static __always_inline bool dns_query_parse(struct __sk_buff *skb, const struct packet *packet,
					    struct dns_scratch *s)
{
	return dns_load(skb, packet, s) && !(dns_u16(s, DNS_FLAGS) & DNS_FLAG_QR) &&
	       dns_u16(s, DNS_QDCOUNT) == 1 && dns_question_parse(s);
}

/* Makes the entry, or replaces it if the guest uses the same id again; `added` tells which. */
static __always_inline verdict_t dns_pending_add(const struct guest_context *context,
						 const struct tg_dns_key *key, const struct dns_scratch *s,
						 bool *added)
{
	struct tg_dns_question question = {
	    .name_id = s->question_id,
	    .expires_ns = bpf_ktime_get_boot_ns() + TG_DNS_PENDING_SECONDS * NSEC_PER_SEC,
	    .type = s->question_type,
	};

	*added = false;
	if (!bpf_map_update_elem(&dns_pending, key, &question, BPF_EXIST))
		return TG_DROP_NONE;
	/* Guest sees: no answer, and asks again. Operator sees: dns-pending-cap. */
	if (!quota_take(&context->state->dns_pending, context->guest->dns_pending_max))
		return TG_DROP_DNS_PENDING_CAP;
	if (!bpf_map_update_elem(&dns_pending, key, &question, BPF_NOEXIST)) {
		*added = true;
		return TG_DROP_NONE;
	}
	quota_release(&context->state->dns_pending);
	return TG_DROP_DNS_PENDING_FULL;
}

/* True for the one caller that removed the entry: it alone gives the quota back. */
static __always_inline bool dns_pending_remove(const struct guest_context *context,
					       const struct tg_dns_key *key)
{
	if (bpf_map_delete_elem(&dns_pending, key))
		return false;
	quota_release(&context->state->dns_pending);
	return true;
}

static __always_inline verdict_t dns_query(struct __sk_buff *skb, const struct guest_context *context,
					   const struct packet *packet)
{
	struct dns_scratch *s = dns_scratch_get();
	struct bpf_sock *listener;
	struct tg_dns_key key;
	verdict_t verdict;
	bool added;

	if (!s || !dns_query_parse(skb, packet, s))
		return TG_DROP_DNS_QUERY_MALFORMED;
	listener = listener_of_flow(packet, TG_LISTENER_DNS4);
	if (!listener)
		return TG_DROP_NO_LISTENER;
	dns_key_fill(&key, context, packet, s);
	verdict = dns_pending_add(context, &key, s, &added);
	if (!verdict && bpf_sk_assign(skb, listener, 0)) {
		verdict = TG_DROP_STEER_FAILED;
		if (added)
			dns_pending_remove(context, &key);
	}
	bpf_sk_release(listener);
	return verdict;
}

#endif
