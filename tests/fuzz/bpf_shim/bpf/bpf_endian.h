/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TAPGATE_FUZZ_BPF_ENDIAN_H
#define TAPGATE_FUZZ_BPF_ENDIAN_H

/* For a little-endian host, like the BPF programs (bpf/CMakeLists.txt builds them for it). */
#define bpf_htons(value) __builtin_bswap16(value)
#define bpf_ntohs(value) __builtin_bswap16(value)
#define bpf_htonl(value) __builtin_bswap32(value)
#define bpf_ntohl(value) __builtin_bswap32(value)
#define bpf_cpu_to_be64(value) __builtin_bswap64(value)
#define bpf_be64_to_cpu(value) __builtin_bswap64(value)

#endif
