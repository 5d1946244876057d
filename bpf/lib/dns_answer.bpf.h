/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef TAPGATE_DNS_ANSWER_BPF_H
#define TAPGATE_DNS_ANSWER_BPF_H

/*
 * An answer on its way to the guest: checked against the question in flight and recorded before it goes on.
 * What cannot be recorded completely is not delivered.
 *
 * Five phases, the first three without any effect outside of the scratch value:
 *   1. walk the whole message and note the CNAME, A, AAAA, SVCB and HTTPS records of the answer section
 *   2. follow the aliases from the question name; records may stand in any order
 *   3. gather the addresses of the last name, hints of services included
 *   4. record them for the question name and its aliases (lib/dns_record.bpf.h)
 *   5. take the question out of `dns_pending`
 *
 * userspace/proto's derive_addresses() is the reference for phases 1 to 3; tests/prog_run compares them.
 */
#include "lib/dns_query.bpf.h"
#include "lib/dns_record.bpf.h"

#define SERVICE_KEY_IPV4HINT 4 /* RFC 9460 14.3.2 */
#define SERVICE_KEY_IPV6HINT 6

/* One parameter. Returns 1 to stop; `params_done`: that was the last one, and all are good. */
static long dns_service_step(__u32 round, void *context)
{
	struct dns_scratch *s = *(struct dns_scratch **)context;
	__u32 at = s->position;
	__u32 key, length;

	if (at == s->limit) {
		s->params_done = 1;
		return 1;
	}
	if (round >= TG_DNS_SERVICE_PARAMS_MAX || at + 4 > s->limit)
		return 1;
	key = dns_u16(s, at);
	length = dns_u16(s, at + 2);
	at += 4;
	if (key < s->next_key || at + length > s->limit)
		return 1;
	s->next_key = key + 1;
	s->position = at + length;
	if (key == SERVICE_KEY_IPV4HINT) {
		if (!length || length % 4)
			return 1;
		s->v4_offset = at;
		s->v4_count = length / 4;
	} else if (key == SERVICE_KEY_IPV6HINT) {
		if (!length || length % 16)
			return 1;
		s->v6_offset = at;
		s->v6_count = length / 16;
	}
	return 0;
}

/*
 * service := priority(2) target param*                                                     RFC 9460 2.2
 * target  := name without compression
 * param   := key(2) length(2) value{length}, keys strictly increasing
 * ipv4hint, ipv6hint := address+
 *
 * Reads the RDATA from `position` to `limit`, and leaves the hints in `v4_*` and `v6_*`: none if the priority
 * is 0 (AliasMode), whose parameters mean nothing (RFC 9460 2.4.2). Returns 0 if it is well-formed.
 */
__noinline int dns_service_parse(struct dns_scratch *s)
{
	struct dns_scratch *context = s;
	__u32 priority, target;

	if (!s)
		return -1;
	s->params_done = 0;
	s->next_key = 0;
	s->v4_count = 0;
	s->v6_count = 0;
	target = s->position + 2;
	if (target > s->limit)
		return -1;
	priority = dns_u16(s, s->position);
	s->position = target;
	if (dns_name_parse(s) || s->position - target != s->name_length)
		return -1;
	bpf_loop(TG_DNS_SERVICE_PARAMS_MAX + 1, dns_service_step, &context, 0);
	if (!s->params_done)
		return -1;
	if (!priority) {
		s->v4_count = 0;
		s->v6_count = 0;
	}
	return 0;
}

static __always_inline bool is_noted_type(__u32 type)
{
	switch (type) {
	case DNS_TYPE_A:
	case DNS_TYPE_AAAA:
	case DNS_TYPE_CNAME:
	case DNS_TYPE_SVCB:
	case DNS_TYPE_HTTPS:
		return true;
	}
	return false;
}

/*
 * record := name type(2) class(2) ttl(4) rdlength(2) rdata{rdlength}                          RFC 1035 4.1.3
 *
 * Returns 1 to stop: `record_index` then tells how far it came.
 */
