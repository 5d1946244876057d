// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/clock.hpp"
#include "dns_builder.hpp"
#include "program_fixture.hpp"
#include "siphash.hpp"

#include <algorithm>
#include <vector>

namespace tapgate::test {

inline constexpr std::uint16_t kDnsId = 0x4242;
inline constexpr std::uint16_t kDnsPort = 5555;
inline constexpr std::uint16_t kAnswerFlags = 0x8180;
inline constexpr std::uint64_t kSecond = 1'000'000'000;

inline std::uint64_t boot_now() {
    return static_cast<std::uint64_t>(BootClock::now().time_since_epoch().count());
}

/// tg_name_id of a name in lower case, under the key of the programs.
inline std::uint64_t name_id(const Programs& programs, Bytes wire) {
    std::ranges::transform(wire, wire.begin(), [](std::uint8_t c) {
        return c >= 'A' && c <= 'Z' ? static_cast<std::uint8_t>(c | 0x20U) : c;
    });
    const auto key = programs.lookup<tg_hash_key>("hash_key", std::uint32_t{0}).value();
    return siphash24(key.k0, key.k1, wire);
}

/// tg_chain_id of aliases.
inline std::uint64_t chain_id(const Programs& programs, const std::vector<Bytes>& aliases) {
    const auto key = programs.lookup<tg_hash_key>("hash_key", std::uint32_t{0}).value();
    Bytes ids;
    for (const Bytes& alias : aliases) {
        const std::uint64_t id = name_id(programs, alias);
        for (unsigned shift = 0; shift < 64; shift += 8)
            put8(ids, static_cast<unsigned>(id >> shift & 0xffU));
    }
    return aliases.empty() ? 0 : siphash24(key.k0, key.k1, ids);
}

inline tg_dns_key dns_key(const Family& family, std::uint16_t id = kDnsId) {
    tg_dns_key key{};
    key.guest_id = kGuestId;
    key.guest_address = to_tg(family.guest);
    key.server_address = to_tg(family.server);
    key.guest_port = htons(kDnsPort);
    key.id = htons(id);
    return key;
}

/// Writes what tap_ingress writes when the guest asks for `name`.
inline void ask(const Programs& programs, const Family& family, const Bytes& name, std::uint16_t type,
                std::uint64_t expires_ns = boot_now() + 10 * kSecond) {
    const auto key = dns_key(family);
    if (!programs.lookup<tg_dns_question>("dns_pending", key)) {
        auto state = programs.state();
        ++state.dns_pending;
        programs.set_state(state);
    }
    tg_dns_question question{};
    question.name_id = name_id(programs, name);
    question.expires_ns = expires_ns;
    question.type = type;
    programs.store("dns_pending", key, question);
}

inline Bytes answer_frame(const Family& family, const Bytes& message) {
    return udp_frame(family.server, family.guest, 53, kDnsPort, message);
}

/// Delivers `message` to the guest by the answer path.
inline RunResult answer(const Family& family, const Bytes& message) {
    return answer_path().run("dns_answer_direct", answer_frame(family, message));
}

/// The names bound to `address`, each with its chain and expiry.
inline std::vector<tg_bound_name> bound(const IpAddress& address) {
    tg_binding_key key{};
    key.guest_id = kGuestId;
    key.address = to_tg(address);
    std::vector<tg_bound_name> names;
    if (const auto binding = answer_path().lookup<tg_binding>("bindings", key)) {
        for (const auto& slot : binding->names) {
            if (slot.name_id != 0)
                names.push_back(slot);
        }
    }
    return names;
}

inline bool is_bound(std::string_view address, const Bytes& name) {
    const auto id = name_id(answer_path(), name);
    return std::ranges::any_of(bound(*IpAddress::parse(address)),
                               [id](const tg_bound_name& slot) { return slot.name_id == id; });
}

} // namespace tapgate::test
