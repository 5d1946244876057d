/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef TAPGATE_MAPS_BPF_H
#define TAPGATE_MAPS_BPF_H

/* Every map and configuration constant of the programs. What they mean stands in tapgate/bpf_abi.h. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "tapgate/bpf_abi.h"

/* Written by the daemon before the programs are loaded. */
const volatile __u32 tg_mark = 0x7461;
const volatile __u32 tg_workers = 1;
const volatile __u32 tg_min_ttl_seconds = 60;
const volatile __u32 tg_max_ttl_seconds = 86400;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, TG_GUESTS_MAX);
	__type(key, __u32);
	__type(value, struct tg_guest);
} guests SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TG_GUESTS_MAX);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct tg_guest_state);
} guest_state SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, TG_PENDING_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct tg_flow);
	__type(value, struct tg_pending);
} pending SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, TG_FLOWS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct tg_flow);
	__type(value, struct tg_splice);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, TG_FLOWS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct tg_flow);
	__type(value, struct tg_flow);
} upstream_flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, TG_FLOWS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct tg_flow);
	__type(value, struct tg_flow_facts);
} flow_facts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, TG_DNS_PENDING_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct tg_dns_key);
	__type(value, struct tg_dns_question);
} dns_pending SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, TG_NAMES_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct tg_name_key);
	__type(value, struct tg_name);
} names SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, TG_BINDINGS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct tg_binding_key);
	__type(value, struct tg_binding);
} bindings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, TG_CHAINS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct tg_chain_key);
	__type(value, struct tg_chain);
} chains SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct tg_recording);
} recordings SEC(".maps");

/* What every entry of `policies` looks like, but for its number of blocks. */
struct tg_policy_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_INNER_MAP | BPF_F_MMAPABLE);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(union tg_policy_block));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, TG_POLICIES_MAX);
	__type(key, __u32);
	__array(values, struct tg_policy_map);
} policies SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TG_POLICIES_MAX);
	__type(key, __u32);
	__type(value, struct tg_generation);
} generations SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, TG_HOST_ADDRESSES_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct tg_address);
	__type(value, __u8);
} host_addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, TG_WORKERS_MAX *TG_LISTENER_KINDS);
	__type(key, __u32);
	__type(value, __u64);
} listeners SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct tg_owned);
} owned_sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, TG_DROP_REASON_MAX);
	__type(key, __u32);
	__type(value, __u64);
} drops SEC(".maps");

struct {
	/* Not per CPU: the kernel would allocate half a million counters one by one, at every start. */
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TG_GUESTS_MAX *TG_DROP_REASON_MAX);
	__type(key, __u32); /* slot * TG_DROP_REASON_MAX + reason */
	__type(value, __u64);
} guest_drops SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, TG_EVENTS_BYTES);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} events_lost SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct tg_hash_key);
} hash_key SEC(".maps");

#endif
