// SPDX-License-Identifier: Apache-2.0
#include "datapath/datapath.hpp"

#include "base/log.hpp"
#include "base/unique_fd.hpp"
#include "datapath/abi.hpp"
#include "datapath/attach.hpp"
#include "datapath/binding_writer.hpp"
#include "datapath/bindings.hpp"
#include "datapath/drop_counters.hpp"
#include "datapath/events.hpp"
#include "datapath/flows.hpp"
#include "datapath/guest_table.hpp"
#include "datapath/in_flight.hpp"
#include "datapath/libbpf_log.hpp"
#include "datapath/pin_dir.hpp"
#include "datapath/policies.hpp"
#include "datapath/program_run.hpp"
#include "datapath/programs.hpp"
#include "datapath/requirements.hpp"
#include "policy/tables.hpp"

#include <bpf/bpf.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <mutex>
#include <ranges>
#include <set>
#include <span>
#include <utility>

#include <linux/if_ether.h>
#include <net/if.h>
#include <netinet/in.h>

namespace tapgate::datapath {

namespace {

// The rodata that carries it is a 32-bit count of seconds; no binding is wanted for longer than a year.
constexpr std::chrono::seconds kLongestTtl{std::chrono::hours(24 * 365)};

Result<void> check_settings(const Settings& settings) {
    if (settings.workers == 0 || settings.workers > TG_WORKERS_MAX)
        return fail(ErrorCode::kInvalid, fmt::format("{} workers: 1 to {} are possible", settings.workers,
                                                     static_cast<int>(TG_WORKERS_MAX)));
    if (settings.mark == 0)
        return fail(ErrorCode::kInvalid, "mark 0 is what every other packet has; choose another");
    if (settings.min_ttl.count() < 0 || settings.min_ttl > settings.max_ttl ||
        settings.max_ttl > kLongestTtl || settings.max_ttl.count() == 0)
        return fail(ErrorCode::kInvalid,
                    fmt::format("lifetimes of {} to {} s: want 0 <= min <= max <= a year",
                                settings.min_ttl.count(), settings.max_ttl.count()));
    return {};
}

bool interface_exists(unsigned ifindex) {
    char name[IF_NAMESIZE];
    return ::if_indextoname(ifindex, name) != nullptr;
}

MacAddress mac_from_word(std::uint64_t word) {
    MacAddress mac{};
    for (std::size_t i = 0; i < mac.size(); ++i)
        mac[i] = static_cast<std::uint8_t>(word >> (8 * i));
    return mac;
}

std::vector<IpAddress> addresses_of(const tg_guest& guest) {
    std::vector<IpAddress> addresses;
    for (const tg_address& address : std::span(guest.addresses).first(guest.address_count))
        addresses.push_back(from_abi(address));
    std::ranges::sort(addresses);
    return addresses;
}

/// The entry that `spec` asks for, without id and slot.
Result<tg_guest> entry_of(const GuestSpec& spec) {
    if (spec.addresses.empty() || spec.addresses.size() > TG_GUEST_ADDRESSES)
        return fail(ErrorCode::kInvalid,
                    fmt::format("a guest has 1 to {} addresses, not {}", static_cast<int>(TG_GUEST_ADDRESSES),
                                spec.addresses.size()));
    if (spec.gateways.size() > TG_GUEST_GATEWAYS)
        return fail(ErrorCode::kInvalid,
                    fmt::format("a guest has at most {} gateways, not {}",
                                static_cast<int>(TG_GUEST_GATEWAYS), spec.gateways.size()));
    tg_guest entry{};
    entry.sessions_max = spec.caps.sessions;
    entry.half_open_max = spec.caps.half_open;
    entry.dns_pending_max = spec.caps.dns_pending;
    entry.dns_queries_per_second = spec.caps.dns_queries_per_second;
    entry.bindings_max = spec.caps.bindings;
    if (spec.mac)
        std::ranges::copy(*spec.mac, entry.mac);
    entry.address_count = static_cast<std::uint8_t>(spec.addresses.size());
    entry.gateway_count = static_cast<std::uint8_t>(spec.gateways.size());
    std::ranges::transform(spec.addresses, entry.addresses, to_abi);
    std::ranges::transform(spec.gateways, entry.gateways, to_abi);
    return entry;
}

class KernelDatapath final : public Datapath {
  public:
    KernelDatapath(PinDir pins, std::unique_ptr<Programs> programs, AttachKind kind,
                   std::unique_ptr<GuestTable> guests, Policies policies, std::unique_ptr<Events> events)
        : pins_(std::move(pins)), programs_(std::move(programs)), guests_(std::move(guests)),
          policies_(std::move(policies)), events_(std::move(events)),
          attacher_(pins_.links_path(), kind, programs_->tap_ingress_fd(), programs_->tap_egress_fd(),
                    programs_->uplink_ingress_fd()),
          in_flight_(programs_->maps().pending, programs_->maps().dns_pending, *guests_),
          writer_(programs_->record_answer_fd(), programs_->forget_binding_fd(), programs_->maps().recordings,
                  *guests_),
          bindings_(programs_->maps().bindings, programs_->maps().names, programs_->maps().chains, writer_,
                    *guests_),
          flows_(programs_->change_flow_fd(), programs_->maps(), *guests_),
          drops_(programs_->maps().drops, programs_->maps().guest_drops, programs_->maps().events_lost) {}

