// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/bytes.hpp"
#include "proto/dns_name.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tapgate::proto {

using Bytes = std::vector<std::uint8_t>;

/// Puts DNS messages together byte by byte, broken ones too. Section counts follow the calls unless set.
class DnsBuilder {
  public:
    explicit DnsBuilder(std::uint16_t id = 0x1234, std::uint16_t flags = 0x0100) {
        u16(id).u16(flags).u16(0).u16(0).u16(0).u16(0);
    }

    DnsBuilder& u8(std::size_t value) {
        bytes_.push_back(static_cast<std::uint8_t>(value));
        return *this;
    }

    DnsBuilder& u16(std::size_t value) { return u8(value >> 8U & 0xffU).u8(value & 0xffU); }

    DnsBuilder& u32(std::size_t value) { return u16(value >> 16U & 0xffffU).u16(value & 0xffffU); }

    DnsBuilder& raw(ByteView bytes) {
        bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
        return *this;
    }

    DnsBuilder& name(std::string_view text) { return raw(DnsName::from_text(text).value().wire()); }

    DnsBuilder& pointer(std::size_t target) { return u16(0xc000U | target); }

    DnsBuilder& question(std::string_view text, std::size_t type = 1, std::size_t klass = 1) {
        add_to_count(4);
        return name(text).u16(type).u16(klass);
    }

    DnsBuilder& answer(std::string_view owner, std::size_t type, const Bytes& rdata, std::size_t ttl = 300) {
        add_to_count(6);
        return record(owner, type, rdata, ttl);
    }

    DnsBuilder& authority(std::string_view owner, std::size_t type, const Bytes& rdata,
                          std::size_t ttl = 300) {
        add_to_count(8);
        return record(owner, type, rdata, ttl);
    }

    DnsBuilder& additional(std::string_view owner, std::size_t type, const Bytes& rdata,
                           std::size_t ttl = 300) {
        add_to_count(10);
        return record(owner, type, rdata, ttl);
    }

    DnsBuilder& a(std::string_view owner, std::uint8_t last, std::size_t ttl = 300) {
        return answer(owner, 1, {192, 0, 2, last}, ttl);
    }

    DnsBuilder& cname(std::string_view owner, std::string_view target, std::size_t ttl = 300) {
        return answer(owner, 5, wire(target), ttl);
    }

    DnsBuilder& opt(std::size_t payload = 1232, std::size_t ttl = 0, const Bytes& rdata = {}) {
        add_to_count(10);
        return u8(0).u16(41).u16(payload).u32(ttl).u16(rdata.size()).raw(rdata);
    }

    /// Count number 0 to 3: questions, answers, authority, additional.
    DnsBuilder& count(std::size_t which, std::size_t value) {
        bytes_[4 + 2 * which] = static_cast<std::uint8_t>(value >> 8U);
        bytes_[5 + 2 * which] = static_cast<std::uint8_t>(value);
        return *this;
    }

    [[nodiscard]] std::size_t size() const { return bytes_.size(); }

    [[nodiscard]] const Bytes& bytes() const { return bytes_; }

    static Bytes wire(std::string_view text) {
        const DnsName name = DnsName::from_text(text).value();
        return {name.wire().begin(), name.wire().end()};
    }

  private:
    DnsBuilder& record(std::string_view owner, std::size_t type, const Bytes& rdata, std::size_t ttl) {
        return name(owner).u16(type).u16(1).u32(ttl).u16(rdata.size()).raw(rdata);
    }

    void add_to_count(std::size_t offset) { ++bytes_[offset + 1]; }

    Bytes bytes_;
};

} // namespace tapgate::proto
