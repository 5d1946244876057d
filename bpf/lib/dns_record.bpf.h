/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef TAPGATE_DNS_RECORD_BPF_H
#define TAPGATE_DNS_RECORD_BPF_H

/*
 * The one writer of `names`, `chains` and `bindings`: for answers that tap_egress delivers, and for those
 * that the daemon delivers over TCP.
 *
 * What is to be recorded stands in the scratch value: a question name, its aliases, the addresses they lead
 * to. First the names and their chain are made to last for the answer at hand, then each address gets its
 * slot, then names and chain are made to last as long as the longest of these. So a slot never refers to a
 * name that the daemon has removed: should it have been about to remove one just when it was found at first,
 * the name is back before the guest has the answer.
 */
#include "lib/dns_name.bpf.h"
#include "lib/steer.bpf.h"

#define NO_INDEX TG_NAMES_PER_ADDRESS

/* Names are kept this long for the answer at hand: what its bindings need is known when they are written. */
#define NAME_GRACE_NS (10 * NSEC_PER_SEC)

/* An entry that is marked as dying is removed at once, by another CPU. */
#define BINDING_ATTEMPTS 8

/* On the stack, since a bpf_loop() context must be. */
struct recording_context {
	struct dns_scratch *s;
	struct tg_guest_state *state;
};

/* Two CPUs may prolong an entry at once; the later time wins. */
static __always_inline void dns_prolong(__u64 *entry_expires_ns, __u64 expires_ns)
{
	__u64 seen;
	int i;

	for (i = 0; i < 4; i++) {
		seen = *(volatile __u64 *)entry_expires_ns;
		if (seen >= expires_ns ||
		    __sync_val_compare_and_swap(entry_expires_ns, seen, expires_ns) == seen)
			return;
	}
}

static __always_inline void dns_name_renew(const struct dns_scratch *s, struct tg_name *name, bool asked)
{
	dns_prolong(&name->expires_ns, s->until_ns);
	if (s->keep_until_ns)
		return;
	*(volatile __u64 *)&name->told_ns = s->now_ns;
	if (asked)
		name->resolver = s->resolver;
}

/* Makes the entry of name number `index`, which nobody has. */
static __always_inline verdict_t dns_name_add(struct dns_scratch *s, struct tg_guest_state *state,
					      const struct tg_name_key *key, __u32 index)
{
	struct tg_name *known;
	__u32 names_max = s->bindings_max;

	/* Its bindings would be refused, and a name that is bound to nothing is of no use. */
	if (state->bindings >= s->bindings_max)
		return TG_DROP_DNS_BINDING_CAP;
	s->position = s->name_offsets[index & DNS_CHAIN_MASK];
	s->limit = s->length;
	s->steps = DNS_NAME_STEPS_MAX;
	if (dns_name_parse(s) || dns_name_id(s) != key->name_id || dns_name_text(s) || dns_name_suffixes(s))
		return TG_DROP_DNS_ANSWER_MALFORMED;
	s->new_name.expires_ns = s->until_ns;
	s->new_name.told_ns = s->now_ns;
	if (index)
		address_set_words(&s->new_name.resolver, 0, 0);
	else
		s->new_name.resolver = s->resolver;
	if (names_max > TG_NAMES_MAX)
		names_max = TG_NAMES_MAX;
	if (!quota_take(&state->names, names_max * TG_NAMES_PER_BINDING))
		return TG_DROP_DNS_BINDING_CAP;
	if (!bpf_map_update_elem(&names, key, &s->new_name, BPF_NOEXIST))
		return TG_DROP_NONE;
	quota_release(&state->names);
	/* Another CPU was first, or there is no room. */
	known = bpf_map_lookup_elem(&names, key);
	if (!known)
		return TG_DROP_DNS_BINDING_FULL;
	dns_name_renew(s, known, !index);
	return TG_DROP_NONE;
}

/* Makes sure that `names` has one name until `until_ns`. Returns 1 to stop; `verdict` tells why. */
static long dns_name_record_step(__u32 round, void *data)
{
	struct recording_context *context = data;
	struct dns_scratch *s = context->s;
	struct tg_name_key key;
	struct tg_name *known;

	if (round >= s->name_count)
		return 1;
	key.guest_id = s->guest_id;
	key.name_id = s->name_ids[round & DNS_CHAIN_MASK];
	known = bpf_map_lookup_elem(&names, &key);
	if (known) {
		dns_name_renew(s, known, !round);
		return 0;
	}
	s->verdict =
	    s->keep_until_ns ? TG_DROP_DNS_BINDING_FULL : dns_name_add(s, context->state, &key, round);
	return s->verdict != TG_DROP_NONE;
}

