/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef TAPGATE_POLICY_BPF_H
#define TAPGATE_POLICY_BPF_H

/*
 * The policy's verdict on the first packet of a flow, out of sets of rule groups (tapgate/bpf_abi.h).
 *
 * The service, the address and the live names bound to it each lead to a set; with
 *
 *     A, D   first group on addresses that allows, that denies       B   first group that allows a bound name
 *     X      first group that denies names                           f = min(A, D, B)
 *
 * A bound name brings the groups that match it, and those of option `cname` that match an alias between it
 * and this address. The verdict is: no f: the default, where allow waits for the name if there is an X; f is
 * B: defer; f is D: deny; f is A: allow, but defer if X < A. Protocols without a first flight have no names
 * to wait for: there groups that deny a bound name count like those that allow one, and the first of all
 * decides.
 *
 * All of it is read from one inner map, found once, so a verdict is of one generation. What cannot be read
 * there denies. As in lib/dns_name.bpf.h, state lives in a per-CPU value so that loops converge.
 */
#include "lib/guest.bpf.h"

#define NO_GROUP TG_NO_RULE_GROUP

/* Enough to search more ranges than TG_POLICY_BLOCKS_MAX holds. */
#define POLICY_SEARCH_STEPS 32

/* For each live name itself, its aliases, and the end of them. */
#define POLICY_LIVE_STEPS (TG_NAMES_PER_ADDRESS * (TG_DNS_ALIASES_MAX + 2))

/* The sets that a flow's service and address lead to, as numbers of blocks. */
struct policy_sets {
	__u32 service;
	__u32 block;
	__u32 inner_block; /* by the address that it translates to: those only ever deny */
	__u32 group;
};

struct policy_scratch {
	struct tg_binding_key binding_key;
	struct tg_address address; /* where the flow goes */
	struct tg_address inner;   /* what that translates to, if `embedded` */
	__u32 embedded;
	struct policy_sets sets;

	/* the range search */
	__u64 high;
	__u64 low;
	__u32 first_block;
	__u32 from;
	__u32 to;
	struct tg_policy_range range; /* what was found */

	/* the names */
	__u64 guest_id;
	__u64 generation;
	struct tg_policy_table names;
	__u32 suffix_labels;
	__u32 cname_set;
	__u32 name_set;
	struct tg_bound_name live[TG_NAMES_PER_ADDRESS]; /* the names bound to the address now */
	__u32 live_count;
	struct tg_name_key name_key;
	struct tg_chain_key chain_key;
	__u32 live_index;	      /* the one at hand */
	__u32 chain_index;	      /* 0: the name itself, else one of its aliases */
	struct tg_policy_set brought; /* groups that match it so far */

	__u32 is_tcp;		    /* has a first flight */
	__u32 broken;		    /* something was not where the head says */
	struct tg_policy_set named; /* groups that match a live name */
	__u32 first;		    /* group that decides */
	__u32 waiting;		    /* first group that denies names */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct policy_scratch);
} policy_scratches SEC(".maps");

/* What the callbacks work on; on the stack, since a bpf_loop() context must be. */
struct policy_context {
	void *policy; /* the inner map */
	struct policy_scratch *s;
	struct tg_name *name;
	__u64 name_id;
};

static __always_inline union tg_policy_block *policy_block(void *policy, __u32 number)
{
	return bpf_map_lookup_elem(policy, &number);
}

/* --- ranges -----------------------------------------------------------------------------------------------
 */

static __always_inline struct tg_policy_range *policy_range(void *policy, __u32 first_block, __u32 index)
{
	union tg_policy_block *block = policy_block(policy, first_block + index / TG_RANGES_PER_BLOCK);

	return block ? &block->ranges[index % TG_RANGES_PER_BLOCK] : NULL;
}

/* Halves [from, to). Returns 1 to stop. */
static long policy_search_step(__u32 round, void *data)
{
	struct policy_context *context = data;
	struct policy_scratch *s = context->s;
	struct tg_policy_range *range;
	__u32 middle;

	(void)round;
	if (s->to - s->from <= 1)
		return 1;
	middle = s->from + (s->to - s->from) / 2;
	range = policy_range(context->policy, s->first_block, middle);
	if (!range) {
		s->broken = 1;
		return 1;
	}
	if (range->high < s->high || (range->high == s->high && range->low <= s->low))
		s->from = middle;
	else
		s->to = middle;
	return 0;
}

