// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Maps whose behaviour under change is asserted, and a slow reader of one. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

char program_license[] SEC("license") = "Dual BSD/GPL";

struct locked_value {
	struct bpf_spin_lock lock;
	__u32 number;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct locked_value);
} locked SEC(".maps");

struct generation {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
};

struct generation first SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct generation);
} policies SEC(".maps") = {.values = {&first}};

enum { READER_ROUNDS = 4096 };

struct reader {
	volatile __u64 *value;
	__u64 begin;
	__u64 changed;
};

static long reread(__u32 round, struct reader *reader)
{
	(void)round;
	if (reader->value && *reader->value != reader->begin) {
		reader->changed = 1;
		return 1;
	}
	return 0;
}

/* Looks one generation up and keeps looking at it for a while: 1 if it changed meanwhile. */
SEC("tc")
int slow_reader(struct __sk_buff *skb)
{
	struct reader reader = {};
	__u32 zero = 0;
	void *inner = bpf_map_lookup_elem(&policies, &zero);

	(void)skb;
	if (!inner)
		return 2;
	reader.value = bpf_map_lookup_elem(inner, &zero);
	if (!reader.value)
		return 3;
	reader.begin = *reader.value;
	bpf_loop(READER_ROUNDS, reread, &reader, 0);
	return reader.changed;
}

SEC("tc")
int add_one(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct locked_value *value = bpf_map_lookup_elem(&locked, &zero);

	(void)skb;
	if (!value)
		return 0;
	bpf_spin_lock(&value->lock);
	value->number++;
	bpf_spin_unlock(&value->lock);
	return 1;
}
