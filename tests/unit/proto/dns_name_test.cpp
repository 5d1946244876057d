// SPDX-License-Identifier: Apache-2.0
#include "proto/dns_name.hpp"

#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

namespace tapgate::proto {
namespace {

using Bytes = std::vector<std::uint8_t>;

/// A message of 12 zero octets, as the header, and `names`.
Bytes message(const Bytes& names) {
    Bytes bytes(12, 0);
    bytes.insert(bytes.end(), names.begin(), names.end());
    return bytes;
}

std::optional<DnsNameReader::Read> read(const Bytes& bytes, std::size_t offset) {
    return DnsNameReader(bytes).read(offset);
}

TEST(DnsName, text_and_wire_form_are_each_others_inverse) {
    const DnsName name = DnsName::from_text("Www.Example.com").value();
    EXPECT_EQ(name.text(), "www.example.com");
    EXPECT_EQ(name.wire().size(), 17U);
    EXPECT_EQ(name.wire()[1], 'W');
    EXPECT_EQ(DnsName::from_text("a.b.").value(), DnsName::from_text("a.b").value());
    EXPECT_TRUE(DnsName::from_text(".").value().is_root());
    EXPECT_EQ(DnsName().text(), ".");
    for (const char* bad : {"a..b", ".a", "..", "a.."})
        EXPECT_FALSE(DnsName::from_text(bad).has_value()) << bad;
    EXPECT_FALSE(DnsName::from_text(std::string(64, 'a')).has_value());
}

TEST(DnsName, octets_that_are_not_host_name_characters_are_escaped) {
    const Bytes bytes = message({5, 'a', '.', 0, 0xff, '\n', 0});
    EXPECT_EQ(read(bytes, 12)->name.text(), "a\\046\\000\\255\\010");
}

TEST(DnsName, names_compare_without_case_or_exactly) {
    const DnsName lower = DnsName::from_text("example.com").value();
    const DnsName mixed = DnsName::from_text("eXample.cOm").value();
    EXPECT_TRUE(lower.same_as(mixed));
    EXPECT_FALSE(lower == mixed);
    EXPECT_TRUE(lower == mixed.lower());
    EXPECT_FALSE(lower.same_as(DnsName::from_text("example.co").value()));
    // '@' and '`' differ from letters by the case bit, but are no letters.
    EXPECT_FALSE(DnsName::from_text("@").value().same_as(DnsName::from_text("`").value()));
}

TEST(DnsName, case_bits_change_letters_alone) {
    const DnsName name = DnsName::from_text("aB-9.z").value();
    EXPECT_EQ(name.with_case({}), name.lower());
    const std::array<std::uint8_t, 32> all = {0xff, 0xff, 0xff};
    EXPECT_EQ(name.with_case(all), DnsName::from_text("AB-9.Z").value());
    const std::array<std::uint8_t, 1> first = {0x02};
    EXPECT_EQ(name.with_case(first), DnsName::from_text("Ab-9.z").value());
}

TEST(DnsNameReader, a_compressed_name_is_read_and_ends_behind_its_pointer) {
    const Bytes bytes = message({3, 'c', 'o', 'm', 0, 1, 'a', 0xc0, 12, 0xc0, 17, 9});
    EXPECT_EQ(read(bytes, 12)->name.text(), "com");
    EXPECT_EQ(read(bytes, 12)->end, 17U);
    EXPECT_EQ(read(bytes, 17)->name.text(), "a.com");
    EXPECT_EQ(read(bytes, 17)->end, 21U);
    EXPECT_EQ(read(bytes, 21)->name.text(), "a.com");
    EXPECT_EQ(read(bytes, 21)->end, 23U);
}

TEST(DnsNameReader, pointers_that_do_not_go_back_are_refused) {
    EXPECT_FALSE(read(message({0xc0, 12}), 12));           // to itself
    EXPECT_FALSE(read(message({0xc0, 14, 0}), 12));        // forwards
    EXPECT_FALSE(read(message({0xc0, 14, 0xc0, 12}), 14)); // in a circle
    EXPECT_FALSE(read(message({1, 'a', 0xc0, 12}), 12));   // to the start of its own run
    EXPECT_FALSE(read(message({1, 'a', 0xc0, 14}), 12));   // to itself, behind a label
    EXPECT_FALSE(read(message({0, 0xc0, 0}), 13));         // into the header
    EXPECT_FALSE(read(message({0, 0xc0, 11}), 13));        // into the header
    EXPECT_TRUE(read(message({0, 0xc0, 12}), 13));
    EXPECT_FALSE(read(message({0, 0xff, 0xff}), 13)); // far beyond
}

TEST(DnsNameReader, reserved_label_types_are_refused) {
    EXPECT_FALSE(read(message({0x40, 0}), 12));
    EXPECT_FALSE(read(message({0x80, 0}), 12));
    Bytes long_label(66, 'a');
    long_label[0] = 64;
    long_label[65] = 0;
    EXPECT_FALSE(read(message(long_label), 12));
}

TEST(DnsNameReader, every_cut_of_a_name_is_refused) {
    const Bytes names = {3, 'c', 'o', 'm', 0, 1, 'a', 0xc0, 12};
    for (std::size_t size = 0; size < 5; ++size)
        EXPECT_FALSE(read(message({names.begin(), names.begin() + static_cast<std::ptrdiff_t>(size)}), 12))
            << size;
    for (std::size_t size = 5; size < names.size(); ++size)
        EXPECT_FALSE(read(message({names.begin(), names.begin() + static_cast<std::ptrdiff_t>(size)}), 17))
            << size;
    EXPECT_FALSE(read(message(names), 1000));
}

TEST(DnsNameReader, names_end_at_255_octets_and_127_labels) {
    Bytes names;
    for (unsigned i = 0; i < 127; ++i)
        names.insert(names.end(), {1, 'a'});
    names.push_back(0);
    ASSERT_EQ(names.size(), kMaxDnsNameSize);
    EXPECT_TRUE(read(message(names), 12));
    // One label more, by a pointer.
    const std::size_t longer = 12 + names.size();
    names.insert(names.end(), {1, 'b', 0xc0, 12});
    EXPECT_FALSE(read(message(names), longer));
}

TEST(DnsNameReader, the_names_of_one_message_share_a_budget) {
    Bytes names;
    for (unsigned i = 0; i < 127; ++i)
        names.insert(names.end(), {1, 'a'});
    names.push_back(0);
    const Bytes bytes = message(names);
    DnsNameReader reader(bytes);
    for (unsigned i = 0; i < DnsNameReader::kMaxSteps / 128; ++i)
        EXPECT_TRUE(reader.read(12));
    EXPECT_FALSE(reader.read(12));
}

} // namespace
} // namespace tapgate::proto
