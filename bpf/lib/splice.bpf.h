/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef TAPGATE_SPLICE_BPF_H
#define TAPGATE_SPLICE_BPF_H

/*
 * Spliced connections: segments of a guest and of its server, rewritten and sent on to the other end without
 * the host's TCP. README.md says why each step is safe.
 */
#include "lib/prohibited.bpf.h"
#include "lib/reply.bpf.h"
#include "lib/tcp.bpf.h"

#define AF_INET	 2 /* <sys/socket.h> is not for BPF */
#define AF_INET6 10

#define IPV4_FRAGMENT_OFFSET_MASK 0x1fff
#define IPV6_FRAGMENT_OFFSET_MASK 0xfff8

/* RFC 8200 4.5 */
struct ipv6_fragment {
	__u8 next_header;
	__u8 reserved;
	__be16 offset;
	__be32 identification;
};

#define SPLICE_NONE -1 /* not spliced, or no more: the packet goes the way of all others */

/* No window is larger (RFC 7323 2.3): what lies further from what was acknowledged is no segment of this
 * connection. */
#define SPLICE_WINDOW_MAX (1 << 30)

union splice_ip {
	struct iphdr v4;
	struct ipv6hdr v6;
};

/* What an ICMP error holds of the packet that it is about: RFC 792 and RFC 4443 3 promise as much. */
struct splice_ports {
	__be16 source;
	__be16 destination;
	__be32 sequence;
};

union splice_quote {
	struct {
		struct iphdr ip;
		struct splice_ports tcp;
	} v4;
	struct {
		struct ipv6hdr ip;
		struct splice_ports tcp;
	} v6;
};

/* A segment on its way through, or an error about one. Per CPU: too large for the stack. */
struct splice_work {
	struct tg_flow from; /* as its sender's side of the host sees it */
	struct tg_flow key;  /* of `flows` */
	struct tg_flow to;   /* as the other side sees it */
	__u32 to_ifindex;
	struct tg_address next_hop; /* there; zero: whom the host's routes say */
	__u32 slot;		    /* the guest's */
	__u64 guest_id;
	__u32 header_length; /* of TCP, with options */
	__u32 payload_length;
	bool malformed;
	bool last_hop;
	bool is_news; /* this segment has closed or ended the splice, or is the first FIN of its sender */
	struct tg_tcp_options options;
	struct tg_rewrite rewrite;
	struct tg_tcp tcp_before, tcp;
	union splice_ip ip_before, ip;
	union splice_quote quote_before, quote;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct splice_work);
} splice_works SEC(".maps");

static __always_inline struct splice_work *splice_work(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&splice_works, &zero);
}

static __always_inline bool flow_equal(const struct tg_flow *a, const struct tg_flow *b)
{
	return address_equal(&a->guest_address, &b->guest_address) &&
	       address_equal(&a->peer_address, &b->peer_address) && a->guest_port == b->guest_port &&
	       a->peer_port == b->peer_port && a->protocol == b->protocol;
}

/* The state of the splice of a guest's flow; ENDED also if there is none. */
static __always_inline __u32 splice_state(const struct tg_flow *flow)
{
	struct tg_splice *splice = bpf_map_lookup_elem(&flows, flow);
	__u32 state = TG_SPLICE_ENDED;

	if (!splice)
		return state;
	bpf_spin_lock(&splice->lock);
	if (flow_equal(&splice->flow, flow))
		state = splice->state;
	bpf_spin_unlock(&splice->lock);
	return state;
}

/* Whether the host's own sockets have no say in the connection any more. */
static __always_inline bool splice_is_ours(__u32 state)
{
	return state == TG_SPLICE_HELD || state == TG_SPLICE_FORWARDING || state == TG_SPLICE_CLOSED;
}

static __always_inline bool splice_is_forwarded(__u32 state)
{
	return state == TG_SPLICE_FORWARDING || state == TG_SPLICE_CLOSED;
}

/* What splice_redirect_to_guest() has sent. */
static __always_inline bool is_from_uplink(const struct __sk_buff *skb)
{
	return skb->ingress_ifindex && skb->ingress_ifindex != skb->ifindex && skb->mark == tg_mark;
}

/* Refusals that every hand-off brings about, with nobody to blame: counted, and no event. */
static __always_inline bool splice_is_expected(verdict_t verdict)
{
	return verdict == TG_DROP_SPLICE_HELD || verdict == TG_DROP_SPLICE_REPLAY ||
	       verdict == TG_DROP_EGRESS_SPLICED;
}

/* a - b of two sequence numbers or timestamps (RFC 9293 3.4). */
static __always_inline __s32 distance(__u32 a, __u32 b)
{
	return (__s32)(a - b);
}

/* The functions down to splice_judge() run under the splice's lock: no helpers. */

/* What is of use in every state. */
static __always_inline void splice_note(struct tg_splice_side *from, const struct splice_work *work,
					__u64 now)
{
	__u32 tsval;

	from->last_ns = now;
	if (!work->options.timestamps)
		return;
	tsval = tg_option_word(&work->tcp, work->options.timestamps);
	if (from->flags & TG_SPLICE_SEEN && distance(tsval, from->ts_last) <= 0)
		return;
	from->ts_last = tsval;
	from->flags |= TG_SPLICE_SEEN;
}

