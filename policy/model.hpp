// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/ip.hpp"
#include "policy/name.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

// The policy as the operator wrote it: the one model behind the TOML and the JSON form. README.md in this
// folder is the language reference.
namespace tapgate::policy {

enum class Action : std::uint8_t { kAllow, kDeny };
enum class Direction : std::uint8_t { kEgress, kIngress, kAny };
enum class Protocol : std::uint8_t { kTcp, kUdp, kIcmpV4, kIcmpV6 };

/// Address groups known without being declared, in the order in which the first match wins. `kNamed` is any
/// group from a [groups] table.
enum class BuiltinGroup : std::uint8_t {
    kHost,
    kMeta,
    kLoopback,
    kPrivate,
    kLinkLocal,
    kMulticast,
    kReserved,
    kPublic,
};

[[nodiscard]] constexpr bool is_icmp(Protocol protocol) {
    return protocol == Protocol::kIcmpV4 || protocol == Protocol::kIcmpV6;
}

/// A set of protocols, in their order; empty means any. Held in place: a policy has a million of them.
class ProtocolSet {
  public:
    ProtocolSet() = default;

    ProtocolSet(std::initializer_list<Protocol> protocols) {
        for (const Protocol protocol : protocols)
            insert(protocol);
    }

    void insert(Protocol protocol) {
        const auto at = std::lower_bound(items_.begin(), items_.begin() + count_, protocol);
        if (at != items_.begin() + count_ && *at == protocol)
            return;
        std::move_backward(at, items_.begin() + count_, items_.begin() + count_ + 1);
        *at = protocol;
        ++count_;
    }

    [[nodiscard]] bool empty() const { return count_ == 0; }

    /// True also of the empty set, which is any protocol.
    [[nodiscard]] bool includes(Protocol protocol) const {
        return empty() || std::find(begin(), end(), protocol) != end();
    }

    [[nodiscard]] std::size_t size() const { return count_; }

    [[nodiscard]] const Protocol* begin() const { return items_.data(); }

    [[nodiscard]] const Protocol* end() const { return items_.data() + count_; }

    auto operator<=>(const ProtocolSet&) const = default;

  private:
    std::array<Protocol, 4> items_{};
    std::uint8_t count_ = 0;
};

/// An inclusive range of service ports.
struct PortRange {
    std::uint16_t first = 0;
    std::uint16_t last = 0;
    auto operator<=>(const PortRange&) const = default;
};

struct AnyTarget {};

/// `dns`: name queries, wherever the guest sends them (DESIGN 6.3). Matches no TCP session and no datagram
/// other than a query.
struct DnsTarget {};

struct GroupTarget {
    std::variant<BuiltinGroup, std::string> group;
};

struct PrefixTarget {
    IpPrefix prefix;
};

/// Exactly `name`, or with `suffix` the name and everything below it.
struct DomainTarget {
    Name name;
    bool suffix = false;
};

using Target = std::variant<AnyTarget, DnsTarget, GroupTarget, PrefixTarget, DomainTarget>;

/// Where something stands in a policy file. Line and column count from 1; 0 means unknown.
struct SourceLocation {
    std::uint32_t line = 0;
    std::uint32_t column = 0;
};

/// One rule. Its canonical one-line form is format_rule(); it is not kept, since most rules are never shown.
struct Rule {
    Action action = Action::kDeny;
    Direction direction = Direction::kEgress;
    Target target = AnyTarget{};
    ProtocolSet protocols;
    /// Empty means any. A rule with ports never matches ICMP.
    std::vector<PortRange> ports;
    /// Option `private-ok`: the rule's name may resolve to addresses that are not public.
    bool private_ok = false;
    /// Option `cname`: the rule's name also matches any alias in the chain that led to the address.
    bool cname = false;
    SourceLocation location;
};

enum class NoSni : std::uint8_t { kDeny, kCache };
enum class Ech : std::uint8_t { kOuter, kDeny, kStrip };
enum class HttpHost : std::uint8_t { kEvery, kFirst, kIgnore };
enum class DenyStyle : std::uint8_t { kReadable, kReset };
enum class LiveFlows : std::uint8_t { kCut, kDrain, kKeep };

/// What carries connections once they are allowed (DESIGN 9).
enum class Splice : std::uint8_t { kAuto, kKernel, kUring, kCopy };

/// [dns]: what a guest may ask, besides what the rules say of names. 0 is no limit.
struct DnsSettings {
    /// `resolve = "allowed"`: only rules on names, and the default, allow queries; `dns`, `any` and `host` do
    /// not.
    bool only_allowed_names = false;
    unsigned max_label = 0;      ///< octets in a label
    unsigned max_name = 0;       ///< octets in a name, dots included
    unsigned names_per_zone = 0; ///< distinct names a minute below one registrable domain
};

struct Policy {
    Action default_egress = Action::kDeny;
    Action default_ingress = Action::kDeny;
    std::vector<Rule> rules;
    /// [groups]: name (built-in names included) -> blocks.
    std::map<std::string, std::vector<IpPrefix>> groups;
    /// Nothing: what the daemon's configuration says.
    std::optional<Splice> splice;
    NoSni no_sni = NoSni::kDeny;
    Ech ech = Ech::kOuter;
    HttpHost http_host = HttpHost::kEvery;
    DnsSettings dns;
    LiveFlows live_flows = LiveFlows::kCut;
    std::chrono::seconds drain{30};
    /// What a denied first flight gets: an alert or a page in its own protocol, or a reset.
    DenyStyle deny_style = DenyStyle::kReadable;
    /// Added to readable denials; printable UTF-8 of at most 200 bytes.
    std::string deny_text;
    /// The file it came from, for messages; may be empty.
    std::string source;
};

} // namespace tapgate::policy
