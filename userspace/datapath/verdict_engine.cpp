// SPDX-License-Identifier: Apache-2.0
#include "datapath/verdict_engine.hpp"

#include "base/clock.hpp"
#include "datapath/abi.hpp"
#include "datapath/events.hpp"
#include "datapath/libbpf_log.hpp"
#include "datapath/map.hpp"
#include "datapath/name_id.hpp"
#include "datapath/policies.hpp"
#include "datapath/programs.hpp"
#include "datapath/requirements.hpp"
#include "datapath/skeleton.hpp"
#include "policy/tables.hpp"

#include <bpf/bpf.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <span>
#include <vector>

#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <netinet/in.h>

namespace tapgate::datapath {

namespace {

constexpr std::uint32_t kIfindex = 1; // loopback, which every namespace has
constexpr GuestId kGuest = 1;
constexpr std::uint32_t kSlot = 0;
constexpr std::uint16_t kGuestPort = 40000;
constexpr std::uint16_t kDnsPort = 53;
constexpr std::array<std::uint8_t, ETH_ALEN> kGuestMac = {2, 0, 0, 0, 0, 2};
constexpr std::array<std::uint8_t, ETH_ALEN> kHostMac = {2, 0, 0, 0, 0, 1};

/// The guest's addresses, from the blocks for benchmarks (RFC 2544, RFC 5180), so that no case is about them.
IpAddress guest_address(bool v4) {
    return v4 ? IpAddress::from_v4(0xc6120002) : *IpAddress::parse("2001:2::2");
}

template <typename Header>
void append(std::vector<std::uint8_t>& packet, const Header& header) {
    const auto bytes = std::bit_cast<std::array<std::uint8_t, sizeof(Header)>>(header);
    packet.insert(packet.end(), bytes.begin(), bytes.end());
}

std::vector<std::uint8_t> transport(const policy::FlowFacts& facts) {
    std::vector<std::uint8_t> out;
    switch (facts.protocol) {
    case policy::Protocol::kTcp: {
        tcphdr tcp{};
        tcp.source = htons(kGuestPort);
        tcp.dest = htons(facts.destination.port);
        tcp.doff = sizeof tcp / 4;
        tcp.syn = 1;
        append(out, tcp);
        return out;
    }
    case policy::Protocol::kUdp: {
        udphdr udp{};
        udp.source = htons(kGuestPort);
        udp.dest = htons(facts.destination.port);
        udp.len = htons(sizeof udp);
        append(out, udp);
        return out;
    }
    case policy::Protocol::kIcmpV4:
        return {8, 0, 0, 0, 0, 0, 0, 0}; // echo request (RFC 792)
    case policy::Protocol::kIcmpV6:
        return {128, 0, 0, 0, 0, 0, 0, 0}; // echo request (RFC 4443)
    }
    return out;
}

/// A query of type A for `name`, behind its UDP header.
std::vector<std::uint8_t> question(const policy::Name& name) {
    constexpr std::uint16_t kPort = 53;
    constexpr std::uint16_t kRecursionDesired = 0x0100;
    std::vector<std::uint8_t> message;
    const auto put16 = [&message](std::uint16_t value) { append(message, htons(value)); };
    for (const int word : {0, int{kRecursionDesired}, 1, 0, 0, 0}) // id, flags, one question, no records
        put16(static_cast<std::uint16_t>(word));
    for (std::string_view rest = name.text(); !rest.empty();) {
        const std::string_view label = rest.substr(0, rest.find('.'));
        message.push_back(static_cast<std::uint8_t>(label.size()));
        message.insert(message.end(), label.begin(), label.end());
        rest.remove_prefix(std::min(label.size() + 1, rest.size()));
    }
    message.push_back(0);
    put16(1); // A
    put16(1); // IN
    udphdr udp{};
    udp.source = htons(kGuestPort);
    udp.dest = htons(kPort);
    udp.len = htons(static_cast<std::uint16_t>(sizeof udp + message.size()));
    std::vector<std::uint8_t> datagram;
    append(datagram, udp);
    datagram.insert(datagram.end(), message.begin(), message.end());
    return datagram;
}

/// A packet to `destination` as a guest would send it. Transport checksums are not looked at.
std::vector<std::uint8_t> packet_to(const IpAddress& destination, std::uint8_t protocol,
                                    const std::vector<std::uint8_t>& payload) {
    const bool v4 = destination.is_v4();
    ethhdr ethernet{};
    std::ranges::copy(kHostMac, ethernet.h_dest);
    std::ranges::copy(kGuestMac, ethernet.h_source);
    ethernet.h_proto = htons(v4 ? ETH_P_IP : ETH_P_IPV6);
    std::vector<std::uint8_t> packet;
    append(packet, ethernet);
    const IpAddress source = guest_address(v4);
    if (v4) {
        iphdr ip{};
        ip.version = 4;
        ip.ihl = sizeof ip / 4;
        ip.tot_len = htons(static_cast<std::uint16_t>(sizeof ip + payload.size()));
        ip.ttl = IPDEFTTL;
        ip.protocol = protocol;
        ip.saddr = htonl(source.v4());
        ip.daddr = htonl(destination.v4());
        append(packet, ip);
    } else {
        ipv6hdr ip{};
        ip.version = 6;
        ip.payload_len = htons(static_cast<std::uint16_t>(payload.size()));
        ip.nexthdr = protocol;
        ip.hop_limit = IPDEFTTL;
        std::memcpy(&ip.saddr, source.bytes().data(), sizeof ip.saddr);
        std::memcpy(&ip.daddr, destination.bytes().data(), sizeof ip.daddr);
        append(packet, ip);
    }
    packet.insert(packet.end(), payload.begin(), payload.end());
    return packet;
}

struct DestroySkeleton {
    void operator()(::tapgate_skeleton* skeleton) const { tapgate__destroy(skeleton); }
};

using Skeleton = std::unique_ptr<::tapgate_skeleton, DestroySkeleton>;

class KernelVerdictEngine final : public VerdictEngine {
  public:
    KernelVerdictEngine(Skeleton skeleton, Policies policies, std::unique_ptr<Events> events,
                        const tg_hash_key& key)
        : skeleton_(std::move(skeleton)), policies_(std::move(policies)), events_(std::move(events)),
          key_(key), guests_(::bpf_map__fd(skeleton_->maps.guests)),
          names_(::bpf_map__fd(skeleton_->maps.names)), chains_(::bpf_map__fd(skeleton_->maps.chains)),
          bindings_(::bpf_map__fd(skeleton_->maps.bindings)) {}

