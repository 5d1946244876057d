// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The two programs on the host's side of every guest's interface. Both pass only what they know; whatever
 * else there is, is dropped and counted. Then the one on uplinks, for spliced connections, and those that the
 * daemon runs to change what BPF writes too. README.md has the theory of operation.
 */
#include <linux/bpf.h>
#include <linux/if_packet.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#include "lib/dns_answer.bpf.h"
#include "lib/dns_refusal.bpf.h"
#include "lib/neighbour.bpf.h"
#include "lib/prohibited.bpf.h"
#include "lib/reset.bpf.h"
#include "lib/splice.bpf.h"
#include "lib/tcp.bpf.h"

char tg_license[] SEC("license") = "Dual BSD/GPL";

/* --- tap_ingress: what the guest sends --------------------------------------------------------------------
 */

/* Why nothing is routed to the address, with or without the daemon; TG_DROP_NONE if something is. */
static __always_inline verdict_t unroutable_v4(const struct tg_address *address)
{
	__u8 first = address->bytes[12];

	if ((first & 0xf0) == 0xe0 || address_v4(address) == 0xffffffff)
		return TG_DROP_MULTICAST;
	return first == 0 || first == 127 ? TG_DROP_IP_HEADER : TG_DROP_NONE;
}

/* The same; ::/96 are the unspecified, the loopback and the v4-compatible addresses. */
static __always_inline verdict_t unroutable_v6(const struct tg_address *address)
{
	if (address->bytes[0] == 0xff)
		return TG_DROP_MULTICAST;
	return !address_word(address, 0) && !((const __be32 *)address->bytes)[2] ? TG_DROP_IP_HEADER
										 : TG_DROP_NONE;
}

static __always_inline verdict_t check_source(const struct guest_context *context,
					      const struct packet *packet)
{
	if (!guest_has_address(context->guest, &packet->flow.guest_address))
		return TG_DROP_SOURCE_ADDRESS;
	if (!learn_source_mac(context, packet))
		return TG_DROP_SOURCE_MAC;
	return TG_DROP_NONE;
}

static __always_inline verdict_t check_ipv4(struct __sk_buff *skb, const struct guest_context *context,
					    struct packet *packet)
{
	verdict_t verdict = parse_ipv4(skb, packet);

	if (verdict)
		return verdict;
	verdict = check_source(context, packet);
	if (verdict)
		return verdict;
	if (packet->group_mac)
		return TG_DROP_MULTICAST;
	packet->unroutable = unroutable_v4(&packet->flow.peer_address);
	return TG_DROP_NONE;
}

/* `*is_nd` if the packet was neighbour discovery, and so is judged completely. */
static __always_inline verdict_t check_ipv6(struct __sk_buff *skb, const struct guest_context *context,
					    struct packet *packet, bool *is_nd)
{
	verdict_t verdict = parse_ipv6(skb, packet);
	__u8 icmp_type;

	if (verdict)
		return verdict;
	if (packet->flow.protocol == IPPROTO_ICMPV6) {
		if (!packet->l4_length || bpf_skb_load_bytes(skb, packet->l4_offset, &icmp_type, 1))
			return TG_DROP_TRUNCATED;
		/* The only packets that may come from other than the guest's addresses. */
		if (is_link_management(icmp_type)) {
			*is_nd = true;
			return check_nd(skb, context, packet);
		}
	}
	verdict = check_source(context, packet);
	if (verdict)
		return verdict;
	if (packet->group_mac)
		return TG_DROP_MULTICAST;
	packet->unroutable = unroutable_v6(&packet->flow.peer_address);
	return TG_DROP_NONE;
}

static __always_inline verdict_t check_tcp(struct __sk_buff *skb, const struct guest_context *context,
					   struct packet *packet, struct tcp_segment *segment)
{
	verdict_t verdict = parse_tcp(skb, packet, segment);
	__u8 flags = segment->header.flags;
	int spliced;

