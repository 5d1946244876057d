// SPDX-License-Identifier: Apache-2.0
#include "proto/dns_answer.hpp"

#include "proto/ascii.hpp"
#include "proto/dns_svcb.hpp"
#include "proto/dns_writer.hpp"

#include <algorithm>

namespace tapgate::proto {

namespace {

bool is(const DnsRecord& record, DnsType type) {
    return record.type == static_cast<std::uint16_t>(type);
}

/// RFC 2181 8: a TTL with the most significant bit set is zero.
std::uint32_t effective_ttl(const DnsRecord& record) {
    return (record.ttl_seconds & 0x80000000U) != 0 ? 0 : record.ttl_seconds;
}

const DnsRecord* find_opt(const DnsMessage& message) {
    const auto opt = std::ranges::find_if(message.records, [](const DnsRecord& record) {
        return record.section == DnsSection::kAdditional && is(record, DnsType::kOpt);
    });
    return opt == message.records.end() ? nullptr : &*opt;
}

std::uint16_t count(const DnsMessage& message, DnsSection section) {
    return static_cast<std::uint16_t>(std::ranges::count(message.records, section, &DnsRecord::section));
}

std::vector<std::uint8_t> truncated_answer(const DnsQuery& query) {
    DnsHeader header = answer_header(query);
    header.truncated = true;
    DnsWriter writer;
    writer.header(header, true, query.edns.has_value());
    writer.question(*query.question);
    if (query.edns)
        writer.opt(query.edns->dnssec_ok, 0, {});
    return writer.take();
}

/// An address in a record of type A or AAAA; empty if the RDATA has another length.
std::optional<IpAddress> read_address(const DnsRecord& record) {
    ByteReader reader(record.rdata);
    if (is(record, DnsType::kA)) {
        const auto value = reader.u32();
        return value && reader.at_end() ? std::optional(IpAddress::from_v4(*value)) : std::nullopt;
    }
    IpAddress::Bytes bytes{};
    if (record.rdata.size() != bytes.size())
        return std::nullopt;
    std::ranges::copy(record.rdata, bytes.begin());
    return IpAddress(bytes);
}

/// The records of an answer that say something of its addresses, taken apart.
struct Alias {
    const DnsRecord* record;
    DnsName target;
};

struct Addresses {
    const DnsRecord* record;
    std::vector<IpAddress> addresses; ///< hints of services may be none
};

void add_address(std::vector<DnsAddress>& addresses, const IpAddress& address, std::uint32_t ttl_seconds) {
    const auto known = std::ranges::find(addresses, address, &DnsAddress::address);
    if (known == addresses.end())
        addresses.push_back({address, ttl_seconds});
    else
        known->ttl_seconds = std::min(known->ttl_seconds, ttl_seconds);
}

} // namespace

std::string_view dns_answer_mismatch(ByteView bytes, const DnsQuestion& question, std::uint16_t id,
                                     DnsCase name_case) {
    const auto header = read_dns_header(bytes);
    if (!header)
        return "answer is shorter than a header";
    if (!header->response)
        return "not an answer";
    if (header->id != id)
        return "answer has another id";
    if (header->opcode != 0)
        return "answer has another opcode";
    // The question cannot be compressed: no name stands before it. So it is the same bytes, up to case.
    ByteReader reader(bytes.subspan(4));
    if (reader.u16() != 1)
        return "answer has not one question";
    reader = ByteReader(bytes.subspan(kDnsHeaderSize));
    const ByteView expected = question.name.wire();
    const auto name = reader.take(expected.size());
    const auto fold = [name_case](std::uint8_t octet) {
        return name_case == DnsCase::kIgnore ? to_lower(static_cast<char>(octet)) : static_cast<char>(octet);
    };
    if (!name || !std::ranges::equal(*name, expected, {}, fold, fold))
        return "answer has another name";
    if (reader.u16() != question.type)
        return "answer has another type";
    if (reader.u16() != question.klass)
        return "answer has another class";
    return {};
}

std::optional<std::vector<std::uint8_t>> build_guest_answer(const DnsMessage& upstream, const DnsQuery& query,
                                                            std::size_t limit) {
    TAPGATE_ASSERT(query.question);
    if (upstream.questions.size() != 1)
        return std::nullopt;
    const DnsQuestion& answered = upstream.questions[0];
    if (!answered.name.same_as(query.question->name) || answered.type != query.question->type ||
        answered.klass != query.question->klass)
        return std::nullopt;

    const DnsRecord* const upstream_opt = find_opt(upstream);
    if (upstream_opt != nullptr && upstream_opt->ttl_seconds >> 24U != 0)
        return build_error_answer(query, DnsRcode::kServFail);
    if (upstream.header.truncated)
        return truncated_answer(query);

    DnsHeader header = answer_header(query);
    header.authoritative = upstream.header.authoritative;
    header.recursion_available = upstream.header.recursion_available;
    header.authentic_data =
        upstream.header.authentic_data && (query.authentic_data || (query.edns && query.edns->dnssec_ok));
    header.rcode = upstream.header.rcode;

    // Pointers only go backwards, so what stands before the OPT record stays valid without what stands behind
    // it; but for a name whose label runs on past all of it.
    const std::size_t kept_size = upstream_opt != nullptr ? upstream_opt->offset : upstream.bytes.size();
    const ByteView kept = upstream.bytes.first(kept_size);
    if (std::ranges::any_of(upstream.records, [&](const DnsRecord& record) {
            return record.offset < kept_size && !DnsNameReader(kept).read(record.offset);
        }))
        return std::nullopt;
    const auto kept_additional = static_cast<std::uint16_t>(
        std::ranges::count_if(upstream.records, [kept_size](const DnsRecord& record) {
            return record.section == DnsSection::kAdditional && record.offset < kept_size;
        }));

    DnsWriter writer;
    writer.u16(header.id);
    writer.u16(pack_dns_flags(header));
    writer.u16(1);
    writer.u16(count(upstream, DnsSection::kAnswer));
    writer.u16(count(upstream, DnsSection::kAuthority));
    writer.u16(static_cast<std::uint16_t>(kept_additional + (query.edns ? 1U : 0U)));
    writer.question(*query.question);
    writer.bytes(kept.subspan(writer.size()));
    if (query.edns)
        writer.opt(query.edns->dnssec_ok, 0, {});
    if (writer.size() > limit)
        return truncated_answer(query);
    return writer.take();
}

DnsAddresses derive_addresses(const DnsMessage& answer, const DnsLimits& limits) {
    const auto malformed = [](std::string_view reason) {
        DnsAddresses nothing;
        nothing.reason = reason;
        return nothing;
    };
    if (answer.questions.size() != 1)
        return malformed("answer has not one question");
    if (answer.header.truncated || answer.header.rcode != 0)
        return {};

    std::vector<Alias> aliases;
    std::vector<Addresses> others;
    for (const DnsRecord& record : answer.records) {
        if (record.section != DnsSection::kAnswer || record.klass != kDnsClassIn)
            continue;
        if (is(record, DnsType::kCname)) {
            auto target = answer.rdata_name(record);
            if (!target)
                return malformed("CNAME is malformed");
            aliases.push_back({&record, std::move(*target)});
        } else if (is(record, DnsType::kA) || is(record, DnsType::kAaaa)) {
            const auto address = read_address(record);
            if (!address)
                return malformed("address record has a wrong length");
            others.push_back({&record, {*address}});
        } else if (is_svcb(record)) {
            auto hints = svcb_hints(record);
            if (!hints)
                return malformed("service record is malformed");
            others.push_back({&record, std::move(*hints)});
        }
    }

    DnsAddresses result;
    DnsName current = answer.questions[0].name;
    std::uint32_t chain_ttl = UINT32_MAX;
    while (true) {
        const Alias* next = nullptr;
        for (const Alias& alias : aliases) {
            if (!alias.record->owner.same_as(current))
                continue;
            if (next != nullptr)
                return malformed("several CNAMEs at one name");
            next = &alias;
        }
        if (next == nullptr)
            break;
        if (std::ranges::any_of(
                others, [&current](const Addresses& other) { return other.record->owner.same_as(current); }))
            return malformed("CNAME beside an address");
        // A loop never ends and so runs into this bound.
        if (result.aliases.size() == kMaxDnsAliases)
            return malformed("too many aliases, or a loop");
        chain_ttl = std::min(chain_ttl, effective_ttl(*next->record));
        result.aliases.push_back(next->target);
        current = next->target;
    }
    std::size_t count = 0;
    for (const Addresses& other : others) {
        if (!other.record->owner.same_as(current))
            continue;
        count += other.addresses.size();
        if (count > limits.addresses)
            return malformed("too many addresses");
        for (const IpAddress& address : other.addresses)
            add_address(result.addresses, address, std::min(chain_ttl, effective_ttl(*other.record)));
    }
    const auto is_too_long = [](const DnsName& name) { return name.text().size() > kMaxDnsTextSize; };
    if (count != 0 &&
        (is_too_long(answer.questions[0].name) || std::ranges::any_of(result.aliases, is_too_long)))
        return malformed("a name is too long as text");
    return result;
}

} // namespace tapgate::proto