static __always_inline verdict_t dns_chain_record(struct dns_scratch *s, struct tg_guest_state *state)
{
	struct tg_chain_key key = {.guest_id = s->guest_id, .chain_id = s->chain_id};
	struct tg_chain *known = bpf_map_lookup_elem(&chains, &key);
	__u32 i;

	if (!known) {
		if (s->keep_until_ns)
			return TG_DROP_DNS_BINDING_FULL;
		s->new_chain.expires_ns = s->until_ns;
		s->new_chain.told_ns = s->now_ns;
		s->new_chain.alias_count = s->name_count - 1;
		for (i = 0; i < TG_DNS_ALIASES_MAX; i++)
			s->new_chain.alias_ids[i] = i + 1 < s->name_count ? s->name_ids[i + 1] : 0;
		if (!quota_take(&state->chains, s->bindings_max))
			return TG_DROP_DNS_BINDING_CAP;
		if (!bpf_map_update_elem(&chains, &key, &s->new_chain, BPF_NOEXIST))
			return TG_DROP_NONE;
		quota_release(&state->chains);
		known = bpf_map_lookup_elem(&chains, &key);
		if (!known)
			return TG_DROP_DNS_BINDING_FULL;
	}
	dns_prolong(&known->expires_ns, s->until_ns);
	if (!s->keep_until_ns)
		*(volatile __u64 *)&known->told_ns = s->now_ns;
	return TG_DROP_NONE;
}

/* `verdict` tells whether the names and their chain are there until `until_ns`. */
static __always_inline void dns_names_record(struct recording_context *context)
{
	struct dns_scratch *s = context->s;

	bpf_loop(TG_DNS_ALIASES_MAX + 1, dns_name_record_step, context, 0);
	if (!s->verdict && s->chain_id)
		s->verdict = dns_chain_record(s, context->state);
}

static __always_inline void bound_name_set(struct tg_bound_name *bound, const struct dns_scratch *s)
{
	bound->name_id = s->name_ids[0];
	bound->chain_id = s->chain_id;
	bound->expires_ns = s->expires_ns;
	bound->told_ns = s->now_ns;
}

/*
 * Adds the name with its chain to a binding that exists, or prolongs it there. A slot whose time is over is
 * taken before a free one: it is still counted, so the count stays. False if the entry is not, or not any
 * more, the one that was looked for; else `verdict` tells how it went.
 */
static __always_inline bool dns_binding_extend(struct recording_context *context, struct tg_binding *binding)
{
	struct tg_guest_state *state = context->state;
	struct dns_scratch *s = context->s;
	bool reserved = quota_take(&state->bindings, s->bindings_max);
	struct tg_bound_name *bound;
	bool used = false, ours = false;
	__u32 i;

	s->free_index = NO_INDEX;
	s->expired_index = NO_INDEX;
	s->verdict = TG_DROP_NONE;
	bpf_spin_lock(&binding->lock);
	if (binding->dying || binding->key.guest_id != s->binding_key.guest_id ||
	    !address_equal(&binding->key.address, &s->binding_key.address))
		goto unlock;
	ours = true;
	for (i = 0; i < TG_NAMES_PER_ADDRESS; i++) {
		bound = &binding->names[i];
		if (bound->name_id == s->name_ids[0] && bound->chain_id == s->chain_id) {
			if (s->keep_until_ns) {
				if (bound->expires_ns > s->now_ns && bound->expires_ns < s->expires_ns)
					bound->expires_ns = s->expires_ns;
			} else {
				if (bound->expires_ns < s->expires_ns)
					bound->expires_ns = s->expires_ns;
				bound->told_ns = s->now_ns;
			}
			binding->used_ns = s->now_ns;
			goto unlock;
		}
		if (!bound->name_id)
			s->free_index = i;
		else if (bound->expires_ns <= s->now_ns)
			s->expired_index = i;
	}
	if (s->keep_until_ns)
		goto unlock;
	/* Through the scratch value, so that the verifier does not follow 32 values of an index. */
	i = s->expired_index;
	if (i < TG_NAMES_PER_ADDRESS) {
		bound_name_set(&binding->names[i], s);
		binding->used_ns = s->now_ns;
		goto unlock;
	}
	i = s->free_index;
	if (i >= TG_NAMES_PER_ADDRESS) {
		s->verdict = TG_DROP_DNS_BINDING_FULL;
	} else if (!reserved) {
		s->verdict = TG_DROP_DNS_BINDING_CAP;
	} else {
		bound_name_set(&binding->names[i], s);
		binding->used_ns = s->now_ns;
		used = true;
	}
unlock:
	bpf_spin_unlock(&binding->lock);
	if (reserved && !used)
		quota_release(&state->bindings);
	return ours;
}

