/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef TAPGATE_PACKET_BPF_H
#define TAPGATE_PACKET_BPF_H

/*
 * Ethernet, IPv4 and IPv6 headers into one struct packet. All reads go through bpf_skb_load_bytes(), which
 * checks bounds and works on packets that are not linear.
 */
#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "lib/drop.bpf.h"

#define IPV4_FRAGMENT_MASK 0x3fff /* MF and the offset (RFC 791 3.1) */
#define IPV4_RESERVED_FLAG 0x8000

/* RFC 8200 4: these two may stand before the transport; more of them, or longer ones, have no use in a
 * guest's traffic and only hide what follows. */
#define IPV6_EXTENSIONS_MAX	 4
#define IPV6_EXTENSION_BYTES_MAX 256

#define IPPROTO_IPV6_MOBILITY 135
#define IPPROTO_IPV6_HIP      139
#define IPPROTO_IPV6_SHIM6    140

/* A packet as far as it was parsed. At ingress the guest is the source, at egress the destination. */
struct packet {
	struct tg_flow flow;
	__u64 source_mac; /* first octet lowest, as in tg_guest_state.mac */
	__u32 l4_offset;
	__u32 l4_length; /* transport header and payload by the IP header; padding of the frame is left out */
	__u16 ethertype; /* host order */
	__u8 hop_limit;
	bool group_mac; /* the destination MAC is multicast or broadcast */
	bool from_guest;
	bool redirected;      /* it goes on elsewhere, by a redirect that is set up */
	verdict_t unroutable; /* the destination is refused for this, whatever the policy says */
	struct tg_judgement judgement;
};

static __always_inline __u64 mac_to_u64(const __u8 *mac)
{
	return (__u64)mac[0] | (__u64)mac[1] << 8 | (__u64)mac[2] << 16 | (__u64)mac[3] << 24 |
	       (__u64)mac[4] << 32 | (__u64)mac[5] << 40;
}

static __always_inline __u64 address_word(const struct tg_address *address, int word)
{
	return ((const __u64 *)address->bytes)[word];
}

static __always_inline void address_set_words(struct tg_address *address, __u64 high, __u64 low)
{
	((__u64 *)address->bytes)[0] = high;
	((__u64 *)address->bytes)[1] = low;
}

/* The low word of ::ffff:a.b.c.d holds 0000ffff and the IPv4 address, in network order. */
static __always_inline void address_from_v4(struct tg_address *address, __be32 v4)
{
	address_set_words(address, 0, bpf_cpu_to_be64(0xffff00000000ULL | bpf_ntohl(v4)));
}

static __always_inline __be32 address_v4(const struct tg_address *address)
{
	return ((const __be32 *)address->bytes)[3];
}

static __always_inline bool address_equal(const struct tg_address *a, const struct tg_address *b)
{
	return address_word(a, 0) == address_word(b, 0) && address_word(a, 1) == address_word(b, 1);
}

static __always_inline bool address_unspecified(const struct tg_address *address)
{
	return !address_word(address, 0) && !address_word(address, 1);
}

/* ::ffff:0:0/96: on an IPv6 wire it would be a second spelling of an IPv4 address. */
static __always_inline bool address_mapped(const struct tg_address *address)
{
	return !address_word(address, 0) && ((const __be32 *)address->bytes)[2] == bpf_htonl(0xffff);
}

static __always_inline bool address_link_local(const struct tg_address *address)
{
	return address->bytes[0] == 0xfe && (address->bytes[1] & 0xc0) == 0x80;
}

static __always_inline verdict_t parse_ethernet(struct __sk_buff *skb, struct packet *packet)
{
	struct ethhdr ethernet;

	if (bpf_skb_load_bytes(skb, 0, &ethernet, sizeof(ethernet)))
		return TG_DROP_TRUNCATED;
	packet->source_mac = mac_to_u64(ethernet.h_source);
	packet->group_mac = ethernet.h_dest[0] & 1;
	packet->ethertype = bpf_ntohs(ethernet.h_proto);
	packet->l4_offset = ETH_HLEN;
	/* The kernel moves the outer tag into metadata before tc sees the packet; an inner one stays. */
	if (skb->vlan_present || packet->ethertype == ETH_P_8021Q || packet->ethertype == ETH_P_8021AD)
		return TG_DROP_VLAN;
	return TG_DROP_NONE;
}

static __always_inline void set_addresses(struct packet *packet, const struct tg_address *source,
					  const struct tg_address *destination)
{
	packet->flow.guest_address = packet->from_guest ? *source : *destination;
	packet->flow.peer_address = packet->from_guest ? *destination : *source;
}

