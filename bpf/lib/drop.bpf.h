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

/* Lets TG_EVENTS_PER_SECOND events of one guest through in each second. Two CPUs that meet at a second's
 * turn may let a few more through. */
static __always_inline bool event_rate_exceeded(struct tg_guest_state *state, __u64 now)
{
	__u64 second = now / NSEC_PER_SEC;

	if (state->event_second != second) {
		state->event_second = second;
		state->event_count = 0;
	}
	return __sync_fetch_and_add(&state->event_count, 1) >= TG_EVENTS_PER_SECOND;
}

static __always_inline void send_drop_event(const struct guest_context *context, __u32 ifindex,
					    verdict_t reason, const struct tg_flow *flow,
					    const struct tg_judgement *judgement)
{
	__u64 now = bpf_ktime_get_boot_ns();
	struct tg_event *event;
	__u64 *lost;
	__u32 zero = 0;

	if (event_rate_exceeded(context->state, now))
		return;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		lost = bpf_map_lookup_elem(&events_lost, &zero);
		if (lost)
			*lost += 1;
		return;
	}
	event->time_ns = now;
	event->guest_id = context->guest->id;
	event->ifindex = ifindex;
	event->type = TG_EVENT_DROP;
	event->reason = reason;
	event->flow = *flow;
	event->judgement = *judgement;
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

static __always_inline void count_reason(__u32 slot, verdict_t reason)
{
	__u32 key = reason;
	__u64 *count = bpf_map_lookup_elem(&drops, &key);

	if (count)
		*count += 1;
	key = slot * TG_DROP_REASON_MAX + reason;
	count = bpf_map_lookup_elem(&guest_drops, &key);
	if (count)
		*count += 1;
}

static __always_inline void count_drop(const struct guest_context *context, __u32 ifindex, verdict_t reason,
				       const struct tg_flow *flow, const struct tg_judgement *judgement)
{
	count_reason(context->guest->slot, reason);
	send_drop_event(context, ifindex, reason, flow, judgement);
}

#endif