/* Writes one slot. Returns 1 to stop; 0, with a verdict against it, to try once more. */
static long dns_binding_step(__u32 round, void *data)
{
	struct recording_context *context = data;
	struct dns_scratch *s = context->s;
	struct tg_binding *binding = bpf_map_lookup_elem(&bindings, &s->binding_key);

	(void)round;
	if (binding) {
		if (dns_binding_extend(context, binding))
			return 1;
		s->verdict = TG_DROP_DNS_BINDING_FULL;
		return 0;
	}
	s->verdict = TG_DROP_NONE;
	if (s->keep_until_ns)
		return 1;
	if (!quota_take(&context->state->bindings, s->bindings_max)) {
		s->verdict = TG_DROP_DNS_BINDING_CAP;
		return 1;
	}
	s->new_binding[offsetof(struct tg_binding, key.guest_id) / sizeof(__u64)] = s->binding_key.guest_id;
	s->new_binding[offsetof(struct tg_binding, key.address) / sizeof(__u64)] =
	    address_word(&s->binding_key.address, 0);
	s->new_binding[offsetof(struct tg_binding, key.address) / sizeof(__u64) + 1] =
	    address_word(&s->binding_key.address, 1);
	s->new_binding[offsetof(struct tg_binding, used_ns) / sizeof(__u64)] = s->now_ns;
	s->new_binding[offsetof(struct tg_binding, names[0].name_id) / sizeof(__u64)] = s->name_ids[0];
	s->new_binding[offsetof(struct tg_binding, names[0].chain_id) / sizeof(__u64)] = s->chain_id;
	s->new_binding[offsetof(struct tg_binding, names[0].expires_ns) / sizeof(__u64)] = s->expires_ns;
	s->new_binding[offsetof(struct tg_binding, names[0].told_ns) / sizeof(__u64)] = s->now_ns;
	if (!bpf_map_update_elem(&bindings, &s->binding_key, s->new_binding, BPF_NOEXIST))
		return 1;
	/* Another CPU was first with the same address, or there is no room. */
	quota_release(&context->state->bindings);
	s->verdict = TG_DROP_DNS_BINDING_FULL;
	return 0;
}

/*
 * clamp(TTL, floor, ceiling). With a floor of zero lifetimes are exact, but for one of zero seconds: it ends
 * after one, or the guest could not connect at all.
 */
static __always_inline __u64 dns_expiry(const struct dns_scratch *s, __u32 ttl_seconds)
{
	__u32 lifetime = ttl_seconds;

	if (lifetime > tg_max_ttl_seconds)
		lifetime = tg_max_ttl_seconds;
	if (lifetime < tg_min_ttl_seconds)
		lifetime = tg_min_ttl_seconds;
	if (!lifetime)
		lifetime = 1;
	return s->now_ns + lifetime * NSEC_PER_SEC;
}

/* Binds one address. Returns 1 to stop; `verdict` tells why. */
static long dns_bind_step(__u32 round, void *data)
{
	struct recording_context *context = data;
	struct dns_scratch *s = context->s;
	struct tg_told_address *told;

	if (round >= s->told_count)
		return 1;
	told = &s->told[round & (TG_RECORDING_ADDRESSES_MAX - 1)];
	s->binding_key.guest_id = s->guest_id;
	s->binding_key.address = told->address;
	s->expires_ns = s->keep_until_ns ? s->keep_until_ns : dns_expiry(s, told->ttl_seconds);
	if (s->expires_ns > s->latest_ns)
		s->latest_ns = s->expires_ns;
	bpf_loop(BINDING_ATTEMPTS, dns_binding_step, context, 0);
	return s->verdict != TG_DROP_NONE;
}

