// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/clock.hpp"
#include "base/ip.hpp"
#include "base/result.hpp"
#include "policy/compile.hpp"
#include "policy/decide.hpp"
#include "tapgate/bpf_abi.h"

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

// The one door to the kernel's BPF side: programs, attachments and maps.
namespace tapgate::datapath {

using GuestId = std::uint64_t;
using MacAddress = std::array<std::uint8_t, 6>;

/// How programs are put on an interface.
enum class AttachKind : std::uint8_t {
    kTcx,    ///< tcx links, Linux 6.6 and later
    kClsact, ///< filters of a clsact qdisc
};

struct Settings {
    std::string pin_dir = "/sys/fs/bpf/tapgate";
    std::uint32_t mark = 0x7461;
    unsigned workers = 1;
    /// Lifetime of a binding is clamp(TTL, min_ttl, max_ttl). With a min_ttl of 0 it is the TTL exactly, but
    /// for a TTL of 0: one second.
    std::chrono::seconds min_ttl{60};
    std::chrono::seconds max_ttl{86400};
    /// Empty: tcx if the kernel has it.
    std::optional<AttachKind> attach;
    /// Given if a daemon runs that is to be taken over from: called when nothing is left that could be
    /// refused, it makes that daemon let_go(), or fails.
    std::function<Result<void>()> hand_over;
};

struct GuestCaps {
    std::uint32_t sessions = 2048;
    std::uint32_t half_open = 1024;
    std::uint32_t dns_pending = 512;
    std::uint32_t dns_queries_per_second = 200; ///< over UDP
    std::uint32_t bindings = 8192;
};

struct GuestSpec {
    unsigned ifindex = 0;
    /// Name of a policy that was installed. Guests of one policy share its memory in the kernel.
    std::string policy;
    /// Empty: learned from the guest's first packet.
    std::optional<MacAddress> mac;
    std::vector<IpAddress> addresses;
    std::vector<IpAddress> gateways;
    GuestCaps caps;
};

/// The guest's view of a TCP connection.
struct FlowTuple {
    Endpoint guest;
    Endpoint peer;
};

/// A connection that BPF is to carry.
struct SpliceSpec {
    FlowTuple flow;
    Endpoint local; ///< where the connection to `flow.peer` comes from
    GuestId guest = 0;
    unsigned guest_ifindex = 0;
    unsigned uplink_ifindex = 0;
    IpAddress next_hop; ///< at that interface; zero: whom the host's routes say
    /// What the guest said first, which was no CONNECT; nothing if its SYN decided.
    std::optional<policy::FirstFlight> flight;
    /// The name that a binding tied to the destination then: that of `flight`, or one of several if that has
    /// none.
    std::optional<policy::Name> bound;
};

using SpliceId = std::uint64_t; ///< never 0, never used twice while the maps live
using SpliceSides = std::array<tg_new_side, TG_SPLICE_ENDS>;

/// A connection that an earlier daemon has left to BPF.
struct LeftSplice {
    SpliceSpec spec;
    SpliceId id = 0;
    BootClock::time_point since;
};

/// What BPF made of the first packet of a flow (bpf_abi.h).
struct Judgement {
    tg_verdict verdict = TG_VERDICT_NONE;
    std::uint64_t generation = 0;
    /// Position of the deciding group in CompiledPolicy::rule_groups(); empty for the default.
    std::optional<std::size_t> rule_group;

    /// In the words of the policy library; what was not asked is denied.
    [[nodiscard]] policy::Verdict policy_verdict() const;
};

/// What tap_ingress would make of a SYN.
struct FlowVerdict {
    tg_drop_reason reason =
        TG_DROP_NONE;    ///< why it would be refused; TG_DROP_NONE: it would be steered to us
    Judgement judgement; ///< TG_VERDICT_NONE: no policy is asked
};

/// What tap_ingress knew of a SYN.
struct PendingFlow {
    GuestId guest = 0;
    unsigned ifindex = 0;
    Judgement judgement;
};

/// A name that a live binding ties to an address; lower case, without the trailing dot.
struct BoundName {
    std::string name;
    std::vector<std::string> aliases; ///< the chain from the name to the address, in order
};

struct Binding {
    GuestId guest = 0;
    IpAddress address;
    std::string name;
    std::vector<std::string> aliases;
    std::optional<IpAddress> resolver; ///< who last gave the name addresses, if that is known
    BootClock::time_point told;        ///< when an answer last said so
    BootClock::time_point expires;
};

/// An answer that reached the daemon over TCP, to be recorded like one that tap_egress sees. Names are in
/// wire form, uncompressed.
struct Recording {
    struct Address {
        IpAddress address;
        std::uint32_t ttl_seconds = 0;
    };

