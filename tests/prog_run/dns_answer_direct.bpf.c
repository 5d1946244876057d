// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The DNS answer path without the socket that sends: BPF_PROG_TEST_RUN cannot give a packet a socket of ours,
 * and the product has no switch that would leave the check out. Refusals are counted as tap_egress counts
 * them.
 */
#include "lib/dns_answer.bpf.h"

#include <linux/pkt_cls.h>

char tg_license[] SEC("license") = "Dual BSD/GPL";

SEC("tc")

int dns_answer_direct(struct __sk_buff* skb) {
    struct packet packet = {.from_guest = false};
    struct guest_context context;
    verdict_t verdict;

    if (!guest_find(skb->ifindex, &context))
        return TC_ACT_SHOT;
    verdict = parse_ethernet(skb, &packet);
    if (!verdict)
        verdict = packet.ethertype == ETH_P_IP ? parse_ipv4(skb, &packet) : parse_ipv6(skb, &packet);
    if (!verdict)
        verdict = parse_udp(skb, &packet);
    if (!verdict)
        verdict = dns_answer(skb, &context, &packet);
    if (!verdict)
        return TC_ACT_OK;
    count_drop(&context, skb->ifindex, verdict, &packet.flow, &packet.judgement);
    return TC_ACT_SHOT;
}
