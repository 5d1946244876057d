/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef TAPGATE_DNS_ANSWER_BPF_H
#define TAPGATE_DNS_ANSWER_BPF_H

/*
 * An answer on its way to the guest: checked against the question in flight and recorded in `bindings` before
 * it goes on. What cannot be recorded completely is not delivered.
 *
 * Four phases, the first two without any effect outside of the scratch value:
 *   1. walk the whole message and note the CNAME, A and AAAA records of the answer section
 *   2. follow the aliases from the question name; records may stand in any order
 *   3. bind every address of the last name to the question name
 *   4. take the question out of `dns_pending`
 *
 * userspace/proto's derive_addresses() is the reference for phases 1 and 2; tests/prog_run compares them.
 */
#include "lib/dns_query.bpf.h"

#define NO_INDEX TG_NAMES_PER_ADDRESS

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
	    (type != DNS_TYPE_A && type != DNS_TYPE_AAAA && type != DNS_TYPE_CNAME)) {
		s->record_index++;
		return 0;
	}
	if ((type == DNS_TYPE_A && rdata_length != 4) || (type == DNS_TYPE_AAAA && rdata_length != 16))
		return 1;
	record = &s->records[s->record_count & (TG_DNS_ANSWERS_MAX - 1)];
	record->owner_id = dns_name_id(s);
	record->ttl_seconds = dns_u32(s, fixed + 4);
	/* RFC 2181 8: a TTL with the top bit set is 0. */
	if (record->ttl_seconds >> 31)
		record->ttl_seconds = 0;
	record->type = type;
	record->rdata_offset = rdata;
	if (type == DNS_TYPE_CNAME) {
		s->position = rdata;
		s->limit = end;
		if (dns_name_parse(s) || s->position != end)
			return 1;
		s->limit = s->length;
		record->target_id = dns_name_id(s);
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
		s->next_ttl_seconds = record->ttl_seconds;
	} else {
		s->addresses_found++;
	}
	return 0;
}

/* One name of the chain. Returns 1 to stop; `chain_done` then tells whether the chain is a good one. */
static long dns_chain_step(__u32 round, void *context)
{
	struct dns_scratch *s = *(struct dns_scratch **)context;

	s->aliases_found = 0;
	s->addresses_found = 0;
	bpf_loop(TG_DNS_ANSWERS_MAX, dns_search_step, context, 0);
	if (!s->aliases_found) {
		s->chain_done = 1;
		return 1;
	}
	/* A name has one CNAME and then nothing else (RFC 1034 3.6.2). A loop ends at the bound. */
	if (s->aliases_found > 1 || s->addresses_found || round >= TG_DNS_ALIASES_MAX)
		return 1;
	if (s->next_ttl_seconds < s->chain_ttl_seconds)
		s->chain_ttl_seconds = s->next_ttl_seconds;
	s->current_id = s->next_id;
	return 0;
}

/* Phase 2. Returns 0 with the last name in `current_id` and the number of its addresses in
 * `addresses_found`. */
__noinline int dns_aliases_follow(struct dns_scratch *s)
{
	struct dns_scratch *context = s;

	if (!s)
		return -1;
	s->current_id = s->question_id;
	s->chain_ttl_seconds = ~0U;
	s->chain_done = 0;
	bpf_loop(TG_DNS_ALIASES_MAX + 1, dns_chain_step, &context, 0);
	return s->chain_done ? 0 : -1;
}

/* A name is kept this long for the answer at hand: what its bindings need is known when they are written. */
#define NAME_GRACE_NS (10 * NSEC_PER_SEC)

/* Two CPUs may prolong a name at once; the later time wins. */
static __always_inline void dns_name_prolong(struct tg_name *name, __u64 expires_ns)
{
	__u64 seen;
	int i;

	for (i = 0; i < 4; i++) {
		seen = *(volatile __u64 *)&name->expires_ns;
		if (seen >= expires_ns ||
		    __sync_val_compare_and_swap(&name->expires_ns, seen, expires_ns) == seen)
			return;
	}
}

/* Makes sure that `names` has the question name until `expires_ns`. Not for a guest at its cap of bindings:
 * it could fill the table with names that are bound to nothing. */
