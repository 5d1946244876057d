// SPDX-License-Identifier: Apache-2.0
#include "base/result.hpp"
#include "proto/dns_answer.hpp"
#include "proto/dns_query.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace tapgate;
    using namespace tapgate::proto;
    const DnsQueryParse parse = parse_dns_query({data, size});
    if (parse.status == DnsQueryStatus::kDropped)
        return 0;

    // Every query that is not dropped can be answered, and the answer is a small well-formed message with its
    // id.
    const DnsRcode rcode = parse.status == DnsQueryStatus::kRefused ? parse.rcode : DnsRcode::kNxDomain;
    const auto answer =
        build_error_answer(parse.query, rcode, DnsExtendedError{DnsExtendedError::kProhibited, "no"});
    TAPGATE_ASSERT(answer.size() <= kMinDnsUdpPayload);
    const DnsParse reread = parse_dns_message(answer);
    TAPGATE_ASSERT(reread.message && reread.message->header.id == parse.query.id);
    if (parse.status == DnsQueryStatus::kRefused)
        return 0;
    TAPGATE_ASSERT(
        dns_answer_mismatch(answer, *parse.query.question, parse.query.id, DnsCase::kExact).empty());

    // What goes upstream asks the same, and would itself be accepted.
    const DnsUpstreamQuery upstream = build_upstream_query(parse.query, 0xbeef, {data, size});
    const DnsQueryParse again = parse_dns_query(upstream.bytes);
    TAPGATE_ASSERT(again.status == DnsQueryStatus::kAccepted && again.query.id == 0xbeef);
    TAPGATE_ASSERT(again.query.question->name == upstream.question.name);
    TAPGATE_ASSERT(again.query.question->name.same_as(parse.query.question->name));
    TAPGATE_ASSERT(again.query.question->type == parse.query.question->type);
    return 0;
}