/*
 * Whether the sequence numbers can be of this connection. `end` is behind what the segment has.
 *
 * The floor is what was handed off, until so much was sent since that it would come round: then it follows
 * what was acknowledged at the distance of the largest window, below which nobody has reason to send again.
 */
static __always_inline verdict_t splice_check_sequence(struct tg_splice_side *from, __u32 sequence, __u32 end)
{
	__u32 low = from->acked - SPLICE_WINDOW_MAX;
	__s32 ahead = distance(end, from->acked);

	if (distance(low, from->floor) > 0)
		from->floor = low;
	/* Guest and operator see nothing but the counter: the server acknowledges the daemon's copy. */
	if (end != sequence && distance(sequence, from->floor) < 0) {
		from->replays++;
		return TG_DROP_SPLICE_REPLAY;
	}
	if (ahead > SPLICE_WINDOW_MAX || ahead < -SPLICE_WINDOW_MAX)
		return TG_DROP_SPLICE_SEGMENT;
	return TG_DROP_NONE;
}

/* Takes note of an acknowledgement of what `to` has sent; it cannot be of more than that. */
static __always_inline verdict_t splice_check_ack(struct tg_splice_side *to, __u32 acknowledgement)
{
	__u32 acked = acknowledgement - to->delta;
	__s32 news = distance(acked, to->acked);

	if (distance(acked, to->end) > 0 || news < -SPLICE_WINDOW_MAX)
		return TG_DROP_SPLICE_SEGMENT;
	if (news > 0)
		to->acked = acked;
	if (to->flags & TG_SPLICE_FIN && distance(to->acked, to->fin_end) >= 0)
		to->flags |= TG_SPLICE_FIN_ACKED;
	return TG_DROP_NONE;
}

/*
 * A server sends its SYN+ACK again if the last ACK of the handshake was lost. The guest gets it as a bare
 * segment that lies before its window, which it answers with the missing ACK (RFC 9293 3.10.7.4). Nothing
 * else with a SYN is of this connection.
 */
static __always_inline bool splice_is_repeated_handshake(const struct tg_splice_side *server,
							 const struct splice_work *work, __u32 sequence)
{
	return (work->tcp.header.flags & (TCP_SYN | TCP_ACK)) == (TCP_SYN | TCP_ACK) &&
	       !work->payload_length && sequence + 1 == server->floor && server->end == server->floor;
}

static __always_inline verdict_t splice_track(struct tg_splice *splice, struct splice_work *work,
					      enum tg_splice_end from_end)
{
	struct tg_splice_side *from = &splice->sides[from_end];
	struct tg_splice_side *to = &splice->sides[!from_end];
	const struct tcp_header *tcp = &work->tcp.header;
	__u32 sequence = bpf_ntohl(tcp->sequence);
	__u32 end = sequence + work->payload_length + !!(tcp->flags & TCP_FIN);
	verdict_t verdict;

	if (work->malformed || !tcp_flags_possible(tcp->flags))
		return TG_DROP_SPLICE_SEGMENT;
	if (work->last_hop)
		return TG_DROP_SPLICE_FORWARD;
	if (tcp->flags & TCP_SYN &&
	    (from_end == TG_SPLICE_GUEST || !splice_is_repeated_handshake(from, work, sequence)))
		return TG_DROP_SPLICE_SEGMENT;
	verdict = splice_check_sequence(from, sequence, end);
	if (verdict)
		return verdict;
	if (tcp->flags & TCP_ACK) {
		verdict = splice_check_ack(to, bpf_ntohl(tcp->acknowledgement));
		if (verdict)
			return verdict;
	}
	if (tcp->flags & TCP_RST) {
		/* One that is elsewhere in the window goes on, but what comes of it is the other end's to
		 * decide: if it asks back (RFC 5961 3), the next reset is exact. */
		if (sequence == from->acked || sequence == from->end)
			from->flags |= TG_SPLICE_RESET;
		return TG_DROP_NONE;
	}
	if (distance(end, from->end) > 0)
		from->end = end;
	if (tcp->flags & TCP_FIN) {
		work->is_news = !(from->flags & TG_SPLICE_FIN);
		from->flags |= TG_SPLICE_FIN;
		from->fin_end = end;
	}
	return TG_DROP_NONE;
}

static __always_inline bool splice_has_closed(const struct tg_splice *splice)
{
	__u8 guest = splice->sides[TG_SPLICE_GUEST].flags, server = splice->sides[TG_SPLICE_SERVER].flags;

	return (guest & server & TG_SPLICE_FIN_ACKED) || ((guest | server) & TG_SPLICE_RESET);
}

/* What the segment becomes. */
static __always_inline void splice_prepare(struct tg_splice *splice, struct splice_work *work,
					   enum tg_splice_end from_end)
{
	struct tg_splice_side *from = &splice->sides[from_end];
	const struct tg_splice_side *to = &splice->sides[!from_end];
	struct tg_rewrite *rewrite = &work->rewrite;

