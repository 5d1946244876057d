/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef TAPGATE_NEIGHBOUR_BPF_H
#define TAPGATE_NEIGHBOUR_BPF_H

/*
 * ARP and neighbour discovery of a guest. The host's kernel answers and learns; what passes can only be about
 * the gateway and about the guest's own addresses, and can only go to the host itself.
 */
#include "lib/guest.bpf.h"

/* linux/if_arp.h would drag in the C library. */
#define ARPHRD_ETHER  1
#define ARPOP_REQUEST 1
#define ARPOP_REPLY   2

/* RFC 826, for Ethernet and IPv4. */
struct arp_packet {
	__be16 hardware_type;
	__be16 protocol_type;
	__u8 hardware_length;
	__u8 protocol_length;
	__be16 operation;
	__u8 sender_mac[ETH_ALEN];
	__u8 sender_address[4];
	__u8 target_mac[ETH_ALEN];
	__u8 target_address[4];
} __attribute__((packed));

static __always_inline __be32 arp_address(const __u8 *bytes)
{
	return bpf_htonl((__u32)bytes[0] << 24 | (__u32)bytes[1] << 16 | (__u32)bytes[2] << 8 | bytes[3]);
}

/*
 * sender   target           what it is
 * own      gateway, own     a request, or an announcement (RFC 5227 2.3)
 * 0.0.0.0  own              a probe (RFC 5227 2.1.1); teaches nobody anything, so the MAC is not learned from
 * it own      anything         a reply: it binds only the sender
 */
static __always_inline verdict_t check_arp(struct __sk_buff *skb, const struct guest_context *context,
					   struct packet *packet)
{
	struct tg_address *sender = &packet->flow.guest_address;
	struct tg_address *target = &packet->flow.peer_address;
	struct arp_packet arp;
	bool own_sender;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &arp, sizeof(arp)))
		return TG_DROP_TRUNCATED;
	address_from_v4(sender, arp_address(arp.sender_address));
	address_from_v4(target, arp_address(arp.target_address));
	if (arp.hardware_type != bpf_htons(ARPHRD_ETHER) || arp.protocol_type != bpf_htons(ETH_P_IP) ||
	    arp.hardware_length != ETH_ALEN || arp.protocol_length != 4 ||
	    mac_to_u64(arp.sender_mac) != packet->source_mac)
		return TG_DROP_ARP;

	own_sender = guest_has_address(context->guest, sender);
	if (arp.operation == bpf_htons(ARPOP_REQUEST)) {
		if (!own_sender && arp_address(arp.sender_address))
			return TG_DROP_ARP;
		if (!guest_has_address(context->guest, target) &&
		    (!own_sender || !guest_has_gateway(context->guest, target)))
			return TG_DROP_ARP;
	} else if (arp.operation != bpf_htons(ARPOP_REPLY) || !own_sender) {
		return TG_DROP_ARP;
	}
	if (own_sender && !learn_source_mac(context, packet))
		return TG_DROP_SOURCE_MAC;
	return TG_DROP_NONE;
}

#define ND_ROUTER_SOLICITATION	   133
#define ND_NEIGHBOUR_SOLICITATION  135
#define ND_NEIGHBOUR_ADVERTISEMENT 136
#define ND_REDIRECT		   137
#define ND_HOP_LIMIT		   255 /* RFC 4861 7.1: so it was not forwarded */
#define ND_OPTIONS_MAX		   4
#define ND_OPTION_SOURCE_MAC	   1
#define ND_OPTION_TARGET_MAC	   2
#define MLD_QUERY		   130
#define MLD_DONE		   132
#define MLD2_REPORT		   143

/* Neighbour solicitation and advertisement share a form (RFC 4861 4.3, 4.4). */
struct nd_message {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be32 flags;
	struct tg_address target;
};

static __always_inline bool is_link_management(__u8 icmp_type)
{
	return (icmp_type >= ND_ROUTER_SOLICITATION && icmp_type <= ND_REDIRECT) ||
	       (icmp_type >= MLD_QUERY && icmp_type <= MLD_DONE) || icmp_type == MLD2_REPORT;
}

