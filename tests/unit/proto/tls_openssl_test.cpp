// SPDX-License-Identifier: Apache-2.0
// OpenSSL as the independent implementation: what its clients send is understood, and no bytes show its
// servers a name that the parser does not see.
#include "proto/tls_client_hello.hpp"
#include "tests/harness/hello_mutator.hpp"
#include "tests/harness/openssl_hello.hpp"
#include "tests/harness/tls_hello_builder.hpp"
#include "tests/unit/proto/hello_corpus.hpp"
#include "tests/unit/proto/hello_differential.hpp"
#include "tests/unit/proto/peek_outcome.hpp"

#include <gtest/gtest.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <array>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

namespace tapgate::proto {
namespace {

using test::append;
using test::Bytes;
using test::OpensslHello;
using test::read_by_openssl;
using test::TlsHelloBuilder;

struct Free {
    void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }

    void operator()(SSL* ssl) const { SSL_free(ssl); }
};

using Context = std::unique_ptr<SSL_CTX, Free>;
using Ssl = std::unique_ptr<SSL, Free>;

// OpenSSL has a macro with a C cast for this.
void set_host_name(SSL* ssl, const char* name) {
    SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, const_cast<char*>(name));
}

Ssl over_memory(SSL_CTX* context) {
    Ssl ssl(SSL_new(context));
    SSL_set_bio(ssl.get(), BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    return ssl;
}

struct ClientOptions {
    const char* server_name = nullptr;
    int min_version = TLS1_VERSION;
    int max_version = TLS1_3_VERSION;
    bool alpn = false;
    bool psk = false;
    std::size_t fragment = 16384;
};

/// A session to resume, so that the hello ends in pre_shared_key.
int offer_psk(SSL* ssl, const EVP_MD*, const unsigned char** id, std::size_t* id_size,
              SSL_SESSION** session) {
    static constexpr std::array<unsigned char, 2> kCipher = {0x13, 0x01};
    static constexpr std::array<unsigned char, 32> kKey = {1};
    *id = kKey.data();
    *id_size = kKey.size();
    *session = SSL_SESSION_new();
    SSL_SESSION_set1_master_key(*session, kKey.data(), kKey.size());
    SSL_SESSION_set_cipher(*session, SSL_CIPHER_find(ssl, kCipher.data()));
    SSL_SESSION_set_protocol_version(*session, TLS1_3_VERSION);
    return 1;
}

Bytes client_hello(const ClientOptions& options) {
    const Context context(SSL_CTX_new(TLS_client_method()));
    SSL_CTX_set_security_level(context.get(), 0);
    SSL_CTX_set_min_proto_version(context.get(), options.min_version);
    SSL_CTX_set_max_proto_version(context.get(), options.max_version);
    if (options.psk)
        SSL_CTX_set_psk_use_session_callback(context.get(), offer_psk);
    const Ssl ssl = over_memory(context.get());
    SSL_set_connect_state(ssl.get());
    SSL_set_max_send_fragment(ssl.get(), options.fragment);
    if (options.server_name != nullptr)
        set_host_name(ssl.get(), options.server_name);
    if (options.alpn)
        SSL_set_alpn_protos(ssl.get(), reinterpret_cast<const unsigned char*>("\x02h2\x08http/1.1"), 12);
    SSL_do_handshake(ssl.get());
    ERR_clear_error();
    char* data = nullptr;
    const long size = BIO_get_mem_data(SSL_get_wbio(ssl.get()), &data);
    return {data, data + size};
}

TEST(TlsClientHelloOpenssl, hellos_of_its_clients_are_read_as_its_servers_read_them) {
    for (const char* name :
         {static_cast<const char*>(nullptr), "example.com", "EXAMPLE.com", "a.b.c.example.com."}) {
        for (const int version : {TLS1_VERSION, TLS1_2_VERSION, TLS1_3_VERSION}) {
            for (const bool alpn : {false, true}) {
                ClientOptions options;
                options.server_name = name;
                options.max_version = version;
                options.alpn = alpn;
                options.psk = version == TLS1_3_VERSION && alpn;
                const Bytes stream = client_hello(options);
                ASSERT_GT(stream.size(), 40U);
                const auto parser = run_parser<TlsClientHelloParser>(stream);
                ASSERT_EQ(parser.status(), PeekStatus::kDone) << parser.reason();
                const OpensslHello view = read_by_openssl(stream);
                EXPECT_TRUE(view.outcome == OpensslHello::Outcome::kReads);
                EXPECT_EQ(parser.hello().server_name, view.server_name);
                EXPECT_EQ(view.server_name.has_value(), name != nullptr);
            }
        }
    }
}

TEST(TlsClientHelloOpenssl, hellos_of_tls_1_3_only_clients_with_a_psk_are_read) {
    ClientOptions options;
    options.server_name = "example.com";
    options.min_version = TLS1_3_VERSION;
    options.psk = true;
    const Bytes stream = client_hello(options);
    // The binder ends the hello: pre_shared_key is in it, and last.
    const auto parser = run_parser<TlsClientHelloParser>(stream);
    ASSERT_EQ(parser.status(), PeekStatus::kDone) << parser.reason();
    EXPECT_EQ(parser.hello().server_name, "example.com");
    EXPECT_EQ(read_by_openssl(stream).server_name, "example.com");
}

TEST(TlsClientHelloOpenssl, hellos_of_the_builder_are_read_alike) {
    const std::array streams = {
        TlsHelloBuilder().sni("example.com").build(),
        TlsHelloBuilder().sni("example.com").post_quantum().padding(2900).build(),
        TlsHelloBuilder().sni("example.com").records({1, 2, 3}).build(),
        TlsHelloBuilder().sni("example.com").records_of(7).build(),
        TlsHelloBuilder().extension(0x0a0a, {}).build(),
        TlsHelloBuilder().without_extensions().build(),
    };
    for (const Bytes& stream : streams) {
        const auto parser = run_parser<TlsClientHelloParser>(stream);
        const OpensslHello view = read_by_openssl(stream);
        ASSERT_EQ(parser.status(), PeekStatus::kDone) << parser.reason();
        EXPECT_TRUE(view.outcome == OpensslHello::Outcome::kReads);
        EXPECT_EQ(parser.hello().server_name, view.server_name);
    }
}

/// A hello for each entry of the lists, and its entry.
std::vector<std::pair<std::string_view, Bytes>> listed_examples() {
    Bytes empty_record_first = {22, 3, 1, 0, 0};
    append(empty_record_first, TlsHelloBuilder().sni("example.com").build());
    Bytes other_record_first = {20, 3, 1, 0, 0};
    append(other_record_first, TlsHelloBuilder().sni("example.com").build());
    Bytes two_in_one = TlsHelloBuilder().sni("a.example").message();
    append(two_in_one, TlsHelloBuilder().sni("b.example").message());
    Bytes version_2(34, 0xa5);
    version_2[0] = 2;
    // Length with the SSLv2 bit; client_hello, TLS 1.2; a cipher of 3 octets, no session id, a challenge
    // of 16.
    Bytes sslv2 = {0x80, 28, 1, 3, 3, 0, 3, 0, 0, 0, 16, 0, 0, 0x2f};
    sslv2.resize(sslv2.size() + 16, 0xa5);
    return {
        {"other protocol", sslv2},
        {"record has a wrong length", empty_record_first},
        {"another TLS record comes before the hello", other_record_first},
        {"bytes behind the hello in its record", TlsHelloBuilder().in_records(two_in_one)},
        {"hello is larger than the cap", TlsHelloBuilder().padding(65500).build()},
        {"hello has an unknown version", TlsHelloBuilder().version_and_random(version_2).build()},
        {"cipher suites have a wrong length", TlsHelloBuilder().cipher_suites({0x13}).build()},
        {"compression methods lack null", TlsHelloBuilder().compression({1}).build()},
        {"duplicate extension", TlsHelloBuilder().extension(0x0a0a, {}).extension(0x0a0a, {}).build()},
        {"server_name is not a host name", TlsHelloBuilder().sni("").build()},
        {"use_srtp", TlsHelloBuilder().sni("example.com").extension(14, {0, 2, 0, 1, 0}).build()},
    };
}

TEST(TlsClientHelloOpenssl, each_listed_difference_is_one_and_has_an_example) {
    std::vector<std::string_view> ids;
    for (const ListedDifference& listed : kOursRefuses)
        ids.push_back(listed.id);
    for (const RefusedType& refused : kOpensslRefuses)
        ids.push_back(refused.difference.id);
    const auto examples = listed_examples();
    for (const std::string_view id : ids) {
        SCOPED_TRACE(id);
        const auto example = std::ranges::find(examples, id, [](const auto& each) { return each.first; });
        ASSERT_NE(example, examples.end());
        const HelloComparison comparison = compare_with_openssl(example->second);
        EXPECT_EQ(comparison.finding, "");
        ASSERT_NE(comparison.listed, nullptr);
        EXPECT_EQ(comparison.listed->id, id);
    }
    EXPECT_EQ(examples.size(), ids.size());
}

TEST(TlsClientHelloOpenssl, the_corpus_is_read_alike) {
    std::size_t both_read = 0;
    const auto corpus = test::hello_corpus("");
    for (const test::CorpusHello& hello : corpus) {
        const HelloComparison comparison = compare_with_openssl(hello.stream);
        EXPECT_EQ(comparison.finding, "") << hello.file;
        EXPECT_TRUE(comparison.both_read || !hello.says("client_")) << hello.file;
        both_read += comparison.both_read ? 1 : 0;
    }
    EXPECT_LT(both_read, corpus.size());
}

TEST(TlsClientHelloOpenssl, extensions_of_all_types_are_read_alike) {
    constexpr unsigned kAtOnce = 8192;
    for (unsigned first = 0; first <= 0xffff; first += kAtOnce) {
        TlsHelloBuilder hello;
        hello.sni("example.com");
        for (unsigned type = std::max(first, 1U); type < first + kAtOnce; ++type)
            if (type != 41 &&
                std::ranges::find(kOpensslRefuses, type, &RefusedType::type) == kOpensslRefuses.end())
                hello.extension(static_cast<std::uint16_t>(type), {});
        const HelloComparison comparison = compare_with_openssl(hello.extension(41, {}).build());
        EXPECT_TRUE(comparison.both_read) << first << ": " << comparison.finding;
    }
}

TEST(TlsClientHelloOpenssl, a_hello_with_one_octet_changed_is_read_alike) {
    const Bytes hello =
        TlsHelloBuilder().sni("example.com").extension(0x0a0a, {1, 2}).records({9, 60}).build();
    for (std::size_t at = 0; at < hello.size(); ++at) {
        for (const unsigned by : {1U, 2U, 4U, 8U, 16U, 32U, 64U, 128U, 255U}) {
            Bytes changed = hello;
            changed[at] = static_cast<std::uint8_t>(changed[at] + by);
            EXPECT_EQ(compare_with_openssl(changed).finding, "") << at << " " << by;
        }
    }
}

TEST(TlsClientHelloOpenssl, no_damaged_hello_shows_its_servers_another_name) {
    constexpr unsigned kRounds = 40'000;
    const auto corpus = test::hello_corpus("");
    ASSERT_FALSE(corpus.empty());
    test::HelloMutator mutator(6);
    unsigned both_read = 0;
    unsigned listed = 0;
    for (unsigned round = 0; round < kRounds; ++round) {
        const Bytes stream = mutator.mutate(corpus[round % corpus.size()].stream);
        const HelloComparison comparison = compare_with_openssl(stream);
        ASSERT_EQ(comparison.finding, "") << "round " << round;
        both_read += comparison.both_read ? 1 : 0;
        listed += comparison.listed != nullptr ? 1 : 0;
    }
    // The mutator leaves enough of a hello for the two to have something to agree on.
    EXPECT_GT(both_read, kRounds / 10);
    EXPECT_GT(listed, kRounds / 20);
}

} // namespace
} // namespace tapgate::proto