static long dns_record_step(__u32 round, void *context)
{
	struct dns_scratch *s = *(struct dns_scratch **)context;
	__u32 fixed, type, class, rdata, rdata_length, end;
	struct dns_record *record;

	(void)round;
	if (s->record_index >= s->total_count || dns_name_parse(s))
		return 1;
	fixed = s->position;
	if (fixed + 10 > s->length)
		return 1;
	type = dns_u16(s, fixed);
	class = dns_u16(s, fixed + 2);
	rdata_length = dns_u16(s, fixed + 8);
	rdata = fixed + 10;
	end = rdata + rdata_length;
	if (end > s->length)
		return 1;
	s->position = end;
	if (!s->binds || s->record_index >= s->answer_count || class != DNS_CLASS_IN ||
	    !is_noted_type(type)) {
		s->record_index++;
		return 0;
	}
	record = &s->records[s->record_count & (TG_DNS_ANSWERS_MAX - 1)];
	record->owner_id = dns_name_id(s);
	record->ttl_seconds = dns_u32(s, fixed + 4);
	/* RFC 2181 8: a TTL with the top bit set is 0. */
	if (record->ttl_seconds >> 31)
		record->ttl_seconds = 0;
	record->type = type;
	record->v4_count = 0;
	record->v6_count = 0;
	if (type == DNS_TYPE_A) {
		if (rdata_length != 4)
			return 1;
		record->v4_offset = rdata;
		record->v4_count = 1;
	} else if (type == DNS_TYPE_AAAA) {
		if (rdata_length != 16)
			return 1;
		record->v6_offset = rdata;
		record->v6_count = 1;
	} else {
		s->position = rdata;
		s->limit = end;
		if (type == DNS_TYPE_CNAME) {
			if (dns_name_parse(s) || s->position != end)
				return 1;
			record->target_id = dns_name_id(s);
			record->target_offset = rdata;
		} else {
			if (dns_service_parse(s))
				return 1;
			record->v4_offset = s->v4_offset;
			record->v4_count = s->v4_count;
			record->v6_offset = s->v6_offset;
			record->v6_count = s->v6_count;
		}
		s->limit = s->length;
	}
	s->record_count++;
	s->record_index++;
	return 0;
}

_Static_assert((TG_DNS_ANSWERS_MAX & (TG_DNS_ANSWERS_MAX - 1)) == 0, "an index is masked");

/* Phase 1. Returns 0 if the message is well-formed to its last byte. */
__noinline int dns_records_walk(struct dns_scratch *s)
{
	struct dns_scratch *context = s;

	if (!s)
		return -1;
	s->answer_count = dns_u16(s, DNS_ANCOUNT);
	s->total_count = s->answer_count + dns_u16(s, DNS_NSCOUNT) + dns_u16(s, DNS_ARCOUNT);
	s->record_index = 0;
	s->record_count = 0;
	if (s->answer_count > TG_DNS_ANSWERS_MAX || s->total_count > TG_DNS_RECORDS_MAX)
		return -1;
	bpf_loop(TG_DNS_RECORDS_MAX, dns_record_step, &context, 0);
	return s->record_index == s->total_count && s->position == s->length ? 0 : -1;
}

static long dns_search_step(__u32 round, void *context)
{
	struct dns_scratch *s = *(struct dns_scratch **)context;
	const struct dns_record *record = &s->records[round & (TG_DNS_ANSWERS_MAX - 1)];

	if (round >= s->record_count)
		return 1;
	if (record->owner_id != s->current_id)
		return 0;
	if (record->type == DNS_TYPE_CNAME) {
		s->aliases_found++;
		s->next_id = record->target_id;
		s->next_offset = record->target_offset;
		s->next_ttl_seconds = record->ttl_seconds;
	} else {
		s->others_found++;
	}
	return 0;
}

/* One name of the chain. Returns 1 to stop; `chain_done` then tells whether the chain is a good one. */
static long dns_chain_step(__u32 round, void *context)
{
	struct dns_scratch *s = *(struct dns_scratch **)context;

	s->name_ids[round & DNS_CHAIN_MASK] = s->current_id;
	s->name_offsets[round & DNS_CHAIN_MASK] = s->next_offset;
	s->name_count = round + 1;
	s->aliases_found = 0;
	s->others_found = 0;
	bpf_loop(TG_DNS_ANSWERS_MAX, dns_search_step, context, 0);
	if (!s->aliases_found) {
		s->chain_done = 1;
		return 1;
	}
	/* A name has one CNAME and then nothing else (RFC 1034 3.6.2). A loop ends at the bound. */
	if (s->aliases_found > 1 || s->others_found || round >= TG_DNS_ALIASES_MAX)
		return 1;
	if (s->next_ttl_seconds < s->chain_ttl_seconds)
		s->chain_ttl_seconds = s->next_ttl_seconds;
	s->current_id = s->next_id;
	return 0;
}

/* Phase 2. Returns 0 with the last name in `current_id`, and all of them in `name_ids`. */
__noinline int dns_aliases_follow(struct dns_scratch *s)
{
	struct dns_scratch *context = s;

	if (!s)
		return -1;
	s->current_id = s->question_id;
	s->next_offset = DNS_HEADER_SIZE;
	s->chain_ttl_seconds = ~0U;
	s->chain_done = 0;
	bpf_loop(TG_DNS_ALIASES_MAX + 1, dns_chain_step, &context, 0);
	return s->chain_done ? 0 : -1;
}