	if (work->options.timestamps && !(from->flags & TG_SPLICE_CLOCK)) {
		from->ts_delta = from->ts_base - tg_option_word(&work->tcp, work->options.timestamps);
		from->flags |= TG_SPLICE_CLOCK;
	}
	if (from_end == TG_SPLICE_GUEST) {
		work->to = splice->upstream;
		work->to_ifindex = splice->uplink_ifindex;
		work->next_hop = splice->next_hop;
		rewrite->source_port = work->to.guest_port;
		rewrite->destination_port = work->to.peer_port;
	} else {
		work->to = splice->flow;
		work->to_ifindex = splice->guest_ifindex;
		work->next_hop = splice->flow.guest_address;
		rewrite->source_port = work->to.peer_port;
		rewrite->destination_port = work->to.guest_port;
	}
	rewrite->sequence = from->delta;
	rewrite->acknowledgement = to->delta;
	rewrite->tsval = from->ts_delta;
	rewrite->tsecr = to->ts_delta;
	rewrite->no_echo = !(to->flags & TG_SPLICE_CLOCK);
	rewrite->scale = from->scale;
	rewrite->shown_scale = from->shown_scale;
	rewrite->no_syn = !!(work->tcp.header.flags & TCP_SYN);
	from->packets++;
	from->bytes += work->payload_length;
}

static __always_inline int splice_judge(struct tg_splice *splice, struct splice_work *work,
					enum tg_splice_end from_end, __u64 now)
{
	struct tg_splice_side *from = &splice->sides[from_end];
	const struct tcp_header *tcp = &work->tcp.header;
	__u32 end;
	int verdict;

	if (splice->state == TG_SPLICE_ENDED)
		return SPLICE_NONE;
	if (!flow_equal(from_end == TG_SPLICE_GUEST ? &splice->flow : &splice->upstream, &work->from))
		return SPLICE_NONE;
	if (from_end == TG_SPLICE_GUEST && splice->guest_id != work->guest_id)
		return SPLICE_NONE;
	work->slot = splice->slot;
	work->guest_id = splice->guest_id;
	splice_note(from, work, now);
	switch (splice->state) {
	case TG_SPLICE_RECORDING:
		end = bpf_ntohl(tcp->sequence) + work->payload_length + !!(tcp->flags & (TCP_SYN | TCP_FIN));
		if (!from->end || distance(end, from->end) > 0)
			from->end = end;
		return SPLICE_NONE;
	case TG_SPLICE_HELD:
		/* Guest and server see a loss, and send again. */
		return TG_DROP_SPLICE_HELD;
	case TG_SPLICE_FORWARDING:
	case TG_SPLICE_CLOSED:
		break;
	default:
		return TG_DROP_SPLICE_SEGMENT;
	}
	/* Guests use a port again within milliseconds: what was is over before the new SYN is judged. */
	if (from_end == TG_SPLICE_GUEST && (tcp->flags & (TCP_SYN | TCP_ACK)) == TCP_SYN) {
		from->flags |= TG_SPLICE_REUSED;
		splice->state = TG_SPLICE_ENDED;
		splice->changed_ns = now;
		work->is_news = true;
		return SPLICE_NONE;
	}
	verdict = splice_track(splice, work, from_end);
	if (verdict)
		return verdict;
	if (splice->state == TG_SPLICE_FORWARDING && splice_has_closed(splice)) {
		splice->state = TG_SPLICE_CLOSED;
		splice->changed_ns = now;
		work->is_news = true;
	}
	splice_prepare(splice, work, from_end);
	return TG_DROP_NONE;
}

static __always_inline void send_splice_event(const struct splice_work *work, __u64 now)
{
	struct tg_event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event) {
		count_lost_event();
		return;
	}
	__builtin_memset(event, 0, sizeof(*event));
	event->time_ns = now;
	event->guest_id = work->guest_id;
	event->type = TG_EVENT_SPLICE;
	event->flow = work->key;
	bpf_ringbuf_submit(event, 0);
}

/* Loads the TCP header and finds its options. `header_length` is within the packet. */
static __always_inline bool splice_load(struct __sk_buff *skb, const struct packet *packet,
					struct splice_work *work, __u32 header_length)
{
	/* Compared as it is, not as the four bits that it was made from: the verifier knows no better. */
	asm volatile("" : "+r"(header_length));
	if (header_length < sizeof(struct tcp_header) ||
	    header_length > sizeof(struct tcp_header) + TG_TCP_OPTIONS_MAX)
		return false;
	if (bpf_skb_load_bytes(skb, packet->l4_offset, &work->tcp, header_length))
		return false;
	work->header_length = header_length;
	work->payload_length = packet->l4_length - header_length;
	work->last_hop = packet->hop_limit <= 1;
	work->is_news = false;
	work->malformed =
	    !tg_find_options(&work->tcp, header_length - sizeof(struct tcp_header), &work->options) ||
	    !is_answerable(packet); /* no TCP sends extension headers */
	return true;
}

static __always_inline int splice_enter(struct tg_splice *splice, struct splice_work *work,
					enum tg_splice_end from_end)
{
	__u64 now = bpf_ktime_get_boot_ns();
	int verdict;

	bpf_spin_lock(&splice->lock);
	verdict = splice_judge(splice, work, from_end, now);
	bpf_spin_unlock(&splice->lock);
	if (work->is_news)
		send_splice_event(work, now);
	return verdict;
}