    /// The last steps of open(), which cannot fail.
    void take_over(bool is_handed_over) {
        for (const unsigned ifindex : guests_->interfaces()) {
            if (!interface_exists(ifindex))
                static_cast<void>(detach_guest(ifindex));
        }
        is_handed_over_ = is_handed_over;
        if (!is_handed_over)
            in_flight_.recount();
        pins_.keep();
    }

    Result<std::uint64_t> install_policy(const std::string& name, const policy::CompiledPolicy& policy,
                                         std::string_view text, std::uint64_t generation) override {
        const auto image =
            build_policy_image(policy::build_tables(policy), generation, programs_->hash_key());
        if (!image)
            return fail(image.error());
        const std::uint64_t digest = policy_digest(programs_->hash_key(), name, text, *image);
        const std::lock_guard lock(mutex_);
        if (const auto known = policy_slots_.find(name); known != policy_slots_.end()) {
            if (auto installed = policies_.install(known->second, *image, digest); !installed)
                return fail(installed.error());
            return generation;
        }
        if (const auto adopted = policies_.adopt(digest)) {
            policy_slots_[name] = adopted->slot;
            return adopted->generation;
        }
        const auto slot = policies_.take_slot();
        if (!slot)
            return fail(slot.error());
        if (auto installed = policies_.install(*slot, *image, digest); !installed) {
            policies_.release(*slot);
            return fail(installed.error());
        }
        policy_slots_[name] = *slot;
        return generation;
    }

    void drop_unused_policies() override {
        const std::lock_guard lock(mutex_);
        std::set<std::uint32_t> used;
        for (const unsigned ifindex : guests_->interfaces()) {
            if (const auto entry = guests_->find(ifindex))
                used.insert(entry->policy);
        }
        policies_.drop_all_but(used);
    }

    [[nodiscard]] std::uint64_t last_generation() const override { return policies_.last_generation(); }

    Result<void> set_host_addresses(const std::vector<IpAddress>& addresses) override {
        const std::lock_guard lock(mutex_);
        // With many guests the host has many addresses, and something happens to its links all the time.
        const std::set<IpAddress> wanted(addresses.begin(), addresses.end());
        if (wanted == host_addresses_)
            return {};
        const std::optional<std::set<IpAddress>> before = std::exchange(host_addresses_, std::nullopt);
        HashMap<tg_address, std::uint8_t> map(programs_->maps().host_addresses);
        // New ones before old ones go: an address that stays is never missing.
        for (const IpAddress& address : wanted) {
            if (before && before->contains(address))
                continue;
            if (auto written = map.put(to_abi(address), 1); !written)
                return fail(written.error().with_context("note an address of the host"));
        }
        map.for_each([&](const tg_address& address, std::uint8_t) {
            if (!wanted.contains(from_abi(address)))
                map.erase(address);
        });
        host_addresses_ = wanted;
        return {};
    }