	if (verdict)
		return verdict;
	/* Guest sees: RST at once, which sends its resolver back to DNS. Operator sees: dns-transport. */
	if (is_name_service_port(packet->flow.peer_port))
		return TG_DROP_DNS_TRANSPORT;
	if ((flags & (TCP_SYN | TCP_ACK)) == (TCP_SYN | TCP_ACK))
		return TG_DROP_TCP_INGRESS;
	spliced = splice_from_guest(skb, packet, context->guest->id, tcp_header_length(segment));
	if (spliced != SPLICE_NONE) {
		packet->redirected = !spliced;
		return spliced;
	}
	if (flags & TCP_SYN)
		return tcp_syn(skb, context, packet);
	if (packet->unroutable)
		return packet->unroutable;
	return tcp_segment(skb, context, packet, flags);
}

static __always_inline verdict_t check_udp(struct __sk_buff *skb, const struct guest_context *context,
					   struct packet *packet)
{
	verdict_t verdict = parse_udp(skb, packet);

	if (verdict)
		return verdict;
	if (packet->unroutable)
		return packet->unroutable;
	if (packet->flow.peer_port == bpf_htons(PORT_DNS))
		return dns_query(skb, context, packet);
	if (is_name_service_port(packet->flow.peer_port))
		return TG_DROP_DNS_TRANSPORT;
	verdict = policy_judge(context->guest, packet);
	return verdict ? verdict : TG_DROP_UDP;
}

static __always_inline verdict_t check_icmp(struct __sk_buff *skb, const struct guest_context *context,
					    struct packet *packet, __u16 ethertype)
{
	verdict_t verdict;
	int spliced;

	if (packet->ethertype != ethertype)
		return TG_DROP_PROTOCOL;
	if (packet->unroutable)
		return packet->unroutable;
	spliced = splice_error_from_guest(skb, packet, context->state, context->guest->id);
	if (spliced != SPLICE_NONE) {
		packet->redirected = !spliced;
		return spliced;
	}
	verdict = policy_judge(context->guest, packet);
	return verdict ? verdict : TG_DROP_ICMP;
}

static __always_inline verdict_t ingress_verdict(struct __sk_buff *skb, const struct guest_context *context,
						 struct packet *packet, struct tcp_segment *segment)
{
	verdict_t verdict = parse_ethernet(skb, packet);
	bool is_nd = false;

	if (verdict)
		return verdict;
	if (packet->ethertype != ETH_P_IP && packet->ethertype != ETH_P_IPV6 &&
	    packet->ethertype != ETH_P_ARP)
		return TG_DROP_ETHERTYPE;
	if (!source_mac_acceptable(context, packet))
		return TG_DROP_SOURCE_MAC;
	if (packet->ethertype == ETH_P_ARP) {
		skb->mark = 0;
		return check_arp(skb, context, packet);
	}
	if (packet->ethertype == ETH_P_IP)
		verdict = check_ipv4(skb, context, packet);
	else
		verdict = check_ipv6(skb, context, packet, &is_nd);
	if (verdict)
		return verdict;
	if (is_nd) {
		skb->mark = 0;
		return TG_DROP_NONE;
	}
	/* The mark is what routes a packet to the host's own sockets, whatever its destination. */
	skb->mark = tg_mark;
	switch (packet->flow.protocol) {
	case IPPROTO_TCP:
		return check_tcp(skb, context, packet, segment);
	case IPPROTO_UDP:
		return check_udp(skb, context, packet);
	case IPPROTO_ICMP:
		return check_icmp(skb, context, packet, ETH_P_IP);
	case IPPROTO_ICMPV6:
		return check_icmp(skb, context, packet, ETH_P_IPV6);
	}
	return TG_DROP_PROTOCOL;
}

/* Counts the refusal, and lets the guest know where that is of use. Returns the program's return code. */
static __always_inline int refuse(struct __sk_buff *skb, const struct guest_context *context,
				  const struct packet *packet, const struct tcp_segment *segment,
				  verdict_t verdict)
{
	__u8 protocol = packet->flow.protocol;
	int answer = -1;

	if (protocol == IPPROTO_UDP && packet->flow.peer_port == bpf_htons(PORT_DNS) &&
	    dns_refusal_rcode(verdict)) {
		count_reason(context->guest->slot, verdict);
		send_dns_event(context, skb->ifindex, verdict, packet);
		answer = dns_answer_refused(skb, context->guest, packet, verdict);
		return answer >= 0 ? answer : TC_ACT_SHOT;
	}
	if (splice_is_expected(verdict)) {
		count_reason(context->guest->slot, verdict);
		return TC_ACT_SHOT;
	}
	count_drop(context, skb->ifindex, verdict, &packet->flow, &packet->judgement);
	if (protocol == IPPROTO_TCP && is_answered_with_reset(verdict))
		answer = answer_with_reset(skb, packet, segment);
	else if ((protocol == IPPROTO_UDP || protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6) &&
		 is_answered_with_prohibited(verdict))
		answer = answer_with_prohibited(skb, context->state, packet);
	return answer >= 0 ? answer : TC_ACT_SHOT;
}