/* One address of a list. Returns 1 to stop. */
static long dns_list_step(__u32 round, void *context)
{
	struct dns_scratch *s = *(struct dns_scratch **)context;
	struct tg_told_address *told;
	__u32 at;

	if (round >= s->list_count)
		return 1;
	if (s->told_count >= TG_DNS_ADDRESSES_MAX) {
		s->too_many = 1;
		return 1;
	}
	at = s->list_offset + round * s->list_size;
	told = &s->told[s->told_count & (TG_DNS_ADDRESSES_MAX - 1)];
	if (s->list_size == 4)
		address_from_v4(&told->address, bpf_htonl(dns_u32(s, at)));
	else
		address_set_words(&told->address,
				  bpf_cpu_to_be64((__u64)dns_u32(s, at) << 32 | dns_u32(s, at + 4)),
				  bpf_cpu_to_be64((__u64)dns_u32(s, at + 8) << 32 | dns_u32(s, at + 12)));
	told->ttl_seconds = s->list_ttl_seconds;
	s->told_count++;
	return 0;
}

_Static_assert((TG_DNS_ADDRESSES_MAX & (TG_DNS_ADDRESSES_MAX - 1)) == 0, "an index is masked");

/* The addresses of one record. Returns 1 to stop. */
static long dns_gather_step(__u32 round, void *context)
{
	struct dns_scratch *s = *(struct dns_scratch **)context;
	const struct dns_record *record = &s->records[round & (TG_DNS_ANSWERS_MAX - 1)];

	if (round >= s->record_count || s->too_many)
		return 1;
	if (record->owner_id != s->current_id)
		return 0;
	s->list_ttl_seconds =
	    record->ttl_seconds < s->chain_ttl_seconds ? record->ttl_seconds : s->chain_ttl_seconds;
	s->list_offset = record->v4_offset;
	s->list_count = record->v4_count;
	s->list_size = 4;
	bpf_loop(TG_DNS_ADDRESSES_MAX + 1, dns_list_step, context, 0);
	s->list_offset = record->v6_offset;
	s->list_count = record->v6_count;
	s->list_size = 16;
	bpf_loop(TG_DNS_ADDRESSES_MAX + 1, dns_list_step, context, 0);
	return 0;
}

/* Phase 3. Returns 0 with the addresses in `told`. */
__noinline int dns_addresses_gather(struct dns_scratch *s)
{
	struct dns_scratch *context = s;

	if (!s)
		return -1;
	s->told_count = 0;
	s->too_many = 0;
	bpf_loop(TG_DNS_ANSWERS_MAX, dns_gather_step, &context, 0);
	return s->too_many ? -1 : 0;
}

/* An error answer may come without the question (RFC 1035 7.3 has the id for that); it binds nothing. */
static __always_inline bool dns_answer_has_question(const struct dns_scratch *s)
{
	return dns_u16(s, DNS_QDCOUNT) == 1;
}

static __always_inline bool dns_answer_head_parse(struct __sk_buff *skb, const struct packet *packet,
						  struct dns_scratch *s)
{
	__u16 flags;

	if (!dns_load(skb, packet, s))
		return false;
	flags = dns_u16(s, DNS_FLAGS);
	if (!(flags & DNS_FLAG_QR))
		return false;
	s->rcode = flags & DNS_RCODE_MASK;
	s->binds = !s->rcode && !(flags & DNS_FLAG_TC);
	if (dns_answer_has_question(s))
		return dns_question_parse(s);
	return s->rcode && !dns_u16(s, DNS_QDCOUNT);
}

static __always_inline bool dns_answer_is_asked(struct dns_scratch *s, const struct tg_dns_key *key)
{
	const struct tg_dns_question *question = bpf_map_lookup_elem(&dns_pending, key);

	if (!question || question->expires_ns <= bpf_ktime_get_boot_ns())
		return false;
	s->resolver = question->resolver;
	return !dns_answer_has_question(s) ||
	       (question->name_id == s->question_id && question->type == s->question_type);
}

/*
 * Judges the answer in `packet`, whose ports were parsed, and records it. Whatever the sender: that it is the
 * daemon is for the caller to know. TG_DROP_NONE: deliver it.
 */
static __always_inline verdict_t dns_answer(struct __sk_buff *skb, const struct guest_context *context,
					    const struct packet *packet)
{
	struct dns_scratch *s = dns_scratch_get();
	struct tg_dns_key key;
	verdict_t verdict;

	if (!s || !dns_answer_head_parse(skb, packet, s))
		return TG_DROP_DNS_ANSWER_MALFORMED;
	dns_key_fill(&key, context, packet, s);
	if (!dns_answer_is_asked(s, &key))
		return TG_DROP_DNS_ANSWER_UNASKED;
	if (dns_records_walk(s))
		return TG_DROP_DNS_ANSWER_MALFORMED;
	if (s->binds) {
		if (dns_aliases_follow(s) || dns_addresses_gather(s))
			return TG_DROP_DNS_ANSWER_MALFORMED;
		s->guest_id = context->guest->id;
		s->slot = context->guest->slot;
		s->bindings_max = context->guest->bindings_max;
		s->keep_until_ns = 0;
		verdict = dns_record(DNS_SCRATCH_PACKET);
		if (verdict)
			return verdict;
	}
	/* A second copy of the answer that got this far on another CPU finds nothing to remove. */
	return dns_pending_remove(context, &key) ? TG_DROP_NONE : TG_DROP_DNS_ANSWER_UNASKED;
}

#endif
