/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef TAPGATE_DNS_NAME_BPF_H
#define TAPGATE_DNS_NAME_BPF_H

/*
 * Names of a DNS message: decompression, name ids, text.
 *
 * All state of the parser lives in one per-CPU map value and none on the stack: what the verifier loads from
 * a map is unknown to it, so the states of all loop rounds are the same and each callback is walked once. The
 * bpf_loop() callbacks get a pointer to a pointer because their context must lie on the stack.
 *
 * The scratch value belongs to the packet at hand: tc programs run with bottom halves off, so no other packet
 * comes in between on the same CPU. (PREEMPT_RT does not give that; see README.md.)
 */
#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "lib/maps.bpf.h"
#include "tapgate/siphash.h"

#define DNS_HEADER_SIZE	 12
#define DNS_NAME_MAX	 TG_DNS_NAME_MAX
#define DNS_LABEL_MAX	 63
#define DNS_LABELS_MAX	 127  /* of one octet each */
#define DNS_POINTER_BITS 0xc0 /* RFC 1035 4.1.4 */

/* Labels (at most 127), pointers between them and the root of one name; pointers go backwards only, each to
 * a label, so that more steps cannot be of use. */
#define DNS_NAME_STEPS_MAX 256

/* Buffers are read and written by whole words at masked offsets: sizes are powers of two, plus slack for the
 * 64 octets copied from the last offset. */
#define DNS_PACKET_MASK 8191
#define DNS_NAME_MASK	255
#define DNS_TEXT_MASK	1023
#define DNS_COPY_BYTES	64

#define DNS_CHAIN_MASK 31 /* of arrays that hold a name and its aliases */

_Static_assert(TG_DNS_ALIASES_MAX + 1 <= DNS_CHAIN_MASK + 1, "an index is masked");
_Static_assert(TG_RECORDING_NAMES_BYTES <= DNS_PACKET_MASK + 1, "names to be recorded go where packets do");

/* A CNAME, A, AAAA, SVCB or HTTPS record of class IN in the answer section. */
struct dns_record {
	__u64 owner_id;
	__u64 target_id; /* CNAME: of the name it points to */
	__u32 ttl_seconds;
	__u16 type;
	__u16 target_offset; /* CNAME: where that name stands */
	/* the addresses in it: one of an A or AAAA record, hints of the others */
	__u16 v4_offset;
	__u16 v4_count;
	__u16 v6_offset;
	__u16 v6_count;
};

/* What a label looks like so far, to tell numbers from names (WHATWG URL 3.5). */
enum dns_label_shape {
	LABEL_EMPTY,
	LABEL_ZERO,   /* "0" */
	LABEL_DIGITS, /* a decimal number */
	LABEL_HEX,    /* "0x" and hexadecimal digits or nothing */
	LABEL_NAME,
	LABEL_FOREIGN, /* has octets that no host name has */
};

struct dns_scratch {
	__u8 packet[DNS_PACKET_MASK + 1 + DNS_COPY_BYTES];
	__u8 name[DNS_NAME_MASK + 1 + DNS_COPY_BYTES]; /* wire form without compression */
	__u8 text[DNS_TEXT_MASK + 1];
	struct dns_record records[TG_DNS_ANSWERS_MAX];
	struct tg_name new_name;
	struct tg_chain new_chain;
	__u64 new_binding[sizeof(struct tg_binding) /
			  sizeof(__u64)]; /* bytes: per-CPU maps take no spin lock */

	/* the name parser: where it reads, and the offset that it must not read at */
	__u32 position;
	__u32 limit;
	__u32 run_start;   /* where the labels being read began: pointers lead before it */
	__u32 end;	   /* behind the name where it was read, 0 = no pointer followed yet */
	__u32 name_length; /* of `name` */
	__u32 steps;	   /* left for the message */
	__u32 parsed;	   /* the name is complete */

	/* the writers of text and ids */
	__u32 text_length;
	__u32 next_label;
	__u32 label_count;
	__u32 id_start;

	/* the message */
	__u32 length;
	__u32 rcode;
	__u32 question_type;
	__u64 question_id;
	__u32 binds; /* its addresses are to be bound */
	__u32 answer_count;
	__u32 total_count;
	__u32 record_index;
	__u32 record_count; /* used entries of `records` */

	/* the parameters of a SVCB or HTTPS record */
	__u32 next_key; /* the least that may follow */
	__u32 params_done;
	__u32 v4_offset;
	__u32 v4_count;
	__u32 v6_offset;
	__u32 v6_count;

