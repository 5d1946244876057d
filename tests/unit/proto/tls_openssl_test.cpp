// SPDX-License-Identifier: Apache-2.0
// OpenSSL as the independent implementation: what its clients send is understood, and no bytes show its
// servers a name that the parser does not see.
#include "proto/tls_client_hello.hpp"
#include "tests/harness/tls_hello_builder.hpp"
#include "tests/unit/proto/peek_outcome.hpp"

#include <gtest/gtest.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include <array>
#include <memory>
#include <optional>
#include <random>
#include <string>

namespace tapgate::proto {
namespace {

using test::Bytes;
using test::TlsHelloBuilder;

struct Free {
    void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }

    void operator()(SSL* ssl) const { SSL_free(ssl); }
};

using Context = std::unique_ptr<SSL_CTX, Free>;
using Ssl = std::unique_ptr<SSL, Free>;

// OpenSSL has macros with C casts for these two.
void set_host_name(SSL* ssl, const char* name) {
    SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, const_cast<char*>(name));
}

void set_server_name_callback(SSL_CTX* context, int (*callback)(SSL*, int*, void*)) {
    SSL_CTX_callback_ctrl(context, SSL_CTRL_SET_TLSEXT_SERVERNAME_CB, reinterpret_cast<void (*)()>(callback));
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

/// What a server sees of a stream.
struct ServerView {
    bool read_hello = false; ///< it got as far as asking for the name's certificate
    std::optional<std::string> name;
};

int note_server_name(SSL* ssl, int*, void* argument) {
    auto* const view = static_cast<ServerView*>(argument);
    view->read_hello = true;
    if (const char* name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name))
        view->name = name;
    return SSL_TLSEXT_ERR_OK;
}

ServerView server_view(const Bytes& stream) {
    static const Context context = [] {
        Context made(SSL_CTX_new(TLS_server_method()));
        SSL_CTX_set_security_level(made.get(), 0);
        set_server_name_callback(made.get(), note_server_name);
        return made;
    }();
    ServerView view;
    SSL_CTX_set_tlsext_servername_arg(context.get(), &view);
    const Ssl ssl = over_memory(context.get());
    SSL_set_accept_state(ssl.get());
    BIO_write(SSL_get_rbio(ssl.get()), stream.data(), static_cast<int>(stream.size()));
    SSL_do_handshake(ssl.get());
    ERR_clear_error();
    return view;
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
                const ServerView view = server_view(stream);
                EXPECT_TRUE(view.read_hello);
                EXPECT_EQ(parser.hello().server_name, view.name);
                EXPECT_EQ(view.name.has_value(), name != nullptr);
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
    EXPECT_EQ(server_view(stream).name, "example.com");
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
        const ServerView view = server_view(stream);
        ASSERT_EQ(parser.status(), PeekStatus::kDone) << parser.reason();
        EXPECT_TRUE(view.read_hello);
        EXPECT_EQ(parser.hello().server_name, view.name);
    }
}

TEST(TlsClientHelloOpenssl, no_damaged_hello_shows_its_servers_another_name) {
    ClientOptions options;
    options.server_name = "www.example.com";
    options.alpn = true;
    const std::array originals = {
        client_hello(options),
        TlsHelloBuilder().sni("www.example.com").padding(5).records({9, 60}).build(),
        TlsHelloBuilder()
            .extension(21, TlsHelloBuilder::server_name({{0, "b.example"}}))
            .sni("a.example")
            .build(),
    };
    std::mt19937 random(1);
    unsigned both_read = 0;
    for (unsigned round = 0; round < 9000; ++round) {
        Bytes stream = originals[round % originals.size()];
        for (unsigned change = 0; change <= random() % 3; ++change) {
            const std::size_t at = random() % stream.size();
            switch (random() % 4) {
            case 0:
                stream[at] = static_cast<std::uint8_t>(random());
                break;
            case 1:
                stream[at] = static_cast<std::uint8_t>(stream[at] + (random() % 2 == 0 ? 1 : 255));
                break;
            case 2:
                stream.erase(stream.begin() + static_cast<std::ptrdiff_t>(at));
                break;
            default:
                stream.insert(stream.begin() + static_cast<std::ptrdiff_t>(at),
                              static_cast<std::uint8_t>(random() % 4));
            }
        }
        const ServerView view = server_view(stream);
        if (!view.read_hello)
            continue;
        TlsClientHelloParser parser;
        parser.update(stream);
        ASSERT_NE(parser.status(), PeekStatus::kNeedMore) << round;
        ASSERT_NE(parser.status(), PeekStatus::kOtherProtocol) << round;
        if (parser.status() == PeekStatus::kDone) {
            ASSERT_EQ(parser.hello().server_name, view.name) << round;
            ++both_read;
        }
    }
    EXPECT_GT(both_read, 900U);
}

} // namespace
} // namespace tapgate::proto
