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
#define TG_ABI_VERSION 7

enum {
	TG_GUESTS_MAX = 4096,
	TG_GUEST_ADDRESSES = 8, /* addresses of one guest, IPv4 and IPv6 together */
	TG_GUEST_GATEWAYS = 4,	/* addresses by which one guest knows its host */
	TG_WORKERS_MAX = 64,
	TG_PENDING_MAX = 65536,	       /* half-open connections of all guests */
	TG_DNS_PENDING_MAX = 65536,    /* DNS queries in flight of all guests */
	TG_FLOWS_MAX = 131072,	       /* spliced connections of all guests */
	TG_NAMES_MAX = 262144,	       /* names that all guests were told */
	TG_CHAINS_MAX = 131072,	       /* chains of aliases that all guests were told */
	TG_BINDINGS_MAX = 262144,      /* (guest, address) pairs */
	TG_NAMES_PER_ADDRESS = 32,     /* names, each with one chain, of one guest bound to one address */
	TG_NAMES_PER_BINDING = 2,      /* a guest's cap of names, aliases included, by its cap of bindings */
	TG_NAME_TEXT_MAX = 254,	       /* 253 octets (RFC 1035 2.3.4 without the root) and a NUL */
	TG_DNS_ANSWERS_MAX = 32,       /* records in the answer section; longer answers are malformed */
	TG_DNS_RECORDS_MAX = 64,       /* records in all sections */
	TG_DNS_ALIASES_MAX = 16,       /* CNAMEs from the question name to its addresses */
	TG_DNS_ADDRESSES_MAX = 64,     /* addresses of one answer over UDP, hints and repetitions included */
	TG_DNS_SERVICE_PARAMS_MAX = 32,	  /* parameters of one SVCB or HTTPS record */
	TG_RECORDING_ADDRESSES_MAX = 256, /* addresses of one answer over TCP, like TG_DNS_ADDRESSES_MAX */
	TG_RECORDING_NAMES_BYTES = 4352,  /* TG_DNS_ALIASES_MAX + 1 names of 255 octets, in whole words */
	TG_DNS_STEPS_MAX = 1024,       /* labels, pointers and roots in one message */
	TG_DNS_PAYLOAD_MAX = 1232,     /* DNS over UDP, fits one packet of any path (DNS flag day 2020) */
	TG_DNS_PENDING_SECONDS = 10,   /* an answer later than this is not delivered */
	TG_NAME_SUFFIXES_MAX = 16,     /* zones around a name that are looked up: those of 2 to 17 labels */
	TG_HOST_ADDRESSES_MAX = 16384, /* addresses of the host itself */
	TG_POLICIES_MAX =
	    2 * 4096, /* policy slots: twice the guests, so that a new daemon can use fresh ones */
	TG_RULE_GROUPS_MAX = 1024,
	TG_POLICY_BLOCKS_MAX = 1 << 24, /* 2 GiB for one policy */
	TG_EVENTS_BYTES = 1 << 20,
	TG_EVENTS_PER_SECOND = 128,	 /* drop events of one guest; the rest are only counted */
	TG_PROHIBITIONS_PER_SECOND = 64, /* ICMP errors to one guest; what is refused beyond meets silence */
	TG_DNS_NAME_MAX = 255,		 /* on the wire, with the root octet (RFC 1035 2.3.4) */
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
	__u32 policy; /* slot in `policies` */
	__u32 dns_queries_per_second;
	__u32 sessions_max;
	__u32 pad;
	__u8 mac[6]; /* all zero: learned from the first packet with a source address of the guest */
	__u8 address_count;
	__u8 gateway_count;
	struct tg_address addresses[TG_GUEST_ADDRESSES];
	struct tg_address gateways[TG_GUEST_GATEWAYS];
};
TG_ASSERT_SIZE(struct tg_guest, 48 + 16 * 12);

/*
 * guest_state: slot -> what changes while a guest runs. Memory-mapped by the daemon; every field is changed
 * with atomic operations on both sides.
 */