	/* the walk along the aliases */
	__u32 chain_done;
	__u64 current_id;
	__u64 next_id;
	__u32 next_offset;
	__u32 chain_ttl_seconds;
	__u32 next_ttl_seconds;
	__u32 aliases_found;
	__u32 others_found; /* records that may not stand beside a CNAME */

	/* the addresses of the last name being gathered: one list of a record */
	__u32 list_offset;
	__u32 list_count;
	__u32 list_size; /* of one address */
	__u32 list_ttl_seconds;
	__u32 too_many;

	/* what is to be recorded (lib/dns_record.bpf.h) */
	__u64 guest_id;
	__u32 slot;
	__u32 bindings_max;
	struct tg_address resolver;
	__u64 keep_until_ns;
	__u64 name_ids[DNS_CHAIN_MASK + 1];	/* the question name, then its aliases */
	__u32 name_offsets[DNS_CHAIN_MASK + 1]; /* where they stand in `packet` */
	__u32 name_count;
	__u32 told_count;
	struct tg_told_address told[TG_RECORDING_ADDRESSES_MAX];

	/* the recording */
	struct tg_binding_key binding_key;
	__u64 chain_id;
	__u64 now_ns;
	__u64 until_ns;	  /* what the names and the chain are needed for */
	__u64 latest_ns;  /* when the last of the bindings ends */
	__u64 expires_ns; /* of the binding at hand */
	__u32 free_index;
	__u32 expired_index;
	__u32 verdict;

	/* the query, as far as its refusal needs it */
	__u32 question_end; /* offset behind the question, 0 = it is not to be echoed */
	__u32 has_edns;
	__u32 dnssec_ok;
	__u32 options_end;
	enum dns_label_shape label_shape; /* of the label being looked at */
	__u32 pad;
};

/* One value for the packet at hand, and one for what the daemon has recorded: that runs in a process, which
 * packets interrupt. */
enum dns_scratch_index {
	DNS_SCRATCH_PACKET,
	DNS_SCRATCH_DAEMON,
	DNS_SCRATCHES,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DNS_SCRATCHES);
	__type(key, __u32);
	__type(value, struct dns_scratch);
} dns_scratches SEC(".maps");

static __always_inline struct dns_scratch *dns_scratch_get(void)
{
	__u32 index = DNS_SCRATCH_PACKET;

	return bpf_map_lookup_elem(&dns_scratches, &index);
}

/* The compiler must not see through the masks, or it drops them where it can prove a bound that the verifier
 * cannot. */
static __always_inline __u8 dns_octet(const struct dns_scratch *s, __u32 offset)
{
	return s->packet[offset & DNS_PACKET_MASK];
}

static __always_inline __u16 dns_u16(const struct dns_scratch *s, __u32 offset)
{
	return (__u16)dns_octet(s, offset) << 8 | dns_octet(s, offset + 1);
}

static __always_inline __u32 dns_u32(const struct dns_scratch *s, __u32 offset)
{
	return (__u32)dns_u16(s, offset) << 16 | dns_u16(s, offset + 2);
}

/* One label, pointer or root. Returns 1 to stop. */
static long dns_name_step(__u32 round, void *context)
{
	struct dns_scratch *s = *(struct dns_scratch **)context;
	__u32 position = s->position;
	__u32 octet, target, i;
	__u64 *from, *to;

	(void)round;
	if (!s->steps || position >= s->limit)
		return 1;
	s->steps--;
	octet = dns_octet(s, position);
	if (octet > DNS_LABEL_MAX) {
		if (octet < DNS_POINTER_BITS || position + 2 > s->limit)
			return 1;
		target = (octet & ~DNS_POINTER_BITS) << 8 | dns_octet(s, position + 1);
		if (target < DNS_HEADER_SIZE || target >= s->run_start)
			return 1;
		if (!s->end)
			s->end = position + 2;
		s->run_start = target;
		s->position = target;
		return 0;
	}
	if (s->name_length + 1 + octet > DNS_NAME_MAX || position + 1 + octet > s->limit)
		return 1;
	from = (__u64 *)&s->packet[position & DNS_PACKET_MASK];
	to = (__u64 *)&s->name[s->name_length & DNS_NAME_MASK];
#pragma unroll
	for (i = 0; i < DNS_COPY_BYTES / sizeof(__u64); i++)
		to[i] = from[i];
	s->name_length += 1 + octet;
	s->position = position + 1 + octet;
	if (octet)
		return 0;
	if (!s->end)
		s->end = s->position;
	s->parsed = 1;
	return 1;
}