    GuestId guest = 0;
    std::vector<std::uint8_t> name;
    std::vector<std::vector<std::uint8_t>> aliases; ///< TG_DNS_ALIASES_MAX at most
    std::vector<Address> addresses;                 ///< TG_RECORDING_ADDRESSES_MAX at most
    std::optional<IpAddress> resolver;
};

/// A question in flight, as `dns_pending` knows it.
struct DnsFlow {
    GuestId guest = 0;
    Endpoint client;
    IpAddress server; ///< whom the guest believes it asked
    std::uint16_t id = 0;
};

/// What a guest uses of what it has caps on, and more that is counted for it in the kernel.
struct GuestUse {
    std::uint32_t sessions = 0;
    std::uint32_t half_open = 0;
    std::uint32_t dns_pending = 0; ///< questions over UDP in flight
    std::uint32_t bindings = 0;    ///< names of addresses
    std::uint32_t names = 0;
    std::uint32_t chains = 0;
    std::uint64_t evicted = 0; ///< live bindings that made room since it was attached
};

/// How full a table of all guests is.
struct TableFill {
    std::string_view table; ///< the map's name
    std::size_t entries = 0;
    std::size_t capacity = 0;
};

struct DropCount {
    tg_drop_reason reason = TG_DROP_NONE;
    std::uint64_t packets = 0;
};

/// The question of a DNS query that BPF has refused.
struct RefusedQuestion {
    std::vector<std::uint8_t> name; ///< wire form in lower case; empty: the question could not be read
    std::uint16_t type = 0;
};

struct DropEvent {
    BootClock::time_point time;
    GuestId guest = 0;
    unsigned ifindex = 0;
    tg_drop_reason reason = TG_DROP_NONE;
    FlowTuple flow;
    std::uint8_t protocol = 0;
    Judgement judgement;
    std::optional<RefusedQuestion> question; ///< set for refused DNS queries alone
};

/// TCP, UDP and ICMP by their numbers in an IP header, and back. What is none of these is not judged by
/// policies.
[[nodiscard]] std::uint8_t ip_protocol(policy::Protocol protocol);
[[nodiscard]] policy::Protocol policy_protocol(std::uint8_t ip_protocol);

/// The stable word and the sentence of a drop reason (drop_reason.h).
[[nodiscard]] std::string_view drop_reason_name(tg_drop_reason reason);
[[nodiscard]] std::string_view drop_reason_text(tg_drop_reason reason);

/// Loaded programs and their maps. All functions may be called from any thread; map operations are single
/// system calls.
///
/// Destroying the object closes descriptors only: programs stay attached and maps stay pinned, so that a
/// guest stays confined while no daemon runs (I5). cleanup() removes them.
class Datapath {
  public:
    /// Mounts bpffs at /sys/fs/bpf if `pin_dir` lies there and none is mounted, adopts maps pinned by an
    /// earlier daemon of the same ABI or creates them, and loads the programs. Nothing is attached. On
    /// failure nothing that was not there before is left pinned. kPermission: capabilities missing;
    /// kUnsupported: the kernel lacks something, named in the message; kInvalid: pinned maps of another ABI
    /// or of another network namespace, or a `pin_dir` that is not on a bpffs; kExists: another process holds
    /// `pin_dir`.
    ///
    /// Guests of an earlier daemon whose interface is gone are forgotten; the others stay confined.
    static Result<std::unique_ptr<Datapath>> open(const Settings& settings);

    /// Detaches every program that is pinned under `pin_dir` and removes the pins. Succeeds if there are
    /// none. kExists: a daemon is running. To be called in the network namespace of the guests.
    static Result<void> cleanup(const std::string& pin_dir);

    virtual ~Datapath() = default;

    /// Makes `policy` the generation in force under `name`, for all guests that have it and in one step: each
    /// verdict is of the old one or of the new one, and when this returns of the new one alone. On failure
    /// (kLimit: too large for the kernel, or too many policies) nothing changes.
    ///
    /// `text` is what `policy` was compiled from. The first policy under a name that is just what an earlier
    /// daemon has left under it goes on as the generation that it was: the number that is returned.
    ///
    /// Guests that an earlier daemon left go on under what it installed until they are attached again.
    virtual Result<std::uint64_t> install_policy(const std::string& name,
                                                 const policy::CompiledPolicy& policy, std::string_view text,
                                                 std::uint64_t generation) = 0;