/* option := type(1) length(1, in 8 octets) ...; the link-layer ones hold a MAC (RFC 4861 4.6) */
static __always_inline bool nd_options_acceptable(struct __sk_buff *skb, const struct packet *packet)
{
	__u32 offset = sizeof(struct nd_message);
	__u8 option[8];
	int i;

	for (i = 0; i < ND_OPTIONS_MAX; i++) {
		if (offset == packet->l4_length)
			return true;
		if (offset + sizeof(option) > packet->l4_length ||
		    bpf_skb_load_bytes(skb, packet->l4_offset + offset, option, sizeof(option)))
			return false;
		if (!option[1])
			return false;
		if ((option[0] == ND_OPTION_SOURCE_MAC || option[0] == ND_OPTION_TARGET_MAC) &&
		    (option[1] != 1 || mac_to_u64(option + 2) != packet->source_mac))
			return false;
		offset += (__u32)option[1] * 8;
	}
	return offset == packet->l4_length;
}

/* ff02::1:ff00:0/104 and the target's last 24 bits (RFC 4291 2.7.1) */
static __always_inline bool is_solicited_node(const struct tg_address *address,
					      const struct tg_address *target)
{
	return address_word(address, 0) == bpf_cpu_to_be64(0xff02000000000000ULL) &&
	       address_word(address, 1) == (bpf_cpu_to_be64(0x00000001ff000000ULL) |
					    (address_word(target, 1) & bpf_cpu_to_be64(0xffffffULL)));
}

static __always_inline bool is_all_nodes(const struct tg_address *address)
{
	return address_word(address, 0) == bpf_cpu_to_be64(0xff02000000000000ULL) &&
	       address_word(address, 1) == bpf_cpu_to_be64(1);
}

/*
 * source               target    destination                         what it is
 * own, link-local      gateway   solicited node of it, or itself     solicitation
 * own, link-local, ::  own       solicited node of it                solicitation, for DAD (RFC 4862 5.4.2)
 * own, link-local      own       all nodes, link-local, a gateway    advertisement
 *
 * "own" includes the link-local address of the guest's MAC. The destination matters: to any other unicast
 * address the host might forward the packet.
 */
static __always_inline verdict_t check_nd(struct __sk_buff *skb, const struct guest_context *context,
					  struct packet *packet)
{
	const struct tg_address *source = &packet->flow.guest_address;
	const struct tg_address *destination = &packet->flow.peer_address;
	struct tg_address link_local;
	bool own_source, own_target, gateway_target;
	struct nd_message nd;

	if (packet->l4_length < sizeof(nd) || bpf_skb_load_bytes(skb, packet->l4_offset, &nd, sizeof(nd)))
		return TG_DROP_ND;
	if (packet->hop_limit != ND_HOP_LIMIT || nd.code || address_mapped(&nd.target) ||
	    packet->l4_offset != ETH_HLEN + sizeof(struct ipv6hdr))
		return TG_DROP_ND;
	link_local_of_mac(&link_local, packet->source_mac);
	own_source = guest_has_address(context->guest, source);
	own_target = guest_has_address(context->guest, &nd.target) || address_equal(&nd.target, &link_local);

	if (nd.type == ND_NEIGHBOUR_SOLICITATION) {
		gateway_target =
		    guest_has_gateway(context->guest, &nd.target) && !address_unspecified(source);
		if (!own_source && !address_equal(source, &link_local) && !address_unspecified(source))
			return TG_DROP_ND;
		if (!own_target && !gateway_target)
			return TG_DROP_ND;
		if (!is_solicited_node(destination, &nd.target) &&
		    (!gateway_target || !address_equal(destination, &nd.target)))
			return TG_DROP_ND;
	} else if (nd.type == ND_NEIGHBOUR_ADVERTISEMENT) {
		if (!own_target || (!own_source && !address_equal(source, &link_local)))
			return TG_DROP_ND;
		if (!is_all_nodes(destination) && !address_link_local(destination) &&
		    !guest_has_gateway(context->guest, destination))
			return TG_DROP_ND;
	} else {
		return TG_DROP_ND;
	}
	if (!nd_options_acceptable(skb, packet))
		return TG_DROP_ND;
	if (own_source && !learn_source_mac(context, packet))
		return TG_DROP_SOURCE_MAC;
	return TG_DROP_NONE;
}

#endif
