/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef TAPGATE_BPF_ABI_H
#define TAPGATE_BPF_ABI_H

/*
 * Everything BPF and userspace share: keys, values and limits of the maps. The only header on both sides.
 *
 * Addresses are 16 bytes in network order, IPv4 as ::ffff:a.b.c.d, so that there is one code path. Times are
 * CLOCK_BOOTTIME nanoseconds. Fields named __be16 are in network order; all else is host order. All padding
 * is explicit and zero, since keys are compared as bytes.
 */
#include <linux/types.h>

#include "tapgate/drop_reason.h"

#ifdef __cplusplus
#define TG_ASSERT_SIZE(type, size) static_assert(sizeof(type) == (size), #type)
#else
#define TG_ASSERT_SIZE(type, size) _Static_assert(sizeof(type) == (size), #type)
#endif

/* Bumped when a map's key, value or meaning changes; pinned maps of another version are not adopted. */
#define TG_ABI_VERSION 1

enum {
	TG_GUESTS_MAX = 4096,
	TG_GUEST_ADDRESSES = 8,	 /* addresses of one guest, IPv4 and IPv6 together */
	TG_GUEST_GATEWAYS = 4,	 /* addresses by which one guest knows its host */
	TG_WORKERS_MAX = 64,
	TG_PENDING_MAX = 65536,	 /* half-open connections of all guests */
	TG_DNS_PENDING_MAX = 65536, /* DNS queries in flight of all guests */
	TG_NAMES_MAX = 262144,	 /* names that all guests were told */
	TG_BINDINGS_MAX = 262144, /* (guest, address) pairs */
	TG_NAMES_PER_ADDRESS = 32, /* names of one guest bound to one address; more are refused */
	TG_NAME_TEXT_MAX = 254,	 /* 253 octets (RFC 1035 2.3.4 without the root) and a NUL */
	TG_DNS_ANSWERS_MAX = 32, /* records in the answer section; longer answers are malformed */
	TG_DNS_RECORDS_MAX = 64, /* records in all sections */
	TG_DNS_ALIASES_MAX = 16, /* CNAMEs from the question name to its addresses */
	TG_DNS_STEPS_MAX = 1024, /* labels, pointers and roots in one message */
	TG_DNS_PAYLOAD_MAX = 1232, /* DNS over UDP, fits one packet of any path (DNS flag day 2020) */
	TG_DNS_PENDING_SECONDS = 10, /* an answer later than this is not delivered */
	TG_EVENTS_BYTES = 1 << 20,
	TG_EVENTS_PER_SECOND = 128, /* drop events of one guest; the rest are only counted */
};

/* Aligned so that BPF compares and hashes addresses as two words. */
struct tg_address {
	__u8 bytes[16];
} __attribute__((aligned(8)));
TG_ASSERT_SIZE(struct tg_address, 16);

/* guests: ifindex (__u32) -> who may send from that interface. Written by the daemon. */
struct tg_guest {
	__u64 id;   /* never used twice while the host is up */
	__u32 slot; /* index into guest_state and guest_drops */
	__u32 half_open_max;
	__u32 dns_pending_max;
	__u32 bindings_max;
	__u8 mac[6]; /* all zero: learned from the first packet with a source address of the guest */
	__u8 address_count;
	__u8 gateway_count;
	struct tg_address addresses[TG_GUEST_ADDRESSES];
	struct tg_address gateways[TG_GUEST_GATEWAYS];
};
TG_ASSERT_SIZE(struct tg_guest, 32 + 16 * 12);

/*
 * guest_state: slot -> what changes while a guest runs. Memory-mapped by the daemon; every field is changed
 * with atomic operations on both sides.
 */
struct tg_guest_state {
	__u64 mac;	   /* learned MAC in the low 48 bits, first octet lowest; 0 = none yet */
	__u32 half_open;   /* entries of `pending`: BPF adds, the daemon subtracts */
	__u32 dns_pending; /* entries of `dns_pending`: BPF adds and subtracts, the daemon sweeps expired ones */
	__u32 bindings;	   /* (address, name) pairs: BPF adds, the daemon subtracts when it sweeps */
	__u32 event_count; /* drop events sent in event_second */
	__u64 event_second;
};
TG_ASSERT_SIZE(struct tg_guest_state, 32);