/* Leaves in `range` the last range that begins at or before (high, low). */
static __always_inline void policy_find_range(struct policy_context *context,
					      const struct tg_policy_table *table, __u64 high, __u64 low)
{
	struct policy_scratch *s = context->s;
	struct tg_policy_range *found;

	s->high = high;
	s->low = low;
	s->first_block = table->first_block;
	s->from = 0;
	s->to = table->count;
	bpf_loop(POLICY_SEARCH_STEPS, policy_search_step, context, 0);
	found = policy_range(context->policy, s->first_block, s->from);
	if (found)
		s->range = *found;
	else
		s->broken = 1;
}

static __always_inline void policy_find_address(struct policy_context *context,
						const struct tg_policy_head *head,
						const struct tg_address *address)
{
	policy_find_range(context, &head->addresses, bpf_be64_to_cpu(address_word(address, 0)),
			  bpf_be64_to_cpu(address_word(address, 1)));
}

/* --- names ------------------------------------------------------------------------------------------------
 */

/* Finds the entry of `id` in one bucket, or NULL. */
static __always_inline struct tg_policy_name *policy_bucket_find(struct policy_context *context, __u32 bucket,
								 __u64 id)
{
	struct policy_scratch *s = context->s;
	union tg_policy_block *block =
	    policy_block(context->policy, s->names.first_block + (bucket & s->names.count));
	int i;

	if (!block) {
		s->broken = 1;
		return NULL;
	}
	for (i = 0; i < TG_NAMES_PER_BUCKET; i++) {
		if (block->names[i].name_id == id)
			return &block->names[i];
	}
	return NULL;
}

/* The name itself in round 0, then the zones around it, the longest first. Returns 1 to stop. */
static long policy_name_step(__u32 round, void *data)
{
	struct policy_context *context = data;
	struct policy_scratch *s = context->s;
	struct tg_name *name = context->name;
	struct tg_policy_name *entry;
	__u32 zone;
	__u64 id;

	if (!name || round > name->suffix_count)
		return 1;
	zone = name->suffix_count - round;
	/* The zone in place 0 has two labels. */
	if (round && zone + 2 > s->suffix_labels)
		return 0;
	id = round ? name->suffix_ids[zone & (TG_NAME_SUFFIXES_MAX - 1)] : context->name_id;
	entry = policy_bucket_find(context, id, id);
	if (!entry)
		entry = policy_bucket_find(context, id >> 32, id);
	if (!entry)
		return 0;
	s->name_set = round ? entry->suffix_set : entry->exact_set;
	return s->name_set != 0;
}

_Static_assert((TG_NAME_SUFFIXES_MAX & (TG_NAME_SUFFIXES_MAX - 1)) == 0, "an index is masked");

/* Finds the set of a name that the guest was told, and leaves it in `name_set`: 0 if the policy says nothing
 * of it. False if the name is not there. */
static __always_inline bool policy_judge_name(struct policy_context *context, __u64 id)
{
	struct policy_scratch *s = context->s;
	struct tg_name *name;
	__u64 judged;

	s->name_key.guest_id = s->guest_id;
	s->name_key.name_id = id;
	name = bpf_map_lookup_elem(&names, &s->name_key);
	if (!name)
		return false;
	judged = *(volatile __u64 *)&name->judged;
	if ((__u32)judged == (__u32)s->generation) {
		s->name_set = judged >> 32;
		return true;
	}
	s->name_set = 0;
	context->name = name;
	context->name_id = id;
	bpf_loop(1 + TG_NAME_SUFFIXES_MAX, policy_name_step, context, 0);
	if (!s->broken)
		*(volatile __u64 *)&name->judged = (__u64)s->name_set << 32 | (__u32)s->generation;
	return true;
}

/* Adds the groups of `name_set`: all of them for the name itself, those of option `cname` for an alias. */
static __always_inline void policy_add_groups(struct policy_context *context, bool is_alias)
{
	struct policy_scratch *s = context->s;
	union tg_policy_block *block, *counting;
	int i;

	if (!s->name_set)
		return;
	block = policy_block(context->policy, s->name_set);
	counting = policy_block(context->policy, is_alias ? s->cname_set : s->name_set);
	if (!block || !counting) {
		s->broken = 1;
		return;
	}
	for (i = 0; i < TG_SET_WORDS; i++)
		s->brought.words[i] |= block->set.words[i] & counting->set.words[i];
}