struct tg_guest_state {
	__u64 mac;	   /* learned MAC in the low 48 bits, first octet lowest; 0 = none yet */
	__u32 half_open;   /* entries of `pending`: BPF adds, the daemon subtracts */
	__u32 dns_pending; /* entries of `dns_pending`: BPF adds and subtracts, the daemon sweeps expired ones
			    */
	__u32 bindings;	   /* slots of `bindings`: BPF adds, the daemon subtracts what it removes */
	__u32 event_count; /* drop events sent in event_second */
	__u64 event_second;
	__u32 names;   /* entries of `names`: BPF adds, the daemon subtracts what it removes */
	__u32 chains;  /* entries of `chains`, likewise */
	__u64 evicted; /* live slots of `bindings` that the daemon removed to make room */
	__u64 query_second;
	__u32 query_count;	 /* DNS queries over UDP in query_second */
	__u32 prohibition_count; /* ICMP errors sent in prohibition_second */
	__u64 prohibition_second;
	__u32 sessions; /* live ones; the daemon adds and subtracts */
	__u32 pad;
};
TG_ASSERT_SIZE(struct tg_guest_state, 80);

/* The guest's view of a flow: the key of `pending`. Guests' addresses are unique, so no guest id is needed.
 */
struct tg_flow {
	struct tg_address guest_address;
	struct tg_address peer_address;
	__be16 guest_port;
	__be16 peer_port;
	__u8 protocol;
	__u8 pad[3];
};
TG_ASSERT_SIZE(struct tg_flow, 40);

enum tg_verdict {
	TG_VERDICT_NONE, /* the policy was not asked; in `pending`: a connection for DNS */
	TG_VERDICT_ALLOW,
	TG_VERDICT_DENY,
	TG_VERDICT_DEFER, /* a name is needed first */
};

#define TG_NO_RULE_GROUP 0xffff

/* What one generation of a policy said of the first packet of a flow, and the group of rules that decided. */
struct tg_judgement {
	__u64 generation;
	__u16 group;  /* TG_NO_RULE_GROUP: the default, or an address that no policy can allow */
	__u8 verdict; /* enum tg_verdict */
	__u8 pad[5];
};
TG_ASSERT_SIZE(struct tg_judgement, 16);

/*
 * pending: flow -> proof that its SYN came through a guest's tap, and the verdict on it (allow or defer).
 * Written by tap_ingress, taken by the daemon at accept, swept when the handshake never completes.
 */
struct tg_pending {
	__u64 guest_id;
	__u64 created_ns;
	__u32 slot;
	__u32 ifindex;
	struct tg_judgement judgement;
};
TG_ASSERT_SIZE(struct tg_pending, 40);

/*
 * flows: the guest's view of a TCP connection (struct tg_flow) -> its splice. One entry serves both
 * directions, since what one may send is bounded by what the other has acknowledged. Read and written under
 * `lock` (BPF_F_LOCK in userspace).
 *
 * The daemon inserts entries, first this one and then that of `upstream_flows`, and removes them in the
 * opposite order, when they are TG_SPLICE_ENDED. All other changes are made by change_flow, which the daemon
 * runs, and by the programs on packets. So who looked an entry up and finds under the lock that it is ended,
 * or that `flow` is not the one it looked for, knows that the entry is gone.
 */
enum tg_splice_state {
	TG_SPLICE_ENDED,      /* packets are treated as if there was no entry; the daemon is to remove it */
	TG_SPLICE_RECORDING,  /* packets go to the host's sockets; what the hand-off needs is noted */
	TG_SPLICE_HELD,	      /* packets of both ends are dropped, for TCP to send again; the same is noted */
	TG_SPLICE_FORWARDING, /* packets are rewritten and go to the other end */
	TG_SPLICE_CLOSED,     /* both FINs are acknowledged, or there was a reset; as FORWARDING, for what is
				 sent again. To be ended by the daemon after a while */
};

enum tg_splice_end { /* index of `sides` */
	TG_SPLICE_GUEST,
	TG_SPLICE_SERVER,
	TG_SPLICE_ENDS,
};

enum tg_splice_flags { /* of a side */
	TG_SPLICE_FIN = 1,	 /* it has sent a FIN, whose end is `fin_end` */
	TG_SPLICE_FIN_ACKED = 2, /* and the other end has acknowledged it */
	TG_SPLICE_RESET = 4,	 /* it has sent a reset that the other end obeys */
	TG_SPLICE_CLOCK = 8,	 /* ts_delta is known */
	TG_SPLICE_SEEN = 16,	 /* ts_last is known */
	TG_SPLICE_REUSED = 32,	 /* it has sent a new SYN, which has ended the splice */
};

