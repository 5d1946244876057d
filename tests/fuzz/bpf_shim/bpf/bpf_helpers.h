/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TAPGATE_FUZZ_BPF_HELPERS_H
#define TAPGATE_FUZZ_BPF_HELPERS_H

/*
 * What the BPF headers need of libbpf's bpf_helpers.h, for userspace: so that the fuzzer runs the parser that
 * the kernel runs. Maps are their names only; the file that includes this says what is in them (shim_lookup).
 * What a parser does not call fails.
 */
#include <linux/bpf.h>
#include <string.h>

#define SEC(name)
#define __uint(name, val) int(*name)[val]
#define __type(name, val) __typeof__(val)* name
#define __array(name, val) __typeof__(val)* name[]
#define __noinline __attribute__((noinline))
#undef __always_inline
#define __always_inline inline __attribute__((always_inline))

void* shim_lookup(void* map, const void* key);
long shim_load_bytes(__u32 offset, void* to, __u32 length);

static inline void* bpf_map_lookup_elem(void* map, const void* key) {
    return shim_lookup(map, key);
}

static inline long bpf_skb_load_bytes(const void* skb, __u32 offset, void* to, __u32 length) {
    (void)skb;
    return shim_load_bytes(offset, to, length);
}

static inline long bpf_loop(__u32 rounds, long (*step)(__u32, void*), void* context, __u64 flags) {
    __u32 i;

    (void)flags;
    for (i = 0; i < rounds; i++) {
        if (step(i, context))
            return i + 1;
    }
    return rounds;
}

static inline __u64 bpf_ktime_get_boot_ns(void) {
    return 1;
}

static inline long shim_fails(void) {
    return -1;
}

#define bpf_map_update_elem(map, key, value, flags) ((void)(map), (void)(key), (void)(value), shim_fails())
#define bpf_map_delete_elem(map, key) ((void)(map), (void)(key), shim_fails())
#define bpf_sk_assign(skb, sk, flags) ((void)(skb), (void)(sk), shim_fails())
#define bpf_sk_release(sk) ((void)(sk))
#define bpf_sk_storage_get(map, sk, value, flags) ((void)(sk), (void*)NULL)
#define bpf_ringbuf_reserve(map, size, flags) ((void*)NULL)
#define bpf_ringbuf_submit(event, flags) ((void)(event))
#define bpf_spin_lock(lock) ((void)(lock))
#define bpf_spin_unlock(lock) ((void)(lock))

#endif
