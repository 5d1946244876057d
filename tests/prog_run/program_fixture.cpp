// SPDX-License-Identifier: Apache-2.0
#include "program_fixture.hpp"

#include "datapath/abi.hpp"
#include "datapath/name_id.hpp"
#include "datapath/policies.hpp"
#include "datapath/policy_image.hpp"
#include "dns_answer_direct.skel.h"
#include "policy/compile.hpp"
#include "policy/parse.hpp"
#include "policy/tables.hpp"
// bpftool names the type after the object, which is also our namespace.
#define tapgate tapgate_skeleton
#include "tapgate.skel.h"
#undef tapgate

#include <bpf/bpf.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include <linux/bpf.h>
#include <net/if.h>

namespace tapgate::test {

namespace {

constexpr tg_hash_key kHashKey{0x0706050403020100, 0x0f0e0d0c0b0a0908};

[[noreturn]] void fail_with(const std::string& what) {
    throw std::runtime_error(what + ": " + std::strerror(errno));
}

template <typename Skeleton>
Programs load(Skeleton* (*open)(), void (*destroy)(Skeleton*)) {
    std::shared_ptr<Skeleton> skeleton(open(), destroy);
    if (!skeleton)
        fail_with("open and load a BPF object");
    bpf_object* const object = skeleton->obj;
    return Programs(std::move(skeleton), object);
}

} // namespace

bool is_quick() {
    const char* const wish = std::getenv("TAPGATE_TEST_QUICK");
    return wish != nullptr && std::string_view(wish) == "1";
}

const std::initializer_list<Family>& families() {
    static const std::initializer_list<Family> both{
        {"IPv4", kGuest4, kServer4, *IpAddress::parse("192.0.2.9"), kUplink4},
        {"IPv6", kGuest6, kServer6, *IpAddress::parse("2001:db8::9"), kUplink6},
    };
    return both;
}

tg_address to_tg(const IpAddress& address) {
    tg_address result{};
    std::ranges::copy(address.bytes(), result.bytes);
    return result;
}

Programs::Programs(std::shared_ptr<void> owner, bpf_object* object)
    : owner_(std::move(owner)), object_(object) {
    store("hash_key", std::uint32_t{0}, kHashKey);
    reset();
}

unsigned Programs::tap_ifindex() {
    return ::if_nametoindex(kTapName);
}

unsigned Programs::uplink_ifindex() {
    return ::if_nametoindex(kUplinkName);
}

int Programs::map_fd(const char* name) const {
    const int fd = bpf_object__find_map_fd_by_name(object_, name);
    if (fd < 0)
        fail_with(std::string("find map ") + name);
    return fd;
}

int Programs::execute(const char* program, const Bytes& packet, __sk_buff& context, Bytes& out) const {
    const bpf_program* found = bpf_object__find_program_by_name(object_, program);
    if (found == nullptr)
        fail_with(std::string("find program ") + program);
    // An answer may be longer than what it answers, by an OPT record with the policy's text.
    out.resize(packet.size() + 256);
    bpf_test_run_opts options{};
    options.sz = sizeof options;
    options.data_in = packet.data();
    options.data_size_in = static_cast<std::uint32_t>(packet.size());
    options.data_out = out.data();
    options.data_size_out = static_cast<std::uint32_t>(out.size());
    options.ctx_in = &context;
    options.ctx_size_in = sizeof context;
    options.repeat = 1;
    if (bpf_prog_test_run_opts(bpf_program__fd(found), &options) != 0)
        fail_with(std::string("run ") + program);
    out.resize(options.data_size_out);
    return static_cast<int>(options.retval);
}

RunResult Programs::act_on(const char* program, const Bytes& packet, unsigned ifindex) const {
    __sk_buff context{};
    context.ifindex = ifindex;
    RunResult result;
    result.action = execute(program, packet, context, result.packet);
    return result;
}

RunResult Programs::run_on(const char* program, const Bytes& packet, unsigned ifindex,
                           unsigned ingress_ifindex, std::uint32_t gso_size, std::uint32_t mark) const {
    __sk_buff context{};
    context.ifindex = ifindex;
    context.ingress_ifindex = ingress_ifindex;
    context.mark = mark;
    context.gso_size = gso_size;
    context.gso_segs = gso_size != 0 ? 2 : 0;

    const auto before = drop_counts("drops", 0);
    const auto guest_before = drop_counts("guest_drops", kGuestSlot * TG_DROP_REASON_MAX);
    RunResult result;
    result.action = execute(program, packet, context, result.packet);
    for (const auto& [reason, count] : drop_counts("drops", 0)) {
        if (count != before.at(reason))
            result.drops[reason] = count - before.at(reason);
    }
    // A guest's own counters say the same as the totals, unless the packet was nobody's.
    const auto guest_after = drop_counts("guest_drops", kGuestSlot * TG_DROP_REASON_MAX);
    for (const auto& [reason, count] : guest_after) {
        const auto total = result.drops.find(reason);
        const auto expected =
            total == result.drops.end() || reason == TG_DROP_UNKNOWN_GUEST ? 0 : total->second;
        EXPECT_EQ(count - guest_before.at(reason), expected) << "reason " << reason;
    }
    return result;
}

std::map<unsigned, std::uint64_t> Programs::drop_counts(const char* map, unsigned first) const {
    std::vector<std::uint64_t> per_cpu(static_cast<std::size_t>(libbpf_num_possible_cpus()));
    std::map<unsigned, std::uint64_t> counts;
    for (unsigned reason = 0; reason < TG_DROP_REASON_MAX; ++reason) {
        const std::uint32_t key = first + reason;
        if (!lookup_raw(map, &key, per_cpu.data()))
            fail_with("read a drop counter");
        std::uint64_t sum = 0;
        for (const auto count : per_cpu)
            sum += count;
        counts[reason] = sum;
    }
    return counts;
}

tg_guest Programs::default_guest() {
    tg_guest guest{};
    guest.id = kGuestId;
    guest.slot = kGuestSlot;
    guest.policy = kPolicySlot;
    guest.sessions_max = 1000;
    guest.half_open_max = 1000;
    guest.dns_pending_max = 1000;
    guest.bindings_max = 1000;
    guest.dns_queries_per_second = 1'000'000;
    std::ranges::copy(kGuestMac, guest.mac);
    guest.address_count = 2;
    guest.addresses[0] = to_tg(kGuest4);
    guest.addresses[1] = to_tg(kGuest6);
    guest.gateway_count = 2;
    guest.gateways[0] = to_tg(kGateway4);
    guest.gateways[1] = to_tg(kGateway6);
    return guest;
}

void Programs::set_guest(const tg_guest& guest) const {
    store("guests", std::uint32_t{tap_ifindex()}, guest);
}

tg_guest_state Programs::state() const {
    return lookup<tg_guest_state>("guest_state", kGuestSlot).value();
}

void Programs::set_state(const tg_guest_state& state) const {
    store("guest_state", kGuestSlot, state);
}

void Programs::reset() const {
    for (const char* map :
         {"pending", "flows", "upstream_flows", "dns_pending", "names", "chains", "bindings"})
        clear(map);
    for (std::uint32_t index = 0; index < TG_LISTENER_KINDS; ++index)
        bpf_map_delete_elem(map_fd("listeners"), &index);
    set_state({});
    set_guest(default_guest());
    set_policy(kAllowAll);
}

void Programs::set_policy(std::string_view text) const {
    if (policy_ == text)
        return;
    const auto parsed = policy::parse(text, "policy");
    if (!parsed)
        throw std::runtime_error(parsed.error().message());
    const auto compiled = policy::CompiledPolicy::compile(*parsed);
    if (!compiled)
        throw std::runtime_error(compiled.error().message());
    const auto image =
        datapath::build_policy_image(policy::build_tables(**compiled), ++generation_, kHashKey);
    auto policies = datapath::Policies::open(map_fd("policies"), map_fd("generations"));
    if (!image || !policies || !policies->install(kPolicySlot, *image, 0))
        fail_with("install a policy");
    policy_ = text;
}

void Programs::bind(std::string_view name, const IpAddress& address, std::chrono::seconds lifetime) const {
    const tg_name_key key{kGuestId, datapath::name_id(kHashKey, name)};
    store("names", key, datapath::name_entry(kHashKey, name));
    tg_binding binding{};
    binding.key = {kGuestId, to_tg(address)};
    binding.names[0].name_id = key.name_id;
    binding.names[0].expires_ns = datapath::to_abi_time(BootClock::now() + lifetime);
    store("bindings", binding.key, binding);
}

void Programs::reset_bindings() const {
    clear("names");
    clear("chains");
    clear("bindings");
}

void Programs::drop_policy() const {
    bpf_map_delete_elem(map_fd("policies"), &kPolicySlot);
    policy_.clear();
}

void Programs::clear(const char* map) const {
    // Keys first: while entries go, the walk would start again with each.
    const int fd = map_fd(map);
    std::vector<std::array<std::uint8_t, 64>> keys;
    std::array<std::uint8_t, 64> key{};
    for (const void* last = nullptr; bpf_map_get_next_key(fd, last, key.data()) == 0;) {
        keys.push_back(key);
        last = keys.back().data();
    }
    for (const auto& found : keys)
        bpf_map_delete_elem(fd, found.data());
}

bool Programs::lookup_raw(const char* map, const void* key, void* value) const {
    return bpf_map_lookup_elem(map_fd(map), key, value) == 0;
}

void Programs::store_raw(const char* map, const void* key, const void* value) const {
    if (bpf_map_update_elem(map_fd(map), key, value, BPF_ANY) != 0)
        fail_with(std::string("write to map ") + map);
}

void Programs::erase_raw(const char* map, const void* key) const {
    bpf_map_delete_elem(map_fd(map), key);
}

const Programs& product() {
    static const Programs programs = load(::tapgate__open_and_load, ::tapgate__destroy);
    return programs;
}

const Programs& answer_path() {
    static const Programs programs = load(dns_answer_direct__open_and_load, dns_answer_direct__destroy);
    return programs;
}

testing::AssertionResult refused(const RunResult& result, tg_drop_reason reason) {
    if (result.action == kPass)
        return testing::AssertionFailure() << "the packet passed";
    if (result.drops.size() != 1 || result.drops.begin()->second != 1)
        return testing::AssertionFailure() << result.drops.size() << " reasons were counted";
    if (result.drops.begin()->first != static_cast<unsigned>(reason))
        return testing::AssertionFailure() << "reason " << result.drops.begin()->first << ", not " << reason;
    return testing::AssertionSuccess();
}

testing::AssertionResult passed(const RunResult& result) {
    if (result.action != kPass || !result.drops.empty()) {
        return testing::AssertionFailure() << "action " << result.action << ", reason "
                                           << (result.drops.empty() ? 0 : result.drops.begin()->first);
    }
    return testing::AssertionSuccess();
}

} // namespace tapgate::test