static __always_inline verdict_t parse_ipv4(struct __sk_buff *skb, struct packet *packet)
{
	struct tg_address source, destination;
	struct iphdr ip;
	__u32 length;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return TG_DROP_TRUNCATED;
	address_from_v4(&source, ip.saddr);
	address_from_v4(&destination, ip.daddr);
	set_addresses(packet, &source, &destination);
	packet->flow.protocol = ip.protocol;
	packet->hop_limit = ip.ttl;
	length = bpf_ntohs(ip.tot_len);
	if (ip.version != 4 || ip.ihl < 5 || length < sizeof(ip))
		return TG_DROP_IP_HEADER;
	if (length > skb->len - ETH_HLEN)
		return TG_DROP_TRUNCATED;
	if (ip.ihl > 5)
		return TG_DROP_IP_OPTIONS;
	if (ip.frag_off & bpf_htons(IPV4_FRAGMENT_MASK))
		return TG_DROP_FRAGMENT;
	if (ip.frag_off & bpf_htons(IPV4_RESERVED_FLAG))
		return TG_DROP_IP_HEADER;
	packet->l4_offset = ETH_HLEN + sizeof(ip);
	packet->l4_length = length - sizeof(ip);
	return TG_DROP_NONE;
}

/* True for the headers of RFC 8200 and its successors that stand before a transport header. */
static __always_inline bool is_extension_header(__u8 protocol)
{
	return protocol == IPPROTO_HOPOPTS || protocol == IPPROTO_DSTOPTS || protocol == IPPROTO_ROUTING ||
	       protocol == IPPROTO_AH || protocol == IPPROTO_ESP || protocol == IPPROTO_IPV6_MOBILITY ||
	       protocol == IPPROTO_IPV6_HIP || protocol == IPPROTO_IPV6_SHIM6 || protocol == IPPROTO_NONE;
}

/*
 * extension := next(1) length(1, in 8 octets, without the first 8) ...                         RFC 8200 4.3
 *
 * Hop-by-hop options only at the front, destination options anywhere.
 */
static __always_inline verdict_t skip_extension_headers(struct __sk_buff *skb, struct packet *packet)
{
	__u32 walked = 0;
	__u8 header[2];
	int i;

	for (i = 0; i < IPV6_EXTENSIONS_MAX; i++) {
		if (packet->flow.protocol != IPPROTO_DSTOPTS &&
		    (packet->flow.protocol != IPPROTO_HOPOPTS || i > 0))
			break;
		if (bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(struct ipv6hdr) + walked, header,
				       sizeof(header)))
			return TG_DROP_TRUNCATED;
		packet->flow.protocol = header[0];
		walked += ((__u32)header[1] + 1) * 8;
		if (walked > IPV6_EXTENSION_BYTES_MAX)
			return TG_DROP_EXTENSION_HEADER;
		if (walked > packet->l4_length)
			return TG_DROP_TRUNCATED;
	}
	packet->l4_offset += walked;
	packet->l4_length -= walked;
	if (packet->flow.protocol == IPPROTO_FRAGMENT)
		return TG_DROP_FRAGMENT;
	if (is_extension_header(packet->flow.protocol))
		return TG_DROP_EXTENSION_HEADER;
	return TG_DROP_NONE;
}

static __always_inline verdict_t parse_ipv6(struct __sk_buff *skb, struct packet *packet)
{
	struct ipv6hdr ip __attribute__((aligned(8))); /* its addresses are copied as words */
	__u32 length;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return TG_DROP_TRUNCATED;
	set_addresses(packet, (const struct tg_address *)&ip.saddr, (const struct tg_address *)&ip.daddr);
	packet->flow.protocol = ip.nexthdr;
	packet->hop_limit = ip.hop_limit;
	length = bpf_ntohs(ip.payload_len);
	/* Zero would be a jumbogram (RFC 2675), which no tap carries. */
	if (ip.version != 6 || !length)
		return TG_DROP_IP_HEADER;
	if (length > skb->len - ETH_HLEN - sizeof(ip))
		return TG_DROP_TRUNCATED;
	if (address_mapped((const struct tg_address *)&ip.saddr))
		return TG_DROP_SOURCE_ADDRESS;
	if (address_mapped((const struct tg_address *)&ip.daddr))
		return TG_DROP_IP_HEADER;
	packet->l4_offset = ETH_HLEN + sizeof(ip);
	packet->l4_length = length;
	return skip_extension_headers(skb, packet);
}

#endif