static __always_inline bool splice_rewrite_ipv4(struct __sk_buff *skb, struct splice_work *work,
						const struct tg_address *source,
						const struct tg_address *destination, __s64 *addresses_diff)
{
	const struct iphdr *before = &work->ip_before.v4;
	struct iphdr *ip = &work->ip.v4;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &work->ip_before, sizeof(*ip)))
		return false;
	*ip = *before;
	ip->ttl--;
	ip->saddr = address_v4(source);
	ip->daddr = address_v4(destination);
	ip->check = ~fold(
	    bpf_csum_diff((__be32 *)before, sizeof(*ip), (__be32 *)ip, sizeof(*ip), (__u16)~before->check));
	*addresses_diff = bpf_csum_diff((__be32 *)&before->saddr, 8, (__be32 *)&ip->saddr, 8, 0);
	return !bpf_skb_store_bytes(skb, ETH_HLEN, &work->ip, sizeof(*ip), 0);
}

static __always_inline bool splice_rewrite_ipv6(struct __sk_buff *skb, struct splice_work *work,
						const struct tg_address *source,
						const struct tg_address *destination, __s64 *addresses_diff)
{
	const struct ipv6hdr *before = &work->ip_before.v6;
	struct ipv6hdr *ip = &work->ip.v6;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &work->ip_before, sizeof(*ip)))
		return false;
	*ip = *before;
	ip->hop_limit--;
	__builtin_memcpy(&ip->saddr, source, sizeof(ip->saddr));
	__builtin_memcpy(&ip->daddr, destination, sizeof(ip->daddr));
	*addresses_diff = bpf_csum_diff((__be32 *)&before->saddr, 32, (__be32 *)&ip->saddr, 32, 0);
	if (bpf_skb_store_bytes(skb, ETH_HLEN, &work->ip, sizeof(*ip), 0))
		return false;
	/* With CHECKSUM_COMPLETE the device's sum covers this header too, in which nothing makes up for what
	 * has changed; bpf_l4_csum_replace() takes the addresses off it as if there was (IPv4's checksum).
	 * Any other packet has no such sum, and this says so. */
	bpf_csum_update(skb, bpf_csum_diff((__be32 *)before, sizeof(*ip), (__be32 *)ip, sizeof(*ip), 0));
	return true;
}

/* Whether the packet, or each one that it will be cut into, fits the interface. */
static __always_inline bool splice_fits(struct __sk_buff *skb, const struct packet *packet,
					const struct splice_work *work)
{
	__u32 size = packet->l4_offset - ETH_HLEN + work->header_length;
	__u32 mtu = 0;

	size += skb->gso_size ? skb->gso_size : work->payload_length;
	return bpf_check_mtu(skb, work->to_ifindex, &mtu, 0, 0) >= 0 && size <= mtu;
}

/* Ethernet padding, and whatever else lies behind the IP packet. */
static __always_inline bool splice_trim(struct __sk_buff *skb, const struct packet *packet)
{
	__u32 length = packet->l4_offset + packet->l4_length;

	if (skb->len <= length || skb->len <= ETH_ZLEN)
		return true;
	return !skb->gso_size && !bpf_skb_change_tail(skb, length, 0);
}

static __always_inline bool splice_rewrite_tcp(struct __sk_buff *skb, const struct packet *packet,
					       struct splice_work *work, __s64 *diff)
{
	__u64 length;

	work->tcp_before = work->tcp;
	tg_rewrite_tcp(&work->tcp, &work->options, &work->rewrite);
	/* Read and compared just before it is used: what 6.1 has learned of a register it forgets of the copy
	 * that went to the stack before. */
	asm volatile("" ::: "memory");
	length = work->header_length;
	asm volatile("" : "+r"(length));
	if (length < sizeof(struct tcp_header) || length > sizeof(struct tcp_header) + TG_TCP_OPTIONS_MAX)
		return false;
	*diff = bpf_csum_diff((__be32 *)&work->tcp_before, length, (__be32 *)&work->tcp, length, 0);
	return !bpf_skb_store_bytes(skb, packet->l4_offset, &work->tcp, length, 0);
}

/* Rewrites what splice_enter() has let through and sends it to the other end: TG_DROP_NONE, or why not. */
static __always_inline verdict_t splice_forward(struct __sk_buff *skb, const struct packet *packet,
						struct splice_work *work, enum tg_splice_end from_end)
{
	bool from_guest = from_end == TG_SPLICE_GUEST;
	const struct tg_address *source = from_guest ? &work->to.guest_address : &work->to.peer_address;
	const struct tg_address *destination = from_guest ? &work->to.peer_address : &work->to.guest_address;
	__u32 checksum = packet->l4_offset + offsetof(struct tcphdr, check);
	__s64 addresses_diff, diff;

	if (!splice_trim(skb, packet) || !splice_fits(skb, packet, work))
		return TG_DROP_SPLICE_FORWARD;
	if (packet->ethertype == ETH_P_IP
		? !splice_rewrite_ipv4(skb, work, source, destination, &addresses_diff)
		: !splice_rewrite_ipv6(skb, work, source, destination, &addresses_diff))
		return TG_DROP_TRUNCATED;
	if (!splice_rewrite_tcp(skb, packet, work, &diff) || bpf_l4_csum_replace(skb, checksum, 0, diff, 0) ||
	    bpf_l4_csum_replace(skb, checksum, 0, addresses_diff, BPF_F_PSEUDO_HDR))
		return TG_DROP_TRUNCATED;
	return TG_DROP_NONE;
}

