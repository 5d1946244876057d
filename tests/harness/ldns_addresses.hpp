// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/ip.hpp"

#include <ldns/ldns.h>

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

namespace tapgate::test {

/// The wire form of an ldns name, which ldns keeps uncompressed, in lower case.
inline std::string ldns_lower_wire(const ldns_rdf* name) {
    const auto* const data = ldns_rdf_data(name);
    std::string wire(data, data + ldns_rdf_size(name));
    std::ranges::transform(wire, wire.begin(),
                           [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return wire;
}

/// The RDATA of `record` without compression.
inline std::vector<std::uint8_t> rdata_of(const ldns_rr* record) {
    std::vector<std::uint8_t> wire;
    for (std::size_t i = 0; i < ldns_rr_rd_count(record); ++i) {
        const ldns_rdf* const field = ldns_rr_rdf(record, i);
        wire.insert(wire.end(), ldns_rdf_data(field), ldns_rdf_data(field) + ldns_rdf_size(field));
    }
    return wire;
}

inline void add_addresses(const std::uint8_t* octets, std::size_t size, std::size_t width,
                          std::set<IpAddress>& to) {
    for (std::size_t at = 0; at + width <= size; at += width) {
        IpAddress::Bytes bytes{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
        std::copy_n(octets + at, width, bytes.data() + bytes.size() - width);
        to.insert(IpAddress(bytes));
    }
}

/// The hints in the RDATA of an SVCB or HTTPS record that was found to be well-formed.
inline void add_hints(const std::vector<std::uint8_t>& rdata, std::set<IpAddress>& to) {
    if (rdata[0] == 0 && rdata[1] == 0)
        return;
    std::size_t at = 2;
    while (rdata[at] != 0)
        at += 1U + rdata[at];
    for (++at; at + 4 <= rdata.size();) {
        const unsigned key = rdata[at] * 256U + rdata[at + 1];
        const std::size_t size = rdata[at + 2] * 256U + rdata[at + 3];
        if (key == 4 || key == 6)
            add_addresses(rdata.data() + at + 4, size, key == 4 ? 4 : 16, to);
        at += 4 + size;
    }
}

/// Where the records of a message begin is said by RDLENGTH. ldns 1.8.3 takes what an RDATA has beyond the
/// fields of its type for the next record, and says nothing; then it speaks of another message.
inline bool has_lost_its_place(const ldns_rr_list* answer, std::span<const std::uint8_t> message) {
    constexpr std::size_t kHeader = 12;
    constexpr std::size_t kQuestionTail = 4;
    constexpr std::size_t kRecordTail = 10; // type, class, TTL, RDLENGTH
    std::size_t at = kHeader;
    const auto skip_name = [&](const ldns_rdf* expected) {
        ldns_rdf* name = nullptr;
        const bool is_read = ldns_wire2dname(&name, message.data(), message.size(), &at) == LDNS_STATUS_OK;
        const bool is_expected = is_read && (expected == nullptr || ldns_dname_compare(name, expected) == 0);
        ldns_rdf_deep_free(name);
        return is_expected;
    };
    if (!skip_name(nullptr))
        return true;
    at += kQuestionTail;
    for (std::size_t i = 0; i < ldns_rr_list_rr_count(answer); ++i) {
        if (!skip_name(ldns_rr_owner(ldns_rr_list_rr(answer, i))) || at + kRecordTail > message.size())
            return true;
        const auto u16 = [&](std::size_t offset) {
            return message[at + offset] * 256U + message[at + offset + 1];
        };
        if (static_cast<unsigned>(ldns_rr_get_type(ldns_rr_list_rr(answer, i))) != u16(0))
            return true;
        at += kRecordTail + u16(kRecordTail - 2);
    }
    return false;
}

/// What the answer section says of the question name, by the records as ldns has them: a third opinion on
/// derive_addresses() and on BPF. For messages that were found to be well-formed; empty if ldns, which looks
/// into every RDATA, refuses one or loses its place.
inline std::optional<std::set<IpAddress>> addresses_by_ldns(std::span<const std::uint8_t> message) {
    ldns_pkt* read = nullptr;
    if (ldns_wire2pkt(&read, message.data(), message.size()) != LDNS_STATUS_OK)
        return std::nullopt;
    const std::unique_ptr<ldns_pkt, decltype(&ldns_pkt_free)> owner(read, ldns_pkt_free);
    const ldns_pkt* const packet = read;
    std::set<IpAddress> addresses;
    if (ldns_rr_list_rr_count(ldns_pkt_question(packet)) != 1 || ldns_pkt_tc(packet) ||
        static_cast<unsigned>(ldns_pkt_get_rcode(packet)) != 0)
        return addresses;
    const ldns_rr_list* const answer = ldns_pkt_answer(packet);
    if (has_lost_its_place(answer, message))
        return std::nullopt;
    std::string name = ldns_lower_wire(ldns_rr_owner(ldns_rr_list_rr(ldns_pkt_question(packet), 0)));
    const auto is_of = [&name](const ldns_rr* rr, unsigned type) {
        return static_cast<unsigned>(ldns_rr_get_type(rr)) == type &&
               static_cast<unsigned>(ldns_rr_get_class(rr)) == 1 &&
               ldns_lower_wire(ldns_rr_owner(rr)) == name;
    };
    // As many moves as there are records: a loop ends there.
    for (std::size_t moves = 0; moves < ldns_rr_list_rr_count(answer); ++moves) {
        bool moved = false;
        for (std::size_t i = 0; i < ldns_rr_list_rr_count(answer) && !moved; ++i) {
            const ldns_rr* const rr = ldns_rr_list_rr(answer, i);
            if (!is_of(rr, 5))
                continue;
            name = ldns_lower_wire(ldns_rr_rdf(rr, 0));
            moved = true;
        }
        if (!moved)
            break;
    }
    for (std::size_t i = 0; i < ldns_rr_list_rr_count(answer); ++i) {
        const ldns_rr* const rr = ldns_rr_list_rr(answer, i);
        const std::vector<std::uint8_t> rdata = rdata_of(rr);
        if (is_of(rr, 1))
            add_addresses(rdata.data(), rdata.size(), 4, addresses);
        else if (is_of(rr, 28))
            add_addresses(rdata.data(), rdata.size(), 16, addresses);
        else if (is_of(rr, 64) || is_of(rr, 65))
            add_hints(rdata, addresses);
    }
    return addresses;
}

} // namespace tapgate::test