/* On to the next live name; what this one brought counts if all of it was there. */
static __always_inline void policy_live_done(struct policy_scratch *s, bool complete)
{
	int i;

	for (i = 0; i < TG_SET_WORDS; i++) {
		if (complete)
			s->named.words[i] |= s->brought.words[i];
		s->brought.words[i] = 0;
	}
	s->live_index++;
	s->chain_index = 0;
}

/* One live name, or one of its aliases: two loops in one, so as not to lie too deep on the stack. Returns 1
 * to stop. */
static long policy_live_step(__u32 round, void *data)
{
	struct policy_context *context = data;
	struct policy_scratch *s = context->s;
	struct tg_bound_name *live = &s->live[s->live_index & (TG_NAMES_PER_ADDRESS - 1)];
	struct tg_chain *chain = NULL;
	__u32 index = s->chain_index;
	__u64 id = live->name_id;

	(void)round;
	if (s->live_index >= s->live_count)
		return 1;
	/* A binding without its aliases or its name (the daemon is about to remove it) binds nothing. */
	if (live->chain_id && s->cname_set != TG_POLICY_EMPTY_SET) {
		s->chain_key.guest_id = s->guest_id;
		s->chain_key.chain_id = live->chain_id;
		chain = bpf_map_lookup_elem(&chains, &s->chain_key);
		if (!chain) {
			policy_live_done(s, false);
			return 0;
		}
	}
	if (index) {
		if (!chain || index > chain->alias_count) {
			policy_live_done(s, true);
			return 0;
		}
		id = chain->alias_ids[(index - 1) & (TG_DNS_ALIASES_MAX - 1)];
	}
	if (!policy_judge_name(context, id)) {
		policy_live_done(s, false);
		return 0;
	}
	policy_add_groups(context, index);
	s->chain_index = index + 1;
	return s->broken != 0;
}

_Static_assert((TG_DNS_ALIASES_MAX & (TG_DNS_ALIASES_MAX - 1)) == 0, "an index is masked");
_Static_assert((TG_NAMES_PER_ADDRESS & (TG_NAMES_PER_ADDRESS - 1)) == 0, "an index is masked");

static __always_inline void policy_note_live(struct policy_scratch *s)
{
	__u64 now = bpf_ktime_get_boot_ns();
	struct tg_binding *binding;
	__u32 i;

	s->live_count = 0;
	s->binding_key.guest_id = s->guest_id;
	s->binding_key.address = s->address;
	binding = bpf_map_lookup_elem(&bindings, &s->binding_key);
	if (!binding)
		return;
	bpf_spin_lock(&binding->lock);
	/* Removed since, and perhaps another entry by now: see struct tg_binding. */
	if (binding->dying || binding->key.guest_id != s->guest_id ||
	    !address_equal(&binding->key.address, &s->address)) {
		bpf_spin_unlock(&binding->lock);
		return;
	}
	binding->used_ns = now;
	for (i = 0; i < TG_NAMES_PER_ADDRESS; i++) {
		if (!binding->names[i].name_id || binding->names[i].expires_ns <= now)
			continue;
		s->live[s->live_count & (TG_NAMES_PER_ADDRESS - 1)] = binding->names[i];
		s->live_count++;
	}
	bpf_spin_unlock(&binding->lock);
}

/* --- addresses --------------------------------------------------------------------------------------------
 */

/* The IPv4 address that NAT64 (64:ff9b::/96, RFC 6052) or 6to4 (2002::/16, RFC 3056) translates to. */
static __always_inline bool embedded_v4(const struct tg_address *address, struct tg_address *inner)
{
	const __be32 *words = (const __be32 *)address->bytes;

	if (words[0] == bpf_htonl(0x0064ff9b) && !words[1] && !words[2]) {
		address_from_v4(inner, words[3]);
		return true;
	}
	if (address->bytes[0] == 0x20 && address->bytes[1] == 0x02) {
		address_from_v4(inner, bpf_htonl(bpf_ntohl(words[0]) << 16 | bpf_ntohl(words[1]) >> 16));
		return true;
	}
	return false;
}

/* ::, 0.0.0.0 and class E with the broadcast address. */
static __always_inline bool is_refused_address(const struct tg_address *address)
{
	if (!address_mapped(address))
		return address_unspecified(address);
	return !address_v4(address) || address->bytes[12] >= 0xf0;
}

static __always_inline bool is_host_address(const struct tg_guest *guest, const struct tg_address *address)
{
	return bpf_map_lookup_elem(&host_addresses, address) || guest_has_gateway(guest, address);
}