    Result<GuestId> attach_guest(const GuestSpec& spec) override {
        const std::lock_guard lock(mutex_);
        auto entry = entry_of(spec);
        if (!entry)
            return fail(std::move(entry).error());
        if (!interface_exists(spec.ifindex))
            return fail(ErrorCode::kNotFound,
                        fmt::format("there is no interface with index {}", spec.ifindex));

        if (auto distinct = check_distinct(spec); !distinct)
            return fail(std::move(distinct).error());
        const auto slot_of_policy = policy_slots_.find(spec.policy);
        if (slot_of_policy == policy_slots_.end())
            return fail(ErrorCode::kNotFound, fmt::format("there is no policy '{}'", spec.policy));
        entry->policy = slot_of_policy->second;

        const auto before = guests_->find(spec.ifindex);
        const bool was_attached = attacher_.is_attached(spec.ifindex);
        const bool same_guest = before && was_attached && addresses_of(*before) == addresses_of(*entry);
        if (same_guest) {
            entry->id = before->id;
            entry->slot = before->slot;
        } else {
            const auto slot = guests_->new_slot();
            if (!slot)
                return fail(slot.error());
            drops_.reset(*slot);
            entry->id = guests_->new_id();
            entry->slot = *slot;
        }
        if (auto written = guests_->put(spec.ifindex, *entry); !written)
            return fail(std::move(written).error());
        if (auto attached = attacher_.attach(spec.ifindex); !attached) {
            restore(spec.ifindex, was_attached ? before : std::nullopt);
            return fail(std::move(attached).error());
        }
        if (before && !same_guest)
            forget(before->id);
        return entry->id;
    }

    Result<void> detach_guest(unsigned ifindex) override {
        const std::lock_guard lock(mutex_);
        const auto entry = guests_->find(ifindex);
        if (!entry)
            return fail(ErrorCode::kNotFound, fmt::format("interface {} is not a guest", ifindex));
        auto detached = attacher_.detach(ifindex);
        // Even if that failed: a program without an entry drops everything. The entry goes first, so that
        // nothing is recorded for the guest once its state is forgotten.
        guests_->erase(ifindex);
        forget(entry->id);
        return detached;
    }

    [[nodiscard]] bool is_guest(unsigned ifindex) const override {
        return guests_->find(ifindex).has_value();
    }

    Result<void> set_listener(unsigned worker, tg_listener_kind kind, int fd) override {
        TAPGATE_ASSERT(worker < TG_WORKERS_MAX && kind < TG_LISTENER_KINDS);
        tg_owned owned{};
        owned.kind = kind + 1U;
        if (::bpf_map_update_elem(programs_->maps().owned_sockets, &fd, &owned, BPF_ANY) != 0)
            return fail_errno("mark a listener as ours");
        const std::uint32_t index = worker * TG_LISTENER_KINDS + kind;
        const auto socket = static_cast<std::uint64_t>(fd);
        if (::bpf_map_update_elem(programs_->maps().listeners, &index, &socket, BPF_ANY) != 0)
            return fail_errno("make a socket the target of steering");
        return {};
    }

    Result<void> withdraw_listeners() override {
        for (std::uint32_t worker = 0; worker < TG_WORKERS_MAX; ++worker) {
            for (const tg_listener_kind kind : {TG_LISTENER_TCP4, TG_LISTENER_TCP6}) {
                const std::uint32_t index = worker * TG_LISTENER_KINDS + kind;
                if (::bpf_map_delete_elem(programs_->maps().listeners, &index) != 0 && errno != ENOENT &&
                    errno != EINVAL) // EINVAL: what a map of sockets says of an empty place
                    return fail_errno("withdraw a listener");
            }
        }
        return {};
    }

    void let_go() override { pins_.unlock(); }

    [[nodiscard]] bool is_judged_by(unsigned ifindex, GuestId guest,
                                    std::uint64_t generation) const override {
        // The maps themselves: what is kept of them here is of the time when this daemon ruled.
        tg_guest entry{};
        tg_generation in_force{};
        return ::bpf_map_lookup_elem(programs_->maps().guests, &ifindex, &entry) == 0 && entry.id == guest &&
               ::bpf_map_lookup_elem(programs_->maps().generations, &entry.policy, &in_force) == 0 &&
               in_force.generation == generation;
    }

