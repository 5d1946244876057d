/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef TAPGATE_TCP_REWRITE_H
#define TAPGATE_TCP_REWRITE_H

/*
 * What a splice does to a TCP header: memory in, memory out, so that tests can hold it against another
 * implementation. Which numbers it gets stands in lib/splice.bpf.h.
 */
#include <stdbool.h>
#include <linux/types.h>
#include <bpf/bpf_endian.h>

#define TG_INLINE static inline __attribute__((always_inline))

#define TG_TCP_SYN 0x02
#define TG_TCP_ACK 0x10

#define TG_TCP_OPTIONS_MAX 40 /* octets: the data offset has four bits */

/* tcphdr with the flags as a number. */
struct tcp_header {
	__be16 source_port;
	__be16 destination_port;
	__be32 sequence;
	__be32 acknowledgement;
	__u8 data_offset; /* high four bits, in words */
	__u8 flags;
	__be16 window;
	__be16 checksum;
	__be16 urgent;
};

/* A header with its options. There is room behind them so that an index of six bits and a field of eight
 * octets always lie inside, which is how the verifier is shown that they do. */
struct tg_tcp {
	struct tcp_header header;
	__u8 options[72];
	__u8 pad[4];
};

/* Where in `options` the values of an option begin; 0 if there is none. */
struct tg_tcp_options {
	__u32 timestamps; /* TSval, then TSecr (RFC 7323 3.2) */
	__u32 sack;	  /* the left edge of the first block (RFC 2018 3) */
	__u32 sack_edges; /* how many edges follow, two to a block */
	__u32 at;	  /* while they are looked for */
	__u32 length;
};

struct tg_rewrite {
	__u32 sequence;	       /* added */
	__u32 acknowledgement; /* subtracted, also from the edges of SACK blocks */
	__u32 tsval;	       /* added */
	__u32 tsecr;	       /* subtracted */
	__be16 source_port;    /* the new ones */
	__be16 destination_port;
	__u8 scale;	  /* of the window as it is */
	__u8 shown_scale; /* as which it will be read */
	__u8 no_echo;	  /* the other end's clock is not known yet: TSecr becomes 0, which is no timestamp */
	__u8 no_syn;	  /* clears SYN */
};

TG_INLINE __u32 tg_option_word(const struct tg_tcp *tcp, __u32 at)
{
	__be32 word;

	__builtin_memcpy(&word, &tcp->options[at & 63], sizeof(word));
	return bpf_ntohl(word);
}

TG_INLINE void tg_set_option_word(struct tg_tcp *tcp, __u32 at, __u32 value)
{
	__be32 word = bpf_htonl(value);

	__builtin_memcpy(&tcp->options[at & 63], &word, sizeof(word));
}

enum tg_option_step {
	TG_OPTION_NEXT,
	TG_OPTIONS_END,
	TG_OPTIONS_MALFORMED,
};

TG_INLINE enum tg_option_step tg_next_option(const struct tg_tcp *tcp, struct tg_tcp_options *found)
{
	__u32 at = found->at & 63;
	__u32 left = found->length - at;
	__u8 kind, size;

	if (at >= found->length || !tcp->options[at])
		return TG_OPTIONS_END;
	kind = tcp->options[at];
	if (kind == 1) {
		found->at = at + 1;
		return TG_OPTION_NEXT;
	}
	size = tcp->options[at + 1];
	if (left < 2 || size < 2 || size > left)
		return TG_OPTIONS_MALFORMED;
	if (kind == 8) {
		if (found->timestamps || size != 10)
			return TG_OPTIONS_MALFORMED;
		found->timestamps = at + 2;
	} else if (kind == 5) {
		if (found->sack || size < 10 || size > 34 || (size - 2) % 8)
			return TG_OPTIONS_MALFORMED;
		found->sack = at + 2;
		found->sack_edges = (size - 2) / 4;
	}
	found->at = at + size;
	return TG_OPTION_NEXT;
}

/*
 * Finds timestamps and SACK blocks among `length` octets of options, which end there or with an End of Option
 * List. False: the list is malformed, or one of the two is of a length that its RFC does not know, or there
 * twice.
 *
 *     option := 0 | 1 | kind(1) length(1, of all three) value                               RFC 9293 3.1
 */
TG_INLINE bool tg_find_options(const struct tg_tcp *tcp, __u32 length, struct tg_tcp_options *found)
{
	enum tg_option_step step = TG_OPTION_NEXT;
	int i;

	found->timestamps = found->sack = found->sack_edges = found->at = 0;
	found->length = length;
	for (i = 0; i <= TG_TCP_OPTIONS_MAX && step == TG_OPTION_NEXT; i++) {
		/* The verifier forgets what it knows of the position, or it would follow each one. */
		asm volatile("" ::: "memory");
		step = tg_next_option(tcp, found);
	}
	return step == TG_OPTIONS_END;
}

/* RFC 7323 2.2: a window is read shifted by the scale of the one who offers it. Rounds down, so that nobody
 * is told of room that is not there. */
TG_INLINE __u32 tg_rescale_window(__u32 window, __u8 scale, __u8 shown_scale)
{
	__u32 scaled = window << (scale & 15) >> (shown_scale & 15);

	return scaled > 0xffff ? 0xffff : scaled;
}

/* All but the checksum. `found` is what tg_find_options() said of the same header. */
TG_INLINE void tg_rewrite_tcp(struct tg_tcp *tcp, const struct tg_tcp_options *found,
			      const struct tg_rewrite *rewrite)
{
	struct tcp_header *header = &tcp->header;
	__u32 i;

	header->source_port = rewrite->source_port;
	header->destination_port = rewrite->destination_port;
	header->sequence = bpf_htonl(bpf_ntohl(header->sequence) + rewrite->sequence);
	if (header->flags & TG_TCP_ACK)
		header->acknowledgement =
		    bpf_htonl(bpf_ntohl(header->acknowledgement) - rewrite->acknowledgement);
	/* The window of a SYN is not scaled (RFC 7323 2.2). */
	if (!(header->flags & TG_TCP_SYN))
		header->window = bpf_htons(
		    tg_rescale_window(bpf_ntohs(header->window), rewrite->scale, rewrite->shown_scale));
	if (rewrite->no_syn)
		header->flags &= ~TG_TCP_SYN;
	if (found->timestamps) {
		__u32 tsecr = tg_option_word(tcp, found->timestamps + 4);

		tg_set_option_word(tcp, found->timestamps,
				   tg_option_word(tcp, found->timestamps) + rewrite->tsval);
		/* Without ACK it is not valid, and 0 is not a timestamp (RFC 7323 3.2). */
		if (tsecr)
			tg_set_option_word(tcp, found->timestamps + 4,
					   rewrite->no_echo ? 0 : tsecr - rewrite->tsecr);
	}
	for (i = 0; i < 8 && i < found->sack_edges; i++) {
		__u32 at = found->sack + 4 * i;

		tg_set_option_word(tcp, at, tg_option_word(tcp, at) - rewrite->acknowledgement);
	}
}

#endif