    /// Frees the policies that an earlier daemon left and that no guest refers to. To be called when the
    /// guests have been attached.
    virtual void drop_unused_policies() = 0;

    /// No generation up to this one may be used again.
    [[nodiscard]] virtual std::uint64_t last_generation() const = 0;

    /// Replaces the addresses of address group `host`, besides each guest's gateways. On
    /// failure (kLimit: too many) the old ones stay.
    virtual Result<void> set_host_addresses(const std::vector<IpAddress>& addresses) = 0;

    /// Makes the interface a guest: table entry first, then the programs, so that it is never half open. An
    /// interface that has our programs already, for a guest with the same addresses, keeps its guest id, and
    /// with it its bindings and its learned MAC: that is a restart, or a change of gateways, caps or MAC. Any
    /// other gets a new id and nothing of what its predecessor had. On failure an interface that had our
    /// programs keeps them, and no other gets any. kNotFound: no such interface or policy;
    /// kExists: another guest has one of the addresses.
    virtual Result<GuestId> attach_guest(const GuestSpec& spec) = 0;

    /// Removes programs, entry and all state of the guest on `ifindex`, also when the interface is gone.
    /// An interface that still exists is open to its host afterwards, like any other interface.
    virtual Result<void> detach_guest(unsigned ifindex) = 0;

    /// True if the interface is a guest now, of this daemon or an earlier one.
    [[nodiscard]] virtual bool is_guest(unsigned ifindex) const = 0;

    /// Makes `fd` the socket to which new flows (TCP) or queries (DNS) of that kind are steered for `worker`,
    /// and marks it as ours. Borrowed: closing the socket withdraws it.
    virtual Result<void> set_listener(unsigned worker, tg_listener_kind kind, int fd) = 0;

    /// Refuses new flows from now on (TG_DROP_NO_LISTENER). What was steered to a listener already goes on,
    /// and so do queries over UDP.
    virtual Result<void> withdraw_listeners() = 0;

    /// Leaves the pins to another daemon. From now on this one only serves what was steered to its sockets:
    /// it attaches, installs and sweeps nothing any more.
    virtual void let_go() = 0;

    /// Whether tap_ingress judges that guest by that generation, whichever daemon has told it to.
    [[nodiscard]] virtual bool is_judged_by(unsigned ifindex, GuestId guest,
                                            std::uint64_t generation) const = 0;

    /// The verdict of the programs on a SYN of the guest on `ifindex` to `peer`, by all that is in the maps
    /// now. Counts as a use of the address's bindings, and changes nothing else.
    virtual Result<FlowVerdict> judge_flow(unsigned ifindex, const Endpoint& peer) = 0;

    /// Removes and returns the pending entry of an accepted connection; nothing if BPF never saw its SYN.
    virtual std::optional<PendingFlow> take_pending(const FlowTuple& flow) = 0;

    /// Takes one of `cap` places for sessions of `guest`; false if none is left, or the guest is gone. While
    /// as many are taken as its caps say, tap_ingress refuses the guest's SYNs.
    virtual bool take_session(GuestId guest, std::uint32_t cap) = 0;
    virtual void give_back_session(GuestId guest) = 0;

    /// Attaches uplink_ingress to the interface, if it is not there already, so that flows can be spliced
    /// through it. kNotFound: no such interface; kInvalid: it is a guest's.
    virtual Result<void> attach_uplink(unsigned ifindex) = 0;

