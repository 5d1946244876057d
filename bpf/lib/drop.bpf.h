/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef TAPGATE_DROP_BPF_H
#define TAPGATE_DROP_BPF_H

/* A refusal is counted once, by reason and by guest, and reported as an event as long as the guest is within
 * its rate. */
#include "lib/maps.bpf.h"

#define NSEC_PER_SEC 1000000000ULL

/* The programs' verdict before it is acted on: TG_DROP_NONE passes, anything else refuses. */
typedef enum tg_drop_reason verdict_t;

/* Where a packet came from (tap_ingress) or goes to (tap_egress). */
struct guest_context {
	const struct tg_guest *guest;
	struct tg_guest_state *state;
};

/* Lets `max` of something through in each second; `second` and `count` are the guest's. Two CPUs that meet at
 * a second's turn may let a few more through. */
static __always_inline bool rate_exceeded(__u64 *second, __u32 *count, __u32 max)
{
	__u64 now = bpf_ktime_get_boot_ns() / NSEC_PER_SEC;

	if (*second != now) {
		*second = now;
		*count = 0;
	}
	return __sync_fetch_and_add(count, 1) >= max;
}

static __always_inline bool event_rate_exceeded(struct tg_guest_state *state)
{
	return rate_exceeded(&state->event_second, &state->event_count, TG_EVENTS_PER_SECOND);
}

static __always_inline void count_lost_event(void)
{
	__u32 zero = 0;
	__u64 *lost = bpf_map_lookup_elem(&events_lost, &zero);

	if (lost)
		*lost += 1;
}

static __always_inline void fill_event(struct tg_event *event, enum tg_event_type type,
				       const struct guest_context *context, __u32 ifindex, verdict_t reason,
				       const struct tg_flow *flow, const struct tg_judgement *judgement)
{
	event->time_ns = bpf_ktime_get_boot_ns();
	event->guest_id = context->guest->id;
	event->ifindex = ifindex;
	event->type = type;
	event->reason = reason;
	event->flow = *flow;
	event->judgement = *judgement;
}

static __always_inline void send_drop_event(const struct guest_context *context, __u32 ifindex,
					    verdict_t reason, const struct tg_flow *flow,
					    const struct tg_judgement *judgement)
{
	struct tg_event *event;

	if (event_rate_exceeded(context->state))
		return;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		count_lost_event();
		return;
	}
	fill_event(event, TG_EVENT_DROP, context, ifindex, reason, flow, judgement);
	bpf_ringbuf_submit(event, 0);
}

static __always_inline void count_unknown_guest(void)
{
	__u32 key = TG_DROP_UNKNOWN_GUEST;
	__u64 *count = bpf_map_lookup_elem(&drops, &key);

	/* No guest, so no rate to keep: only counted, so that it cannot crowd out the events of guests. */
	if (count)
		*count += 1;
}

/* The counters alone: for a refusal that has an event of its own, or none. */
static __always_inline void count_reason(__u32 slot, verdict_t reason)
{
	__u32 key = reason;
	__u64 *count = bpf_map_lookup_elem(&drops, &key);

	if (count)
		*count += 1;
	key = slot * TG_DROP_REASON_MAX + reason;
	count = bpf_map_lookup_elem(&guest_drops, &key);
	if (count)
		__sync_fetch_and_add(count, 1);
}

static __always_inline void count_drop(const struct guest_context *context, __u32 ifindex, verdict_t reason,
				       const struct tg_flow *flow, const struct tg_judgement *judgement)
{
	count_reason(context->guest->slot, reason);
	send_drop_event(context, ifindex, reason, flow, judgement);
}

#endif
