/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef TAPGATE_SIPHASH_H
#define TAPGATE_SIPHASH_H

/* SipHash-2-4 (Aumasson and Bernstein, 2012), one word at a time: the hash of name ids (tapgate/bpf_abi.h),
 * which BPF makes of names on the wire and the daemon of names in policies. */
#include <linux/types.h>

#define TG_INLINE static inline __attribute__((always_inline))

struct tg_siphash {
	__u64 v0, v1, v2, v3;
};

TG_INLINE __u64 tg_rotate_left(__u64 value, int bits)
{
	return value << bits | value >> (64 - bits);
}

TG_INLINE void tg_siphash_round(struct tg_siphash *s)
{
	s->v0 += s->v1;
	s->v1 = tg_rotate_left(s->v1, 13) ^ s->v0;
	s->v0 = tg_rotate_left(s->v0, 32);
	s->v2 += s->v3;
	s->v3 = tg_rotate_left(s->v3, 16) ^ s->v2;
	s->v0 += s->v3;
	s->v3 = tg_rotate_left(s->v3, 21) ^ s->v0;
	s->v2 += s->v1;
	s->v1 = tg_rotate_left(s->v1, 17) ^ s->v2;
	s->v2 = tg_rotate_left(s->v2, 32);
}

TG_INLINE void tg_siphash_start(struct tg_siphash *s, __u64 k0, __u64 k1)
{
	s->v0 = k0 ^ 0x736f6d6570736575ULL;
	s->v1 = k1 ^ 0x646f72616e646f6dULL;
	s->v2 = k0 ^ 0x6c7967656e657261ULL;
	s->v3 = k1 ^ 0x7465646279746573ULL;
}

TG_INLINE void tg_siphash_word(struct tg_siphash *s, __u64 little_endian_word)
{
	s->v3 ^= little_endian_word;
	tg_siphash_round(s);
	tg_siphash_round(s);
	s->v0 ^= little_endian_word;
}

/* `rest` holds the bytes behind the last whole word, first octet lowest. */
TG_INLINE __u64 tg_siphash_finish(struct tg_siphash *s, __u64 rest, __u32 length)
{
	tg_siphash_word(s, rest | (__u64)length << 56);
	s->v2 ^= 0xff;
	tg_siphash_round(s);
	tg_siphash_round(s);
	tg_siphash_round(s);
	tg_siphash_round(s);
	return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

#endif
