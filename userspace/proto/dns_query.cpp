// SPDX-License-Identifier: Apache-2.0
#include "proto/dns_query.hpp"

#include "base/result.hpp"
#include "proto/dns_writer.hpp"

#include <algorithm>

namespace tapgate::proto {

namespace {

constexpr std::uint8_t kOpcodeQuery = 0;
constexpr std::uint16_t kExtendedErrorOption = 15; // RFC 8914 2
constexpr std::size_t kMaxExtendedErrorText = 200;
/// A question with the longest name, and an OPT record full of options: no query of a stub is near it.
constexpr std::size_t kMaxQuerySize = 4096;

/// An OPT record's fields where other records have class and TTL, RFC 6891 6.1.2 and 6.1.3.
///
///     CLASS  sender's UDP payload size
///     TTL    extended RCODE(8) version(8) DO(1) Z(15)
///     RDATA  option*: code(2) length(2) data{length}
struct OptFields {
    std::uint8_t version;
    DnsEdns edns;
};

OptFields read_opt(const DnsRecord& record) {
    OptFields fields{};
    fields.version = static_cast<std::uint8_t>(record.ttl_seconds >> 16U & 0xffU);
    fields.edns.udp_payload = std::max(record.klass, static_cast<std::uint16_t>(kMinDnsUdpPayload));
    fields.edns.dnssec_ok = (record.ttl_seconds & 0x8000U) != 0;
    return fields;
}

bool options_are_well_formed(ByteView rdata) {
    ByteReader reader(rdata);
    while (!reader.at_end()) {
        const auto code = reader.u16();
        const auto length = reader.u16();
        if (!code || !length || !reader.take(*length))
            return false;
    }
    return true;
}

/// The first `limit` bytes of `text` or less, not cut inside a UTF-8 sequence.
std::string_view cut_utf8(std::string_view text, std::size_t limit) {
    if (text.size() <= limit)
        return text;
    std::size_t end = limit;
    while (end > 0 && (static_cast<std::uint8_t>(text[end]) & 0xc0U) == 0x80U)
        --end;
    return text.substr(0, end);
}

} // namespace

std::size_t DnsQuery::udp_limit() const {
    if (!edns)
        return kMinDnsUdpPayload;
    return std::clamp<std::size_t>(edns->udp_payload, kMinDnsUdpPayload, kMaxDnsUdpPayload);
}

DnsQueryParse parse_dns_query(ByteView bytes) {
    DnsQueryParse result;
    const auto drop = [&result](std::string_view reason) {
        result.reason = reason;
        return result;
    };
    const auto refuse = [&result](DnsRcode rcode, std::string_view reason) {
        result.status = DnsQueryStatus::kRefused;
        result.rcode = rcode;
        result.reason = reason;
        return result;
    };

    const auto header = read_dns_header(bytes);
    if (!header)
        return drop("query is shorter than a header");
    if (header->response)
        return drop("not a query");
    DnsQuery& query = result.query;
    query.id = header->id;
    query.opcode = header->opcode;
    query.recursion_desired = header->recursion_desired;
    query.authentic_data = header->authentic_data;
    query.checking_disabled = header->checking_disabled;
    if (header->opcode != kOpcodeQuery)
        return refuse(DnsRcode::kNotImp, "opcode is not QUERY");

    // One record may stand beside the question: OPT.
    DnsParse parse = parse_dns_message(bytes, {.size = kMaxQuerySize, .answers = 0, .records = 1});
    if (!parse.message)
        return refuse(DnsRcode::kFormErr, parse.reason);
    DnsMessage& message = *parse.message;
    if (message.questions.size() != 1)
        return refuse(DnsRcode::kFormErr, "no question");
    query.question = std::move(message.questions[0]);
    if (header->truncated || header->rcode != 0)
        return refuse(DnsRcode::kFormErr, "flags of an answer");
    for (const DnsRecord& record : message.records) {
        if (record.section != DnsSection::kAdditional ||
            record.type != static_cast<std::uint16_t>(DnsType::kOpt))
            return refuse(DnsRcode::kFormErr, "records in a query");
        const OptFields opt = read_opt(record);
        query.edns = opt.edns;
        if (opt.version != 0)
            return refuse(DnsRcode::kBadVers, "unknown EDNS version");
        if (!record.owner.is_root() || !options_are_well_formed(record.rdata))
            return refuse(DnsRcode::kFormErr, "OPT record is malformed");
    }
    if (query.question->klass != kDnsClassIn)
        return refuse(DnsRcode::kRefused, "class is not IN");
    if (!dns_type_allowed(query.question->type))
        return refuse(DnsRcode::kRefused, "query type is not allowed");
    result.status = DnsQueryStatus::kAccepted;
    return result;
}

bool dns_type_allowed(std::uint16_t type) {
    switch (static_cast<DnsType>(type)) {
    case DnsType::kA:
    case DnsType::kNs:
    case DnsType::kCname:
    case DnsType::kSoa:
    case DnsType::kPtr:
    case DnsType::kMx:
    case DnsType::kTxt:
    case DnsType::kAaaa:
    case DnsType::kSrv:
    case DnsType::kNaptr:
    case DnsType::kDs:
    case DnsType::kSshfp:
    case DnsType::kDnskey:
    case DnsType::kTlsa:
    case DnsType::kSvcb:
    case DnsType::kHttps:
    case DnsType::kCaa:
        return true;
    case DnsType::kOpt: // not a type of data
        return false;
    }
    return false;
}

std::string dns_type_text(std::uint16_t type) {
    switch (static_cast<DnsType>(type)) {
    case DnsType::kA:
        return "A";
    case DnsType::kAaaa:
        return "AAAA";
    case DnsType::kCname:
        return "CNAME";
    case DnsType::kHttps:
        return "HTTPS";
    case DnsType::kSvcb:
        return "SVCB";
    case DnsType::kTxt:
        return "TXT";
    case DnsType::kMx:
        return "MX";
    case DnsType::kPtr:
        return "PTR";
    default:
        return "TYPE" + std::to_string(type);
    }
}

DnsUpstreamQuery build_upstream_query(const DnsQuery& query, std::uint16_t id, ByteView case_bits) {
    TAPGATE_ASSERT(query.question);
    DnsHeader header;
    header.id = id;
    header.recursion_desired = true;
    header.checking_disabled = query.checking_disabled;
    DnsUpstreamQuery upstream;
    upstream.question = {query.question->name.with_case(case_bits), query.question->type, kDnsClassIn};
    DnsWriter writer;
    writer.header(header, true, true);
    writer.question(upstream.question);
    writer.opt(query.edns && query.edns->dnssec_ok, 0, {});
    upstream.bytes = writer.take();
    return upstream;
}

std::vector<std::uint8_t> build_error_answer(const DnsQuery& query, DnsRcode rcode,
                                             const std::optional<DnsExtendedError>& error) {
    const auto code = static_cast<std::uint8_t>(rcode);
    DnsHeader header = answer_header(query);
    header.rcode = code & 0xfU;
    DnsWriter options;
    if (error) {
        // OPTION-CODE, OPTION-LENGTH, INFO-CODE, EXTRA-TEXT (RFC 8914 2)
        const std::string_view text = cut_utf8(error->text, kMaxExtendedErrorText);
        options.u16(kExtendedErrorOption);
        options.u16(static_cast<std::uint16_t>(2 + text.size()));
        options.u16(error->code);
        options.bytes({reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
    }
    DnsWriter writer;
    writer.header(header, query.question.has_value(), query.edns.has_value());
    if (query.question)
        writer.question(*query.question);
    if (query.edns)
        writer.opt(query.edns->dnssec_ok, code >> 4U, options.take());
    return writer.take();
}

} // namespace tapgate::proto
