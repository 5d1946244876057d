/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef TAPGATE_DNS_QUERY_BPF_H
#define TAPGATE_DNS_QUERY_BPF_H

/*
 * A guest's DNS query: read as strictly as by the daemon, judged by the policy on its name, and then its
 * question is kept in `dns_pending` and the packet goes to the daemon, whatever its destination. What is
 * refused on the way is answered by dns_refusal.bpf.h and never wakes the daemon.
 */
#include "lib/dns_message.bpf.h"
#include "lib/policy.bpf.h"

/* Octets of an OPT record's fields behind the owner (RFC 6891 6.1.2), and of an option's code and length. */
#define DNS_OPT_FIXED	 10
#define DNS_OPTION_FIXED 4
#define DNS_OPTIONS_MAX	 (TG_DNS_PAYLOAD_MAX / DNS_OPTION_FIXED)

/* One option. Returns 1 to stop, behind the last one or at one that is malformed. */
static long dns_option_step(__u32 round, void *context)
{
	struct dns_scratch *s = *(struct dns_scratch **)context;

	(void)round;
	if (s->position + DNS_OPTION_FIXED > s->options_end)
		return 1;
	s->position += DNS_OPTION_FIXED + dns_u16(s, s->position + 2);
	return 0;
}

/* The owner of the record beside the question, at `position`: any name parses, the root alone is of use. */
static __always_inline bool dns_owner_parse(struct dns_scratch *s, bool *is_root)
{
	__u32 behind;

	*is_root = s->position < s->length && !dns_octet(s, s->position);
	if (*is_root) {
		s->position++;
		return true;
	}
	if (dns_name_parse(s))
		return false;
	*is_root = s->name_length == 1; /* by a pointer to the end of the question name */
	/* It has taken the place of the question name. */
	behind = s->position;
	s->position = DNS_HEADER_SIZE;
	if (dns_u16(s, DNS_QDCOUNT) && !dns_question_parse(s))
		return false;
	s->position = behind;
	return true;
}

/*
 * Reads the record at `position`, which is all that may stand beside a question, and checks the flags that
 * count before it:
 *
 *     record := owner type(2) class(2) ttl(4) rdlength(2) rdata{rdlength}
 *     OPT: owner is the root, class the sender's UDP size, ttl := extended RCODE(8) version(8) DO(1) Z(15),
 *     rdata := (code(2) length(2) data{length})*                                             RFC 6891 6.1.2
 */
static __always_inline verdict_t dns_opt_check(struct dns_scratch *s, __u32 question_end, bool flags_fit)
{
	struct dns_scratch *context = s;
	__u32 type, rdlength, ttl_high;
	bool is_root;

	if (!dns_owner_parse(s, &is_root) || s->position + DNS_OPT_FIXED > s->length)
		return TG_DROP_DNS_QUERY_MALFORMED;
	type = dns_u16(s, s->position);
	ttl_high = dns_u16(s, s->position + 4);
	s->dnssec_ok = dns_u16(s, s->position + 6) >> 15;
	rdlength = dns_u16(s, s->position + 8);
	s->position += DNS_OPT_FIXED;
	s->options_end = s->position + rdlength;
	if (s->options_end != s->length || !question_end)
		return TG_DROP_DNS_QUERY_MALFORMED;
	s->question_end = question_end;
	if (!flags_fit || type != DNS_TYPE_OPT || !dns_u16(s, DNS_ARCOUNT))
		return TG_DROP_DNS_QUERY_MALFORMED;
	s->has_edns = 1;
	if (ttl_high & 0xff)
		return TG_DROP_DNS_EDNS_VERSION;
	if (!is_root)
		return TG_DROP_DNS_QUERY_MALFORMED;
	bpf_loop(DNS_OPTIONS_MAX + 1, dns_option_step, &context, 0);
	return s->position == s->options_end ? TG_DROP_NONE : TG_DROP_DNS_QUERY_MALFORMED;
}

/* The types of proto::dns_type_allowed(). */
static __always_inline bool dns_type_allowed(__u32 type)
{
	switch (type) {
	case 1:	  /* A */
	case 2:	  /* NS */
	case 5:	  /* CNAME */
	case 6:	  /* SOA */
	case 12:  /* PTR */
	case 15:  /* MX */
	case 16:  /* TXT */
	case 28:  /* AAAA */
	case 33:  /* SRV */
	case 35:  /* NAPTR */
	case 43:  /* DS */
	case 44:  /* SSHFP */
	case 48:  /* DNSKEY */
	case 52:  /* TLSA */
	case 64:  /* SVCB */
	case 65:  /* HTTPS */
	case 257: /* CAA */
		return true;
	default:
		return false;
	}
}