/* The guest's view of a flow: the key of `pending`. Guests' addresses are unique, so no guest id is needed. */
struct tg_flow {
	struct tg_address guest_address;
	struct tg_address peer_address;
	__be16 guest_port;
	__be16 peer_port;
	__u8 protocol;
	__u8 pad[3];
};
TG_ASSERT_SIZE(struct tg_flow, 40);

/*
 * pending: flow -> proof that its SYN came through a guest's tap. Written by tap_ingress, taken by the daemon
 * at accept, swept when the handshake never completes.
 */
struct tg_pending {
	__u64 guest_id;
	__u64 created_ns;
	__u32 slot;
	__u32 ifindex;
};
TG_ASSERT_SIZE(struct tg_pending, 24);

/* dns_pending: a question that a guest asked and that was given to the daemon. */
struct tg_dns_key {
	__u64 guest_id;
	struct tg_address guest_address;
	struct tg_address server_address; /* whom the guest believes it asked */
	__be16 guest_port;
	__be16 id; /* as on the wire */
	__u32 pad;
};
TG_ASSERT_SIZE(struct tg_dns_key, 48);

struct tg_dns_question {
	__u64 name_id; /* tg_name_id of the question name */
	__u64 expires_ns;
	__u16 type; /* host order */
	__u8 pad[6];
};
TG_ASSERT_SIZE(struct tg_dns_question, 24);

/*
 * names: (guest, name id) -> the name. A name id is SipHash-2-4, under a key made when the maps are created,
 * of the lower-cased wire form of the name including the root octet.
 */
struct tg_hash_key { /* hash_key: its only value; random, written once, when the map is made */
	__u64 k0;
	__u64 k1;
};
TG_ASSERT_SIZE(struct tg_hash_key, 16);

struct tg_name_key {
	__u64 guest_id;
	__u64 name_id;
};
TG_ASSERT_SIZE(struct tg_name_key, 16);

struct tg_name {
	__u16 length;			/* of text, without the NUL */
	char text[TG_NAME_TEXT_MAX];	/* lower case, dots between labels, NUL-terminated */
};
TG_ASSERT_SIZE(struct tg_name, 256);

/* bindings: (guest, address) -> the names that a trusted resolver gave this address. */
struct tg_binding_key {
	__u64 guest_id;
	struct tg_address address;
};
TG_ASSERT_SIZE(struct tg_binding_key, 24);

struct tg_bound_name {
	__u64 name_id;	  /* 0 = free slot */
	__u64 expires_ns; /* not live any more at or after this time */
};

/*
 * Read and written under `lock` (BPF_F_LOCK in userspace). Userspace sees the lock as an opaque word that
 * the kernel fills with zero.
 */
struct tg_binding {
#ifdef __bpf__
	struct bpf_spin_lock lock;
#else
	__u32 lock;
#endif
	__u32 pad;
	struct tg_bound_name names[TG_NAMES_PER_ADDRESS];
};
TG_ASSERT_SIZE(struct tg_binding, 8 + 16 * TG_NAMES_PER_ADDRESS);

/* listeners: index -> socket, one of each kind per worker at worker * TG_LISTENER_KINDS + kind. */
enum tg_listener_kind {
	TG_LISTENER_TCP4,
	TG_LISTENER_TCP6,
	TG_LISTENER_DNS4,
	TG_LISTENER_DNS6,
	TG_LISTENER_KINDS,
};

/*
 * owned_sockets: socket storage that marks the daemon's sockets towards guests. Set on the listeners and
 * inherited by accepted sockets (BPF_F_CLONE), so that no other socket of the host can talk to a guest.
 */
struct tg_owned {
	__u32 kind; /* enum tg_listener_kind, plus one so that zero means "not owned" */
};
TG_ASSERT_SIZE(struct tg_owned, 4);

/* events: ring buffer of struct tg_event; `events_lost` counts those that found it full. */
enum tg_event_type {
	TG_EVENT_DROP = 1,
};

struct tg_event {
	__u64 time_ns;
	__u64 guest_id;
	__u32 ifindex;
	__u16 type;	/* enum tg_event_type */
	__u16 reason;	/* enum tg_drop_reason */
	struct tg_flow flow; /* as far as it was parsed, else zero; ICMP and the like have no ports */
};
TG_ASSERT_SIZE(struct tg_event, 64);

#endif