/*
 * Reads the name at `position` into `name` and moves `position` behind it. Nothing at or behind `limit` is
 * read. Returns 0, or -1 if it is malformed or the budget of steps is used up.
 *
 *     name    := (label* 0x00) | (label* pointer)                                          RFC
 * 1035 3.1, 4.1.4 label   := length(1..63) octet{length} pointer := 11 offset(14 bits): strictly backwards,
 * behind the header, so that loops are impossible
 *
 * A global function: the verifier walks it once.
 */
__noinline int dns_name_parse(struct dns_scratch *s)
{
	struct dns_scratch *context = s;

	if (!s)
		return -1;
	s->run_start = s->position;
	s->end = 0;
	s->name_length = 0;
	s->parsed = 0;
	bpf_loop(DNS_NAME_STEPS_MAX, dns_name_step, &context, 0);
	s->position = s->end;
	return s->parsed ? 0 : -1;
}

/* ASCII upper case to lower case in eight octets at once. Length octets are at most 63 and so untouched. */
static __always_inline __u64 lower_case(__u64 word)
{
	const __u64 ones = 0x0101010101010101ULL;
	__u64 low = word & ones * 0x7f;
	__u64 from_a = low + ones * (0x80 - 'A');
	__u64 past_z = low + ones * (0x7f - 'Z');
	__u64 upper = (from_a & ~past_z & ~word) & ones * 0x80;

	return word | upper >> 2;
}

/* Folds the parsed name from octet `id_start` on to lower case and returns the id of that part
 * (tapgate/bpf_abi.h); 0 is not an id. */
__noinline __u64 dns_part_id(struct dns_scratch *s)
{
	__u32 start, length, zero = 0, i;
	struct tg_hash_key *key;
	struct tg_siphash hash;
	__u64 *word, rest;

	if (!s)
		return 0;
	key = bpf_map_lookup_elem(&hash_key, &zero);
	if (!key)
		return 0;
	tg_siphash_start(&hash, key->k0, key->k1);
	start = s->id_start;
	length = s->name_length - start;
	for (i = 0; i < (DNS_NAME_MAX + 1) / sizeof(__u64); i++) {
		if ((i + 1) * sizeof(__u64) > length)
			break;
		word = (__u64 *)&s->name[(start + i * sizeof(__u64)) & DNS_NAME_MASK];
		*word = lower_case(*word);
		tg_siphash_word(&hash, *word);
	}
	/* Read again, as an unknown: of the one above the verifier has learned something else at each way out
	 * of the loop, and would walk the rest once for each. */
	asm volatile("" ::: "memory");
	length = s->name_length - start;
	word = (__u64 *)&s->name[(start + (length & ~7)) & DNS_NAME_MASK];
	*word = lower_case(*word);
	rest = *word & ((1ULL << (length & 7) * 8) - 1);
	rest = tg_siphash_finish(&hash, rest, length);
	/* Slots of a binding use 0 for "free"; one name in 2^64 shares an id with another. */
	return rest ? rest : 1;
}

/* The id of the parsed name. */
static __always_inline __u64 dns_name_id(struct dns_scratch *s)
{
	s->id_start = 0;
	return dns_part_id(s);
}

/* One label. Returns 1 to stop. */
static long dns_count_step(__u32 round, void *context)
{
	struct dns_scratch *s = *(struct dns_scratch **)context;
	__u8 octet = s->name[s->next_label & DNS_NAME_MASK];

	(void)round;
	if (!octet)
		return 1;
	s->next_label += 1 + octet;
	s->label_count++;
	return 0;
}

/* Round r steps over a label, and notes the id of what is left. Returns 1 to stop. */
static long dns_suffix_step(__u32 round, void *context)
{
	struct dns_scratch *s = *(struct dns_scratch **)context;
	__u8 octet = s->name[s->id_start & DNS_NAME_MASK];
	__u32 left = s->label_count - round - 1;

	if (!octet || left < 2 || left > DNS_LABELS_MAX)
		return 1;
	s->id_start += 1 + octet;
	if (left - 2 < TG_NAME_SUFFIXES_MAX)
		s->new_name.suffix_ids[(left - 2) & (TG_NAME_SUFFIXES_MAX - 1)] = dns_part_id(s);
	return 0;
}

/* Writes the ids of the zones around the parsed name, after dns_name_id(), to `new_name`. */
__noinline int dns_name_suffixes(struct dns_scratch *s)
{
	struct dns_scratch *context = s;
	__u32 zones;

	if (!s)
		return -1;
	s->next_label = 0;
	s->label_count = 0;
	bpf_loop(DNS_LABELS_MAX + 1, dns_count_step, &context, 0);
	s->id_start = 0;
	bpf_loop(DNS_LABELS_MAX + 1, dns_suffix_step, &context, 0);
	zones = s->label_count > 2 ? s->label_count - 2 : 0;
	s->new_name.suffix_count = zones < TG_NAME_SUFFIXES_MAX ? zones : TG_NAME_SUFFIXES_MAX;
	s->new_name.judged = 0;
	return 0;
}