/*
 * One end of a splice. Sequence numbers and clocks are as this end itself writes them; `delta` is added to
 * them for the other end, and taken off what the other end acknowledges.
 */
struct tg_splice_side {
	__u64 packets; /* that this end has sent and that were forwarded; a GSO packet is one */
	__u64 bytes;   /* their payload, what was sent again and the first flight included */
	__u64 last_ns; /* when it last sent a packet of any kind, in any state but ENDED */
	__u32 delta;
	__u32 floor; /* data below is dropped: it was acknowledged before the hand-off (B53), or is too old */
	__u32 end;   /* behind the highest octet (SYN and FIN count) it has sent; 0 if nothing was seen yet */
	__u32 acked; /* up to here the other end has acknowledged */
	__u32 fin_end;
	__u32 ts_base;	/* what its first timestamp after the hand-off becomes: no less than the last one that
			   the other end was sent on its behalf */
	__u32 ts_delta; /* ts_base less that timestamp */
	__u32 ts_last;	/* its latest timestamp (TSval) */
	__u8 scale; /* the window scale it has offered itself: what its windows mean; 0 without the option */
	__u8 shown_scale; /* the scale that the other end knows: what its windows are written in */
	__u8 flags;	  /* enum tg_splice_flags */
	__u8 pad;
	__u32 replays; /* how often it has sent what is below `floor` */
};
TG_ASSERT_SIZE(struct tg_splice_side, 64);

struct tg_splice {
#ifdef __bpf__
	struct bpf_spin_lock lock;
#else
	__u32 lock;
#endif
	__u32 state;	     /* enum tg_splice_state */
	struct tg_flow flow; /* the key */
	/* The host's view of the connection to the server, the key in `upstream_flows`: guest_address is the
	 * host's own, peer_address what was dialled. */
	struct tg_flow upstream;
	__u64 id; /* never used twice while the maps live */
	__u64 guest_id;
	__u64 created_ns;
	__u64 changed_ns;     /* when `state` last changed */
	__u32 slot;	      /* the guest's */
	__u32 guest_ifindex;  /* where packets for the guest go: a neighbour there by flow.guest_address */
	__u32 uplink_ifindex; /* where packets for the server go: to `next_hop` there */
	__u32 pad;
	struct tg_address next_hop; /* the server itself or a router; zero: whom the host's routes say */
	struct tg_splice_side sides[TG_SPLICE_ENDS];
};
TG_ASSERT_SIZE(struct tg_splice, 8 + 40 + 40 + 48 + 16 + 64 * TG_SPLICE_ENDS);

/*
 * upstream_flows: tg_splice.upstream -> tg_splice.flow. The entry counts only if the splice says the same.
 *
 * flow_facts: tg_flow -> what a daemon that adopts the splice has to know of it to judge it again. Written
 * before the splice, removed with it or when its end has been told; BPF does not look at it. It counts only if
 * the id is that of the splice.
 */
struct tg_flow_facts {
	__u64 id;
	__u8 first_flight; /* enum tg_first_flight */
	__u8 flags;	   /* enum tg_facts_flags */
	__u16 name_length; /* of `name`, without the NUL; 0: there was none */
	__u32 pad;
	char name[TG_NAME_TEXT_MAX]; /* as in tg_name */
	__u8 pad_name[2];
};
TG_ASSERT_SIZE(struct tg_flow_facts, 16 + 256);

enum tg_facts_flags {
	TG_FACTS_ON_WIRE = 1, /* the guest has said `name` */
	TG_FACTS_BOUND = 2,   /* a binding tied `name` to the destination */
	TG_FACTS_ECH = 4,     /* the ClientHello had encrypted_client_hello */
	TG_FACTS_LEFT = 8,    /* no daemon looks after it, although the one that did may still run */
};

/* What decided: nothing more than the SYN, whose verdict was allow, or a first flight of that kind. */
enum tg_first_flight {
	TG_FIRST_FLIGHT_NONE,
	TG_FIRST_FLIGHT_TLS,
	TG_FIRST_FLIGHT_TLS_NO_SNI,
	TG_FIRST_FLIGHT_HTTP,
	TG_FIRST_FLIGHT_PLAIN,
};

/*
 * What change_flow is told, behind the 14 octets of an Ethernet header. It returns an enum tg_change_result;
 * if that is not TG_CHANGED nothing has changed.
 */
