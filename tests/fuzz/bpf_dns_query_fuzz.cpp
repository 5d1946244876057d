// SPDX-License-Identifier: Apache-2.0
#include "base/result.hpp"
#include "bpf_dns.h"
#include "tests/prog_run/dns_query_reason.hpp"

// BPF's parser of queries against the codec and policy::Name: both take the same ones, and refuse the others
// for the same reason.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace tapgate;
    if (size > TG_DNS_PAYLOAD_MAX)
        return 0; // longer ones come over TCP alone
    TAPGATE_ASSERT(bpf_dns_query_read(data, size) == test::reason_of(proto::parse_dns_query({data, size})));
    return 0;
}
