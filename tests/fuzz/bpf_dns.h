/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TAPGATE_FUZZ_BPF_DNS_H
#define TAPGATE_FUZZ_BPF_DNS_H

/* BPF's parsers of DNS (bpf/lib/dns_answer.bpf.h, dns_query.bpf.h), compiled for userspace. */
#include "tapgate/bpf_abi.h"

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct bpf_dns_answer {
    int well_formed;  /* it would be recorded and delivered, if it was asked for */
    int out_of_steps; /* no label or pointer more could be read */
    __u32 alias_count;
    __u32 told_count;
    struct tg_told_address told[TG_DNS_ADDRESSES_MAX];
};

/* Reads `size` octets at `bytes` as tap_egress reads an answer. */
void bpf_dns_answer_parse(const __u8* bytes, size_t size, struct bpf_dns_answer* answer);

/* What tap_ingress thinks of a query, before it asks the policy; TG_DROP_NONE: nothing is wrong with it. */
enum tg_drop_reason bpf_dns_query_read(const __u8* bytes, size_t size);

#ifdef __cplusplus
}
#endif

#endif