enum tg_change {
	TG_CHANGE_HOLD,	   /* RECORDING -> HELD */
	TG_CHANGE_RELEASE, /* HELD -> RECORDING */
	TG_CHANGE_FORWARD, /* HELD -> FORWARDING, with the numbers in `sides` */
	TG_CHANGE_END,	   /* any state -> ENDED */
	TG_CHANGE_ROUTE,   /* leaves the state; a new uplink_ifindex and next_hop */
};

enum tg_change_result {
	TG_CHANGED,
	TG_CHANGE_NO_FLOW, /* no such flow, or not of that id */
	TG_CHANGE_STATE,   /* the flow is not in a state that allows it */
};

struct tg_new_side { /* as in tg_splice_side; `floor` and `end` begin at `next` */
	__u32 next;
	__u32 acked;
	__u32 delta;
	__u32 ts_base;
	__u8 scale;
	__u8 shown_scale;
	__u8 pad[6];
};
TG_ASSERT_SIZE(struct tg_new_side, 24);

struct tg_flow_change {
	struct tg_flow flow;
	__u64 id;
	__u32 change; /* enum tg_change */
	__u32 uplink_ifindex;
	struct tg_address next_hop;
	struct tg_new_side sides[TG_SPLICE_ENDS];
};
TG_ASSERT_SIZE(struct tg_flow_change, 72 + 24 * TG_SPLICE_ENDS);

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
	struct tg_address resolver; /* who answered; the daemon writes it before it does; zero = unknown */
};
TG_ASSERT_SIZE(struct tg_dns_question, 40);

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
	__u16 length;		     /* of text, without the NUL */
	char text[TG_NAME_TEXT_MAX]; /* lower case, dots between labels, NUL-terminated */
	/* Ids of the zones around the name: of 2 labels, of 3, and so on, without the name itself. */
	__u64 suffix_ids[TG_NAME_SUFFIXES_MAX];
	__u32 suffix_count;
	__u32 pad;
	__u64 expires_ns; /* no binding of the name lives longer: the daemon removes the entry then */
	/* What the guest's policy says of the name: low half of the generation, then the block of the set of
	 * groups that match it. BPF's own note, worth nothing under another generation; read and written
	 * whole.
	 */
	__u64 judged;
	__u64 told_ns;		    /* when it last was part of an answer */
	struct tg_address resolver; /* who last gave it addresses; zero = unknown, or only ever an alias */
};
TG_ASSERT_SIZE(struct tg_name, 256 + 8 * TG_NAME_SUFFIXES_MAX + 48);

/*
 * chains: (guest, chain id) -> the aliases on the way from a question name to an address, in order. A chain
 * id is SipHash-2-4, under the key of name ids, of the name ids of the aliases one after the other, least
 * octet first. Never 0.
 */
struct tg_chain_key {
	__u64 guest_id;
	__u64 chain_id;
};
TG_ASSERT_SIZE(struct tg_chain_key, 16);

struct tg_chain {
	__u64 expires_ns; /* as in tg_name */
	__u64 told_ns;
	__u32 alias_count;
	__u32 pad;
	__u64 alias_ids[TG_DNS_ALIASES_MAX]; /* each has its entry in `names` */
};
TG_ASSERT_SIZE(struct tg_chain, 24 + 8 * TG_DNS_ALIASES_MAX);

/* bindings: (guest, address) -> the names that a trusted resolver gave this address. */
struct tg_binding_key {
	__u64 guest_id;
	struct tg_address address;
};
TG_ASSERT_SIZE(struct tg_binding_key, 24);

/* A name and the aliases that led from it to the address: they belong to both together, so that what was
 * once an alias of a name says nothing of the name's other addresses. */
struct tg_bound_name {
	__u64 name_id;	  /* 0 = free slot */
	__u64 chain_id;	  /* 0 = no aliases */
	__u64 expires_ns; /* not live any more at or after this time */
	__u64 told_ns;	  /* when an answer last said so */
};
TG_ASSERT_SIZE(struct tg_bound_name, 32);

/*
 * Read and written under `lock` (BPF_F_LOCK in userspace). Userspace sees the lock as an opaque word that
 * the kernel fills with zero.
 *
 * Who looked an entry up may still write to it when it has been removed, and when its memory has become
 * another entry. So what it writes counts only if, under the lock, `key` is the one it looked for and `dying`
 * is clear; only forget_binding removes entries, and marks them first.
 */
