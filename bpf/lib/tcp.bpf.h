/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef TAPGATE_TCP_BPF_H
#define TAPGATE_TCP_BPF_H

/*
 * TCP of a guest. A SYN makes an entry in `pending` and goes to a listener of the daemon; every later segment
 * must belong to a socket that came out of that.
 */
#include <linux/tcp.h>

#include "lib/policy.bpf.h"
#include "lib/steer.bpf.h"
#include "tapgate/tcp_rewrite.h"

#define TCP_FIN 0x01
#define TCP_SYN TG_TCP_SYN
#define TCP_RST 0x04
#define TCP_ACK TG_TCP_ACK

#define PORT_DNS	  53
#define PORT_NETBIOS_NAME 137
#define PORT_DNS_TLS	  853
#define PORT_MDNS	  5353
#define PORT_LLMNR	  5355

_Static_assert(sizeof(struct tcp_header) == sizeof(struct tcphdr), "struct tcp_header");

/* The segment that a reset answers (RFC 9293 3.10.7.1). */
struct tcp_segment {
	struct tcp_header header;
	__u32 payload_length;
};

static __always_inline __u32 tcp_header_length(const struct tcp_segment *segment)
{
	return (segment->header.data_offset >> 4) * 4;
}

/* Flags that no TCP sends: without SYN or RST every segment has ACK (RFC 9293 3.10.7.4). */
static __always_inline bool tcp_flags_possible(__u8 flags)
{
	if (flags & TCP_SYN)
		return !(flags & (TCP_FIN | TCP_RST));
	if (flags & TCP_RST)
		return !(flags & TCP_FIN);
	return flags & TCP_ACK;
}

static __always_inline verdict_t parse_tcp(struct __sk_buff *skb, struct packet *packet,
					   struct tcp_segment *segment)
{
	struct tcp_header *tcp = &segment->header;
	__u32 header_length;

	if (packet->l4_length < sizeof(*tcp) || bpf_skb_load_bytes(skb, packet->l4_offset, tcp, sizeof(*tcp)))
		return TG_DROP_TRUNCATED;
	packet->flow.guest_port = tcp->source_port;
	packet->flow.peer_port = tcp->destination_port;
	header_length = tcp_header_length(segment);
	if (header_length < sizeof(*tcp) || header_length > packet->l4_length)
		return TG_DROP_TCP_HEADER;
	segment->payload_length = packet->l4_length - header_length;
	return tcp_flags_possible(tcp->flags) ? TG_DROP_NONE : TG_DROP_TCP_HEADER;
}

/* Name services other than DNS on its own port, which the daemon serves. */
static __always_inline bool is_name_service_port(__be16 port)
{
	return port == bpf_htons(PORT_DNS_TLS) || port == bpf_htons(PORT_MDNS) ||
	       port == bpf_htons(PORT_LLMNR) || port == bpf_htons(PORT_NETBIOS_NAME);
}

/* The entry of this guest's flow; NULL also if it was left by an earlier guest with the same address, which
 * the daemon sweeps. */
static __always_inline struct tg_pending *pending_find(const struct guest_context *context,
						       const struct packet *packet)
{
	struct tg_pending *entry = bpf_map_lookup_elem(&pending, &packet->flow);

	return entry && entry->guest_id == context->guest->id ? entry : NULL;
}

/* Makes the entry, or replaces the one of an earlier SYN of this flow. */
static __always_inline verdict_t pending_add(struct __sk_buff *skb, const struct guest_context *context,
					     const struct packet *packet)
{
	struct tg_pending entry = {
	    .guest_id = context->guest->id,
	    .created_ns = bpf_ktime_get_boot_ns(),
	    .slot = context->guest->slot,
	    .ifindex = skb->ifindex,
	    .judgement = packet->judgement,
	};

	if (pending_find(context, packet) && !bpf_map_update_elem(&pending, &packet->flow, &entry, BPF_EXIST))
		return TG_DROP_NONE;
	/* Guest sees: RST. Operator sees: half-open-cap, raised by [limits] half_open. */
	if (!quota_take(&context->state->half_open, context->guest->half_open_max))
		return TG_DROP_HALF_OPEN_CAP;
	if (!bpf_map_update_elem(&pending, &packet->flow, &entry, BPF_NOEXIST))
		return TG_DROP_NONE;
	quota_release(&context->state->half_open);
	/* Another CPU was first with the same SYN, or there is no room. */
	return pending_find(context, packet) ? TG_DROP_NONE : TG_DROP_PENDING_FULL;
}

static __always_inline void pending_remove(const struct guest_context *context, const struct packet *packet)
{
	if (!bpf_map_delete_elem(&pending, &packet->flow))
		quota_release(&context->state->half_open);
}

static __always_inline verdict_t assign_listener(struct __sk_buff *skb, const struct packet *packet)
{
	struct bpf_sock *listener = listener_of_flow(packet, TG_LISTENER_TCP4);
	long error;

	if (!listener)
		return TG_DROP_NO_LISTENER;
	error = bpf_sk_assign(skb, listener, 0);
	bpf_sk_release(listener);
	return error ? TG_DROP_STEER_FAILED : TG_DROP_NONE;
}

static __always_inline verdict_t steer_syn(struct __sk_buff *skb, const struct guest_context *context,
					   const struct packet *packet)
{
	verdict_t verdict = pending_add(skb, context, packet);

	if (verdict)
		return verdict;
	verdict = assign_listener(skb, packet);
	if (verdict)
		pending_remove(context, packet);
	return verdict;
}

