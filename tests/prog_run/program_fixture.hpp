// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "packet_builder.hpp"
#include "tapgate/bpf_abi.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

struct bpf_object;
struct __sk_buff;

namespace tapgate::test {

/// The host's end of the veth pair that main() made; the guest's programs are about this interface.
inline constexpr const char* kTapName = "tap0";
/// The guest's end, in the same namespace, without addresses.
inline constexpr const char* kGuestName = "guest0";
/// The host's end of another pair, by which the servers below are reached, and the servers' end of it.
inline constexpr const char* kUplinkName = "uplink0";
inline constexpr const char* kServerName = "server0";
/// An interface that is not a guest.
inline constexpr const char* kStrangerName = "lo";

inline const IpAddress kGuest4 = *IpAddress::parse("192.0.2.2");
inline const IpAddress kGateway4 = *IpAddress::parse("192.0.2.1");
inline const IpAddress kServer4 = *IpAddress::parse("198.51.100.7");
inline const IpAddress kUplink4 = *IpAddress::parse("198.51.100.1");
inline const IpAddress kGuest6 = *IpAddress::parse("2001:db8::2");
inline const IpAddress kGateway6 = *IpAddress::parse("2001:db8::1");
inline const IpAddress kServer6 = *IpAddress::parse("2001:db8:7::7");
inline const IpAddress kUplink6 = *IpAddress::parse("2001:db8:7::1");
/// fe80:: with the EUI-64 of kGuestMac.
inline const IpAddress kGuestLinkLocal = *IpAddress::parse("fe80::ff:fe00:2");

inline constexpr std::uint64_t kGuestId = 77;
inline constexpr std::uint32_t kGuestSlot = 3;
inline constexpr std::uint32_t kPolicySlot = 0;
inline constexpr std::uint64_t kFirstGeneration = 5;
inline constexpr const char* kAllowAll = "default_egress = \"allow\"";

/// What a SYN or a query meets here when nothing is wrong with it: no daemon runs.
inline constexpr tg_drop_reason kAccepted = TG_DROP_NO_LISTENER;

inline constexpr int kPass = 0;     // TC_ACT_OK
inline constexpr int kShot = 2;     // TC_ACT_SHOT
inline constexpr int kRedirect = 7; // TC_ACT_REDIRECT
inline constexpr int kNext = -1;    // TC_ACT_UNSPEC

/// The mark that the programs are loaded with.
inline constexpr std::uint32_t kMark = 0x7461;

/// TAPGATE_TEST_QUICK=1: a machine under emulation, for which there are fewer random cases.
bool is_quick();

/// The addresses of one family.
struct Family {
    std::string_view name;
    IpAddress guest;
    IpAddress server;
    IpAddress stranger;
    IpAddress uplink; ///< the host's own address towards the server
};

const std::initializer_list<Family>& families();

tg_address to_tg(const IpAddress& address);

/// What one run of a program did.
struct RunResult {
    int action = 0;
    Bytes packet;
    std::map<unsigned, std::uint64_t> drops; ///< reason -> how much its counter rose
};

/// One loaded object, with the guest of the constants above in its maps.
class Programs {
  public:
    /// `owner` keeps `object` alive.
    Programs(std::shared_ptr<void> owner, bpf_object* object);

    RunResult run(const char* program, const Bytes& packet) const {
        return run_on(program, packet, tap_ifindex());
    }

    RunResult run_on(const char* program, const Bytes& packet, unsigned ifindex, unsigned ingress_ifindex = 0,
                     std::uint32_t gso_size = 0, std::uint32_t mark = 0) const;

    /// The same without reading counters: for many runs.
    [[nodiscard]] RunResult act(const char* program, const Bytes& packet) const {
        return act_on(program, packet, tap_ifindex());
    }

    [[nodiscard]] RunResult act_on(const char* program, const Bytes& packet, unsigned ifindex) const;

    /// The return code alone.
    [[nodiscard]] int action(const char* program, const Bytes& packet) const {
        return act(program, packet).action;
    }

    [[nodiscard]] int map_fd(const char* name) const;

    [[nodiscard]] bpf_object* object() const { return object_; }

    [[nodiscard]] static unsigned tap_ifindex();
    [[nodiscard]] static unsigned uplink_ifindex();

    /// The guest with IPv4 and IPv6 addresses, gateways and MAC, and roomy caps.
    static tg_guest default_guest();
    void set_guest(const tg_guest& guest) const;
    /// Puts a policy in force for the guest, as the text of a file. The one at the start allows everything.
    void set_policy(std::string_view text) const;
    /// Takes the guest's policy away.
    void drop_policy() const;
    /// Binds `name` to `address` for the default guest, for `lifetime` from now, as an answer would.
    void bind(std::string_view name, const IpAddress& address, std::chrono::seconds lifetime) const;
    void reset_bindings() const;
    [[nodiscard]] tg_guest_state state() const;
    void set_state(const tg_guest_state& state) const;
    /// Forgets flows, questions, names and bindings, and puts the default guest and policy back.
    void reset() const;

    template <typename Value, typename Key>
    [[nodiscard]] std::optional<Value> lookup(const char* map, const Key& key) const {
        Value value{};
        if (!lookup_raw(map, &key, &value))
            return std::nullopt;
        return value;
    }

    template <typename Key, typename Value>
    void store(const char* map, const Key& key, const Value& value) const {
        store_raw(map, &key, &value);
    }

    void store_raw(const char* map, const void* key, const void* value) const;
    [[nodiscard]] bool lookup_raw(const char* map, const void* key, void* value) const;
    void erase_raw(const char* map, const void* key) const;

  private:
    [[nodiscard]] std::map<unsigned, std::uint64_t> drop_counts(const char* map, unsigned first) const;
    void clear(const char* map) const;
    int execute(const char* program, const Bytes& packet, __sk_buff& context, Bytes& out) const;

    std::shared_ptr<void> owner_;
    bpf_object* object_;
    mutable std::string policy_; // in force
    mutable std::uint64_t generation_ = kFirstGeneration - 1;
};

/// The product's programs, and the DNS answer path alone; loaded once for the process.
const Programs& product();
const Programs& answer_path();

/// True if the run refused the packet for `reason` and nothing else.
testing::AssertionResult refused(const RunResult& result, tg_drop_reason reason);
testing::AssertionResult passed(const RunResult& result);

/// Each test starts with the default guest and empty tables.
class ProgRunTest : public testing::Test {
  protected:
    void SetUp() override {
        product().reset();
        answer_path().reset();
    }

    static RunResult ingress(const Bytes& packet) { return product().run("tap_ingress", packet); }

    static RunResult egress(const Bytes& packet) { return product().run("tap_egress", packet); }
};

} // namespace tapgate::test
