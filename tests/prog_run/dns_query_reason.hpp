// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "policy/name.hpp"
#include "proto/dns_query.hpp"
#include "tapgate/bpf_abi.h"

namespace tapgate::test {

/// What BPF has to count for a query of which the daemon says `parsed`; TG_DROP_NONE if only the policy can
/// have something against it.
inline tg_drop_reason reason_of(const proto::DnsQueryParse& parsed) {
    if (parsed.status == proto::DnsQueryStatus::kDropped)
        return TG_DROP_DNS_NOT_A_QUERY;
    switch (parsed.rcode) {
    case proto::DnsRcode::kFormErr:
        return TG_DROP_DNS_QUERY_MALFORMED;
    case proto::DnsRcode::kNotImp:
        return TG_DROP_DNS_OPCODE;
    case proto::DnsRcode::kBadVers:
        return TG_DROP_DNS_EDNS_VERSION;
    case proto::DnsRcode::kRefused:
        return parsed.query.question->klass == 1 ? TG_DROP_DNS_TYPE : TG_DROP_DNS_CLASS;
    case proto::DnsRcode::kNoError:
    case proto::DnsRcode::kServFail:
    case proto::DnsRcode::kNxDomain:
        break;
    }
    return policy::Name::from_wire(parsed.query.question->name.text()) ? TG_DROP_NONE : TG_DROP_DNS_NAME;
}

} // namespace tapgate::test