/* Without the search for a route that forwarding would need, unless nobody knows the next hop. */
static __always_inline void splice_redirect(const struct splice_work *work)
{
	const struct tg_address *next_hop = &work->next_hop;
	struct bpf_redir_neigh neighbour = {};

	if (address_unspecified(next_hop)) {
		bpf_redirect_neigh(work->to_ifindex, NULL, 0, 0);
		return;
	}
	if (address_mapped(next_hop)) {
		neighbour.nh_family = AF_INET;
		neighbour.ipv4_nh = address_v4(next_hop);
	} else {
		neighbour.nh_family = AF_INET6;
		__builtin_memcpy(neighbour.ipv6_nh, next_hop, sizeof(neighbour.ipv6_nh));
	}
	bpf_redirect_neigh(work->to_ifindex, &neighbour, sizeof(neighbour), 0);
}

static __always_inline void splice_redirect_to_server(struct __sk_buff *skb, const struct splice_work *work)
{
	/* Our mark would lead the route to the host itself. */
	skb->mark = 0;
	splice_redirect(work);
}

/* By the guest's own address, whatever the host's routes say; tap_egress wants the mark. */
static __always_inline void splice_redirect_to_guest(struct __sk_buff *skb, const struct splice_work *work)
{
	skb->mark = tg_mark;
	splice_redirect(work);
}

/*
 * A segment of a guest, by its parsed headers. TG_DROP_NONE: it was rewritten and the program is to return
 * TC_ACT_REDIRECT. SPLICE_NONE: it goes the way of all others, since its connection is not spliced, or was
 * until this SYN. Else why it is refused.
 *
 * A global function: tap_ingress has no stack to spare.
 */
__noinline int splice_from_guest(struct __sk_buff *skb, const struct packet *packet, __u64 guest_id,
				 __u32 header_length)
{
	struct splice_work *work = splice_work();
	struct tg_splice *splice;
	int verdict;

	if (!packet || !work)
		return SPLICE_NONE;
	work->from = packet->flow;
	work->key = packet->flow;
	work->guest_id = guest_id;
	splice = bpf_map_lookup_elem(&flows, &work->key);
	if (!splice)
		return SPLICE_NONE;
	if (!splice_load(skb, packet, work, header_length))
		return TG_DROP_TRUNCATED;
	verdict = splice_enter(splice, work, TG_SPLICE_GUEST);
	if (verdict)
		return verdict;
	verdict = splice_forward(skb, packet, work, TG_SPLICE_GUEST);
	if (!verdict)
		splice_redirect_to_server(skb, work);
	return verdict;
}

/* The same for a segment that came in by an uplink. */
static __always_inline int splice_from_server(struct __sk_buff *skb, const struct packet *packet,
					      __u32 header_length)
{
	struct tg_flow *flow = bpf_map_lookup_elem(&upstream_flows, &packet->flow);
	struct splice_work *work = splice_work();
	struct tg_splice *splice;
	int verdict;

	if (!flow || !work)
		return SPLICE_NONE;
	work->from = packet->flow;
	work->key = *flow;
	splice = bpf_map_lookup_elem(&flows, &work->key);
	if (!splice || !splice_load(skb, packet, work, header_length))
		return SPLICE_NONE;
	verdict = splice_enter(splice, work, TG_SPLICE_SERVER);
	if (verdict)
		return verdict;
	verdict = splice_forward(skb, packet, work, TG_SPLICE_SERVER);
	if (!verdict)
		splice_redirect_to_guest(skb, work);
	return verdict;
}

/*
 * IPv4 options and fragments are not parsed any further elsewhere, but what they hide must not reach the
 * host's own socket or make its kernel answer for the connection with a reset. Without its first fragment,
 * which has the ports, a packet comes to nothing.
 */
static __always_inline bool splice_find_hidden_v4(struct __sk_buff *skb, struct packet *packet)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) ||
	    ip.frag_off & bpf_htons(IPV4_FRAGMENT_OFFSET_MASK))
		return false;
	packet->l4_offset = ETH_HLEN + ip.ihl * 4;
	return true;
}

static __always_inline bool splice_find_hidden_v6(struct __sk_buff *skb, struct packet *packet)
{
	struct ipv6_fragment fragment;

	if (packet->flow.protocol != IPPROTO_FRAGMENT ||
	    bpf_skb_load_bytes(skb, packet->l4_offset, &fragment, sizeof(fragment)) ||
	    fragment.offset & bpf_htons(IPV6_FRAGMENT_OFFSET_MASK))
		return false;
	packet->flow.protocol = fragment.next_header;
	packet->l4_offset += sizeof(fragment);
	return true;
}