_Static_assert((TG_RECORDING_ADDRESSES_MAX & (TG_RECORDING_ADDRESSES_MAX - 1)) == 0, "an index is masked");

/* The id of the chain of aliases (tapgate/bpf_abi.h); 0 if there are none. */
__noinline __u64 dns_chain_id(struct dns_scratch *s)
{
	struct tg_hash_key *key;
	struct tg_siphash hash;
	__u32 zero = 0, i;
	__u64 id;

	if (!s || s->name_count < 2)
		return 0;
	key = bpf_map_lookup_elem(&hash_key, &zero);
	if (!key)
		return 0;
	tg_siphash_start(&hash, key->k0, key->k1);
	for (i = 1; i <= TG_DNS_ALIASES_MAX; i++) {
		if (i >= s->name_count)
			break;
		tg_siphash_word(&hash, s->name_ids[i]);
	}
	id = tg_siphash_finish(&hash, 0, (s->name_count - 1) * sizeof(__u64));
	return id ? id : 1;
}

/*
 * Records what stands in the scratch value number `index`. Anything but TG_DROP_NONE: not all of it could be
 * written, and the answer must not be delivered.
 *
 * Guest sees: no answer, or SERVFAIL from the daemon. Operator sees: dns-binding-cap or dns-binding-full.
 *
 * A global function: the verifier walks it once. It finds the scratch value itself because keys and values of
 * maps may not lie in the memory of an argument there (before 6.2).
 */
__noinline int dns_record(__u32 index)
{
	struct recording_context context = {};
	struct dns_scratch *s;
	__u32 slot;

	s = bpf_map_lookup_elem(&dns_scratches, &index);
	if (!s)
		return TG_DROP_DNS_BINDING_FULL;
	if (!s->told_count)
		return TG_DROP_NONE;
	slot = s->slot;
	context.s = s;
	context.state = bpf_map_lookup_elem(&guest_state, &slot);
	if (!context.state)
		return TG_DROP_DNS_BINDING_FULL;
	s->now_ns = bpf_ktime_get_boot_ns();
	s->chain_id = dns_chain_id(s);
	s->latest_ns = 0;
	s->until_ns = s->now_ns + NAME_GRACE_NS;
	s->verdict = TG_DROP_NONE;
	dns_names_record(&context);
	if (s->verdict)
		return s->verdict;
	bpf_loop(TG_RECORDING_ADDRESSES_MAX, dns_bind_step, &context, 0);
	if (s->verdict)
		return s->verdict;
	s->until_ns = s->latest_ns;
	dns_names_record(&context);
	return s->verdict;
}

/* --- what the daemon asks for ------------------------------------------------------------------------------
 */

#define RECORDING_COPY_BYTES 64

_Static_assert(TG_RECORDING_NAMES_BYTES % RECORDING_COPY_BYTES == 0, "names are copied in whole pieces");

struct recording_copy {
	struct dns_scratch *s;
	struct tg_recording *from;
};

static long recording_names_step(__u32 round, void *data)
{
	struct recording_copy *copy = data;
	__u64 *from, *to;
	__u32 i;

	if (round >= TG_RECORDING_NAMES_BYTES / RECORDING_COPY_BYTES)
		return 1;
	from = (__u64 *)&copy->from->names[round * RECORDING_COPY_BYTES];
	to = (__u64 *)&copy->s->packet[round * RECORDING_COPY_BYTES];
#pragma unroll
	for (i = 0; i < RECORDING_COPY_BYTES / sizeof(__u64); i++)
		to[i] = from[i];
	return 0;
}

static long recording_addresses_step(__u32 round, void *data)
{
	struct recording_copy *copy = data;

	if (round >= copy->s->told_count || round >= TG_RECORDING_ADDRESSES_MAX)
		return 1;
	copy->s->told[round] = copy->from->addresses[round];
	return 0;
}

