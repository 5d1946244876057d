/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef TAPGATE_GUEST_BPF_H
#define TAPGATE_GUEST_BPF_H

/* Who a guest is: its addresses, its gateways, its MAC. */
#include "lib/packet.bpf.h"

#define MAC_GROUP_BIT 1ULL /* the first octet's lowest bit; zero in the address of one station */

static __always_inline bool guest_find(__u32 ifindex, struct guest_context *context)
{
	__u32 slot;

	context->guest = bpf_map_lookup_elem(&guests, &ifindex);
	if (!context->guest)
		return false;
	slot = context->guest->slot;
	context->state = bpf_map_lookup_elem(&guest_state, &slot);
	return context->state;
}

/* Global functions: the verifier walks the loops once instead of once for each caller. */
__noinline int guest_has_address(const struct tg_guest *guest, const struct tg_address *address)
{
	int i;

	if (!guest || !address)
		return 0;
	for (i = 0; i < TG_GUEST_ADDRESSES; i++) {
		if (i < guest->address_count && address_equal(&guest->addresses[i], address))
			return 1;
	}
	return 0;
}

__noinline int guest_has_gateway(const struct tg_guest *guest, const struct tg_address *address)
{
	int i;

	if (!guest || !address)
		return 0;
	for (i = 0; i < TG_GUEST_GATEWAYS; i++) {
		if (i < guest->gateway_count && address_equal(&guest->gateways[i], address))
			return 1;
	}
	return 0;
}

/* The MAC that was configured or learned; 0 as long as there is none. */
static __always_inline __u64 guest_mac(const struct guest_context *context)
{
	__u64 mac = mac_to_u64(context->guest->mac);

	return mac ? mac : *(volatile __u64 *)&context->state->mac;
}

/* A frame must come from one station, and from the guest's once that is known. */
static __always_inline bool source_mac_acceptable(const struct guest_context *context,
						  const struct packet *packet)
{
	__u64 mac = guest_mac(context);

	if (!packet->source_mac || packet->source_mac & MAC_GROUP_BIT)
		return false;
	return !mac || packet->source_mac == mac;
}

/*
 * To be called once the source address is known to be the guest's: the first such packet fixes the MAC.
 * False if another CPU has just learned another one.
 */
static __always_inline bool learn_source_mac(const struct guest_context *context, const struct packet *packet)
{
	__u64 before;

	if (guest_mac(context))
		return guest_mac(context) == packet->source_mac;
	before = __sync_val_compare_and_swap(&context->state->mac, 0, packet->source_mac);
	return !before || before == packet->source_mac;
}

/* fe80:: with the modified EUI-64 of `mac` (RFC 4291 appendix A): the address every guest has without being
 * told. Used for neighbour discovery only. */
static __always_inline void link_local_of_mac(struct tg_address *address, __u64 mac)
{
	const __u8 *octet = (const __u8 *)&mac;

	address_set_words(address, 0, 0);
	address->bytes[0] = 0xfe;
	address->bytes[1] = 0x80;
	address->bytes[8] = octet[0] ^ 2;
	address->bytes[9] = octet[1];
	address->bytes[10] = octet[2];
	address->bytes[11] = 0xff;
	address->bytes[12] = 0xfe;
	address->bytes[13] = octet[3];
	address->bytes[14] = octet[4];
	address->bytes[15] = octet[5];
}

#endif
