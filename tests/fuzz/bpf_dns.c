// SPDX-License-Identifier: Apache-2.0
#include "bpf_dns.h"

#include "lib/dns_answer.bpf.h"

static struct dns_scratch scratch;
static struct tg_hash_key key = {1, 2};
static const __u8* message;

void* shim_lookup(void* map, const void* at) {
    (void)at;
    if (map == (void*)&dns_scratches)
        return &scratch;
    return map == (void*)&hash_key ? &key : NULL;
}

/* The message stands behind a UDP header, as dns_load() and dns_query_read() expect it. */
long shim_load_bytes(__u32 offset, void* to, __u32 length) {
    memcpy(to, message + (offset - sizeof(struct udphdr)), length);
    return 0;
}

void bpf_dns_answer_parse(const __u8* bytes, size_t size, struct bpf_dns_answer* answer) {
    struct packet packet = {.l4_length = size + sizeof(struct udphdr)};
    struct dns_scratch* s = &scratch;

    memset(answer, 0, sizeof(*answer));
    message = bytes;
    s->steps = 1;
    if (!dns_answer_head_parse(NULL, &packet, s) || dns_records_walk(s)) {
        answer->out_of_steps = !s->steps;
        return;
    }
    if (s->binds) {
        if (dns_aliases_follow(s) || dns_addresses_gather(s))
            return;
        answer->alias_count = s->name_count - 1;
        answer->told_count = s->told_count;
        memcpy(answer->told, s->told, sizeof(answer->told));
    }
    answer->well_formed = 1;
}

enum tg_drop_reason bpf_dns_query_read(const __u8* bytes, size_t size) {
    struct packet packet = {.l4_length = size + sizeof(struct udphdr)};

    message = bytes;
    return dns_query_read(NULL, &packet);
}