/* Finds out where one name begins, and its id. Returns 1 to stop; `verdict` tells whether it was a name. */
static long recording_ids_step(__u32 round, void *data)
{
	struct recording_copy *copy = data;
	struct dns_scratch *s = copy->s;

	if (round >= s->name_count)
		return 1;
	if (s->keep_until_ns) {
		if (round > TG_DNS_ALIASES_MAX)
			return 1;
		s->name_ids[round & DNS_CHAIN_MASK] = copy->from->name_ids[round];
		return 0;
	}
	s->name_offsets[round & DNS_CHAIN_MASK] = s->position;
	s->steps = DNS_NAME_STEPS_MAX;
	if (dns_name_parse(s)) {
		s->verdict = TG_DROP_DNS_ANSWER_MALFORMED;
		return 1;
	}
	s->name_ids[round & DNS_CHAIN_MASK] = dns_name_id(s);
	return 0;
}

/* Records what stands in `recordings`. A refusal is counted like that of an answer over UDP; keeping is not
 * refused, it only finds nothing to keep. */
static __always_inline verdict_t daemon_recording_write(void)
{
	struct recording_copy copy = {};
	__u32 zero = 0, index = DNS_SCRATCH_DAEMON;
	struct tg_recording *from;
	struct dns_scratch *s;
	verdict_t verdict;

	from = bpf_map_lookup_elem(&recordings, &zero);
	s = bpf_map_lookup_elem(&dns_scratches, &index);
	if (!from || !s)
		return TG_DROP_DNS_BINDING_FULL;
	if (!from->name_count || from->name_count > TG_DNS_ALIASES_MAX + 1 ||
	    from->names_length > TG_RECORDING_NAMES_BYTES || from->address_count > TG_RECORDING_ADDRESSES_MAX)
		return TG_DROP_DNS_ANSWER_MALFORMED;
	s->guest_id = from->guest_id;
	s->slot = from->slot;
	s->bindings_max = from->bindings_max;
	s->resolver = from->resolver;
	s->keep_until_ns = from->keep_until_ns;
	s->name_count = from->name_count;
	s->told_count = from->address_count;
	s->length = from->names_length;
	s->limit = from->names_length;
	s->position = 0;
	s->verdict = TG_DROP_NONE;
	copy.s = s;
	copy.from = from;
	bpf_loop(TG_RECORDING_NAMES_BYTES / RECORDING_COPY_BYTES, recording_names_step, &copy, 0);
	bpf_loop(TG_RECORDING_ADDRESSES_MAX, recording_addresses_step, &copy, 0);
	bpf_loop(TG_DNS_ALIASES_MAX + 1, recording_ids_step, &copy, 0);
	verdict = s->verdict;
	if (!verdict)
		verdict = dns_record(DNS_SCRATCH_DAEMON);
	if (verdict && !s->keep_until_ns)
		count_reason(s->slot, verdict);
	return verdict;
}

/*
 * Frees slots of one binding, and removes the entry once it has none: see struct tg_binding for why nobody
 * else may. What a slot said is forgotten at once; the daemon gives the quota back.
 */
static __always_inline int binding_forget(struct tg_forgetting *forgetting)
{
	struct tg_binding *binding = bpf_map_lookup_elem(&bindings, &forgetting->key);
	struct tg_bound_name *bound;
	__u32 i;

	if (!binding)
		return 0;
	bpf_spin_lock(&binding->lock);
	if (binding->dying || binding->key.guest_id != forgetting->key.guest_id ||
	    !address_equal(&binding->key.address, &forgetting->key.address)) {
		bpf_spin_unlock(&binding->lock);
		return 0;
	}
	for (i = 0; i < TG_NAMES_PER_ADDRESS; i++) {
		bound = &binding->names[i];
		if (!bound->name_id)
			continue;
		if (bound->expires_ns > forgetting->until_ns ||
		    (forgetting->name_id && bound->name_id != forgetting->name_id)) {
			forgetting->left++;
			continue;
		}
		forgetting->freed++;
		if (bound->expires_ns > forgetting->now_ns)
			forgetting->live++;
		bound->name_id = 0;
		bound->chain_id = 0;
		bound->expires_ns = 0;
		bound->told_ns = 0;
	}
	if (!forgetting->left)
		binding->dying = 1;
	bpf_spin_unlock(&binding->lock);
	if (!forgetting->left)
		bpf_map_delete_elem(&bindings, &forgetting->key);
	return TG_FORGOTTEN(forgetting->freed, forgetting->live);
}

#endif