static __always_inline bool is_plain_octet(__u8 octet)
{
	return (octet >= 'a' && octet <= 'z') || (octet >= '0' && octet <= '9') || octet == '-' ||
	       octet == '_';
}

static __always_inline enum dns_label_shape dns_label_goes_on(enum dns_label_shape shape, __u8 octet)
{
	bool digit = octet >= '0' && octet <= '9';

	if (!is_plain_octet(octet))
		return LABEL_FOREIGN;
	switch (shape) {
	case LABEL_EMPTY:
		return octet == '0' ? LABEL_ZERO : digit ? LABEL_DIGITS : LABEL_NAME;
	case LABEL_ZERO:
		return digit ? LABEL_DIGITS : octet == 'x' ? LABEL_HEX : LABEL_NAME;
	case LABEL_DIGITS:
		return digit ? LABEL_DIGITS : LABEL_NAME;
	case LABEL_HEX:
		return digit || (octet >= 'a' && octet <= 'f') ? LABEL_HEX : LABEL_NAME;
	case LABEL_NAME:
	case LABEL_FOREIGN:
		break;
	}
	return LABEL_NAME;
}

/* One octet of `name`, which is in lower case. Returns 1 to stop. */
static long dns_host_name_step(__u32 round, void *context)
{
	struct dns_scratch *s = *(struct dns_scratch **)context;
	__u8 octet = s->name[round & DNS_NAME_MASK];

	if (round == s->next_label) {
		if (!octet)
			return 1;
		s->next_label += 1 + octet;
		s->label_shape = LABEL_EMPTY;
		return 0;
	}
	s->label_shape = dns_label_goes_on(s->label_shape, octet);
	return s->label_shape == LABEL_FOREIGN;
}

/* Whether the parsed name, after dns_name_id(), is one that policy::Name::from_wire() takes: labels of
 * letters, digits, '-' and '_', of which the last one is no number. */
__noinline int dns_name_is_host_name(struct dns_scratch *s)
{
	struct dns_scratch *context = s;

	if (!s)
		return 0;
	s->next_label = 0;
	s->label_shape = LABEL_EMPTY;
	bpf_loop(DNS_NAME_MAX, dns_host_name_step, &context, 0);
	return s->label_shape == LABEL_NAME;
}

static __always_inline void put_text(struct dns_scratch *s, __u8 octet)
{
	s->text[s->text_length & DNS_TEXT_MASK] = octet;
	s->text_length++;
}

/* One octet of `name`, which is in lower case. Returns 1 to stop. */
static long dns_text_step(__u32 round, void *context)
{
	struct dns_scratch *s = *(struct dns_scratch **)context;
	__u8 octet = s->name[round & DNS_NAME_MASK];

	if (round == s->next_label) {
		if (!octet || s->text_length > DNS_NAME_MAX)
			return 1;
		s->next_label += 1 + octet;
		if (round)
			put_text(s, '.');
		return 0;
	}
	if (is_plain_octet(octet)) {
		put_text(s, octet);
		return 0;
	}
	/* A dot inside a label must not look like one between labels: \DDD (RFC 1035 5.1). */
	put_text(s, '\\');
	put_text(s, '0' + octet / 100);
	put_text(s, '0' + octet / 10 % 10);
	put_text(s, '0' + octet % 10);
	return 0;
}

/* Writes the text of the parsed name, after dns_name_id(), to `new_name`; the root is ".". Returns -1 if it
 * is longer than 253 octets, which only a name full of escapes can be. */
__noinline int dns_name_text(struct dns_scratch *s)
{
	struct dns_scratch *context = s;
	__u64 *to;
	__u32 i;

	if (!s)
		return -1;
	to = (__u64 *)s->text;
	for (i = 0; i < (DNS_NAME_MAX + 1) / sizeof(__u64); i++)
		to[i] = 0;
	s->text_length = 0;
	s->next_label = 0;
	bpf_loop(DNS_NAME_MAX, dns_text_step, &context, 0);
	if (!s->text_length)
		put_text(s, '.');
	if (s->text_length >= TG_NAME_TEXT_MAX)
		return -1;
	s->new_name.length = s->text_length;
	__builtin_memcpy(s->new_name.text, s->text, TG_NAME_TEXT_MAX);
	return 0;
}

#endif