    Result<FlowVerdict> judge_flow(unsigned ifindex, const Endpoint& peer) override {
        tg_judging judging{};
        judging.peer_address = to_abi(peer.address);
        judging.ifindex = ifindex;
        judging.peer_port = htons(peer.port);
        auto packet = packet_of(judging);
        const auto reason = run_program(programs_->judge_flow_fd(), packet, packet);
        if (!reason)
            return fail(reason.error());
        std::memcpy(&judging, packet.data() + ETH_HLEN, sizeof judging);
        return FlowVerdict{static_cast<tg_drop_reason>(*reason), from_abi(judging.judgement)};
    }

    std::optional<PendingFlow> take_pending(const FlowTuple& flow) override { return in_flight_.take(flow); }

    bool take_session(GuestId guest, std::uint32_t cap) override {
        return guests_->take(guest, &tg_guest_state::sessions, cap);
    }

    void give_back_session(GuestId guest) override { guests_->release(guest, &tg_guest_state::sessions, 1); }

    Result<void> attach_uplink(unsigned ifindex) override {
        const std::lock_guard lock(mutex_);
        if (is_guest(ifindex))
            return fail(ErrorCode::kInvalid, "it is the interface of a guest");
        return attacher_.attach_uplink(ifindex);
    }

    Result<SpliceId> record_splice(const SpliceSpec& spec) override { return flows_.record(spec); }

    [[nodiscard]] std::optional<tg_splice> find_splice(const FlowTuple& flow, SpliceId id) const override {
        return flows_.find(flow, id);
    }

    bool change_splice(const FlowTuple& flow, SpliceId id, tg_change change,
                       const SpliceSides& sides) override {
        return flows_.change(flow, id, change, sides);
    }

    bool reroute_splice(const FlowTuple& flow, SpliceId id, unsigned uplink_ifindex,
                        const IpAddress& next_hop) override {
        return flows_.reroute(flow, id, uplink_ifindex, next_hop);
    }

    void remove_splice(const FlowTuple& flow, SpliceId id) override { flows_.remove(flow, id); }

    void leave_splice(const FlowTuple& flow, SpliceId id) override { flows_.leave(flow, id); }

    void conclude_splice(const FlowTuple& flow, SpliceId id) override { flows_.conclude(flow, id); }

    std::vector<LeftSplice> left_splices() override { return flows_.left(is_handed_over_); }

    [[nodiscard]] Result<std::vector<BoundName>> bound_names(GuestId guest,
                                                             const IpAddress& address) override {
        return bindings_.bound_names(guest, address, BootClock::now());
    }

    Result<void> record_answer(unsigned ifindex, const Recording& recording) override {
        return writer_.record(ifindex, recording);
    }

    bool set_resolver(const DnsFlow& question, const IpAddress& resolver) override {
        return in_flight_.set_resolver(question, resolver);
    }

    std::size_t evict_bindings(GuestId guest, std::size_t count) override {
        const std::lock_guard lock(mutex_);
        return bindings_.evict(guest, count, BootClock::now());
    }

    [[nodiscard]] GuestUse guest_use(unsigned ifindex) const override {
        const auto entry = guests_->find(ifindex);
        return entry ? guests_->use(entry->slot) : GuestUse();
    }

    [[nodiscard]] std::vector<TableFill> table_fills() const override {
        GuestUse all;
        const std::vector<unsigned> interfaces = guests_->interfaces();
        for (const unsigned ifindex : interfaces) {
            const GuestUse use = guest_use(ifindex);
            all.half_open += use.half_open;
            all.dns_pending += use.dns_pending;
            all.names += use.names;
            all.chains += use.chains;
        }
        const std::lock_guard lock(mutex_);
        return {{"guests", interfaces.size(), TG_GUESTS_MAX},
                {"policies", policies_.used(), TG_POLICIES_MAX},
                {"pending", all.half_open, TG_PENDING_MAX},
                {"dns_pending", all.dns_pending, TG_DNS_PENDING_MAX},
                {"bindings", bindings_.entries(), TG_BINDINGS_MAX},
                {"names", all.names, TG_NAMES_MAX},
                {"chains", all.chains, TG_CHAINS_MAX}};
    }