SEC("tc")
int tap_ingress(struct __sk_buff *skb)
{
	struct packet packet = {.from_guest = true};
	struct tcp_segment segment = {};
	struct guest_context context;
	verdict_t verdict;

	/* The interface lost its entry but not the program: the guest sees silence. */
	if (!guest_find(skb->ifindex, &context)) {
		count_unknown_guest();
		return TC_ACT_SHOT;
	}
	verdict = ingress_verdict(skb, &context, &packet, &segment);
	if (verdict)
		return refuse(skb, &context, &packet, &segment, verdict);
	return packet.redirected ? TC_ACT_REDIRECT : TC_ACT_OK;
}

/* --- tap_egress: what goes to the guest -------------------------------------------------------------------
 */

/* Made by this host's kernel; what the host forwards carries the interface it came in from. */
static __always_inline bool is_local(const struct __sk_buff *skb)
{
	return !skb->ingress_ifindex;
}

/*
 * The kernel speaks for sockets that are gone, or not there yet, through control sockets of its own: resets
 * and the ACKs of TIME-WAIT and of handshakes. Depending on kernel (changed in 6.13) and family such a packet
 * has the control socket, the socket it speaks for or none.
 */
static __always_inline bool is_kernel_speaking(struct bpf_sock *sk)
{
	if (!sk)
		return true;
	switch (sk->state) {
	case BPF_TCP_CLOSE:
	case BPF_TCP_TIME_WAIT:
	case BPF_TCP_NEW_SYN_RECV:
		return true;
	}
	return false;
}

static __always_inline bool is_tcp_ours(struct __sk_buff *skb, const struct guest_context *context,
					const struct packet *packet, const struct tcp_segment *segment)
{
	__u8 flags = segment->header.flags;
	struct bpf_sock *sk = skb->sk;
	struct bpf_sock *listener;

	if (sk) {
		if (is_tcp_kind(owned_kind(sk)))
			return true;
		/* The SYN+ACK of a request socket. */
		listener = bpf_get_listener_sock(sk);
		if (listener && is_tcp_kind(owned_kind(listener)))
			return true;
	}
	/* A SYN+ACK with a SYN cookie has no socket. */
	if ((flags & (TCP_SYN | TCP_ACK | TCP_FIN | TCP_RST)) == (TCP_SYN | TCP_ACK))
		return is_local(skb) && pending_find(context, packet);
	if (flags & (TCP_SYN | TCP_FIN) || segment->payload_length)
		return false;
	if (is_own_reply(skb) && flags & TCP_RST)
		return true;
	return is_local(skb) && is_kernel_speaking(sk);
}

static __always_inline verdict_t egress_tcp(struct __sk_buff *skb, const struct guest_context *context,
					    struct packet *packet)
{
	struct tcp_segment segment;
	__u32 state;

	/* Flags are not judged: what the host's TCP sends is as it is (ECN, for one). */
	if (packet->l4_length < sizeof(segment.header) ||
	    bpf_skb_load_bytes(skb, packet->l4_offset, &segment.header, sizeof(segment.header)))
		return TG_DROP_EGRESS_NOT_OURS;
	packet->flow.guest_port = segment.header.destination_port;
	packet->flow.peer_port = segment.header.source_port;
	state = splice_state(&packet->flow);
	if (is_from_uplink(skb))
		return splice_is_forwarded(state) ? TG_DROP_NONE : TG_DROP_EGRESS_NOT_OURS;
	/* Neither guest nor server may hear of what the host's sockets believe from now on. */
	if (splice_is_ours(state))
		return TG_DROP_EGRESS_SPLICED;
	segment.payload_length = packet->l4_length - tcp_header_length(&segment);
	return is_tcp_ours(skb, context, packet, &segment) ? TG_DROP_NONE : TG_DROP_EGRESS_NOT_OURS;
}

