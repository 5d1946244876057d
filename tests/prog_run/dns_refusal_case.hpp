// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "dns_case.hpp"
#include "policy/compile.hpp"
#include "policy/decide.hpp"
#include "proto/dns_query.hpp"

#include <optional>

// What userspace would say to a DNS query, as the packet in which BPF has to say it.
namespace tapgate::test {

inline Bytes query_frame(const Family& family, const Bytes& message) {
    return udp_frame(family.guest, family.server, kDnsPort, 53, message);
}

/// The frame with `message` that answers a query of query_frame().
inline Bytes refusal_frame(const Family& family, const Bytes& message) {
    Bytes datagram = udp_datagram(family.server, family.guest, 53, kDnsPort, message);
    if (get16(datagram, 6) == 0)
        set16(datagram, 6, 0xffff); // RFC 768
    return ip_frame(family.server, family.guest, IPPROTO_UDP, datagram, kHostMac, kGuestMac);
}

/// What becomes of a query.
struct QueryOutcome {
    tg_drop_reason reason = TG_DROP_NONE; ///< TG_DROP_NONE: it goes to the daemon
    std::optional<Bytes> answer;
};

inline tg_drop_reason reason_of(proto::DnsRcode rcode, const proto::DnsQuery& query) {
    switch (rcode) {
    case proto::DnsRcode::kFormErr:
        return TG_DROP_DNS_QUERY_MALFORMED;
    case proto::DnsRcode::kNotImp:
        return TG_DROP_DNS_OPCODE;
    case proto::DnsRcode::kBadVers:
        return TG_DROP_DNS_EDNS_VERSION;
    case proto::DnsRcode::kRefused:
        return query.question->klass == 1 ? TG_DROP_DNS_TYPE : TG_DROP_DNS_CLASS;
    case proto::DnsRcode::kNoError:
    case proto::DnsRcode::kServFail:
    case proto::DnsRcode::kNxDomain:
        break;
    }
    return TG_DROP_NONE;
}

/// What the daemon would do with `message` under `policy`.
inline QueryOutcome expected_outcome(const policy::CompiledPolicy& policy, const Bytes& message) {
    const proto::DnsQueryParse parsed = proto::parse_dns_query(message);
    if (parsed.status == proto::DnsQueryStatus::kDropped)
        return {TG_DROP_DNS_NOT_A_QUERY, std::nullopt};
    if (parsed.status == proto::DnsQueryStatus::kRefused)
        return {reason_of(parsed.rcode, parsed.query), proto::build_error_answer(parsed.query, parsed.rcode)};
    const auto name = policy::Name::from_wire(parsed.query.question->name.text());
    if (!name)
        return {TG_DROP_DNS_NAME, proto::build_error_answer(parsed.query, proto::DnsRcode::kRefused)};
    if (policy::decide_query(policy, *name, policy::Protocol::kUdp).verdict == policy::Verdict::kAllow)
        return {};
    const proto::DnsExtendedError error{proto::DnsExtendedError::kProhibited, policy.policy().deny_text};
    return {TG_DROP_DNS_POLICY, proto::build_error_answer(parsed.query, proto::DnsRcode::kNxDomain, error)};
}

} // namespace tapgate::test