    /// Enters a flow as TG_SPLICE_RECORDING. One that is left over under the same key ends. kExists: another
    /// flow to this destination has `local`; kLimit: the table is full; kNotFound: that guest is gone.
    virtual Result<SpliceId> record_splice(const SpliceSpec& spec) = 0;
    /// Nothing if that flow is gone.
    [[nodiscard]] virtual std::optional<tg_splice> find_splice(const FlowTuple& flow, SpliceId id) const = 0;
    /// False, with nothing changed: it is gone, or its state does not allow the change. `sides` count for
    /// TG_CHANGE_FORWARD alone.
    virtual bool change_splice(const FlowTuple& flow, SpliceId id, tg_change change,
                               const SpliceSides& sides) = 0;
    /// Lets the flow's packets leave by another interface. False: it is gone.
    virtual bool reroute_splice(const FlowTuple& flow, SpliceId id, unsigned uplink_ifindex,
                                const IpAddress& next_hop) = 0;
    /// Ends and removes the flow, if it is there.
    virtual void remove_splice(const FlowTuple& flow, SpliceId id) = 0;
    /// Notes that another daemon may adopt the flow although this one still runs.
    virtual void leave_splice(const FlowTuple& flow, SpliceId id) = 0;
    /// Notes that the end of the flow is known: it will not be among the left_splices() of the next daemon.
    virtual void conclude_splice(const FlowTuple& flow, SpliceId id) = 0;
    /// What an earlier daemon has left and BPF carries, to be called before any flow is entered. Whatever
    /// else it has left is removed, unless it still drains: then that is its own.
    virtual std::vector<LeftSplice> left_splices() = 0;

    /// The names that live bindings of `guest` tie to `address`; one name stands there once for each chain of
    /// aliases by which it has led there. An error: they could not be read, which says nothing of them.
    [[nodiscard]] virtual Result<std::vector<BoundName>> bound_names(GuestId guest,
                                                                     const IpAddress& address) = 0;

    /// Records an answer for the guest on `ifindex`, to be called before it is delivered. Lifetimes are as
    /// for answers over UDP. kNotFound: that guest is not there (any more). kLimit: the guest's cap, or a
    /// full map; counted as BPF counts it. kInvalid: more than Recording can hold, or a name that has no text
    /// of 253 octets. On failure part of it may have been recorded; nothing is to be relied upon.
    virtual Result<void> record_answer(unsigned ifindex, const Recording& recording) = 0;

    /// Notes who answered `question`; to be called before the answer is sent. False: no such question is in
    /// flight (any more).
    virtual bool set_resolver(const DnsFlow& question, const IpAddress& resolver) = 0;

    /// Makes room for at least `count` bindings of `guest` by forgetting others of it, the least recently
    /// used addresses first. Returns how many were removed. Walks the table of all guests: for one thread,
    /// and not for every packet.
    virtual std::size_t evict_bindings(GuestId guest, std::size_t count) = 0;

    /// Of the guest on `ifindex`; zeros if there is none.
    [[nodiscard]] virtual GuestUse guest_use(unsigned ifindex) const = 0;

    /// The tables that can be full; `bindings` as it was when sweep() last came to its end.
    [[nodiscard]] virtual std::vector<TableFill> table_fills() const = 0;

    /// Lets the live bindings of `name` to `address` last until `until` at least, for a flow that uses them.
    virtual void keep_binding(GuestId guest, const IpAddress& address, std::string_view name,
                              BootClock::time_point until) = 0;

    /// All live bindings, of one guest if given.
    [[nodiscard]] virtual std::vector<Binding> bindings(std::optional<GuestId> guest) = 0;

    /// Forgets the bindings of `guest`, all or those of one name; returns how many.
    virtual std::size_t flush_bindings(GuestId guest, std::optional<std::string_view> name) = 0;

    /// The MAC learned or configured for the guest on `ifindex`.
    [[nodiscard]] virtual std::optional<MacAddress> guest_mac(unsigned ifindex) = 0;

    /// Packets dropped since the maps were made, by reason, of one guest's interface if given; zeros left
    /// out.
    [[nodiscard]] virtual std::vector<DropCount> drops(std::optional<unsigned> ifindex) = 0;
    /// Counts a refusal made in userspace (reasons of 100 and above) with those of BPF.
    virtual void count_drop(std::optional<unsigned> ifindex, tg_drop_reason reason) = 0;

    /// A descriptor that polls readable when events wait, and the call that then hands each one on: what was
    /// dropped, and spliced flows that a packet has ended or half ended. Events may be lost.
    [[nodiscard]] virtual int event_fd() const = 0;
    virtual void read_events(const std::function<void(const DropEvent&)>& dropped,
                             const std::function<void(const FlowTuple&)>& splice_changed) = 0;
    [[nodiscard]] virtual std::uint64_t events_lost() const = 0;

    /// Removes entries whose time is over: half-open connections, DNS questions, bindings, their names and
    /// chains of aliases.
    /// To be called about once a second.
    virtual void sweep() = 0;

    /// "tcx" or "clsact".
    [[nodiscard]] virtual std::string_view attach_kind() const = 0;
};

} // namespace tapgate::datapath