/* What the socket found for a segment means. */
enum tcp_owner {
	OWNER_NONE,	   /* no socket, or a listener of the host that happens to match */
	OWNER_TIME_WAIT,   /* what is left of a flow */
	OWNER_HANDSHAKE,   /* a request socket of one of our listeners */
	OWNER_ESTABLISHED, /* an accepted socket of the daemon */
	OWNER_OTHER,	   /* a socket of the host that no guest may reach */
};

static __always_inline enum tcp_owner classify_socket(struct bpf_sock *sk)
{
	struct bpf_sock *listener;

	switch (sk->state) {
	case BPF_TCP_LISTEN:
		return OWNER_NONE;
	case BPF_TCP_TIME_WAIT:
		return OWNER_TIME_WAIT;
	case BPF_TCP_NEW_SYN_RECV:
		listener = bpf_get_listener_sock(sk);
		return listener && is_tcp_kind(owned_kind(listener)) ? OWNER_HANDSHAKE : OWNER_OTHER;
	default:
		return is_tcp_kind(owned_kind(sk)) ? OWNER_ESTABLISHED : OWNER_OTHER;
	}
}

static __always_inline enum tcp_owner find_owner(struct __sk_buff *skb, const struct packet *packet)
{
	const struct tg_flow *flow = &packet->flow;
	struct bpf_sock_tuple tuple = {};
	enum tcp_owner owner;
	struct bpf_sock *sk;

	if (packet->ethertype == ETH_P_IP) {
		tuple.ipv4.saddr = address_v4(&flow->guest_address);
		tuple.ipv4.daddr = address_v4(&flow->peer_address);
		tuple.ipv4.sport = flow->guest_port;
		tuple.ipv4.dport = flow->peer_port;
		sk = bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	} else {
		__builtin_memcpy(tuple.ipv6.saddr, &flow->guest_address, sizeof(tuple.ipv6.saddr));
		__builtin_memcpy(tuple.ipv6.daddr, &flow->peer_address, sizeof(tuple.ipv6.daddr));
		tuple.ipv6.sport = flow->guest_port;
		tuple.ipv6.dport = flow->peer_port;
		sk = bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	}
	if (!sk)
		return OWNER_NONE;
	owner = classify_socket(sk);
	bpf_sk_release(sk);
	return owner;
}

/* Guest sees: RST. Operator sees: session-cap, raised by [limits] sessions. */
static __always_inline bool has_session_left(const struct guest_context *context)
{
	return *(volatile __u32 *)&context->state->sessions < context->guest->sessions_max;
}

/* The policy first, so that its verdict is the same whatever else keeps a flow from being served. Of a
 * connection for DNS it says nothing: the daemon, to whom it goes wherever it was meant to go, has each
 * question judged, and it is no session. */
static __always_inline verdict_t judge_syn(const struct guest_context *context, struct packet *packet)
{
	verdict_t verdict;

	if (packet->flow.peer_port == bpf_htons(PORT_DNS))
		return packet->unroutable;
	verdict = policy_judge(context->guest, packet);
	if (verdict)
		return verdict;
	if (packet->unroutable)
		return packet->unroutable;
	return has_session_left(context) ? TG_DROP_NONE : TG_DROP_SESSION_CAP;
}

/* The kernel repeats its SYN+ACK; the entry must be there when the handshake completes. */
static __always_inline verdict_t repeated_syn(struct __sk_buff *skb, const struct guest_context *context,
					      struct packet *packet)
{
	struct tg_pending *known = pending_find(context, packet);
	verdict_t verdict;

	if (known) {
		known->created_ns = bpf_ktime_get_boot_ns();
		return TG_DROP_NONE;
	}
	verdict = judge_syn(context, packet);
	return verdict ? verdict : pending_add(skb, context, packet);
}

/* A new flow, or a retransmission of its SYN. */
static __always_inline verdict_t tcp_syn(struct __sk_buff *skb, const struct guest_context *context,
					 struct packet *packet)
{
	verdict_t verdict;

	switch (find_owner(skb, packet)) {
	case OWNER_NONE:
		verdict = judge_syn(context, packet);
		return verdict ? verdict : steer_syn(skb, context, packet);
	case OWNER_TIME_WAIT:
		/*
		 * The guest uses a port again whose last flow waits on our side. Not to the listener: newer
		 * kernels make no request socket beside the old one and drop the SYN for a minute. The old
		 * one answers with an ACK, the guest's reset to that ends it (RFC 9293 3.10.7.3), and the
		 * next SYN, a second later, is steered. Should a listener of the host match, it may see this
		 * SYN, but its answer stops at tap_egress and the guest's next segment here.
		 */
		return TG_DROP_NONE;
	case OWNER_HANDSHAKE:
		return repeated_syn(skb, context, packet);
	case OWNER_ESTABLISHED: /* the kernel answers with a challenge ACK (RFC 5961 4) */
		return TG_DROP_NONE;
	case OWNER_OTHER:
		break;
	}
	return TG_DROP_TCP_NO_FLOW;
}

static __always_inline verdict_t tcp_segment(struct __sk_buff *skb, const struct guest_context *context,
					     const struct packet *packet, __u8 flags)
{
	switch (find_owner(skb, packet)) {
	case OWNER_NONE:
		/* The last ACK of a handshake by SYN cookie meets no socket, but its SYN was seen. */
		if (flags & TCP_ACK && !(flags & TCP_RST) && pending_find(context, packet))
			return assign_listener(skb, packet);
		break;
	case OWNER_HANDSHAKE:
		if (pending_find(context, packet))
			return TG_DROP_NONE;
		break;
	case OWNER_TIME_WAIT:
	case OWNER_ESTABLISHED:
		return TG_DROP_NONE;
	case OWNER_OTHER:
		break;
	}
	return TG_DROP_TCP_NO_FLOW;
}

#endif