static __always_inline verdict_t dns_name_record(struct dns_scratch *s, const struct tg_guest_state *state,
						 __u64 expires_ns)
{
	struct tg_name_key key = {.guest_id = s->guest_id, .name_id = s->question_id};
	struct tg_name *known = bpf_map_lookup_elem(&names, &key);

	if (known) {
		dns_name_prolong(known, expires_ns);
		return TG_DROP_NONE;
	}
	if (state->bindings >= s->bindings_max)
		return TG_DROP_DNS_BINDING_CAP;
	s->position = DNS_HEADER_SIZE;
	s->steps = DNS_NAME_STEPS_MAX;
	if (dns_name_parse(s) || dns_name_id(s) != s->question_id || dns_name_text(s) || dns_name_suffixes(s))
		return TG_DROP_DNS_ANSWER_MALFORMED;
	s->new_name.expires_ns = expires_ns;
	if (!bpf_map_update_elem(&names, &key, &s->new_name, BPF_NOEXIST))
		return TG_DROP_NONE;
	/* Another CPU was first, or there is no room. */
	known = bpf_map_lookup_elem(&names, &key);
	if (!known)
		return TG_DROP_DNS_BINDING_FULL;
	dns_name_prolong(known, expires_ns);
	return TG_DROP_NONE;
}

static __always_inline void bound_name_set(struct tg_bound_name *bound, __u64 name_id, __u64 expires_ns)
{
	bound->name_id = name_id;
	bound->expires_ns = expires_ns;
}

/*
 * Adds the question name to a binding that exists, or prolongs it there. A slot whose time is over is taken
 * before a free one: its pair is still counted, so the count stays.
 */
static __always_inline verdict_t dns_binding_extend(struct dns_scratch *s, struct tg_guest_state *state,
						    struct tg_binding *binding, __u64 expires_ns)
{
	bool reserved = quota_take(&state->bindings, s->bindings_max);
	verdict_t verdict = TG_DROP_NONE;
	struct tg_bound_name *bound;
	bool used = false;
	__u32 i;

	s->free_index = NO_INDEX;
	s->expired_index = NO_INDEX;
	bpf_spin_lock(&binding->lock);
	for (i = 0; i < TG_NAMES_PER_ADDRESS; i++) {
		bound = &binding->names[i];
		if (bound->name_id == s->question_id) {
			if (bound->expires_ns < expires_ns)
				bound->expires_ns = expires_ns;
			goto unlock;
		}
		if (!bound->name_id)
			s->free_index = i;
		else if (bound->expires_ns <= s->now_ns)
			s->expired_index = i;
	}
	/* Through the scratch value, so that the verifier does not follow 32 values of an index. */
	i = s->expired_index;
	if (i < TG_NAMES_PER_ADDRESS) {
		bound_name_set(&binding->names[i], s->question_id, expires_ns);
		goto unlock;
	}
	i = s->free_index;
	if (i >= TG_NAMES_PER_ADDRESS) {
		verdict = TG_DROP_DNS_BINDING_FULL;
	} else if (!reserved) {
		verdict = TG_DROP_DNS_BINDING_CAP;
	} else {
		bound_name_set(&binding->names[i], s->question_id, expires_ns);
		used = true;
	}
unlock:
	bpf_spin_unlock(&binding->lock);
	if (reserved && !used)
		quota_release(&state->bindings);
	return verdict;
}

static __always_inline verdict_t dns_address_bind(struct dns_scratch *s, struct tg_guest_state *state,
						  const struct tg_binding_key *key, __u64 expires_ns)
{
	struct tg_binding *binding = bpf_map_lookup_elem(&bindings, key);

	if (binding)
		return dns_binding_extend(s, state, binding, expires_ns);
	if (!quota_take(&state->bindings, s->bindings_max))
		return TG_DROP_DNS_BINDING_CAP;
	s->new_binding[offsetof(struct tg_binding, names[0].name_id) / sizeof(__u64)] = s->question_id;
	s->new_binding[offsetof(struct tg_binding, names[0].expires_ns) / sizeof(__u64)] = expires_ns;
	if (!bpf_map_update_elem(&bindings, key, s->new_binding, BPF_NOEXIST))
		return TG_DROP_NONE;
	quota_release(&state->bindings);
	/* Another CPU was first with the same address, or there is no room. */
	binding = bpf_map_lookup_elem(&bindings, key);
	return binding ? dns_binding_extend(s, state, binding, expires_ns) : TG_DROP_DNS_BINDING_FULL;
}