struct tg_binding {
#ifdef __bpf__
	struct bpf_spin_lock lock;
#else
	__u32 lock;
#endif
	__u32 dying;
	struct tg_binding_key key;
	__u64 used_ns; /* when it last was told, or asked for by the first packet of a flow */
	struct tg_bound_name names[TG_NAMES_PER_ADDRESS];
};
TG_ASSERT_SIZE(struct tg_binding, 40 + 32 * TG_NAMES_PER_ADDRESS);

/*
 * recordings: its only value is what the daemon wants record_answer to write, as it would come out of an
 * answer: one question name, its aliases, their addresses. One writer at a time.
 */
struct tg_told_address {
	struct tg_address address;
	__u32 ttl_seconds;
	__u32 pad;
};
TG_ASSERT_SIZE(struct tg_told_address, 24);

struct tg_recording {
	__u64 guest_id;
	__u32 slot;
	__u32 bindings_max;
	struct tg_address resolver;
	/* 0: names are in `names`, in wire form one behind the other. Else they are known, by their ids in
	 * `name_ids`, and so are the bindings; those that are live last until this time at least. */
	__u64 keep_until_ns;
	__u32 name_count; /* the question name, then its aliases */
	__u32 names_length;
	__u32 address_count;
	__u32 pad;
	__u64 name_ids[TG_DNS_ALIASES_MAX + 1];
	__u8 names[TG_RECORDING_NAMES_BYTES];
	struct tg_told_address addresses[TG_RECORDING_ADDRESSES_MAX];
};
TG_ASSERT_SIZE(struct tg_recording, 56 + 8 * (TG_DNS_ALIASES_MAX + 1) + TG_RECORDING_NAMES_BYTES +
					24 * TG_RECORDING_ADDRESSES_MAX);

/* What forget_binding is told, behind the 14 octets of an Ethernet header: which slots of a binding to free.
 * It returns TG_FORGOTTEN(freed, how many of them were live). */
struct tg_forgetting {
	struct tg_binding_key key;
	__u64 until_ns; /* those that live no longer than this */
	__u64 name_id;	/* and are of this name; 0 = any */
	__u64 now_ns;
	__u32 freed; /* zero here and below: counters of the program's own */
	__u32 live;
	__u32 left;
	__u32 pad;
};
TG_ASSERT_SIZE(struct tg_forgetting, 64);

#define TG_FORGOTTEN(freed, live) ((freed) << 16 | (live))

/* What judge_flow is asked, behind an Ethernet header: about a SYN of the guest on `ifindex`. It fills
 * `judgement` in and returns an enum tg_drop_reason. */
struct tg_judging {
	struct tg_address peer_address;
	__u32 ifindex;
	__be16 peer_port;
	__u16 pad;
	struct tg_judgement judgement;
};
TG_ASSERT_SIZE(struct tg_judging, 40);

/*
 * policies: policy slot -> the generation in force, one array of blocks of 128 octets that the daemon makes
 * as a whole and never changes; a swap replaces it by another. Block 0 is the head; all other blocks are
 * named by their number, so that tables of any size share the one array.
 *
 *     set      the groups of rules that match something, a bit each; groups are numbered in the policy's
 * order ranges   sorted by where they begin, each reaching to the next: what matches an address or a service
 *     names    a hash table of name ids (tg_name_id): what matches a name
 *     denial   what a guest is told of a denied name besides NXDOMAIN, as it goes on the wire
 *
 * How a verdict comes out of these stands in lib/policy.bpf.h.
 */
#define TG_POLICY_EMPTY_SET 1 /* the block of the set without groups */
#define TG_SET_WORDS	    (TG_RULE_GROUPS_MAX / 64)

struct tg_policy_set {
	__u64 words[TG_SET_WORDS];
};
TG_ASSERT_SIZE(struct tg_policy_set, 128);

struct tg_policy_table {
	__u32 first_block;
	__u32 count; /* of ranges; of names: buckets less one, to be used as a mask */
};