/* A packet of an uplink that parse_ipv4() or parse_ipv6() has refused; results as of splice_from_server(). */
static __always_inline int splice_check_hidden(struct __sk_buff *skb, struct packet *packet,
					       verdict_t verdict)
{
	struct splice_work *work = splice_work();
	struct splice_ports ports;
	struct tg_splice *splice;
	struct tg_flow *flow;

	if (!work || (verdict != TG_DROP_FRAGMENT && verdict != TG_DROP_IP_OPTIONS))
		return SPLICE_NONE;
	if (packet->ethertype == ETH_P_IP ? !splice_find_hidden_v4(skb, packet)
					  : !splice_find_hidden_v6(skb, packet))
		return SPLICE_NONE;
	if (packet->flow.protocol != IPPROTO_TCP ||
	    bpf_skb_load_bytes(skb, packet->l4_offset, &ports, sizeof(ports)))
		return SPLICE_NONE;
	packet->flow.guest_port = ports.destination;
	packet->flow.peer_port = ports.source;
	flow = bpf_map_lookup_elem(&upstream_flows, &packet->flow);
	if (!flow)
		return SPLICE_NONE;
	work->key = *flow;
	splice = bpf_map_lookup_elem(&flows, &work->key);
	if (!splice)
		return SPLICE_NONE;
	work->slot = splice->slot;
	return splice_is_ours(splice_state(&work->key)) ? TG_DROP_SPLICE_SEGMENT : SPLICE_NONE;
}

/* Counts a segment that splice_from_server() has refused with those of the guest. */
static __always_inline void splice_count_refused(verdict_t verdict)
{
	const struct splice_work *work = splice_work();

	if (work)
		count_reason(work->slot, verdict);
}

/* --- ICMP errors about spliced segments --------------------------------------------------------------------
 */

#define ICMPV4_FRAGMENTATION_NEEDED 4 /* a code */
#define ICMPV6_TOO_BIG		    2

/* What TCP has use for: unreachable, which "fragmentation needed" belongs to, and its own kind in ICMPv6. Of
 * a guest only the latter two: it has no business to tell a server anything else. */
static __always_inline bool splice_is_error(const struct packet *packet, __u8 type, __u8 code)
{
	if (packet->ethertype == ETH_P_IP)
		return packet->flow.protocol == IPPROTO_ICMP && type == ICMPV4_UNREACHABLE &&
		       (!packet->from_guest || code == ICMPV4_FRAGMENTATION_NEEDED);
	return packet->flow.protocol == IPPROTO_ICMPV6 &&
	       (type == ICMPV6_TOO_BIG || (type == ICMPV6_UNREACHABLE && !packet->from_guest));
}

static __always_inline bool splice_load_quote_v4(struct __sk_buff *skb, __u32 offset,
						 struct splice_work *work)
{
	const struct iphdr *ip = &work->quote_before.v4.ip;

	if (bpf_skb_load_bytes(skb, offset, &work->quote_before.v4, sizeof(work->quote_before.v4)))
		return false;
	if (ip->version != 4 || ip->ihl != 5 || ip->protocol != IPPROTO_TCP ||
	    ip->frag_off & bpf_htons(IPV4_FRAGMENT_MASK))
		return false;
	address_from_v4(&work->from.guest_address, ip->saddr);
	address_from_v4(&work->from.peer_address, ip->daddr);
	work->from.guest_port = work->quote_before.v4.tcp.source;
	work->from.peer_port = work->quote_before.v4.tcp.destination;
	return true;
}

static __always_inline bool splice_load_quote_v6(struct __sk_buff *skb, __u32 offset,
						 struct splice_work *work)
{
	const struct ipv6hdr *ip = &work->quote_before.v6.ip;

	if (bpf_skb_load_bytes(skb, offset, &work->quote_before.v6, sizeof(work->quote_before.v6)))
		return false;
	if (ip->version != 6 || ip->nexthdr != IPPROTO_TCP)
		return false;
	__builtin_memcpy(&work->from.guest_address, &ip->saddr, sizeof(ip->saddr));
	__builtin_memcpy(&work->from.peer_address, &ip->daddr, sizeof(ip->daddr));
	work->from.guest_port = work->quote_before.v6.tcp.source;
	work->from.peer_port = work->quote_before.v6.tcp.destination;
	return true;
}

/* Loads what an error quotes, with the connection that it is about as its sender sees it in `from`. */
static __always_inline bool splice_load_error(struct __sk_buff *skb, const struct packet *packet,
					      struct splice_work *work)
{
	__u32 offset = packet->l4_offset + sizeof(struct icmp_header);
	struct icmp_header icmp;

	if (!is_answerable(packet) || bpf_skb_load_bytes(skb, packet->l4_offset, &icmp, sizeof(icmp)) ||
	    !splice_is_error(packet, icmp.type, icmp.code))
		return false;
	__builtin_memset(&work->from, 0, sizeof(work->from));
	work->from.protocol = IPPROTO_TCP;
	return packet->ethertype == ETH_P_IP ? splice_load_quote_v4(skb, offset, work)
					     : splice_load_quote_v6(skb, offset, work);
}

/* Makes of one end's view of a connection the other's. */
static __always_inline void flow_reverse(struct tg_flow *reversed, const struct tg_flow *flow)
{
	reversed->guest_address = flow->peer_address;
	reversed->peer_address = flow->guest_address;
	reversed->guest_port = flow->peer_port;
	reversed->peer_port = flow->guest_port;
}

/*
 * Under the splice's lock. `about` is the end that has sent what the error quotes. The number must be one
 * that is on its way (RFC 5927 4.1), and above the hand-off: what the daemon has sent itself is its own to
 * learn of.
 */
static __always_inline bool splice_judge_error(const struct tg_splice *splice, struct splice_work *work,
					       enum tg_splice_end about, __u32 sequence)
{
	const struct tg_splice_side *side = &splice->sides[about];