    Result<void> use(const policy::CompiledPolicy& policy) override {
        const auto image = build_policy_image(policy::build_tables(policy), ++generation_, key_);
        return image ? policies_.install(kSlot, *image, 0) : fail(image.error());
    }

    Result<std::optional<Judgement>> judge(const policy::FlowFacts& facts) override {
        const bool icmp4 = facts.protocol == policy::Protocol::kIcmpV4;
        const bool icmp6 = facts.protocol == policy::Protocol::kIcmpV6;
        const bool v4 = facts.destination.address.is_v4();
        // A protocol of the other family is no ICMP at all on the wire.
        if (facts.direction != policy::Direction::kEgress || (icmp4 && !v4) || (icmp6 && v4))
            return std::nullopt;
        if (auto prepared = prepare(facts); !prepared)
            return fail(prepared.error());
        auto judgement =
            run(packet_to(facts.destination.address, ip_protocol(facts.protocol), transport(facts)));
        forget(facts);
        return judgement;
    }

    Result<Judgement> judge_question(const policy::Name& name) override {
        if (auto prepared = prepare(policy::FlowFacts()); !prepared)
            return fail(prepared.error());
        auto judgement = run(packet_to(guest_address(true), IPPROTO_UDP, question(name)));
        if (!judgement)
            return fail(judgement.error());
        if (!*judgement)
            return fail(ErrorCode::kIo, "tap_ingress did not read a DNS query");
        return **judgement;
    }

  private:
    Result<void> prepare(const policy::FlowFacts& facts) {
        tg_guest guest{};
        guest.id = kGuest;
        guest.policy = kSlot;
        guest.sessions_max = 1;
        guest.half_open_max = 1;
        guest.dns_pending_max = 1;
        guest.dns_queries_per_second = 1;
        std::ranges::copy(kGuestMac, guest.mac);
        guest.address_count = 2;
        guest.addresses[0] = to_abi(guest_address(true));
        guest.addresses[1] = to_abi(guest_address(false));
        for (const auto& some : {facts.host_addresses.host, facts.host_addresses.gateways}) {
            for (const IpAddress& gateway : some) {
                if (guest.gateway_count == TG_GUEST_GATEWAYS)
                    return fail(ErrorCode::kLimit,
                                fmt::format("a guest has at most {} gateways", int{TG_GUEST_GATEWAYS}));
                guest.gateways[guest.gateway_count++] = to_abi(gateway);
            }
        }
        // Fresh: events are counted there, and limited.
        constexpr tg_guest_state kState{};
        if (::bpf_map_update_elem(::bpf_map__fd(skeleton_->maps.guest_state), &guest.slot, &kState,
                                  BPF_ANY) != 0)
            return fail_errno("write to a BPF map");
        if (auto written = guests_.put(kIfindex, guest); !written)
            return written;
        if (facts.bound.empty())
            return {};
        tg_binding binding{};
        const std::uint64_t expires = to_abi_time(BootClock::now() + std::chrono::hours(1));
        if (facts.bound.size() > std::size(binding.names))
            return fail(ErrorCode::kLimit,
                        fmt::format("an address has at most {} names", std::size(binding.names)));
        binding.key = {kGuest, to_abi(facts.destination.address)};
        for (std::size_t i = 0; i < facts.bound.size(); ++i) {
            tg_bound_name& slot = binding.names[i];
            slot.expires_ns = expires;
            if (auto written = put_name(facts.bound[i].name, slot.name_id); !written)
                return written;
            if (auto written = put_chain(facts.bound[i].aliases, slot.chain_id); !written)
                return written;
        }
        return bindings_.put(binding.key, binding);
    }

