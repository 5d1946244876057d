// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "dns_case.hpp"
#include "policy/compile.hpp"
#include "policy/decide.hpp"
#include "prog_run/dns_query_reason.hpp"

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

/// What the daemon would do with `message` under `policy`.
inline QueryOutcome expected_outcome(const policy::CompiledPolicy& policy, const Bytes& message) {
    const proto::DnsQueryParse parsed = proto::parse_dns_query(message);
    const tg_drop_reason reason = reason_of(parsed);
    if (reason == TG_DROP_DNS_NOT_A_QUERY)
        return {reason, std::nullopt};
    if (reason == TG_DROP_DNS_NAME)
        return {reason, proto::build_error_answer(parsed.query, proto::DnsRcode::kRefused)};
    if (reason != TG_DROP_NONE)
        return {reason, proto::build_error_answer(parsed.query, parsed.rcode)};
    const auto name = policy::Name::from_wire(parsed.query.question->name.text());
    if (policy::decide_query(policy, *name, policy::Protocol::kUdp).verdict == policy::Verdict::kAllow)
        return {};
    const proto::DnsExtendedError error{proto::DnsExtendedError::kProhibited, policy.policy().deny_text};
    return {TG_DROP_DNS_POLICY, proto::build_error_answer(parsed.query, proto::DnsRcode::kNxDomain, error)};
}

} // namespace tapgate::test
