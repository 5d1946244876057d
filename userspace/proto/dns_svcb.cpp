// SPDX-License-Identifier: Apache-2.0
#include "proto/dns_svcb.hpp"

#include "proto/dns_writer.hpp"

#include <algorithm>
#include <array>
#include <string_view>

namespace tapgate::proto {

namespace {

constexpr std::size_t kV4Size = 4;
constexpr std::size_t kV6Size = 16;
/// Types of which only this file speaks (IANA DNS parameters).
constexpr std::uint16_t kDname = 39;
constexpr std::uint16_t kRrsig = 46;
/// MB, MG, MR, MINFO, RP, AFSDB, RT, SIG, PX, NXT, NAPTR, KX: their RDATA may hold compressed names, and
/// nobody asks for addresses with them.
constexpr std::array<std::uint16_t, 12> kOldTypesWithNames = {7, 8, 9, 14, 17, 18, 21, 24, 26, 30, 35, 36};
/// A pointer to the question name, the first thing behind the header (RFC 1035 4.1.4).
constexpr std::uint16_t kQuestionPointer = 0xc000 | kDnsHeaderSize;

bool is(std::uint16_t type, DnsType known) {
    return type == static_cast<std::uint16_t>(known);
}

/// Skips a name without compression; false if it is malformed.
bool skip_name(ByteReader& reader) {
    std::size_t size = 0;
    for (;;) {
        const auto length = reader.u8();
        if (!length || *length > kMaxDnsLabelSize)
            return false;
        size += 1U + *length;
        if (size > kMaxDnsNameSize)
            return false;
        if (*length == 0)
            return true;
        if (!reader.take(*length))
            return false;
    }
}

/// How the RDATA of a type begins and ends around its names: fixed octets, names, fixed octets.
struct RdataLayout {
    std::size_t before = 0;
    unsigned names = 0;
    std::size_t after = 0;
};

/// RFC 1035 3.3, RFC 2782, RFC 6672 2.1; nothing for types without compressed names.
std::optional<RdataLayout> layout_of(std::uint16_t type) {
    if (is(type, DnsType::kCname) || is(type, DnsType::kNs) || is(type, DnsType::kPtr) || type == kDname)
        return RdataLayout{0, 1, 0};
    if (is(type, DnsType::kMx))
        return RdataLayout{2, 1, 0};
    if (is(type, DnsType::kSrv))
        return RdataLayout{6, 1, 0};
    if (is(type, DnsType::kSoa))
        return RdataLayout{0, 2, 20};
    return std::nullopt;
}

/// Appends the RDATA of `record` with its names uncompressed; false if it is malformed.
bool write_names(const DnsMessage& message, const DnsRecord& record, const RdataLayout& layout,
                 DnsWriter& out) {
    const std::size_t end = record.rdata_offset + record.rdata.size();
    DnsNameReader names(message.bytes.first(end));
    if (record.rdata.size() < layout.before)
        return false;
    out.bytes(record.rdata.first(layout.before));
    std::size_t at = record.rdata_offset + layout.before;
    for (unsigned i = 0; i < layout.names; ++i) {
        const auto read = names.read(at);
        if (!read)
            return false;
        out.bytes(read->name.wire());
        at = read->end;
    }
    if (end - at != layout.after)
        return false;
    out.bytes(message.bytes.subspan(at, layout.after));
    return true;
}

bool write_svcb(const DnsRecord& record, DnsWriter& out) {
    const auto svcb = parse_svcb(record);
    if (!svcb)
        return false;
    out.bytes(svcb->head);
    for (const SvcParam& param : svcb->params) {
        if (param.key != static_cast<std::uint16_t>(SvcParamKey::kEch))
            out.bytes(param.whole);
    }
    return true;
}

bool write_rdata(const DnsMessage& message, const DnsRecord& record, DnsWriter& out) {
    if (is_svcb(record))
        return write_svcb(record, out);
    if (const auto layout = layout_of(record.type))
        return write_names(message, record, *layout, out);
    if (std::ranges::find(kOldTypesWithNames, record.type) != kOldTypesWithNames.end())
        return false;
    out.bytes(record.rdata);
    return true;
}

/// A signature over records that are changed here (RFC 4034 3.1: the type covered stands first).
bool signs_svcb(const DnsRecord& record) {
    const auto covered = ByteReader(record.rdata).u16();
    return record.type == kRrsig && covered &&
           (is(*covered, DnsType::kSvcb) || is(*covered, DnsType::kHttps));
}

} // namespace

bool is_svcb(const DnsRecord& record) {
    return record.klass == kDnsClassIn &&
           (is(record.type, DnsType::kSvcb) || is(record.type, DnsType::kHttps));
}

std::optional<SvcRecord> parse_svcb(const DnsRecord& record) {
    ByteReader reader(record.rdata);
    SvcRecord svcb;
    const auto priority = reader.u16();
    if (!priority || !skip_name(reader))
        return std::nullopt;
    svcb.priority = *priority;
    svcb.head = record.rdata.first(reader.position());
    while (!reader.at_end()) {
        const std::size_t from = reader.position();
        const auto key = reader.u16();
        const auto length = reader.u16();
        const auto value = length ? reader.take(*length) : std::nullopt;
        if (!key || !value || (!svcb.params.empty() && *key <= svcb.params.back().key) ||
            svcb.params.size() == kMaxSvcParams)
            return std::nullopt;
        svcb.params.push_back({*key, *value, record.rdata.subspan(from, reader.position() - from)});
    }
    return svcb;
}

std::optional<std::vector<IpAddress>> svcb_hints(const DnsRecord& record) {
    const auto svcb = parse_svcb(record);
    if (!svcb)
        return std::nullopt;
    std::vector<IpAddress> hints;
    for (const SvcParam& param : svcb->params) {
        const bool v4 = param.key == static_cast<std::uint16_t>(SvcParamKey::kIpv4Hint);
        if (!v4 && param.key != static_cast<std::uint16_t>(SvcParamKey::kIpv6Hint))
            continue;
        const std::size_t size = v4 ? kV4Size : kV6Size;
        if (param.value.empty() || param.value.size() % size != 0)
            return std::nullopt;
        for (std::size_t at = 0; at < param.value.size(); at += size) {
            if (v4) {
                hints.push_back(IpAddress::from_v4(*ByteReader(param.value.subspan(at)).u32()));
            } else {
                IpAddress::Bytes bytes{};
                std::ranges::copy(param.value.subspan(at, size), bytes.begin());
                hints.emplace_back(bytes);
            }
        }
    }
    if (svcb->priority == 0)
        hints.clear();
    return hints;
}

bool carries_ech(const DnsMessage& message) {
    return std::ranges::any_of(message.records, [](const DnsRecord& record) {
        if (!is_svcb(record))
            return false;
        const auto svcb = parse_svcb(record);
        return !svcb || std::ranges::any_of(svcb->params, [](const SvcParam& param) {
            return param.key == static_cast<std::uint16_t>(SvcParamKey::kEch);
        });
    });
}

std::optional<std::vector<std::uint8_t>> without_ech(const DnsMessage& message) {
    if (message.questions.size() != 1)
        return std::nullopt;
    DnsHeader header = message.header;
    header.authentic_data = false;
    std::array<std::uint16_t, 3> counts{};
    DnsWriter records;
    for (const DnsRecord& record : message.records) {
        if (signs_svcb(record))
            continue;
        ++counts.at(static_cast<std::size_t>(record.section));
        if (record.owner.same_as(message.questions[0].name) && !record.owner.is_root())
            records.u16(kQuestionPointer);
        else
            records.bytes(record.owner.wire());
        DnsWriter rdata;
        if (!write_rdata(message, record, rdata) || rdata.size() > UINT16_MAX)
            return std::nullopt;
        records.u16(record.type);
        records.u16(record.klass);
        records.u32(record.ttl_seconds);
        records.u16(static_cast<std::uint16_t>(rdata.size()));
        records.bytes(rdata.take());
    }
    DnsWriter out;
    out.u16(header.id);
    out.u16(pack_dns_flags(header));
    out.u16(1);
    for (const std::uint16_t count : counts)
        out.u16(count);
    out.question(message.questions[0]);
    out.bytes(records.take());
    return out.take();
}

} // namespace tapgate::proto