    void keep_binding(GuestId guest, const IpAddress& address, std::string_view name,
                      BootClock::time_point until) override {
        bindings_.keep(guest, address, name, until, BootClock::now());
    }

    [[nodiscard]] std::vector<Binding> bindings(std::optional<GuestId> guest) override {
        const std::lock_guard lock(mutex_);
        return bindings_.list(guest, BootClock::now());
    }

    std::size_t flush_bindings(GuestId guest, std::optional<std::string_view> name) override {
        const std::lock_guard lock(mutex_);
        return bindings_.flush(guest, name, BootClock::now());
    }

    [[nodiscard]] std::optional<MacAddress> guest_mac(unsigned ifindex) override {
        const auto entry = guests_->find(ifindex);
        if (!entry)
            return std::nullopt;
        MacAddress mac{};
        std::ranges::copy(entry->mac, mac.begin());
        if (mac == MacAddress{})
            mac = mac_from_word(guests_->learned_mac(entry->slot));
        return mac == MacAddress{} ? std::nullopt : std::optional(mac);
    }

    [[nodiscard]] std::vector<DropCount> drops(std::optional<unsigned> ifindex) override {
        if (!ifindex)
            return drops_.read(std::nullopt);
        const auto entry = guests_->find(*ifindex);
        return entry ? drops_.read(entry->slot) : std::vector<DropCount>();
    }

    void count_drop(std::optional<unsigned> ifindex, tg_drop_reason reason) override {
        const auto entry = ifindex ? guests_->find(*ifindex) : std::nullopt;
        drops_.count(entry ? std::optional(entry->slot) : std::nullopt, reason);
    }

    [[nodiscard]] int event_fd() const override { return events_->fd(); }

    void read_events(const std::function<void(const DropEvent&)>& dropped,
                     const std::function<void(const FlowTuple&)>& splice_changed) override {
        events_->read({dropped, splice_changed});
    }

    [[nodiscard]] std::uint64_t events_lost() const override { return drops_.events_lost(); }

    void sweep() override {
        const std::lock_guard lock(mutex_);
        const BootClock::time_point now = BootClock::now();
        in_flight_.sweep(now);
        bindings_.sweep(now);
    }

    [[nodiscard]] std::string_view attach_kind() const override {
        return attacher_.kind() == AttachKind::kTcx ? "tcx" : "clsact";
    }

  private:
    /// Flows are told apart by address, so no two guests may share one.
    [[nodiscard]] Result<void> check_distinct(const GuestSpec& spec) const {
        for (const unsigned ifindex : guests_->interfaces()) {
            const auto other = guests_->find(ifindex);
            if (ifindex == spec.ifindex || !other)
                continue;
            for (const IpAddress& address : addresses_of(*other)) {
                if (std::ranges::find(spec.addresses, address) != spec.addresses.end())
                    return fail(ErrorCode::kExists,
                                fmt::format("{} is an address of the guest on interface index {} already",
                                            address.to_string(), ifindex));
            }
        }
        return {};
    }

    void forget(GuestId guest) {
        in_flight_.forget(guest);
        flows_.forget(guest);
        bindings_.forget(guest);
    }

    /// After a failed attach: the entry as it was, if programs that use it are still attached.
    void restore(unsigned ifindex, const std::optional<tg_guest>& before) {
        if (before && guests_->put(ifindex, *before))
            return;
        if (const auto entry = guests_->find(ifindex)) {
            guests_->erase(ifindex);
            forget(entry->id);
        }
    }

