// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#include "lib/maps.bpf.h"

char tg_license[] SEC("license") = "Dual BSD/GPL";

/* Nothing passes yet. */
static __always_inline int refuse(struct __sk_buff *skb)
{
	__u32 key = TG_DROP_UNKNOWN_GUEST;
	__u64 *count = bpf_map_lookup_elem(&drops, &key);

	if (count)
		*count += 1;
	skb->mark = tg_mark + tg_workers + tg_min_ttl_seconds + tg_max_ttl_seconds;
	return TC_ACT_SHOT;
}

SEC("tc")
int tap_ingress(struct __sk_buff *skb)
{
	return refuse(skb);
}

SEC("tc")
int tap_egress(struct __sk_buff *skb)
{
	return refuse(skb);
}
