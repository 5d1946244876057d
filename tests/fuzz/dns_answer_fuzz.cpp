// SPDX-License-Identifier: Apache-2.0
#include "base/result.hpp"
#include "proto/dns_answer.hpp"

#include <algorithm>

namespace tapgate::proto {
namespace {

/// The query that `message` would be an answer to, from a guest with or without EDNS.
DnsQuery query_for(const DnsMessage& message, bool edns) {
    DnsQuery query;
    query.id = 0x7777;
    query.recursion_desired = true;
    query.question = message.questions[0];
    if (edns)
        query.edns = DnsEdns{kMaxDnsUdpPayload, false};
    return query;
}

bool same_addresses(const DnsAddresses& a, const DnsAddresses& b) {
    return a.reason == b.reason &&
           std::ranges::equal(a.addresses, b.addresses, [](const DnsAddress& x, const DnsAddress& y) {
               return x.address == y.address && x.ttl_seconds == y.ttl_seconds;
           });
}

void check(const DnsMessage& message) {
    const DnsAddresses derived = derive_addresses(message);
    TAPGATE_ASSERT(derived.reason.empty() || (derived.addresses.empty() && derived.aliases.empty()));
    TAPGATE_ASSERT(derived.aliases.size() <= kMaxDnsAliases);
    if (message.questions.empty())
        return;
    for (const bool edns : {false, true}) {
        const DnsQuery query = query_for(message, edns);
        const auto answer = build_guest_answer(message, query, query.udp_limit());
        if (!answer)
            continue; // a name is made of the OPT record
        TAPGATE_ASSERT(answer->size() <= query.udp_limit());
        const DnsParse reread = parse_dns_message(*answer);
        // The OPT record that is added may be one record more than is allowed.
        if (!reread.message) {
            TAPGATE_ASSERT(reread.reason == "too many records");
            continue;
        }
        TAPGATE_ASSERT(dns_answer_mismatch(*answer, *query.question, query.id, DnsCase::kExact).empty());
        // The guest learns what was bound, or nothing.
        const bool has_answer =
            !reread.message->header.truncated && reread.message->header.rcode == message.header.rcode;
        TAPGATE_ASSERT(!has_answer || same_addresses(derive_addresses(*reread.message), derived));
    }
}

} // namespace
} // namespace tapgate::proto

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace tapgate::proto;
    const DnsParse parse = parse_dns_message({data, size});
    TAPGATE_ASSERT(parse.message.has_value() == parse.reason.empty());
    if (parse.message)
        check(*parse.message);
    return 0;
}