    // Destroyed in reverse: the lock on the pin directory goes last.
    PinDir pins_;
    std::unique_ptr<Programs> programs_;
    std::unique_ptr<GuestTable> guests_;
    Policies policies_;
    std::map<std::string, std::uint32_t> policy_slots_; // by the policy's name
    std::optional<std::set<IpAddress>> host_addresses_; // what the map holds; empty: not known
    std::unique_ptr<Events> events_;
    Attacher attacher_;
    InFlight in_flight_;
    BindingWriter writer_;
    Bindings bindings_;
    Flows flows_;
    DropCounters drops_;
    bool is_handed_over_ = false; // by a daemon that still drains
    mutable std::mutex mutex_;    // attaching, sweeping and the rare walks, one at a time
};

} // namespace

std::uint8_t ip_protocol(policy::Protocol protocol) {
    switch (protocol) {
    case policy::Protocol::kTcp:
        return IPPROTO_TCP;
    case policy::Protocol::kUdp:
        return IPPROTO_UDP;
    case policy::Protocol::kIcmpV4:
        return IPPROTO_ICMP;
    case policy::Protocol::kIcmpV6:
        return IPPROTO_ICMPV6;
    }
    return IPPROTO_RAW;
}

policy::Protocol policy_protocol(std::uint8_t ip_protocol) {
    switch (ip_protocol) {
    case IPPROTO_UDP:
        return policy::Protocol::kUdp;
    case IPPROTO_ICMP:
        return policy::Protocol::kIcmpV4;
    case IPPROTO_ICMPV6:
        return policy::Protocol::kIcmpV6;
    default:
        return policy::Protocol::kTcp;
    }
}

policy::Verdict Judgement::policy_verdict() const {
    switch (verdict) {
    case TG_VERDICT_ALLOW:
        return policy::Verdict::kAllow;
    case TG_VERDICT_DEFER:
        return policy::Verdict::kDefer;
    case TG_VERDICT_NONE:
    case TG_VERDICT_DENY:
        break;
    }
    return policy::Verdict::kDeny;
}

Result<std::unique_ptr<Datapath>> Datapath::open(const Settings& settings) {
    if (auto checked = check_settings(settings); !checked)
        return fail(std::move(checked).error());
    if (auto capable = check_capabilities(); !capable)
        return fail(std::move(capable).error());
    const bool is_handed_over = settings.hand_over != nullptr;
    auto pins = is_handed_over ? PinDir::open_beside(settings.pin_dir) : PinDir::open(settings.pin_dir);
    if (!pins)
        return fail(std::move(pins).error());
    auto programs = Programs::load(settings, *pins);
    if (!programs)
        return fail(std::move(programs).error());
    if (is_handed_over) {
        if (auto handed = settings.hand_over(); !handed)
            return fail(std::move(handed).error());
        if (auto locked = pins->lock(); !locked)
            return fail(std::move(locked).error());
    }
    const AttachKind kind = settings.attach.value_or(has_tcx() ? AttachKind::kTcx : AttachKind::kClsact);
    const MapFds& maps = (*programs)->maps();
    auto guests = GuestTable::open(maps.guests, maps.guest_state, is_handed_over);
    if (!guests)
        return fail(std::move(guests).error());
    auto policies = Policies::open(maps.policies, maps.generations);
    if (!policies)
        return fail(std::move(policies).error());
    auto events = Events::open(maps.events);
    if (!events)
        return fail(std::move(events).error());
    auto datapath =
        std::make_unique<KernelDatapath>(std::move(*pins), std::move(*programs), kind, std::move(*guests),
                                         std::move(*policies), std::move(*events));
    datapath->take_over(is_handed_over);
    return datapath;
}

Result<void> Datapath::cleanup(const std::string& pin_dir) {
    if (auto capable = check_capabilities(); !capable)
        return fail(std::move(capable).error());
    auto pins = PinDir::open_existing(pin_dir);
    if (!pins)
        return fail(std::move(pins).error());
    if (!*pins)
        return {};
    std::vector<unsigned> interfaces = Attacher::linked_interfaces((*pins)->links_path());
    if (const UniqueFd guests(::bpf_obj_get((*pins)->map_path("guests").c_str())); guests) {
        // Only the keys: the values of another ABI may be of any size.
        std::uint32_t ifindex = 0;
        for (const void* previous = nullptr; ::bpf_map_get_next_key(guests.get(), previous, &ifindex) == 0;
             previous = &ifindex)
            interfaces.push_back(ifindex);
    }
    const LibbpfCapture quiet;
    for (const unsigned ifindex : interfaces) {
        if (auto detached = Attacher::detach((*pins)->links_path(), ifindex); !detached)
            return detached;
    }
    return (*pins)->remove_all();
}

} // namespace tapgate::datapath