    Result<void> put_name(const policy::Name& name, __u64& id) {
        id = name_id(key_, name.text());
        return names_.put({kGuest, id}, name_entry(key_, name.text()));
    }

    Result<void> put_chain(const std::vector<policy::Name>& aliases, __u64& id) {
        if (aliases.empty())
            return {};
        tg_chain chain{};
        if (aliases.size() > std::size(chain.alias_ids))
            return fail(ErrorCode::kLimit,
                        fmt::format("a name has at most {} aliases", std::size(chain.alias_ids)));
        for (const policy::Name& alias : aliases)
            if (auto written = put_name(alias, chain.alias_ids[chain.alias_count++]); !written)
                return written;
        id = chain_id(key_, std::span(chain.alias_ids).first(chain.alias_count));
        return chains_.put({kGuest, id}, chain);
    }

    void forget(const policy::FlowFacts& facts) {
        bindings_.erase({kGuest, to_abi(facts.destination.address)});
        for (const policy::BoundName& bound : facts.bound) {
            names_.erase({kGuest, name_id(key_, bound.name.text())});
            std::vector<__u64> ids;
            for (const policy::Name& alias : bound.aliases) {
                ids.push_back(name_id(key_, alias.text()));
                names_.erase({kGuest, ids.back()});
            }
            chains_.erase({kGuest, chain_id(key_, ids)});
        }
    }

    /// No daemon listens, so that even what is allowed ends in an event that carries the judgement.
    Result<std::optional<Judgement>> run(const std::vector<std::uint8_t>& packet) {
        __sk_buff context{};
        context.ifindex = kIfindex;
        bpf_test_run_opts options{};
        options.sz = sizeof options;
        options.data_in = packet.data();
        options.data_size_in = static_cast<std::uint32_t>(packet.size());
        options.ctx_in = &context;
        options.ctx_size_in = sizeof context;
        options.repeat = 1;
        if (::bpf_prog_test_run_opts(::bpf_program__fd(skeleton_->progs.tap_ingress), &options) != 0)
            return fail_errno("run tap_ingress");
        std::optional<DropEvent> event;
        events_->read({[&event](const DropEvent& seen) { event = seen; }, {}});
        if (!event)
            return fail(ErrorCode::kIo, "tap_ingress said nothing of a packet");
        // The policy is asked of each question on such a connection, not of the connection.
        if (event->protocol == IPPROTO_TCP && event->flow.peer.port == kDnsPort)
            return std::nullopt;
        switch (event->reason) {
        case TG_DROP_NO_POLICY:
            return fail(ErrorCode::kIo, "the policy's tables are damaged");
        case TG_DROP_DNS_TRANSPORT:
        case TG_DROP_DNS_QUERY_MALFORMED:
            return std::nullopt;
        default:
            break;
        }
        if (event->judgement.verdict == TG_VERDICT_NONE) // refused before any policy is asked
            event->judgement.verdict = TG_VERDICT_DENY;
        return event->judgement;
    }

    Skeleton skeleton_;
    Policies policies_;
    std::unique_ptr<Events> events_;
    tg_hash_key key_;
    HashMap<std::uint32_t, tg_guest> guests_;
    HashMap<tg_name_key, tg_name> names_;
    HashMap<tg_chain_key, tg_chain> chains_;
    HashMap<tg_binding_key, tg_binding, true> bindings_;
    std::uint64_t generation_ = 0;
};

} // namespace

Result<std::unique_ptr<VerdictEngine>> VerdictEngine::open() {
    if (auto capable = check_capabilities(); !capable)
        return fail(std::move(capable).error());
    const LibbpfCapture capture;
    Skeleton skeleton(tapgate__open_and_load());
    if (!skeleton)
        return fail(load_error(errno, "load the BPF programs", capture.text()));
    auto key = ensure_hash_key(::bpf_map__fd(skeleton->maps.hash_key));
    if (!key)
        return fail(key.error());
    auto policies =
        Policies::open(::bpf_map__fd(skeleton->maps.policies), ::bpf_map__fd(skeleton->maps.generations));
    if (!policies)
        return fail(policies.error());
    auto events = Events::open(::bpf_map__fd(skeleton->maps.events));
    if (!events)
        return fail(events.error());
    return std::make_unique<KernelVerdictEngine>(std::move(skeleton), std::move(*policies),
                                                 std::move(*events), *key);
}

} // namespace tapgate::datapath