static __always_inline verdict_t egress_udp(struct __sk_buff *skb, const struct guest_context *context,
					    struct packet *packet)
{
	struct bpf_sock *sk = skb->sk;

	if (parse_udp(skb, packet) || packet->flow.peer_port != bpf_htons(PORT_DNS))
		return TG_DROP_EGRESS_NOT_OURS;
	if (is_own_dns_refusal(skb, packet))
		return TG_DROP_NONE;
	if (!sk || !is_dns_kind(owned_kind(sk)))
		return TG_DROP_EGRESS_NOT_OURS;
	return dns_answer(skb, context, packet);
}

/* Neighbour discovery of the host's kernel, and our own errors. */
static __always_inline verdict_t egress_icmpv6(struct __sk_buff *skb, const struct guest_context *context,
					       const struct packet *packet)
{
	__u8 type;

	if (is_own_prohibited(skb, packet) || is_spliced_error(skb, packet))
		return guest_has_address(context->guest, &packet->flow.guest_address)
			   ? TG_DROP_NONE
			   : TG_DROP_EGRESS_NOT_OURS;
	if (packet->hop_limit != ND_HOP_LIMIT || !is_local(skb) ||
	    bpf_skb_load_bytes(skb, packet->l4_offset, &type, sizeof(type)))
		return TG_DROP_EGRESS_NOT_OURS;
	return type == ND_NEIGHBOUR_SOLICITATION || type == ND_NEIGHBOUR_ADVERTISEMENT
		   ? TG_DROP_NONE
		   : TG_DROP_EGRESS_NOT_OURS;
}

static __always_inline verdict_t egress_verdict(struct __sk_buff *skb, const struct guest_context *context,
						struct packet *packet)
{
	if (parse_ethernet(skb, packet))
		return TG_DROP_EGRESS_NOT_OURS;
	switch (packet->ethertype) {
	case ETH_P_ARP:
		return is_local(skb) ? TG_DROP_NONE : TG_DROP_EGRESS_NOT_OURS;
	case ETH_P_IP:
		if (parse_ipv4(skb, packet))
			return TG_DROP_EGRESS_NOT_OURS;
		break;
	case ETH_P_IPV6:
		if (parse_ipv6(skb, packet))
			return TG_DROP_EGRESS_NOT_OURS;
		if (packet->flow.protocol == IPPROTO_ICMPV6)
			return egress_icmpv6(skb, context, packet);
		break;
	default:
		return TG_DROP_EGRESS_NOT_OURS;
	}
	/* A route that leads another guest's packet here must not deliver it. */
	if (!guest_has_address(context->guest, &packet->flow.guest_address))
		return TG_DROP_EGRESS_NOT_OURS;
	switch (packet->flow.protocol) {
	case IPPROTO_TCP:
		return egress_tcp(skb, context, packet);
	case IPPROTO_UDP:
		return egress_udp(skb, context, packet);
	case IPPROTO_ICMP:
		return packet->ethertype == ETH_P_IP &&
			       (is_own_prohibited(skb, packet) || is_spliced_error(skb, packet))
			   ? TG_DROP_NONE
			   : TG_DROP_EGRESS_NOT_OURS;
	}
	return TG_DROP_EGRESS_NOT_OURS;
}

SEC("tc")
int tap_egress(struct __sk_buff *skb)
{
	struct packet packet = {.from_guest = false};
	struct guest_context context;
	verdict_t verdict;

	if (!guest_find(skb->ifindex, &context)) {
		count_unknown_guest();
		return TC_ACT_SHOT;
	}
	verdict = egress_verdict(skb, &context, &packet);
	if (!verdict)
		return TC_ACT_OK;
	/* Nor is it news that the host's kernel tells each link which groups it listens to (MLD, IGMP). */
	if (splice_is_expected(verdict) || (packet.group_mac && is_local(skb)))
		count_reason(context.guest->slot, verdict);
	else
		count_drop(&context, skb->ifindex, verdict, &packet.flow, &packet.judgement);
	return TC_ACT_SHOT;
}

/* --- uplink_ingress: what comes in by an interface through which spliced connections leave ----------------
 */