	if (!splice_is_forwarded(splice->state))
		return false;
	if (about == TG_SPLICE_GUEST
		? !flow_equal(&splice->upstream, &work->from)
		: !flow_equal(&splice->flow, &work->key) || splice->guest_id != work->guest_id)
		return false;
	sequence -= side->delta;
	if (distance(sequence, side->acked) < 0 || distance(sequence, side->floor) < 0 ||
	    distance(sequence, side->end) >= 0)
		return false;
	if (about == TG_SPLICE_GUEST) {
		work->to = splice->flow;
		work->to_ifindex = splice->guest_ifindex;
		work->next_hop = splice->flow.guest_address;
	} else {
		work->to = splice->upstream;
		work->to_ifindex = splice->uplink_ifindex;
		work->next_hop = splice->next_hop;
	}
	work->rewrite.sequence = -side->delta;
	return true;
}

/* By the key in `work`. */
static __always_inline bool splice_find_error(struct splice_work *work, enum tg_splice_end about, bool v4)
{
	__u32 sequence =
	    bpf_ntohl(v4 ? work->quote_before.v4.tcp.sequence : work->quote_before.v6.tcp.sequence);
	struct tg_splice *splice = bpf_map_lookup_elem(&flows, &work->key);
	bool found;

	if (!splice)
		return false;
	bpf_spin_lock(&splice->lock);
	found = splice_judge_error(splice, work, about, sequence);
	bpf_spin_unlock(&splice->lock);
	return found;
}

/* `sender` is what the quoted packet's sender calls the connection. */
static __always_inline void splice_rewrite_ports(struct splice_ports *tcp, const struct splice_work *work,
						 const struct tg_flow *sender)
{
	tcp->source = sender->guest_port;
	tcp->destination = sender->peer_port;
	tcp->sequence = bpf_htonl(bpf_ntohl(tcp->sequence) + work->rewrite.sequence);
}

/* The quote becomes the segment that its sender has sent. The sum over an IPv4 header, its checksum included,
 * stays as it is. */
static __always_inline bool splice_rewrite_quote_v4(struct __sk_buff *skb, __u32 offset,
						    struct splice_work *work, const struct tg_flow *sender,
						    __s64 *diff)
{
	const struct iphdr *before = &work->quote_before.v4.ip;
	struct iphdr *ip = &work->quote.v4.ip;
	const __u32 size = sizeof(work->quote.v4);

	work->quote.v4 = work->quote_before.v4;
	ip->saddr = address_v4(&sender->guest_address);
	ip->daddr = address_v4(&sender->peer_address);
	ip->check =
	    ~fold(bpf_csum_diff((__be32 *)&before->saddr, 8, (__be32 *)&ip->saddr, 8, (__u16)~before->check));
	splice_rewrite_ports(&work->quote.v4.tcp, work, sender);
	*diff = bpf_csum_diff((__be32 *)&work->quote_before.v4, size, (__be32 *)&work->quote.v4, size, 0);
	return !bpf_skb_store_bytes(skb, offset, &work->quote.v4, size, 0);
}

static __always_inline bool splice_rewrite_quote_v6(struct __sk_buff *skb, __u32 offset,
						    struct splice_work *work, const struct tg_flow *sender,
						    __s64 *diff)
{
	struct ipv6hdr *ip = &work->quote.v6.ip;
	const __u32 size = sizeof(work->quote.v6);

	work->quote.v6 = work->quote_before.v6;
	__builtin_memcpy(&ip->saddr, &sender->guest_address, sizeof(ip->saddr));
	__builtin_memcpy(&ip->daddr, &sender->peer_address, sizeof(ip->daddr));
	splice_rewrite_ports(&work->quote.v6.tcp, work, sender);
	*diff = bpf_csum_diff((__be32 *)&work->quote_before.v6, size, (__be32 *)&work->quote.v6, size, 0);
	return !bpf_skb_store_bytes(skb, offset, &work->quote.v6, size, 0);
}

/* An ICMP checksum covers no IPv4 addresses (RFC 792), but those of IPv6 (RFC 4443 2.3). */
static __always_inline bool splice_rewrite_error(struct __sk_buff *skb, const struct packet *packet,
						 struct splice_work *work, const struct tg_flow *sender,
						 const struct tg_address *source)
{
	__u32 checksum = packet->l4_offset + offsetof(struct icmp_header, checksum);
	__u32 quote = packet->l4_offset + sizeof(struct icmp_header);
	__s64 addresses_diff, diff;

	if (packet->ethertype == ETH_P_IP)
		return splice_rewrite_quote_v4(skb, quote, work, sender, &diff) &&
		       splice_rewrite_ipv4(skb, work, source, &sender->guest_address, &addresses_diff) &&
		       !bpf_l4_csum_replace(skb, checksum, 0, diff, 0);
	return splice_rewrite_quote_v6(skb, quote, work, sender, &diff) &&
	       splice_rewrite_ipv6(skb, work, source, &sender->guest_address, &addresses_diff) &&
	       !bpf_l4_csum_replace(skb, checksum, 0, diff, 0) &&
	       !bpf_l4_csum_replace(skb, checksum, 0, addresses_diff, BPF_F_PSEUDO_HDR);
}

/* An ICMP packet that came in by an uplink; results as of splice_from_server(). It keeps its source, the
 * router that has sent it. */