/* --- the verdict ------------------------------------------------------------------------------------------
 */

/* Of a word that is not zero. */
static __always_inline __u32 lowest_bit(__u64 word)
{
	__u64 below = (word & -word) - 1;

	/* The number of ones in `below`. */
	below -= below >> 1 & 0x5555555555555555ULL;
	below = (below & 0x3333333333333333ULL) + (below >> 2 & 0x3333333333333333ULL);
	below = (below + (below >> 4)) & 0x0f0f0f0f0f0f0f0fULL;
	return below * 0x0101010101010101ULL >> 56;
}

static __always_inline bool set_has(const struct tg_policy_set *set, __u32 group)
{
	return set->words[group / 64 & (TG_SET_WORDS - 1)] >> (group & 63) & 1;
}

/* This and policy_first_groups() are not inlined: the stack that they need is free while names are judged,
 * which goes deepest. */
static __noinline void policy_find_sets(struct policy_context *context, const struct tg_policy_head *head,
					const struct tg_guest *guest, const struct packet *packet)
{
	struct policy_scratch *s = context->s;
	struct policy_sets *sets = &s->sets;
	bool declared;

	policy_find_range(
	    context, &head->services, 0,
	    TG_SERVICE_KEY(TG_EGRESS, packet->flow.protocol, bpf_ntohs(packet->flow.peer_port)));
	sets->service = s->range.set;
	policy_find_address(context, head, &s->address);
	sets->block = s->range.block_set;
	sets->inner_block = TG_POLICY_EMPTY_SET;
	sets->group = s->range.set;
	if (s->embedded) {
		declared = s->range.flags & TG_RANGE_DECLARED;
		policy_find_address(context, head, &s->inner);
		sets->inner_block = s->range.block_set;
		if (s->range.flags & TG_RANGE_META || !declared)
			sets->group = s->range.set;
	}
	if (is_host_address(guest, &s->address) || (s->embedded && is_host_address(guest, &s->inner)))
		sets->group = head->host_set;
}

/* What policy_word_step() works on: the sets of the flow, and those of the policy. */
struct policy_words {
	struct policy_scratch *s;
	const struct tg_policy_set *service;
	const struct tg_policy_set *block;
	const struct tg_policy_set *inner_block;
	const struct tg_policy_set *group;
	const struct tg_policy_set *allow;
	const struct tg_policy_set *domain;
};

/* Looks for `first` and `waiting` in one word of the sets. Returns 1 to stop: what waits behind
 * the first group does not count. */
static long policy_word_step(__u32 round, void *data)
{
	struct policy_words *words = data;
	struct policy_scratch *s = words->s;
	__u32 i = round & (TG_SET_WORDS - 1);
	__u64 address, named, match, waiting;

	address = words->block->words[i] | words->group->words[i] |
		  (words->inner_block->words[i] & ~words->allow->words[i]);
	named = s->named.words[i];
	if (s->is_tcp)
		named &= words->allow->words[i];
	match = words->service->words[i] & (address | named);
	waiting = words->service->words[i] & words->domain->words[i] & ~words->allow->words[i];
	if (s->is_tcp && waiting && s->waiting == NO_GROUP)
		s->waiting = i * 64 + lowest_bit(waiting);
	if (!match)
		return 0;
	s->first = i * 64 + lowest_bit(match);
	return 1;
}

/* Finds `first` and `waiting`. */
static __noinline void policy_first_groups(struct policy_context *context, const struct tg_policy_set *allow,
					   const struct tg_policy_set *domain)
{
	struct policy_scratch *s = context->s;
	union tg_policy_block *service = policy_block(context->policy, s->sets.service);
	union tg_policy_block *block = policy_block(context->policy, s->sets.block);
	union tg_policy_block *inner_block = policy_block(context->policy, s->sets.inner_block);
	union tg_policy_block *group = policy_block(context->policy, s->sets.group);
	struct policy_words words = {.s = s, .allow = allow, .domain = domain};

	s->first = NO_GROUP;
	s->waiting = NO_GROUP;
	if (!service || !block || !inner_block || !group) {
		s->broken = 1;
		return;
	}
	words.service = &service->set;
	words.block = &block->set;
	words.inner_block = &inner_block->set;
	words.group = &group->set;
	bpf_loop(TG_SET_WORDS, policy_word_step, &words, 0);
}

