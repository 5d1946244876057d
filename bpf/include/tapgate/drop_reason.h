/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef TAPGATE_DROP_REASON_H
#define TAPGATE_DROP_REASON_H

/*
 * Every refusal has exactly one reason, and every reason is a row here: X(number, NAME, "name", "text").
 * Numbers are ABI and never reused; they index the maps `drops` and `guest_drops`. "name" is what metrics,
 * JSON and tests say; "text" completes the sentence "dropped: ...".
 *
 * 1-29 link and network layer, 30-49 transport, 50-79 DNS, 80-99 towards the guest, 100-119 the proxy's.
 * DNS_POLICY and DNS_RATE are of both: BPF refuses over UDP what the proxy refuses over TCP. SESSION_CAP too:
 * BPF refuses SYNs while every place is taken, the proxy connections whose SYN came before that.
 */
#define TG_DROP_REASONS(X)                                                                                   \
	X(1, UNKNOWN_GUEST, "unknown-guest", "the interface is not a known guest")                           \
	X(2, TRUNCATED, "truncated", "the packet ends inside a header")                                      \
	X(3, VLAN, "vlan", "VLAN tags are not accepted from guests")                                         \
	X(4, ETHERTYPE, "ethertype", "the ethertype is neither IPv4, IPv6 nor ARP")                          \
	X(5, SOURCE_MAC, "source-mac", "the source MAC is not the guest's")                                  \
	X(6, SOURCE_ADDRESS, "source-address", "the source address is not the guest's")                      \
	X(7, ARP, "arp", "ARP other than for the gateway and the guest's own addresses")                     \
	X(8, ND, "nd", "neighbour discovery other than for the gateway and the guest's own addresses")       \
	X(9, IP_HEADER, "ip-header", "the IP header is malformed")                                           \
	X(10, IP_OPTIONS, "ip-options", "IPv4 options are not accepted from guests")                         \
	X(11, FRAGMENT, "fragment", "IP fragments are not accepted from guests")                             \
	X(12, EXTENSION_HEADER, "extension-header", "an IPv6 extension header that hides the transport")     \
	X(13, PROTOCOL, "protocol", "the IP protocol is neither TCP, UDP nor ICMP")                          \
	X(14, MULTICAST, "multicast", "multicast and broadcast are not forwarded")                           \
	X(15, ICMP, "icmp", "ICMP is not forwarded")                                                         \
	X(30, TCP_HEADER, "tcp-header", "the TCP header is malformed or its flags are impossible")           \
	X(31, TCP_NO_FLOW, "tcp-no-flow", "the TCP segment belongs to no flow of this guest")                \
	X(32, TCP_INGRESS, "tcp-ingress", "connections to the guest are not open")                           \
	X(33, UDP_HEADER, "udp-header", "the UDP header is malformed")                                       \
	X(34, UDP, "udp", "UDP other than DNS is not forwarded")                                             \
	X(35, NO_LISTENER, "no-listener", "the daemon is not running")                                       \
	X(36, STEER_FAILED, "steer-failed", "the kernel could not hand the flow to the daemon")              \
	X(37, HALF_OPEN_CAP, "half-open-cap", "the guest has too many half-open connections")                \
	X(38, PENDING_FULL, "pending-full", "the table of half-open connections is full")                    \
	X(39, POLICY_FIRST_PACKET, "policy-first-packet", "denied by the policy at the first packet")        \
	X(40, REFUSED_ADDRESS, "refused-address", "the destination is one that no policy can allow")         \
	X(41, NO_POLICY, "no-policy", "the guest's policy is not loaded")                                    \
	X(42, SPLICE_HELD, "splice-held", "the connection is being spliced; TCP sends it again")             \
	X(43, SPLICE_REPLAY, "splice-replay", "data again that was taken before the splice")                 \
	X(44, SPLICE_SEGMENT, "splice-segment", "the segment does not fit its spliced connection")           \
	X(45, SPLICE_FORWARD, "splice-forward", "out of hops, or larger than the next interface allows")     \
	X(50, DNS_TRANSPORT, "dns-transport", "a name service other than DNS on port 53")                    \
	X(51, DNS_QUERY_MALFORMED, "dns-query-malformed", "the DNS query does not parse")                    \
	X(52, DNS_PENDING_CAP, "dns-pending-cap", "the guest has too many DNS queries in flight")            \
	X(53, DNS_PENDING_FULL, "dns-pending-full", "the table of DNS queries in flight is full")            \
	X(54, DNS_ANSWER_UNASKED, "dns-answer-unasked", "a DNS answer that matches no question in flight")   \
	X(55, DNS_ANSWER_MALFORMED, "dns-answer-malformed", "the DNS answer does not parse completely")      \
	X(56, DNS_BINDING_CAP, "dns-binding-cap", "the guest has too many bindings to record the answer")    \
	X(57, DNS_BINDING_FULL, "dns-binding-full", "a binding table is full; the answer was not recorded")  \
	X(60, DNS_NOT_A_QUERY, "dns-not-a-query", "a packet to port 53 that is no DNS query")                \
	X(61, DNS_OPCODE, "dns-opcode", "opcode is not QUERY")                                               \
	X(62, DNS_EDNS_VERSION, "dns-edns-version", "unknown EDNS version")                                  \
	X(63, DNS_CLASS, "dns-class", "class is not IN")                                                     \
	X(64, DNS_TYPE, "dns-type", "query type is not allowed")                                             \
	X(65, DNS_NAME, "dns-name", "not a host name")                                                       \
	X(80, EGRESS_NOT_OURS, "egress-not-ours", "a packet to the guest that the daemon did not send")      \
	X(81, EGRESS_SPLICED, "egress-spliced", "the host's own TCP on a connection that is spliced")        \
	X(100, NO_PENDING, "no-pending",                                                                     \
	  "a connection to the proxy that did not come through a guest's tap")                               \
	X(101, POLICY, "policy", "denied by the policy once the first flight was seen")                      \
	X(102, SESSION_CAP, "session-cap", "the guest has too many sessions")                                \
	X(103, DNS_POLICY, "dns-policy", "the name is denied by the policy")                                 \
	X(104, DNS_REFUSED, "dns-refused", "the DNS query is of a kind that is not served")                  \
	X(105, DNS_REBINDING, "dns-rebinding", "the answer carries an address that the name may not have")   \
	X(106, DNS_UPSTREAM, "dns-upstream", "no trusted resolver had a usable answer")                      \
	X(107, DNS_RATE, "dns-rate", "the guest sends too many DNS queries")                                 \
	X(108, DNS_LIMIT, "dns-limit", "the name is over a limit of the policy's [dns]")                     \
	X(109, DNS_UNRECORDED, "dns-unrecorded", "the answer could not be recorded, so it was not given")    \
	X(110, DNS_CONNECTION_CAP, "dns-connection-cap", "the guest has too many DNS connections")

enum tg_drop_reason {
	TG_DROP_NONE = 0,
#define X(number, name, word, text) TG_DROP_##name = number,
	TG_DROP_REASONS(X)
#undef X
	    TG_DROP_REASON_MAX = 128, /* size of the tables indexed by a reason */
};

#endif