static __always_inline int splice_error_from_server(struct __sk_buff *skb, const struct packet *packet)
{
	struct splice_work *work = splice_work();
	struct tg_flow *flow;

	if (!work || packet->hop_limit <= 1 || !splice_load_error(skb, packet, work))
		return SPLICE_NONE;
	flow = bpf_map_lookup_elem(&upstream_flows, &work->from);
	if (!flow)
		return SPLICE_NONE;
	work->key = *flow;
	if (!splice_find_error(work, TG_SPLICE_GUEST, packet->ethertype == ETH_P_IP))
		return SPLICE_NONE;
	if (!splice_rewrite_error(skb, packet, work, &work->to, &packet->flow.peer_address))
		return TG_DROP_TRUNCATED;
	splice_redirect_to_guest(skb, work);
	return TG_DROP_NONE;
}

/*
 * An ICMP packet of a guest; results as of splice_from_guest(). To the server alone, from the host's address
 * that it knows; what is behind the quoted numbers stays as it is, so there is a rate.
 *
 * A global function: tap_ingress has no stack to spare.
 */
__noinline int splice_error_from_guest(struct __sk_buff *skb, const struct packet *packet,
				       struct tg_guest_state *state, __u64 guest_id)
{
	struct splice_work *work = splice_work();
	struct tg_flow *sender;

	if (!packet || !state || !work || packet->hop_limit <= 1 || !splice_load_error(skb, packet, work))
		return SPLICE_NONE;
	if (!address_equal(&work->from.guest_address, &packet->flow.peer_address))
		return SPLICE_NONE;
	work->guest_id = guest_id;
	__builtin_memset(&work->key, 0, sizeof(work->key));
	work->key.protocol = IPPROTO_TCP;
	flow_reverse(&work->key, &work->from);
	if (!splice_find_error(work, TG_SPLICE_SERVER, packet->ethertype == ETH_P_IP))
		return SPLICE_NONE;
	if (rate_exceeded(&state->prohibition_second, &state->prohibition_count, TG_PROHIBITIONS_PER_SECOND))
		return SPLICE_NONE;
	sender = &work->from;
	flow_reverse(sender, &work->to);
	if (!splice_rewrite_error(skb, packet, work, sender, &work->to.guest_address))
		return TG_DROP_TRUNCATED;
	splice_redirect_to_server(skb, work);
	return TG_DROP_NONE;
}

/* Whether an ICMP packet to the guest is what splice_error_from_server() has made. */
static __always_inline bool is_spliced_error(struct __sk_buff *skb, const struct packet *packet)
{
	struct splice_work *work = splice_work();

	return work && is_from_uplink(skb) && splice_load_error(skb, packet, work) &&
	       splice_is_forwarded(splice_state(&work->from));
}

/* --- change_flow: what the daemon changes -----------------------------------------------------------------
 */

static __always_inline void splice_set_side(struct tg_splice_side *side, const struct tg_new_side *new)
{
	side->floor = side->end = new->next;
	side->acked = new->acked;
	side->bytes = new->next - new->acked;
	side->delta = new->delta;
	side->ts_base = new->ts_base;
	side->scale = new->scale;
	side->shown_scale = new->shown_scale;
}

static __always_inline enum tg_change_result splice_change(struct tg_splice *splice,
							   const struct tg_flow_change *change, __u64 now)
{
	__u32 from, to;

	if (splice->id != change->id || !flow_equal(&splice->flow, &change->flow))
		return TG_CHANGE_NO_FLOW;
	switch (change->change) {
	case TG_CHANGE_HOLD:
		from = TG_SPLICE_RECORDING;
		to = TG_SPLICE_HELD;
		break;
	case TG_CHANGE_RELEASE:
		from = TG_SPLICE_HELD;
		to = TG_SPLICE_RECORDING;
		break;
	case TG_CHANGE_FORWARD:
		from = TG_SPLICE_HELD;
		to = TG_SPLICE_FORWARDING;
		break;
	case TG_CHANGE_END:
		from = splice->state;
		to = TG_SPLICE_ENDED;
		break;
	case TG_CHANGE_ROUTE:
		splice->uplink_ifindex = change->uplink_ifindex;
		splice->next_hop = change->next_hop;
		return TG_CHANGED;
	default:
		return TG_CHANGE_STATE;
	}
	if (splice->state != from || from == TG_SPLICE_ENDED)
		return TG_CHANGE_STATE;
	splice->state = to;
	splice->changed_ns = now;
	if (change->change == TG_CHANGE_FORWARD) {
		splice_set_side(&splice->sides[TG_SPLICE_GUEST], &change->sides[TG_SPLICE_GUEST]);
		splice_set_side(&splice->sides[TG_SPLICE_SERVER], &change->sides[TG_SPLICE_SERVER]);
	}
	return TG_CHANGED;
}

static __always_inline enum tg_change_result change_splice(const struct tg_flow_change *change)
{
	struct tg_splice *splice = bpf_map_lookup_elem(&flows, &change->flow);
	__u64 now = bpf_ktime_get_boot_ns();
	enum tg_change_result result;

	if (!splice)
		return TG_CHANGE_NO_FLOW;
	bpf_spin_lock(&splice->lock);
	result = splice_change(splice, change, now);
	bpf_spin_unlock(&splice->lock);
	return result;
}

#endif
