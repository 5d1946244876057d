// SPDX-License-Identifier: Apache-2.0
#include "base/result.hpp"
#include "bpf_dns.h"
#include "proto/dns_answer.hpp"

#include <algorithm>
#include <map>

// BPF's parser against the codec: what one takes, the other takes, with the same addresses.

namespace tapgate::proto {
namespace {

using Lifetimes = std::map<IpAddress, std::uint32_t>;

Lifetimes told_by(const bpf_dns_answer& answer) {
    Lifetimes told;
    for (std::size_t i = 0; i < answer.told_count; ++i) {
        IpAddress::Bytes bytes{};
        std::ranges::copy(answer.told[i].address.bytes, bytes.begin());
        const auto [known, fresh] = told.emplace(IpAddress(bytes), answer.told[i].ttl_seconds);
        if (!fresh)
            known->second = std::min(known->second, answer.told[i].ttl_seconds);
    }
    return told;
}

void check(ByteView bytes) {
    bpf_dns_answer bpf{};
    bpf_dns_answer_parse(bytes.data(), bytes.size(), &bpf);
    const DnsParse parse = parse_dns_message(bytes);
    if (!parse.message || !parse.message->header.response) {
        TAPGATE_ASSERT(bpf.well_formed == 0);
        return;
    }
    // An error may come without the question.
    if (parse.message->questions.empty()) {
        TAPGATE_ASSERT((bpf.well_formed != 0) == (parse.message->header.rcode != 0));
        return;
    }
    const DnsAddresses derived = derive_addresses(*parse.message);
    // BPF finds out when it makes the name's entry.
    if (derived.reason == "a name is too long as text")
        return;
    // Names inside RDATA are in BPF's budget of steps, not in ours.
    if (bpf.out_of_steps != 0)
        return;
    TAPGATE_ASSERT((bpf.well_formed != 0) == derived.reason.empty());
    TAPGATE_ASSERT(bpf.told_count == 0 || bpf.alias_count == derived.aliases.size());
    Lifetimes expected;
    for (const DnsAddress& address : derived.addresses)
        expected.emplace(address.address, address.ttl_seconds);
    TAPGATE_ASSERT(told_by(bpf) == expected);
}

} // namespace
} // namespace tapgate::proto

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    tapgate::proto::check({data, size});
    return 0;
}
