// SPDX-License-Identifier: Apache-2.0
#include "proto/tls_client_hello.hpp"
#include "tests/harness/tls_hello_builder.hpp"
#include "tests/unit/proto/peek_outcome.hpp"

#include <gtest/gtest.h>

#include <array>
#include <ctime>
#include <string>

namespace tapgate::proto {
namespace {

using test::append;
using test::Bytes;
using test::TlsHelloBuilder;

TlsClientHelloParser run(const Bytes& stream, std::size_t cap = kDefaultPeekCap) {
    return run_parser<TlsClientHelloParser>(stream, cap);
}

/// The reason why `stream` is malformed; empty, and the test fails, if it is not.
std::string_view malformed_reason(const Bytes& stream) {
    const auto parser = run(stream);
    EXPECT_EQ(parser.status(), PeekStatus::kMalformed);
    return parser.reason();
}

Bytes with_byte(Bytes bytes, std::size_t offset, std::uint8_t value) {
    bytes.at(offset) = value;
    return bytes;
}

TEST(TlsClientHello, the_server_name_is_found_as_it_stands_on_the_wire) {
    for (const char* name :
         {"example.com", "EXAMPLE.Com", "example.com.", "xn--bcher-kva.de", "a_b.example.com"}) {
        const auto parser = run(TlsHelloBuilder().extension(0x0a0a, {}).sni(name).padding(30).build());
        ASSERT_EQ(parser.status(), PeekStatus::kDone) << parser.reason();
        EXPECT_EQ(parser.hello().server_name, name);
        EXPECT_FALSE(parser.hello().ech);
    }
}

TEST(TlsClientHello, a_hello_without_server_name_is_done_without_one) {
    for (const Bytes& stream : {TlsHelloBuilder().build(), TlsHelloBuilder().without_extensions().build()}) {
        const auto parser = run(stream);
        ASSERT_EQ(parser.status(), PeekStatus::kDone) << parser.reason();
        EXPECT_FALSE(parser.hello().server_name.has_value());
    }
}

TEST(TlsClientHello, encrypted_client_hello_is_flagged_grease_included) {
    const auto parser =
        run(TlsHelloBuilder().sni("outer.example").extension(0xfe0d, {0, 0, 1, 0, 1}).build());
    ASSERT_EQ(parser.status(), PeekStatus::kDone);
    EXPECT_TRUE(parser.hello().ech);
    EXPECT_EQ(parser.hello().server_name, "outer.example");
}

TEST(TlsClientHello, every_cut_of_a_valid_hello_needs_more) {
    const Bytes stream = TlsHelloBuilder().sni("example.com").records({1, 3, 40, 7}).build();
    for (std::size_t size = 0; size < stream.size(); ++size) {
        TlsClientHelloParser parser;
        EXPECT_EQ(parser.update(ByteView(stream).first(size)), PeekStatus::kNeedMore) << size;
    }
}

TEST(TlsClientHello, every_split_into_two_records_is_the_same_hello) {
    const std::size_t size = TlsHelloBuilder().sni("example.com").message().size();
    for (std::size_t first = 1; first < size; ++first) {
        const auto parser = run(TlsHelloBuilder().sni("example.com").records({first}).build());
        ASSERT_EQ(parser.status(), PeekStatus::kDone) << first << ": " << parser.reason();
        EXPECT_EQ(parser.hello().server_name, "example.com");
    }
}

TEST(TlsClientHello, a_post_quantum_hello_of_4_kib_in_one_byte_records_is_recognised) {
    const Bytes stream =
        TlsHelloBuilder().post_quantum().sni("example.com").padding(2900).records_of(1).build();
    const auto parser = run(stream);
    ASSERT_EQ(parser.status(), PeekStatus::kDone) << parser.reason();
    EXPECT_EQ(parser.hello().server_name, "example.com");
}

TEST(TlsClientHello, what_comes_behind_the_hello_in_further_records_does_not_count) {
    Bytes stream = TlsHelloBuilder().sni("example.com").build();
    append(stream, {20, 3, 3, 0, 1, 1, 23, 3, 3, 0xff, 0xff});
    append(stream, TlsHelloBuilder().sni("other.example").build());
    const auto parser = run(stream);
    ASSERT_EQ(parser.status(), PeekStatus::kDone);
    EXPECT_EQ(parser.hello().server_name, "example.com");
}

TEST(TlsClientHello, bytes_behind_the_hello_in_its_record_are_malformed) {
    Bytes message = TlsHelloBuilder().sni("example.com").message();
    message.push_back(0);
    EXPECT_EQ(malformed_reason(TlsHelloBuilder().in_records(message)),
              "bytes behind the hello in its record");
    // Even if they have not arrived yet.
    Bytes cut = TlsHelloBuilder().in_records(message);
    cut.pop_back();
    EXPECT_EQ(malformed_reason(cut), "bytes behind the hello in its record");
}

TEST(TlsClientHello, a_record_header_inside_the_message_is_data) {
    // B09: a reader that looks for records or names in flat bytes would see the second name.
    const Bytes inner = TlsHelloBuilder().sni("allowed.example").build();
    const auto parser =
        run(TlsHelloBuilder().extension(21, inner).sni("denied.example").records({60}).build());
    ASSERT_EQ(parser.status(), PeekStatus::kDone);
    EXPECT_EQ(parser.hello().server_name, "denied.example");
}

TEST(TlsClientHello, another_first_byte_is_another_protocol_at_once) {
    for (unsigned first = 0; first < 256; ++first) {
        if (first >= 20 && first <= 24)
            continue;
        TlsClientHelloParser parser;
        EXPECT_EQ(parser.update(std::array{static_cast<std::uint8_t>(first)}), PeekStatus::kOtherProtocol)
            << first;
    }
}

TEST(TlsClientHello, an_sslv2_hello_is_another_protocol) {
    EXPECT_EQ(run({0x80, 0x2e, 0x01, 0x03, 0x01}).status(), PeekStatus::kOtherProtocol);
}

TEST(TlsClientHello, a_tls_record_of_another_type_before_the_hello_is_malformed) {
    // A server may go on after a warning alert (RFC 5246 7.2.2); taken for another protocol it would hide the
    // name.
    Bytes stream = {21, 3, 1, 0, 2, 1, 112};
    append(stream, TlsHelloBuilder().sni("example.com").build());
    EXPECT_EQ(malformed_reason(stream), "another TLS record comes before the hello");
    for (const std::uint8_t type : {20, 21, 23, 24}) {
        EXPECT_EQ(malformed_reason({type, 3}), "another TLS record comes before the hello");
        EXPECT_EQ(run({type}).status(), PeekStatus::kNeedMore);
        EXPECT_EQ(run({type, 0}).status(), PeekStatus::kOtherProtocol);
    }
}

TEST(TlsClientHello, a_record_of_another_type_inside_the_hello_is_malformed) {
    const Bytes stream = TlsHelloBuilder().sni("example.com").records({10}).build();
    for (const std::uint8_t type : {0, 20, 21, 23, 24, 255})
        EXPECT_EQ(malformed_reason(with_byte(stream, 15, type)), "another record inside the hello");
}

TEST(TlsClientHello, record_versions_are_3_x) {
    const Bytes stream = TlsHelloBuilder().sni("example.com").build();
    for (const std::uint8_t minor : {0, 1, 3, 4, 255})
        EXPECT_EQ(run(with_byte(stream, 2, minor)).status(), PeekStatus::kDone);
    for (const std::uint8_t major : {0, 2, 4, 255})
        EXPECT_EQ(malformed_reason(with_byte(stream, 1, major)), "record has an unknown version");
}

TEST(TlsClientHello, record_lengths_are_1_to_16384) {
    EXPECT_EQ(malformed_reason({22, 3, 1, 0, 0}), "record has a wrong length");
    EXPECT_EQ(malformed_reason({22, 3, 1, 0x40, 0x01}), "record has a wrong length");
    EXPECT_EQ(malformed_reason({22, 3, 1, 0xff, 0xff}), "record has a wrong length");
    EXPECT_EQ(run({22, 3, 1, 0x40, 0x00}).status(), PeekStatus::kNeedMore);
    const auto full = run(TlsHelloBuilder().sni("a.example").padding(30000).build());
    EXPECT_EQ(full.status(), PeekStatus::kDone) << full.reason();
    // An empty record in the middle.
    EXPECT_EQ(malformed_reason(TlsHelloBuilder().sni("example.com").records({10, 0, 10}).build()),
              "record has a wrong length");
}

TEST(TlsClientHello, another_handshake_message_is_malformed) {
    for (const std::uint8_t type : {0, 2, 11, 255})
        EXPECT_EQ(malformed_reason({22, 3, 1, 0, 50, type}), "handshake does not begin with a hello");
}

TEST(TlsClientHello, the_hello_must_end_within_the_cap) {
    const Bytes stream = TlsHelloBuilder().sni("example.com").padding(500).records({100}).build();
    EXPECT_EQ(run(stream, stream.size()).status(), PeekStatus::kDone);
    EXPECT_EQ(run(stream, stream.size() - 1).status(), PeekStatus::kTooLarge);
    EXPECT_EQ(run(stream, 100).reason(), "hello is larger than the cap");
    // A declared length over the cap is enough, nothing needs to be waited for.
    EXPECT_EQ(run({22, 3, 1, 0x40, 0, 1, 1, 0, 0}).status(), PeekStatus::kTooLarge);
    EXPECT_EQ(run({22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff}).status(), PeekStatus::kTooLarge);
}

TEST(TlsClientHello, a_decided_parser_keeps_its_result) {
    const Bytes stream = TlsHelloBuilder().sni("example.com").build();
    TlsClientHelloParser parser;
    ASSERT_EQ(parser.update(stream), PeekStatus::kDone);
    EXPECT_EQ(parser.update({}), PeekStatus::kDone);
    EXPECT_EQ(parser.update(Bytes{0x15, 3}), PeekStatus::kDone);
    EXPECT_EQ(parser.hello().server_name, "example.com");
}

TEST(TlsClientHello, the_fields_before_the_extensions_are_checked) {
    EXPECT_EQ(malformed_reason(TlsHelloBuilder().session_id(Bytes(33, 1)).build()),
              "session id has a wrong length");
    EXPECT_EQ(run(TlsHelloBuilder().session_id({}).build()).status(), PeekStatus::kDone);
    EXPECT_EQ(malformed_reason(TlsHelloBuilder().cipher_suites({}).build()),
              "cipher suites have a wrong length");
    EXPECT_EQ(malformed_reason(TlsHelloBuilder().cipher_suites({0x13, 1, 0}).build()),
              "cipher suites have a wrong length");
    EXPECT_EQ(run(TlsHelloBuilder().cipher_suites(Bytes(65534, 0x13)).build(), 1 << 20).status(),
              PeekStatus::kDone);
    EXPECT_EQ(malformed_reason(TlsHelloBuilder().compression({}).build()), "compression methods lack null");
    EXPECT_EQ(malformed_reason(TlsHelloBuilder().compression({1}).build()), "compression methods lack null");
    EXPECT_EQ(run(TlsHelloBuilder().compression({1, 0}).build()).status(), PeekStatus::kDone);
    EXPECT_EQ(malformed_reason(with_byte(TlsHelloBuilder().build(), 9, 2)), "hello has an unknown version");
    EXPECT_EQ(malformed_reason({22, 3, 1, 0, 4, 1, 0, 0, 0}), "hello has an unknown version");
    EXPECT_EQ(malformed_reason({22, 3, 1, 0, 7, 1, 0, 0, 3, 3, 3, 9}), "hello is too short");
}

/// Where a length field of the hello below stands in the stream.
struct LengthField {
    const char* name;
    std::size_t offset;
    std::size_t width;
};

TEST(TlsClientHello, every_length_field_must_be_exact) {
    const Bytes stream = TlsHelloBuilder().sni("example.com").extension(0x1234, {1, 2, 3}).build();
    const std::array fields = {
        LengthField{"record", 3, 2},       LengthField{"handshake", 6, 3},
        LengthField{"session id", 43, 1},  LengthField{"cipher suites", 76, 2},
        LengthField{"compression", 84, 1}, LengthField{"extensions", 86, 2},
        LengthField{"server_name", 90, 2}, LengthField{"server name list", 92, 2},
        LengthField{"host_name", 95, 2},   LengthField{"last extension", 110, 2},
    };
    ASSERT_EQ(stream.size(), 115U);
    for (const LengthField& field : fields) {
        std::size_t value = 0;
        for (std::size_t i = 0; i < field.width; ++i)
            value = value << 8U | stream[field.offset + i];
        const std::size_t maximum = (std::size_t{1} << (8 * field.width)) - 1;
        for (const std::size_t wrong : {value - 1, value + 1, std::size_t{0}, maximum}) {
            Bytes changed = stream;
            for (std::size_t i = 0; i < field.width; ++i)
                changed[field.offset + i] = static_cast<std::uint8_t>(wrong >> (8 * (field.width - 1 - i)));
            const auto parser = run(changed);
            EXPECT_NE(parser.status(), PeekStatus::kDone) << field.name << " " << wrong;
            EXPECT_NE(parser.status(), PeekStatus::kOtherProtocol) << field.name << " " << wrong;
        }
    }
    EXPECT_EQ(run(stream).status(), PeekStatus::kDone);
}

TEST(TlsClientHello, a_cut_anywhere_inside_the_message_with_a_matching_handshake_length_is_malformed) {
    const Bytes message = TlsHelloBuilder().sni("example.com").message();
    // Cut behind the compression methods it is a hello without extensions, which is valid.
    const std::size_t without_extensions = TlsHelloBuilder().without_extensions().message().size();
    for (std::size_t size = 4; size < message.size(); ++size) {
        Bytes cut(message.begin(), message.begin() + static_cast<std::ptrdiff_t>(size));
        cut[2] = static_cast<std::uint8_t>((size - 4) >> 8U);
        cut[3] = static_cast<std::uint8_t>(size - 4);
        EXPECT_EQ(run(TlsHelloBuilder().in_records(cut)).status(),
                  size == without_extensions ? PeekStatus::kDone : PeekStatus::kMalformed)
            << size;
    }
}

TEST(TlsClientHello, the_server_name_extension_has_exactly_one_host_name) {
    const auto with_data = [](const Bytes& data) { return TlsHelloBuilder().extension(0, data).build(); };
    EXPECT_EQ(malformed_reason(with_data({})), "server_name has a wrong length");
    EXPECT_EQ(malformed_reason(with_data({0, 0})), "server_name is empty");
    EXPECT_EQ(malformed_reason(with_data({0, 3, 0, 0, 0})), "server_name is not a host name");
    EXPECT_EQ(malformed_reason(with_data(TlsHelloBuilder::server_name({{1, "a.example"}}))),
              "server_name of unknown type");
    EXPECT_EQ(malformed_reason(with_data(TlsHelloBuilder::server_name({{0, "a.example"}, {0, "b.example"}}))),
              "more than one server_name");
    EXPECT_EQ(malformed_reason(with_data(TlsHelloBuilder::server_name({{0, "a.example"}, {1, "b"}}))),
              "more than one server_name");
    EXPECT_EQ(malformed_reason(TlsHelloBuilder().sni("a.example").sni("b.example").build()),
              "duplicate extension");
    EXPECT_EQ(malformed_reason(TlsHelloBuilder().sni("a.example").sni("a.example").build()),
              "duplicate extension");
}

TEST(TlsClientHello, a_server_name_that_is_no_host_name_is_malformed) {
    for (const std::string& name :
         {std::string("a\0b.example", 11), std::string("a b.example"),
          std::string("b\xc3\xbc"
                      "cher.example"),
          std::string("192.0.2.1"), std::string("2001:db8::1"), std::string("[2001:db8::1]"),
          std::string("a..b"), std::string("."), std::string("*.example"), std::string("a.example:443"),
          std::string(254, 'a'), std::string("a.example\r\n")})
        EXPECT_EQ(malformed_reason(TlsHelloBuilder().sni(name).build()), "server_name is not a host name")
            << name;
}

TEST(TlsClientHello, duplicate_extensions_are_malformed_wherever_they_stand) {
    EXPECT_EQ(malformed_reason(TlsHelloBuilder()
                                   .extension(0x0a0a, {})
                                   .sni("a.example")
                                   .padding(3)
                                   .extension(0x0a0a, {0})
                                   .build()),
              "duplicate extension");
    EXPECT_EQ(malformed_reason(TlsHelloBuilder().extension(0xffff, {}).extension(0xffff, {}).build()),
              "duplicate extension");
}

TEST(TlsClientHello, pre_shared_key_must_be_last) {
    EXPECT_EQ(run(TlsHelloBuilder().sni("a.example").extension(41, {1}).build()).status(), PeekStatus::kDone);
    EXPECT_EQ(malformed_reason(TlsHelloBuilder().extension(41, {1}).sni("a.example").build()),
              "pre_shared_key is not the last extension");
}

TEST(TlsClientHello, the_dearest_hello_one_byte_at_a_time_stays_cheap) {
    // Thousands of extensions in records of one byte, nearly up to the cap.
    TlsHelloBuilder builder;
    for (std::uint16_t type = 1; type < 2600; ++type)
        builder.extension(static_cast<std::uint16_t>(type + 100U), {});
    const Bytes stream = builder.records_of(1).build();
    ASSERT_LT(stream.size(), kDefaultPeekCap);
    TlsClientHelloParser parser;
    const std::clock_t start = std::clock();
    for (std::size_t size = 1; size <= stream.size(); ++size)
        parser.update(ByteView(stream).first(size));
    EXPECT_EQ(parser.status(), PeekStatus::kDone) << parser.reason();
    // Processor time. Quadratic would be many seconds; the bound leaves room for sanitizers.
    EXPECT_LT(std::clock() - start, 2 * CLOCKS_PER_SEC);
}

} // namespace
} // namespace tapgate::proto
