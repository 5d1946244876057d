// SPDX-License-Identifier: Apache-2.0
#include "harness/dns.hpp"

#include "harness/wait.hpp"

#include <ldns/ldns.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <stdexcept>

namespace tapgate::test {

namespace {

using Packet = std::unique_ptr<ldns_pkt, decltype(&ldns_pkt_free)>;

Packet parse(const Bytes& bytes) {
    ldns_pkt* packet = nullptr;
    if (ldns_wire2pkt(&packet, bytes.data(), bytes.size()) != LDNS_STATUS_OK)
        packet = nullptr;
    return {packet, &ldns_pkt_free};
}

Bytes serialize(const ldns_pkt& packet) {
    std::uint8_t* wire = nullptr;
    std::size_t size = 0;
    if (ldns_pkt2wire(&wire, &packet, &size) != LDNS_STATUS_OK)
        throw std::runtime_error("ldns cannot serialize a packet");
    const std::unique_ptr<std::uint8_t, decltype(&std::free)> owner(wire, &std::free);
    return {wire, wire + size};
}

void push(ldns_pkt& packet, ldns_pkt_section section, const std::vector<std::string>& records) {
    for (const std::string& text : records) {
        ldns_rr* record = nullptr;
        if (ldns_rr_new_frm_str(&record, text.c_str(), 0, nullptr, nullptr) != LDNS_STATUS_OK)
            throw std::runtime_error("ldns cannot read the record " + text);
        ldns_pkt_push_rr(&packet, section, record);
    }
}

std::optional<IpAddress> address_of(const ldns_rr& record) {
    const ldns_rr_type type = ldns_rr_get_type(&record);
    if (type != LDNS_RR_TYPE_A && type != LDNS_RR_TYPE_AAAA)
        return std::nullopt;
    const std::unique_ptr<char, decltype(&std::free)> text(ldns_rdf2str(ldns_rr_a_address(&record)),
                                                           &std::free);
    return IpAddress::parse(text.get());
}

} // namespace

Bytes make_query(std::uint16_t id, const std::string& name, const std::string& type) {
    ldns_pkt* raw = nullptr;
    if (ldns_pkt_query_new_frm_str(&raw, name.c_str(), ldns_get_rr_type_by_name(type.c_str()),
                                   LDNS_RR_CLASS_IN, LDNS_RD) != LDNS_STATUS_OK)
        throw std::runtime_error("ldns cannot make a query for " + name);
    const Packet packet(raw, &ldns_pkt_free);
    ldns_pkt_set_id(packet.get(), id);
    return serialize(*packet);
}

Bytes make_answer(const Bytes& query, const AnswerRecords& records) {
    const Packet packet = parse(query);
    if (!packet)
        throw std::runtime_error("ldns cannot read the query");
    ldns_pkt_set_qr(packet.get(), true);
    ldns_pkt_set_ra(packet.get(), true);
    push(*packet, LDNS_SECTION_ANSWER, records.answer);
    push(*packet, LDNS_SECTION_AUTHORITY, records.authority);
    push(*packet, LDNS_SECTION_ADDITIONAL, records.additional);
    return serialize(*packet);
}

std::optional<Question> question_of(const Bytes& message) {
    const Packet packet = parse(message);
    if (!packet || ldns_pkt_qdcount(packet.get()) != 1)
        return std::nullopt;
    const ldns_rr* record = ldns_rr_list_rr(ldns_pkt_question(packet.get()), 0);
    const auto text = [](char* raw) {
        const std::unique_ptr<char, decltype(&std::free)> owner(raw, &std::free);
        return std::string(raw);
    };
    Question question{text(ldns_rdf2str(ldns_rr_owner(record))),
                      text(ldns_rr_type2str(ldns_rr_get_type(record)))};
    std::ranges::transform(question.name, question.name.begin(),
                           [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
    if (!question.name.empty() && question.name.back() == '.')
        question.name.pop_back();
    return question;
}

std::optional<DnsReply> read_answer(const Datagram& datagram) {
    const Packet packet = parse(datagram.bytes);
    if (!packet || !ldns_pkt_qr(packet.get()))
        return std::nullopt;
    DnsReply reply;
    reply.id = ldns_pkt_id(packet.get());
    reply.rcode = ldns_pkt_get_rcode(packet.get());
    reply.truncated = ldns_pkt_tc(packet.get());
    reply.from = datagram.from;
    const ldns_rr_list* answers = ldns_pkt_answer(packet.get());
    for (std::size_t i = 0; i < ldns_rr_list_rr_count(answers); ++i) {
        if (const auto address = address_of(*ldns_rr_list_rr(answers, i)))
            reply.addresses.push_back(address->to_string());
    }
    return reply;
}

std::optional<DnsReply> ask(const NetNs& ns, const Endpoint& server, const std::string& name,
                            const std::string& type, std::chrono::milliseconds time) {
    static std::atomic<std::uint16_t> next_id{1};
    const std::uint16_t id = next_id++;
    const IpAddress any = server.address.is_v4() ? IpAddress::from_v4(0) : IpAddress();
    const UdpSocket socket(ns, Endpoint{any, 0});
    socket.send(server, make_query(id, name, type));
    const Deadline deadline = in(time);
    while (const auto datagram = socket.receive(std::chrono::milliseconds(poll_timeout(deadline)))) {
        const auto reply = read_answer(*datagram);
        if (reply && reply->id == id && reply->from == server)
            return reply;
    }
    return std::nullopt;
}

} // namespace tapgate::test