static __always_inline void policy_conclude(const struct policy_scratch *s, const struct tg_policy_head *head,
					    const struct tg_policy_set *allow,
					    const struct tg_policy_set *domain,
					    struct tg_judgement *judgement)
{
	__u32 first = s->first, waiting = s->waiting;

	judgement->group = first;
	if (first == NO_GROUP ? !head->default_allows[TG_EGRESS] : !set_has(allow, first)) {
		judgement->verdict = TG_VERDICT_DENY;
	} else if (waiting < first) {
		judgement->verdict = TG_VERDICT_DEFER;
		judgement->group = waiting;
	} else if (s->is_tcp && first != NO_GROUP && set_has(domain, first)) {
		judgement->verdict = TG_VERDICT_DEFER;
	} else {
		judgement->verdict = TG_VERDICT_ALLOW;
	}
}

/*
 * Begins a judgement by the guest's policy: fills `context` in, and notes in `packet` which generation
 * judges. Returns the policy's head; NULL if the policy is not loaded or its tables are damaged.
 */
static __always_inline union tg_policy_block *policy_open(const struct tg_guest *guest, struct packet *packet,
							  struct policy_context *context)
{
	__u32 slot = guest->policy, zero = 0;
	union tg_policy_block *head;
	struct policy_scratch *s;

	packet->judgement.group = NO_GROUP;
	s = bpf_map_lookup_elem(&policy_scratches, &zero);
	context->s = s;
	context->policy = bpf_map_lookup_elem(&policies, &slot);
	if (!s || !context->policy)
		return NULL;
	head = policy_block(context->policy, 0);
	if (!head)
		return NULL;
	packet->judgement.generation = head->head.generation;
	s->broken = 0;
	s->names = head->head.names;
	s->suffix_labels = head->head.suffix_labels;
	return head;
}

/*
 * Judges the flow that `packet` begins, and notes the judgement in it. TG_DROP_NONE: allow or defer.
 *
 * Guest sees on a refusal: RST. Operator sees: policy-first-packet with the rule; refused-address; or
 * no-policy if the policy is not loaded or its tables are damaged.
 *
 * A global function: the verifier walks it once. Its arguments may not be keys of maps there (before 6.2).
 */
__noinline int policy_judge(const struct tg_guest *guest, struct packet *packet)
{
	union tg_policy_block *head, *allow, *domain;
	struct policy_context context = {};
	struct policy_scratch *s;
	int i;

	if (!guest || !packet)
		return TG_DROP_NO_POLICY;
	head = policy_open(guest, packet, &context);
	s = context.s;
	if (!head || !s)
		return TG_DROP_NO_POLICY;
	allow = policy_block(context.policy, head->head.allow_set);
	domain = policy_block(context.policy, head->head.domain_set);
	if (!allow || !domain)
		return TG_DROP_NO_POLICY;
	s->address = packet->flow.peer_address;
	s->embedded = embedded_v4(&s->address, &s->inner);
	if (is_refused_address(&s->address) || (s->embedded && is_refused_address(&s->inner))) {
		packet->judgement.verdict = TG_VERDICT_DENY;
		return TG_DROP_REFUSED_ADDRESS;
	}

	s->is_tcp = packet->flow.protocol == IPPROTO_TCP;
	s->guest_id = guest->id;
	s->generation = head->head.generation;
	s->cname_set = head->head.cname_set;
	for (i = 0; i < TG_SET_WORDS; i++) {
		s->named.words[i] = 0;
		s->brought.words[i] = 0;
	}
	s->live_index = 0;
	s->chain_index = 0;
	policy_find_sets(&context, &head->head, guest, packet);
	policy_note_live(s);
	bpf_loop(POLICY_LIVE_STEPS, policy_live_step, &context, 0);
	policy_first_groups(&context, &allow->set, &domain->set);
	if (s->broken)
		return TG_DROP_NO_POLICY;
	policy_conclude(s, &head->head, &allow->set, &domain->set, &packet->judgement);
	return packet->judgement.verdict == TG_VERDICT_DENY ? TG_DROP_POLICY_FIRST_PACKET : TG_DROP_NONE;
}

/* --- questions --------------------------------------------------------------------------------------------
 */

/* What policy_question_step() works on. */
struct policy_question_sets {
	struct policy_scratch *s;
	const struct tg_policy_set *every; /* the groups that meet every query */
	const struct tg_policy_set *named; /* those that match the name, */
	const struct tg_policy_set *names; /* of which these count for queries */
	const struct tg_policy_set *cname;
	const struct tg_policy_set *allow;
};