/* What is not of a spliced connection is none of our business: it goes to the host and its other programs. */
static __always_inline int uplink_action(int spliced)
{
	if (spliced == SPLICE_NONE)
		return TC_ACT_UNSPEC;
	if (!spliced)
		return TC_ACT_REDIRECT;
	splice_count_refused(spliced);
	return TC_ACT_SHOT;
}

static __always_inline int uplink_tcp(struct __sk_buff *skb, struct packet *packet)
{
	struct tcp_segment segment;

	if (packet->l4_length < sizeof(segment.header) ||
	    bpf_skb_load_bytes(skb, packet->l4_offset, &segment.header, sizeof(segment.header)))
		return TC_ACT_UNSPEC;
	packet->flow.guest_port = segment.header.destination_port;
	packet->flow.peer_port = segment.header.source_port;
	if (tcp_header_length(&segment) > packet->l4_length)
		return TC_ACT_UNSPEC;
	return uplink_action(splice_from_server(skb, packet, tcp_header_length(&segment)));
}

SEC("tc")
int uplink_ingress(struct __sk_buff *skb)
{
	struct packet packet = {.from_guest = false};
	verdict_t verdict;

	if (skb->pkt_type != PACKET_HOST || parse_ethernet(skb, &packet))
		return TC_ACT_UNSPEC;
	switch (packet.ethertype) {
	case ETH_P_IP:
		verdict = parse_ipv4(skb, &packet);
		break;
	case ETH_P_IPV6:
		verdict = parse_ipv6(skb, &packet);
		break;
	default:
		return TC_ACT_UNSPEC;
	}
	if (verdict)
		return uplink_action(splice_check_hidden(skb, &packet, verdict));
	switch (packet.flow.protocol) {
	case IPPROTO_TCP:
		return uplink_tcp(skb, &packet);
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return uplink_action(splice_error_from_server(skb, &packet));
	}
	return TC_ACT_UNSPEC;
}

/* --- what the daemon runs itself ---------------------------------------------------------------------------
 */

/* Writes what stands in `recordings`. Returns 0, or an enum tg_drop_reason: it is not all written. */
SEC("tc")
int record_answer(struct __sk_buff *skb)
{
	(void)skb;
	return daemon_recording_write();
}

/* Takes a struct tg_forgetting behind the Ethernet header. */
SEC("tc")
int forget_binding(struct __sk_buff *skb)
{
	struct tg_forgetting forgetting;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &forgetting, sizeof(forgetting)))
		return 0;
	return binding_forget(&forgetting);
}

/*
 * Takes a struct tg_judging behind the Ethernet header and fills its judgement in: what tap_ingress would say
 * of a SYN of that guest now. Returns an enum tg_drop_reason. Changes nothing but the note of when the
 * address was last asked for.
 */
SEC("tc")
int judge_flow(struct __sk_buff *skb)
{
	struct packet packet = {.from_guest = true};
	struct guest_context context;
	struct tg_judging judging;
	verdict_t verdict;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &judging, sizeof(judging)) ||
	    !guest_find(judging.ifindex, &context))
		return TG_DROP_UNKNOWN_GUEST;
	packet.flow.protocol = IPPROTO_TCP;
	packet.flow.peer_address = judging.peer_address;
	packet.flow.peer_port = judging.peer_port;
	packet.unroutable = address_mapped(&judging.peer_address) ? unroutable_v4(&judging.peer_address)
								  : unroutable_v6(&judging.peer_address);
	if (is_name_service_port(packet.flow.peer_port))
		verdict = TG_DROP_DNS_TRANSPORT;
	else
		verdict = judge_syn(&context, &packet);
	if (!verdict && context.state->half_open >= context.guest->half_open_max)
		verdict = TG_DROP_HALF_OPEN_CAP;
	bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct tg_judging, judgement), &packet.judgement,
			    sizeof(packet.judgement), 0);
	return verdict;
}

/* Takes a struct tg_flow_change behind the Ethernet header. Returns an enum tg_change_result. */
SEC("tc")
int change_flow(struct __sk_buff *skb)
{
	struct tg_flow_change change;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &change, sizeof(change)))
		return TG_CHANGE_NO_FLOW;
	return change_splice(&change);
}
