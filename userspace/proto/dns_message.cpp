// SPDX-License-Identifier: Apache-2.0
#include "proto/dns_message.hpp"

namespace tapgate::proto {

namespace {

DnsHeader unpack_header(std::uint16_t id, std::uint16_t flags) {
    const auto bit = [flags](unsigned position) { return (flags >> position & 1U) != 0; };
    DnsHeader header;
    header.id = id;
    header.response = bit(15);
    header.opcode = static_cast<std::uint8_t>(flags >> 11U & 0xfU);
    header.authoritative = bit(10);
    header.truncated = bit(9);
    header.recursion_desired = bit(8);
    header.recursion_available = bit(7);
    header.authentic_data = bit(5);
    header.checking_disabled = bit(4);
    header.rcode = static_cast<std::uint8_t>(flags & 0xfU);
    return header;
}

/// Reads one message from front to back.
class MessageParser {
  public:
    MessageParser(ByteView bytes, const DnsLimits& limits)
        : bytes_(bytes), limits_(limits), names_(bytes, limits.steps) {}

    DnsParse parse();

  private:
    bool read_question();
    bool read_record(DnsSection section);
    std::optional<DnsName> read_name();

    std::uint16_t u16() {
        const auto value = static_cast<std::uint16_t>(bytes_[at_] << 8U | bytes_[at_ + 1]);
        at_ += 2;
        return value;
    }

    [[nodiscard]] bool has(std::size_t count) const { return bytes_.size() - at_ >= count; }

    ByteView bytes_;
    const DnsLimits& limits_;
    DnsNameReader names_;
    std::size_t at_ = 0;
    DnsMessage message_;
};

DnsParse malformed(std::string_view reason) {
    return {std::nullopt, reason};
}

DnsParse MessageParser::parse() {
    if (bytes_.size() > limits_.size)
        return malformed("message is too long");
    const auto header = read_dns_header(bytes_);
    if (!header)
        return malformed("message is shorter than a header");
    message_.bytes = bytes_;
    message_.header = *header;
    at_ = 4;
    const std::size_t questions = u16();
    const std::size_t answers = u16();
    const std::size_t authority = u16();
    const std::size_t additional = u16();
    if (questions > 1)
        return malformed("more than one question");
    if (answers > limits_.answers)
        return malformed("too many answer records");
    if (answers + authority + additional > limits_.records)
        return malformed("too many records");
    if (questions == 1 && !read_question())
        return malformed("question is malformed");
    message_.records.reserve(answers + authority + additional);
    for (std::size_t i = 0; i < answers + authority + additional; ++i) {
        const DnsSection section = i < answers               ? DnsSection::kAnswer
                                   : i < answers + authority ? DnsSection::kAuthority
                                                             : DnsSection::kAdditional;
        if (!read_record(section))
            return malformed("record is malformed");
    }
    if (has(1))
        return malformed("bytes behind the message");
    return {std::move(message_), {}};
}

std::optional<DnsName> MessageParser::read_name() {
    auto read = names_.read(at_);
    if (!read)
        return std::nullopt;
    at_ = read->end;
    return std::move(read->name);
}

bool MessageParser::read_question() {
    auto name = read_name();
    if (!name || !has(4))
        return false;
    const std::uint16_t type = u16();
    message_.questions.push_back({std::move(*name), type, u16()});
    return true;
}

bool MessageParser::read_record(DnsSection section) {
    DnsRecord record;
    record.section = section;
    record.offset = at_;
    auto owner = read_name();
    if (!owner || !has(10))
        return false;
    record.owner = std::move(*owner);
    record.type = u16();
    record.klass = u16();
    record.ttl_seconds = static_cast<std::uint32_t>(u16()) << 16U;
    record.ttl_seconds |= u16();
    const std::size_t rdata_size = u16();
    if (!has(rdata_size))
        return false;
    record.rdata_offset = at_;
    record.rdata = bytes_.subspan(at_, rdata_size);
    at_ += rdata_size;
    message_.records.push_back(std::move(record));
    return true;
}

} // namespace

std::optional<DnsName> DnsMessage::rdata_name(const DnsRecord& record) const {
    const std::size_t end = record.rdata_offset + record.rdata.size();
    // The reader sees nothing behind the RDATA, so a name cannot run out of it.
    auto read = DnsNameReader(bytes.first(end)).read(record.rdata_offset);
    if (!read || read->end != end)
        return std::nullopt;
    return std::move(read->name);
}

std::optional<DnsHeader> read_dns_header(ByteView bytes) {
    if (bytes.size() < kDnsHeaderSize)
        return std::nullopt;
    ByteReader reader(bytes);
    const std::uint16_t id = reader.u16().value_or(0);
    return unpack_header(id, reader.u16().value_or(0));
}

DnsParse parse_dns_message(ByteView bytes, const DnsLimits& limits) {
    return MessageParser(bytes, limits).parse();
}

} // namespace tapgate::proto
