// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "policy/model.hpp"

// What an earlier rule takes from a later one, for any flow, query and answer whatever. The argument for each
// kind of rule stands in the source file; the semantics are those of match.cpp and decide.cpp.
namespace tapgate::policy {

/// Every (direction, protocol, port) that `later` matches is one that `earlier` matches.
[[nodiscard]] bool covers_service(const Rule& earlier, const Rule& later);
/// There is a (direction, protocol, port) that both match.
[[nodiscard]] bool services_overlap(const Rule& a, const Rule& b);
/// Some (protocol, port) of the rule can be that of a flow.
[[nodiscard]] bool has_service(const Rule& rule);

/// Every address, and every name, that `later` matches is one that `earlier` matches. Groups are compared by
/// their names; that a group covers a block, or a block a group, takes a table and is not seen here.
[[nodiscard]] bool covers_target(const Rule& earlier, const Rule& later);
/// The same for blocks alone: `later` is a rule on addresses and speaks of `block`.
[[nodiscard]] bool covers_block(const Rule& earlier, const Rule& later, const IpPrefix& block);

/// `earlier`, which covers the target of `later`, settles every flow that `later` could, before that is
/// reached.
[[nodiscard]] bool settles_flows(const Rule& earlier, const Rule& later);

/// The transports of the queries that a rule can decide.
struct QueryTransports {
    bool udp = false;
    bool tcp = false;

    [[nodiscard]] bool any() const { return udp || tcp; }
};

[[nodiscard]] QueryTransports query_transports(const Rule& rule, const DnsSettings& settings);

/// A rule on addresses by which answer_address_permitted() may decide.
[[nodiscard]] bool judges_answer_addresses(const Rule& rule);
/// A `private-ok` rule by which answer_address_permitted() may permit.
[[nodiscard]] bool permits_answer_names(const Rule& rule);

} // namespace tapgate::policy