static __always_inline __u64 dns_expiry(const struct dns_scratch *s, __u32 ttl_seconds)
{
	__u32 lifetime = ttl_seconds < s->chain_ttl_seconds ? ttl_seconds : s->chain_ttl_seconds;

	if (lifetime > tg_max_ttl_seconds)
		lifetime = tg_max_ttl_seconds;
	if (lifetime < tg_min_ttl_seconds)
		lifetime = tg_min_ttl_seconds;
	return s->now_ns + lifetime * NSEC_PER_SEC;
}

/* Binds one address record of the last name. Returns 1 to stop; `verdict` tells why. */
static long dns_bind_step(__u32 round, void *context)
{
	struct dns_scratch *s = dns_scratch_get();
	struct tg_guest_state *state;
	struct tg_binding_key key;
	struct dns_record *record;
	__u32 slot, offset;
	__u64 expires_ns;

	(void)context;
	if (!s || round >= s->record_count)
		return 1;
	record = &s->records[round & (TG_DNS_ANSWERS_MAX - 1)];
	if (record->owner_id != s->current_id || record->type == DNS_TYPE_CNAME)
		return 0;
	slot = s->slot;
	state = bpf_map_lookup_elem(&guest_state, &slot);
	if (!state) {
		s->verdict = TG_DROP_DNS_BINDING_FULL;
		return 1;
	}
	key.guest_id = s->guest_id;
	offset = record->rdata_offset;
	if (record->type == DNS_TYPE_A)
		address_from_v4(&key.address, bpf_htonl(dns_u32(s, offset)));
	else
		address_set_words(
		    &key.address, bpf_cpu_to_be64((__u64)dns_u32(s, offset) << 32 | dns_u32(s, offset + 4)),
		    bpf_cpu_to_be64((__u64)dns_u32(s, offset + 8) << 32 | dns_u32(s, offset + 12)));
	expires_ns = dns_expiry(s, record->ttl_seconds);
	if (expires_ns > s->latest_ns)
		s->latest_ns = expires_ns;
	s->verdict = dns_address_bind(s, state, &key, expires_ns);
	return s->verdict != TG_DROP_NONE;
}

/* Phase 3. Not a global function: keys and values of maps may not lie in the memory of an argument there
 * (before 6.2). */
static __always_inline verdict_t dns_addresses_bind(struct dns_scratch *s,
						    const struct guest_context *context)
{
	verdict_t verdict;
	__u64 unused = 0;

	if (!s->addresses_found)
		return TG_DROP_NONE;
	s->guest_id = context->guest->id;
	s->slot = context->guest->slot;
	s->bindings_max = context->guest->bindings_max;
	s->now_ns = bpf_ktime_get_boot_ns();
	s->latest_ns = 0;
	s->verdict = TG_DROP_NONE;
	verdict = dns_name_record(s, context->state, s->now_ns + NAME_GRACE_NS);
	if (verdict)
		return verdict;
	bpf_loop(TG_DNS_ANSWERS_MAX, dns_bind_step, &unused, 0);
	if (s->verdict)
		return s->verdict;
	/* Again, for as long as its bindings live; and should the daemon have been about to remove it just
	 * when it was found above, it is back before the guest has the answer. */
	return dns_name_record(s, context->state, s->latest_ns);
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

static __always_inline bool dns_answer_is_asked(const struct dns_scratch *s, const struct tg_dns_key *key)
{
	const struct tg_dns_question *question = bpf_map_lookup_elem(&dns_pending, key);

	if (!question || question->expires_ns <= bpf_ktime_get_boot_ns())
		return false;
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
		if (dns_aliases_follow(s))
			return TG_DROP_DNS_ANSWER_MALFORMED;
		verdict = dns_addresses_bind(s, context);
		if (verdict)
			return verdict;
	}
	/* A second copy of the answer that got this far on another CPU finds nothing to remove. */
	return dns_pending_remove(context, &key) ? TG_DROP_NONE : TG_DROP_DNS_ANSWER_UNASKED;
}

#endif