/* Looks for `first` and `waiting` in one word of the sets. Returns 1 to stop. */
static long policy_question_step(__u32 round, void *data)
{
	struct policy_question_sets *sets = data;
	struct policy_scratch *s = sets->s;
	__u32 i = round & (TG_SET_WORDS - 1);
	__u64 match, waiting;

	match = sets->every->words[i] | (sets->named->words[i] & sets->names->words[i]);
	waiting = sets->cname->words[i] & sets->names->words[i] & sets->allow->words[i];
	if (waiting && s->waiting == NO_GROUP)
		s->waiting = i * 64 + lowest_bit(waiting);
	if (!match)
		return 0;
	s->first = i * 64 + lowest_bit(match);
	return 1;
}

/*
 * Judges the question for the name `name_id`, of which `name` needs to hold the zones around it, and notes
 * the judgement in `packet`: as policy::decide_query() does, but where an alias that is not known yet could
 * still bring about an allow rule before the one that denies, the verdict is defer. TG_DROP_NONE: allow or
 * defer.
 *
 * Guest sees on a refusal: NXDOMAIN, or SERVFAIL without a policy. Operator sees: dns-policy with the name
 * and the rule; or no-policy.
 *
 * A global function: the verifier walks it once.
 */
__noinline int policy_judge_question(const struct tg_guest *guest, struct tg_name *name, __u64 name_id,
				     struct packet *packet)
{
	union tg_policy_block *head, *every, *named, *names, *cname, *allow;
	struct policy_question_sets sets = {};
	struct policy_context context = {};
	struct policy_scratch *s;
	bool allowed;

	if (!guest || !name || !packet)
		return TG_DROP_NO_POLICY;
	head = policy_open(guest, packet, &context);
	s = context.s;
	if (!head || !s)
		return TG_DROP_NO_POLICY;
	s->name_set = 0;
	context.name = name;
	context.name_id = name_id;
	bpf_loop(1 + TG_NAME_SUFFIXES_MAX, policy_name_step, &context, 0);
	every = policy_block(context.policy, head->head.query_set);
	named = policy_block(context.policy, s->name_set ? s->name_set : TG_POLICY_EMPTY_SET);
	names = policy_block(context.policy, head->head.query_name_set);
	cname = policy_block(context.policy, head->head.cname_set);
	allow = policy_block(context.policy, head->head.allow_set);
	if (s->broken || !every || !named || !names || !cname || !allow)
		return TG_DROP_NO_POLICY;
	sets.s = s;
	sets.every = &every->set;
	sets.named = &named->set;
	sets.names = &names->set;
	sets.cname = &cname->set;
	sets.allow = &allow->set;
	s->first = NO_GROUP;
	s->waiting = NO_GROUP;
	bpf_loop(TG_SET_WORDS, policy_question_step, &sets, 0);

	packet->judgement.group = s->first;
	allowed =
	    s->first == NO_GROUP ? head->head.default_allows[TG_EGRESS] : set_has(&allow->set, s->first);
	if (allowed) {
		packet->judgement.verdict = TG_VERDICT_ALLOW;
		return TG_DROP_NONE;
	}
	if (s->waiting < s->first) {
		packet->judgement.verdict = TG_VERDICT_DEFER;
		packet->judgement.group = s->waiting;
		return TG_DROP_NONE;
	}
	packet->judgement.verdict = TG_VERDICT_DENY;
	return TG_DROP_DNS_POLICY;
}

/*
 * Copies the OPT record for the answer to a denied name, at most `TG_DENIAL_BLOCKS` blocks of it, to `to`,
 * and returns its length; 0 if there is none. It may be of a later generation than the judgement.
 */
static __always_inline __u32 policy_denial_record(const struct tg_guest *guest, __u64 *to)
{
	union tg_policy_block *head, *block;
	__u32 slot = guest->policy, i, j;
	void *policy = bpf_map_lookup_elem(&policies, &slot);

	head = policy ? policy_block(policy, 0) : NULL;
	if (!head)
		return 0;
	for (i = 0; i < TG_DENIAL_BLOCKS; i++) {
		block = policy_block(policy, head->head.denial_block + i);
		if (!block)
			return 0;
#pragma unroll
		for (j = 0; j < sizeof(*block) / sizeof(__u64); j++)
			to[i * (sizeof(*block) / sizeof(__u64)) + j] = ((const __u64 *)block->bytes)[j];
	}
	return head->head.denial_length;
}

#endif