struct tg_policy_head {
	__u64 generation;
	struct tg_policy_table addresses; /* begins at :: */
	struct tg_policy_table services;  /* begins at the least key; keys are TG_SERVICE_KEY in `low` */
	struct tg_policy_table names;	  /* one bucket a block */
	__u32 allow_set;		  /* the groups that allow; all others deny */
	__u32 domain_set;		  /* the groups on names; all others are on addresses */
	__u32 host_set;		/* of address group `host`, in place of what a range says of the group */
	__u32 suffix_labels;	/* of the longest zone in `names` */
	__u32 cname_set;	/* the groups on names that match aliases too; TG_POLICY_EMPTY_SET if none */
	__u32 query_set;	/* the groups that meet every DNS query over UDP */
	__u32 query_name_set;	/* the groups on names that count for queries */
	__u32 denial_block;	/* the OPT record of a denied query's answer, in TG_DENIAL_BLOCKS blocks */
	__u32 denial_length;	/* its octets; the DO bit is clear */
	__u8 default_allows[2]; /* by enum tg_direction */
	__u8 pad[58];
};
TG_ASSERT_SIZE(struct tg_policy_head, 128);

enum tg_direction {
	TG_EGRESS,
	TG_INGRESS,
};

/* `protocol` as in the IP header, `port` in host order and 0 for ICMP. */
#define TG_SERVICE_KEY(direction, protocol, port)                                                            \
	((__u64)(direction) << 24 | (__u64)(protocol) << 16 | (__u64)(port))

/* Flags of an address range: which of two ranges tells the group of an address that translates to another. */
#define TG_RANGE_META	  1 /* its group is `meta`, by the built-in list */
#define TG_RANGE_DECLARED 2 /* its group comes from a [groups] table */

struct tg_policy_range {
	__u64 high; /* the address or service key it begins at, host order */
	__u64 low;
	__u32 block_set; /* addresses: groups that match by a block */
	__u32 set;	 /* addresses: groups that match by the address group, or any address */
	__u32 flags;
	__u32 pad;
};
TG_ASSERT_SIZE(struct tg_policy_range, 32);

/* An id is in the bucket of its low half or in that of its high half. A set is 0 if nothing is said. */
struct tg_policy_name {
	__u64 name_id; /* 0 = free */
	__u32 exact_set;
	__u32 suffix_set; /* counts for the names below */
};
TG_ASSERT_SIZE(struct tg_policy_name, 16);

#define TG_RANGES_PER_BLOCK 4
#define TG_NAMES_PER_BUCKET 8
#define TG_DENIAL_BLOCKS    2

union tg_policy_block {
	struct tg_policy_head head;
	struct tg_policy_set set;
	struct tg_policy_range ranges[TG_RANGES_PER_BLOCK];
	struct tg_policy_name names[TG_NAMES_PER_BUCKET];
	__u8 bytes[128];
};
TG_ASSERT_SIZE(union tg_policy_block, 128);

/*
 * generations: policy slot -> what is in `policies`; all zero if the slot is free. The daemon's own note:
 * before 6.8 the kernel waits for a grace period with each entry that is read from a map of maps.
 */
struct tg_generation {
	__u64 generation;
	__u64 digest; /* of the policy's name, text and blocks; 0: nothing can be said of them */
};
TG_ASSERT_SIZE(struct tg_generation, 16);

/* host_addresses: the addresses of the host itself (address group `host`) -> 1. Written by the daemon. */

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
	TG_EVENT_DNS_REFUSED = 2, /* struct tg_dns_event */
	TG_EVENT_SPLICE = 3, /* `flow` was closed or ended by its ends, or one of them has sent FIN; `reason` and
				the like are zero */
};

struct tg_event {
	__u64 time_ns;
	__u64 guest_id;
	__u32 ifindex;
	__u16 type;	     /* enum tg_event_type */
	__u16 reason;	     /* enum tg_drop_reason */
	struct tg_flow flow; /* as far as it was parsed, else zero; ICMP and the like have no ports */
	struct tg_judgement judgement; /* zero if the policy was not asked */
};
TG_ASSERT_SIZE(struct tg_event, 80);

/* A DNS query that tap_ingress has refused. */
struct tg_dns_event {
	struct tg_event event;
	__u16 question_type;
	__u16 name_length; /* 0: the question did not parse, or was not looked at */
	__u32 pad;
	__u8 name[TG_DNS_NAME_MAX + 1]; /* wire form in lower case; undefined behind its length */
};
TG_ASSERT_SIZE(struct tg_dns_event, 80 + 8 + 256);

#endif
