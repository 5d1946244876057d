// SPDX-License-Identifier: Apache-2.0
#ifndef TAPGATE_ASSUMPTIONS_STEERING_H
#define TAPGATE_ASSUMPTIONS_STEERING_H

/* What steering.bpf.c and its tests share. */
enum { STEER_MARK = 0x7461 };

enum { /* keys of `listeners`: IPv6 next to IPv4 */
       STEER_TCP4,
       STEER_TCP6,
       STEER_UDP4,
       STEER_UDP6,
       STEER_KINDS,
};

enum {			    /* keys of `counts` */
       STEER_NO_LISTENER,   /* ingress: what should have been assigned and was dropped */
       STEER_SYN_ACK_OWNED, /* egress: skb->sk leads to a listener that is in `owned` */
       STEER_SYN_ACK_OTHER, /* egress: it does not */
       STEER_SEGMENT_OWNED, /* egress: any other segment whose skb->sk is in `owned` */
       STEER_SEGMENT_OTHER,
       STEER_DATAGRAM_OWNED, /* egress: UDP whose skb->sk is in `owned` */
       STEER_DATAGRAM_OTHER,
       STEER_COUNTS,
};

#endif