/* The message behind its header, up to its last octet. */
static __always_inline verdict_t dns_query_check_message(struct dns_scratch *s, __u32 flags)
{
	__u32 questions = dns_u16(s, DNS_QDCOUNT);
	__u32 records = (__u32)dns_u16(s, DNS_NSCOUNT) + dns_u16(s, DNS_ARCOUNT);
	bool flags_fit = !(flags & (DNS_FLAG_TC | DNS_RCODE_MASK));
	__u32 question_end = 0;

	if (questions > 1 || dns_u16(s, DNS_ANCOUNT) || records > 1)
		return TG_DROP_DNS_QUERY_MALFORMED;
	if (questions) {
		if (!dns_question_parse(s))
			return TG_DROP_DNS_QUERY_MALFORMED;
		question_end = s->position;
	}
	if (records)
		return dns_opt_check(s, question_end, flags_fit);
	if (s->position != s->length || !question_end)
		return TG_DROP_DNS_QUERY_MALFORMED;
	s->question_end = question_end;
	return flags_fit ? TG_DROP_NONE : TG_DROP_DNS_QUERY_MALFORMED;
}

/*
 * Reads the query in `packet` into the scratch value by the rules of proto::parse_dns_query(), and refuses
 * the names that policy::Name::from_wire() does not take. Guest sees and operator sees: per reason, in
 * dns_refusal.bpf.h.
 *
 * A global function: the verifier walks it once.
 */
__noinline int dns_query_read(struct __sk_buff *skb, const struct packet *packet)
{
	struct dns_scratch *s = dns_scratch_get();
	verdict_t verdict;
	__u32 flags, type;

	if (!s || !packet)
		return TG_DROP_DNS_NOT_A_QUERY;
	s->question_end = 0;
	s->has_edns = 0;
	s->dnssec_ok = 0;
	if (packet->l4_length < sizeof(struct udphdr) + DNS_HEADER_SIZE ||
	    bpf_skb_load_bytes(skb, packet->l4_offset + sizeof(struct udphdr), s->packet, DNS_HEADER_SIZE))
		return TG_DROP_DNS_NOT_A_QUERY;
	flags = dns_u16(s, DNS_FLAGS);
	if (flags & DNS_FLAG_QR)
		return TG_DROP_DNS_NOT_A_QUERY;
	if (flags & DNS_OPCODE_MASK)
		return TG_DROP_DNS_OPCODE;
	if (!dns_load(skb, packet, s))
		return TG_DROP_DNS_QUERY_MALFORMED;
	verdict = dns_query_check_message(s, flags);
	if (verdict)
		return verdict;
	type = s->question_type;
	if (dns_u16(s, s->question_end - 2) != DNS_CLASS_IN)
		return TG_DROP_DNS_CLASS;
	if (!dns_type_allowed(type))
		return TG_DROP_DNS_TYPE;
	return dns_name_is_host_name(s) ? TG_DROP_NONE : TG_DROP_DNS_NAME;
}

static __always_inline verdict_t dns_query_judge(const struct guest_context *context, struct packet *packet,
						 struct dns_scratch *s)
{
	dns_name_suffixes(s);
	return policy_judge_question(context->guest, &s->new_name, s->question_id, packet);
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
					   struct packet *packet)
{
	struct dns_scratch *s = dns_scratch_get();
	struct bpf_sock *listener;
	struct tg_dns_key key;
	verdict_t verdict;
	bool added;

	/* Before anything else, so that what is refused counts too: our answers are no cheap way to make the
	 * host work. Guest sees: no answer. Operator sees: dns-rate, raised by [limits] dns_qps. */
	if (rate_exceeded(&context->state->query_second, &context->state->query_count,
			  context->guest->dns_queries_per_second))
		return TG_DROP_DNS_RATE;
	if (!s)
		return TG_DROP_DNS_NOT_A_QUERY;
	verdict = dns_query_read(skb, packet);
	if (verdict)
		return verdict;
	verdict = dns_query_judge(context, packet, s);
	if (verdict)
		return verdict;
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
