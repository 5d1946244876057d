/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef TAPGATE_STEER_BPF_H
#define TAPGATE_STEER_BPF_H

/* Handing packets to the daemon's sockets, and telling those sockets from all others. */
#include "lib/guest.bpf.h"

/* Counts one more entry of a guest, unless that would be more than `max`. The caller that does not make the
 * entry after all gives it back with quota_release(). */
static __always_inline bool quota_take(__u32 *count, __u32 max)
{
	if (__sync_fetch_and_add(count, 1) < max)
		return true;
	__sync_fetch_and_add(count, -1);
	return false;
}

static __always_inline void quota_release(__u32 *count)
{
	__sync_fetch_and_add(count, -1);
}

/* The same for every packet of a flow, and spread over flows. Not bpf_get_hash_recalc(): a veth hands on the
 * sender's hash, which changes when the sender retransmits, and a SYN cookie counts only with the listener
 * that sent it. */
static __always_inline __u32 flow_hash(const struct tg_flow *flow)
{
	const __u64 multiplier = 0x9e3779b97f4a7c15ULL; /* 2^64 divided by the golden ratio */
	__u64 hash = (__u64)flow->guest_port << 32 | (__u64)flow->peer_port << 8 | flow->protocol;

	hash = (hash ^ address_word(&flow->guest_address, 0)) * multiplier;
	hash = (hash ^ hash >> 32 ^ address_word(&flow->guest_address, 1)) * multiplier;
	hash = (hash ^ hash >> 32 ^ address_word(&flow->peer_address, 0)) * multiplier;
	hash = (hash ^ hash >> 32 ^ address_word(&flow->peer_address, 1)) * multiplier;
	return hash >> 32;
}

/* The listener of the worker that serves `flow`, or NULL: no daemon runs. Referenced: bpf_sk_release(). */
static __always_inline struct bpf_sock *listener_of_flow(const struct packet *packet,
							 enum tg_listener_kind kind_v4)
{
	__u32 workers = tg_workers;
	__u32 worker = workers ? flow_hash(&packet->flow) % workers : 0;
	__u32 index = worker * TG_LISTENER_KINDS + kind_v4 + (packet->ethertype == ETH_P_IPV6);

	return bpf_map_lookup_elem(&listeners, &index);
}

_Static_assert(TG_LISTENER_TCP6 == TG_LISTENER_TCP4 + 1 && TG_LISTENER_DNS6 == TG_LISTENER_DNS4 + 1,
	       "listener_of_flow() counts on IPv6 next to IPv4");

/* What kind of socket of the daemon this is, plus one; 0 for sockets of others and for what is not a full
 * socket. */
static __always_inline __u32 owned_kind(void *sk)
{
	struct tg_owned *owned = bpf_sk_storage_get(&owned_sockets, sk, NULL, 0);

	return owned ? owned->kind : 0;
}

static __always_inline bool is_tcp_kind(__u32 kind)
{
	return kind == TG_LISTENER_TCP4 + 1 || kind == TG_LISTENER_TCP6 + 1;
}

static __always_inline bool is_dns_kind(__u32 kind)
{
	return kind == TG_LISTENER_DNS4 + 1 || kind == TG_LISTENER_DNS6 + 1;
}

#endif
